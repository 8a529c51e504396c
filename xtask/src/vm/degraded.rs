//! What is missing on a kernel that serves the agent in part: the agent has to load, to say so, and to see all the rest.

use buildtrail_evasion::{Tier, judge};

use super::{
    kernels::Kernel,
    verdict::{Cell, Verdict},
};

/// What a kernel cannot serve.
struct Shortfall {
    kernel: Kernel,
    /// Where these are missing; `None`: at every tier.
    tier: Option<Tier>,
    hooks: &'static [&'static str],
    /// Facts that follow from them.
    facts: &'static [&'static str],
    /// Techniques that follow from them, and why.
    techniques: &'static [(&'static str, &'static str)],
}

const ENDS: &str =
    "before 5.11 programs have no storage for sockets, so the end of a TCP connection is not seen";
const SENDERS: &str = "before 5.11 who uses a connection that another process opened is not seen";
const SENDERS_B: &str =
    "before 6.3 only security functions tell who uses a connection that another process opened";
const NO_FILE_SYSTEM_ID: &str = "before 5.13 a tmpfs, on which these guests have their files, has no number by which fanotify tells such changes";

const SHORTFALLS: [Shortfall; 3] = [
    // Socket storage in tracing programs came with 5.11, `sock_send_length` with 6.3, and functions with a structure by value
    // cannot be had before 6.0.
    Shortfall {
        kernel: Kernel::V5_10,
        tier: None,
        hooks: &["tcp.state", "socket.send", "file.owner"],
        facts: &[
            "connection closed, with its bytes",
            "connection refused",
            "connection of a parent used by its child",
            "TLS server name",
            "connection by a proxy",
        ],
        techniques: &[
            ("chown", "before 6.0 no program can stand in front of security_path_chown"),
            ("tcp4", ENDS),
            ("tcp-refused", ENDS),
            ("socket-inherited", SENDERS),
            ("socket-passed", SENDERS),
        ],
    },
    // mm/shmem.c, `shmem_statfs`.
    Shortfall {
        kernel: Kernel::V5_10,
        tier: Some(Tier::B),
        hooks: &[],
        facts: &[],
        techniques: &[
            ("truncate", NO_FILE_SYSTEM_ID),
            ("rename", NO_FILE_SYSTEM_ID),
            ("rename-over", NO_FILE_SYSTEM_ID),
            ("link", NO_FILE_SYSTEM_ID),
            ("unlink", NO_FILE_SYSTEM_ID),
            ("chmod", NO_FILE_SYSTEM_ID),
        ],
    },
    Shortfall {
        kernel: Kernel::V6_1,
        tier: Some(Tier::B),
        hooks: &["socket.send"],
        facts: &["connection of a parent used by its child"],
        techniques: &[("socket-inherited", SENDERS_B), ("socket-passed", SENDERS_B)],
    },
];

/// Judges the agent by what it can see there. What it sees all the same is wrong in this table.
pub(super) fn judge(verdict: &mut Verdict, tier: Tier) {
    let here = |short: &&Shortfall| {
        short.kernel == verdict.kernel && short.tier.is_none_or(|expected| expected == tier)
    };
    let short: Vec<&Shortfall> = SHORTFALLS.iter().filter(here).collect();
    let hook = |name: &str| short.iter().any(|short| short.hooks.contains(&name));
    let fact = |name: &str| short.iter().any(|short| short.facts.contains(&name));
    let techniques: Vec<_> = short.iter().flat_map(|short| short.techniques).collect();
    let mut troubles = Vec::new();
    for (name, cell) in &mut verdict.hooks {
        expect(name, cell, hook(name), "-", &mut troubles);
    }
    for (name, cell) in &mut verdict.facts {
        expect(name, cell, fact(name), "gap", &mut troubles);
    }
    for (technique, seen) in &mut verdict.techniques {
        let Some((_, why)) = techniques.iter().find(|(name, _)| *name == technique.name) else { continue };
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
        |line: &String| techniques.iter().any(|(name, _)| line.starts_with(&format!("{name}: missing")));
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

/// Kernel and tiers, technique, and why it is missing there, for the coverage page.
pub(super) fn reasons() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    SHORTFALLS.iter().flat_map(|short| {
        let place = match short.tier {
            Some(tier) => format!("Linux {} at tier {tier:?}", short.kernel.name()),
            None => format!("Linux {}", short.kernel.name()),
        };
        short.techniques.iter().map(move |(technique, why)| (place.clone(), *technique, *why))
    })
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
