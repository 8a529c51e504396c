//! Shows verdicts side by side and counts them.

use super::verdict::{Cell, Verdict};
use crate::tally::Tally;

const COLUMN: usize = 7;

/// The matrix: hooks with their tier, then facts, by kernel.
pub(super) fn lines(verdicts: &[Verdict]) -> Vec<String> {
    let mut rows: Vec<&str> = Vec::new();
    for verdict in verdicts {
        for (name, _) in cells(verdict) {
            if !rows.contains(&name) {
                rows.push(name);
            }
        }
    }
    let first = rows.iter().map(|name| name.len()).max().unwrap_or(0) + 2;
    let line = |name: &str, columns: Vec<&str>| {
        let start = format!("{name:<first$}");
        let whole = columns.iter().fold(start, |line, text| line + &format!("{text:<COLUMN$}"));
        whole.trim_end().to_owned()
    };
    let head = line("", verdicts.iter().map(|verdict| verdict.kernel.name()).collect());
    let body = rows.iter().map(|row| line(row, verdicts.iter().map(|verdict| show(verdict, row)).collect()));
    std::iter::once(head).chain(body).collect()
}

/// How many cells are good, bad and skipped.
pub(super) fn total(verdicts: &[Verdict]) -> Tally {
    let mut total = Tally::default();
    for (_, cell) in verdicts.iter().flat_map(cells) {
        match cell {
            Cell::Good(_) => total.passed += 1,
            Cell::Bad(_) => total.failed += 1,
            Cell::Skipped => total.skipped += 1,
        }
    }
    total
}

fn cells(verdict: &Verdict) -> impl Iterator<Item = (&str, &Cell)> {
    let hooks = verdict.hooks.iter().map(|(name, cell)| (name.as_str(), cell));
    hooks.chain(verdict.facts.iter().map(|(name, cell)| (*name, cell)))
}

/// A cell's text; a dash where the kernel has no such row.
fn show<'a>(verdict: &'a Verdict, row: &str) -> &'a str {
    match cells(verdict).find(|(name, _)| *name == row) {
        Some((_, Cell::Good(text) | Cell::Bad(text))) => text,
        Some((_, Cell::Skipped)) => "skip",
        None => "-",
    }
}
