//! Shows verdicts side by side and counts them.

use buildtrail_evasion::judge;

use super::verdict::{Cell, Verdict};
use crate::tally::Tally;

const COLUMN: usize = 9;

/// The matrix: hooks with their tier, then facts, by kernel.
pub(super) fn lines(verdicts: &[Verdict]) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for verdict in verdicts {
        for (name, _) in cells(verdict) {
            if !rows.contains(&name) {
                rows.push(name);
            }
        }
    }
    let first = rows.iter().map(String::len).max().unwrap_or(0) + 2;
    let line = |name: &str, columns: Vec<String>| {
        let start = format!("{name:<first$}");
        let whole = columns.iter().fold(start, |line, text| line + &format!("{text:<COLUMN$}"));
        whole.trim_end().to_owned()
    };
    let head = line("", verdicts.iter().map(|verdict| verdict.kernel.name().to_owned()).collect());
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

fn cells(verdict: &Verdict) -> impl Iterator<Item = (String, Cell)> {
    let named = |(name, cell): &(String, Cell)| (name.clone(), cell.clone());
    let prototypes = verdict.prototypes.iter().map(named);
    let hooks = verdict.hooks.iter().map(named);
    let facts = verdict.facts.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone()));
    let programs = verdict
        .programs
        .iter()
        .map(|(name, count)| (format!("verified: {name}"), Cell::Good(count.to_string())));
    let techniques = verdict.techniques.iter().map(|(technique, verdict)| {
        let word = verdict.word().to_owned();
        let cell = match verdict {
            judge::Verdict::Absent(_) => Cell::Skipped,
            judge::Verdict::Wrong(_) => Cell::Bad(word),
            _ => Cell::Good(word),
        };
        (format!("{}: {} ({})", technique.family.name(), technique.what, technique.name), cell)
    });
    prototypes.chain(hooks).chain(facts).chain(programs).chain(techniques)
}

/// A cell's text; a dash where the kernel has no such row.
fn show(verdict: &Verdict, row: &str) -> String {
    match cells(verdict).find(|(name, _)| name == row) {
        Some((_, Cell::Good(text) | Cell::Bad(text))) => text,
        Some((_, Cell::Skipped)) => "n/a".to_owned(),
        None => "-".to_owned(),
    }
}
