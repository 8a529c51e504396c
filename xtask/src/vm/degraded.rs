//! What is missing on a kernel that serves the agent in part: the agent has to load, to say so, and to see all the rest.

use buildtrail_evasion::judge;

use super::verdict::{Cell, Verdict};

/// Hooks that nothing serves on 5.10. Socket storage in tracing programs came with 5.11, `sock_send_length` with 6.3, and
/// functions with a structure by value cannot be had before 6.0.
const HOOKS: [&str; 3] = ["tcp.state", "socket.send", "file.owner"];

/// Facts that follow from them.
const FACTS: [&str; 5] = [
    "connection closed, with its bytes",
    "connection refused",
    "connection of a parent used by its child",
    "TLS server name",
    "connection by a proxy",
];

/// Techniques that follow from them.
const TECHNIQUES: [(&str, &str); 5] = [
    ("chown", "before 6.0 no program can stand in front of security_path_chown"),
    ("tcp4", ENDS),
    ("tcp-refused", ENDS),
    ("socket-inherited", SENDERS),
    ("socket-passed", SENDERS),
];
const ENDS: &str = "before 5.11 the end of a TCP connection is not seen";
const SENDERS: &str = "before 5.11 who uses a connection that another process opened is not seen";

/// Judges the agent by what it can see there. What it sees all the same is wrong in this table.
pub(super) fn judge(verdict: &mut Verdict) {
    let mut troubles = Vec::new();
    for (name, cell) in &mut verdict.hooks {
        expect(name, cell, HOOKS.contains(&name.as_str()), "-", &mut troubles);
    }
    for (name, cell) in &mut verdict.facts {
        expect(name, cell, FACTS.contains(name), "gap", &mut troubles);
    }
    for (technique, seen) in &mut verdict.techniques {
        let Some((_, why)) = TECHNIQUES.iter().find(|(name, _)| *name == technique.name) else { continue };
        match seen {
            judge::Verdict::Wrong(what) if what.starts_with("missing") => *seen = judge::Verdict::Gap(why),
            judge::Verdict::Seen => {
                *seen = judge::Verdict::Wrong("seen, although it cannot be".to_owned());
                troubles.push(format!("{}: seen, although it cannot be", technique.name));
            }
            _ => {}
        }
    }
    let is_gap =
        |line: &String| TECHNIQUES.iter().any(|(name, _)| line.starts_with(&format!("{name}: missing")));
    verdict.troubles.retain(|line| !is_gap(line));
    verdict.troubles.append(&mut troubles);
}

fn expect(name: &str, cell: &mut Cell, is_gap: bool, word: &str, troubles: &mut Vec<String>) {
    match (is_gap, &cell) {
        (true, Cell::Bad(_)) => *cell = Cell::Good(word.to_owned()),
        (true, Cell::Good(text)) if text != "-" => {
            troubles.push(format!("{name}: there, although it cannot be"));
            *cell = Cell::Bad("yes".to_owned());
        }
        _ => {}
    }
}

/// Why each of them is missing, for the coverage page.
pub(super) fn reasons() -> impl Iterator<Item = (&'static str, &'static str)> {
    TECHNIQUES.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_that_is_expected_is_good_and_one_that_is_none_is_bad() {
        let mut troubles = Vec::new();
        let mut told = |cell: Cell, is_gap| {
            let mut cell = cell;
            expect("x", &mut cell, is_gap, "gap", &mut troubles);
            cell
        };
        assert_eq!(told(Cell::Bad("NO".into()), true), Cell::Good("gap".into()));
        assert_eq!(told(Cell::Bad("NO".into()), false), Cell::Bad("NO".into()));
        assert_eq!(told(Cell::Good("yes".into()), true), Cell::Bad("yes".into()));
        assert_eq!(told(Cell::Good("yes".into()), false), Cell::Good("yes".into()));
        assert_eq!(troubles.len(), 1);
    }
}
