//! Standard output: tables, lines and JSON, in colour only for a terminal that wants it.

use std::{
    env,
    fmt::Display,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write},
};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{display, formats};

/// Widest last column when nobody says how wide the terminal is.
const WIDE: usize = 200;
/// Narrowest last column.
const NARROW: usize = 24;
/// Between two columns.
const GAP: usize = 2;

/// Where everything is printed.
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    colour: bool,
    /// Terminal columns; absent when the output is no terminal.
    columns: Option<usize>,
}

/// What a piece of text means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tone {
    Heading,
    Good,
    Bad,
}

impl Output {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let size = terminal_size::terminal_size_of(&stdout);
        Self {
            colour: is_terminal && !refused,
            columns: size.filter(|_| is_terminal).map(|(width, _)| usize::from(width.0)),
            out: BufWriter::new(stdout),
        }
    }

    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    pub(crate) fn toned_line(&mut self, tone: Tone, text: impl Display) -> io::Result<()> {
        let code = match tone {
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Bad => "31",
        };
        if self.colour {
            writeln!(self.out, "\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            writeln!(self.out, "{text}")
        }
    }

    /// Prints rows under their titles. Every cell must be safe text already; column `n` is cut to `caps[n]`, the last
    /// one to what is left of the terminal.
    pub(crate) fn table(&mut self, columns: &[(&str, usize)], rows: &[Vec<String>]) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let last_cap = self.last_column(columns, rows);
        let cap = |index: usize| if index + 1 == columns.len() { last_cap } else { columns[index].1 };
        table.set_header(columns.iter().map(|(title, _)| *title));
        for row in rows {
            table.add_row(row.iter().enumerate().map(|(index, cell)| display::cut(cell, cap(index))));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, u16::try_from(GAP).unwrap_or_default()));
        }
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn last_column(&self, columns: &[(&str, usize)], rows: &[Vec<String>]) -> usize {
        let Some(terminal) = self.columns else { return WIDE };
        let others = columns.len().saturating_sub(1);
        let used: usize = (0..others)
            .map(|index| {
                let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| display::width(cell));
                let widest = cells.max().unwrap_or_default().min(columns[index].1);
                widest.max(columns[index].0.len()) + GAP
            })
            .sum();
        terminal.saturating_sub(used + GAP).max(NARROW)
    }

    /// One JSON document in one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.json_part(value)?;
        writeln!(self.out)
    }

    /// A part of a JSON document.
    pub(crate) fn json_part(&mut self, value: &impl Serialize) -> io::Result<()> {
        formats::json(&mut self.out, value)
    }

    /// Text of a document's own, without a line break.
    pub(crate) fn raw(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    /// One record of CSV.
    pub(crate) fn csv<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) -> io::Result<()> {
        formats::csv_line(&mut self.out, cells)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
