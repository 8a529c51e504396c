//! One module per command: ask, then print for people or for programs.

mod acts;
mod aggregate;
mod enrol;
mod events;
mod export;
mod hosts;
mod hunt;
mod jobs;
mod show;
mod token;
mod verify;

use std::collections::HashMap;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::{
    args::{Cli, Command, Connection, Paging, Shape},
    connect,
    list::Printer,
    output::Output,
};

/// What every command needs.
pub(crate) struct Context {
    connection: Connection,
    shape: Shape,
    out: Output,
}

/// Runs the command; the answer is the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let mut context = Context { connection: cli.connection, shape: cli.form.chosen(), out: Output::new() };
    let code = match cli.command {
        Command::Jobs(jobs) => jobs::run(&mut context, jobs).await?,
        Command::Events(events) => events::list(&mut context, events).await?,
        Command::Tail(which) => events::tail(&mut context, which).await?,
        Command::Secrets(asked) => aggregate::secrets(&mut context, asked).await?,
        Command::Destinations(asked) => aggregate::destinations(&mut context, asked).await?,
        Command::Aggregate(asked) => aggregate::aggregate(&mut context, asked).await?,
        Command::Hosts => hosts::run(&mut context).await?,
        Command::Hunt(asked) => hunt::run(&mut context, asked).await?,
        Command::Acts(acts) => acts::run(&mut context, acts).await?,
        Command::Show { job } => show::run(&mut context, job).await?,
        Command::Verify(asked) => verify::run(&mut context, asked).await?,
        Command::Export(asked) => export::run(&mut context, asked).await?,
        Command::Enrol(order) => enrol::run(&mut context, order).await?,
        Command::Token(order) => token::run(&mut context, order).await?,
    };
    context.out.flush()?;
    Ok(code)
}

/// Count of one kind, as a cell.
fn count(counts: &HashMap<String, u64>, kind: &str) -> String {
    counts.get(kind).copied().unwrap_or_default().to_string()
}

type Client = connect::Questions;

impl Context {
    async fn client(&self) -> Result<Client> {
        connect::connect(&self.connection).await
    }

    /// Whether a command whose answer is one document prints it as JSON.
    ///
    /// # Errors
    /// CSV was asked for: it is no list.
    fn is_json(&self) -> Result<bool> {
        match self.shape {
            Shape::Table => Ok(false),
            Shape::Json | Shape::NdJson => Ok(true),
            Shape::Csv => {
                bail!("the answer of this command is no list, so there is no CSV of it; use --json")
            }
        }
    }

    /// Prints the end of a list of pages, and how to see more.
    fn end<T: Serialize>(&mut self, printer: Printer<'_, T>, pages: &Pages, what: &str) -> Result<u8> {
        let count = printer.printed();
        printer.end(&mut self.out, &[("next_cursor", pages.cursor().into())])?;
        self.out.flush()?;
        if !pages.cursor().is_empty() {
            eprintln!(
                "buildtrail: more {what} match than these {count}: raise --limit, give --all, or go on with --cursor {}",
                crate::display::safe(pages.cursor(), false)
            );
        }
        Ok(0)
    }
}

/// Which page of a list is next.
struct Pages {
    all: bool,
    limit: usize,
    cursor: String,
    begun: bool,
}

impl Pages {
    fn new(paging: Paging, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { all: paging.all, limit, cursor: paging.cursor, begun: false }
    }

    /// How many items to ask for, of which `most` fit into an answer; `None` when no more are wanted or there.
    fn next(&mut self, printed: usize, most: usize) -> Option<u32> {
        let wanted = if self.all { most } else { self.limit.saturating_sub(printed).min(most) };
        let is_over = self.begun && self.cursor.is_empty();
        self.begun = true;
        (wanted > 0 && !is_over).then(|| u32::try_from(wanted).unwrap_or(u32::MAX))
    }

    fn cursor(&self) -> &str {
        &self.cursor
    }

    fn reached(&mut self, cursor: String) {
        self.cursor = cursor;
    }
}
