//! One module per command: ask, then print for people or as JSON.

mod acts;
mod enrol;
mod events;
mod export;
mod jobs;
mod show;
mod verify;

use std::collections::HashMap;

use anyhow::Result;

use crate::{
    args::{Cli, Command, Connection},
    connect,
    output::Output,
};

/// What every command needs.
pub(crate) struct Context {
    connection: Connection,
    json: bool,
    out: Output,
}

/// Runs the command; the answer is the exit code.
pub(crate) async fn run(cli: Cli) -> Result<u8> {
    let mut context = Context { connection: cli.connection, json: cli.json, out: Output::new() };
    let code = match cli.command {
        Command::Jobs(jobs) => jobs::run(&mut context, jobs).await?,
        Command::Events(events) => events::list(&mut context, events).await?,
        Command::Tail(which) => events::tail(&mut context, which).await?,
        Command::Acts(acts) => acts::run(&mut context, acts).await?,
        Command::Show { job } => show::run(&mut context, job).await?,
        Command::Verify(asked) => verify::run(&mut context, asked).await?,
        Command::Export(asked) => export::run(&mut context, asked).await?,
        Command::Enrol(order) => enrol::run(&mut context, order).await?,
    };
    context.out.flush()?;
    Ok(code)
}

/// Count of one kind, as a cell.
fn count(counts: &HashMap<String, u64>, kind: &str) -> String {
    counts.get(kind).copied().unwrap_or_default().to_string()
}

type Client = buildtrail_proto::v1::query_client::QueryClient<tonic::transport::Channel>;

impl Context {
    async fn client(&self) -> Result<Client> {
        connect::connect(&self.connection).await
    }
}
