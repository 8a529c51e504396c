//! Writes docs/coverage.md from a matrix: what is seen of each technique on each kernel, and what no tier sees.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result};
use buildtrail_evasion::{Family, Seen, Tier, techniques};

use super::{
    Mode, degraded,
    verdict::{Cell, Verdict},
};
use crate::workspace::Workspace;

const FAMILIES: [Family; 5] =
    [Family::Files, Family::Memory, Family::Network, Family::Process, Family::Credentials];
const BEGIN: &str = "<!-- matrix: ";

/// What no tier sees, beyond techniques that can be tried in a test.
const NEVER_SEEN: &[&str] = &[
    "Reading the disk itself (/dev/sda, debugfs) or the machine's memory (/dev/mem, /proc/kcore) instead of the file. Both need root.",
    "A kernel module or eBPF program that the job loads: whoever is in the kernel can switch the agent off. What loads it is seen as a program.",
    "A secret that a process already has in its memory: only how it came there, and how others reach for it, is seen.",
    "A copy of a secret under another name: the read is seen, what is done with the copy is not.",
    "What happens in a virtual machine that a job starts.",
    "The content of connections.",
];

/// Replaces this mode's matrix in docs/coverage.md, keeps the other's.
pub(super) fn write(workspace: &Workspace, mode: Mode, verdicts: &[Verdict]) -> Result<()> {
    let path = workspace.root().join("docs/coverage.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let (a, b) = if mode.lsm_off {
        (section_of(&old, "A"), matrix("B", verdicts))
    } else {
        (matrix("A", verdicts), section_of(&old, "B"))
    };
    let text = format!("{}{a}{b}{}", head(), tail());
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A section of the page as it was: from its mark to the next.
fn section_of(page: &str, tier: &str) -> String {
    let mark = format!("{BEGIN}{tier} -->");
    let Some(start) = page.find(&mark) else { return String::new() };
    let rest = &page[start + mark.len()..];
    let end = rest.find(BEGIN).unwrap_or(rest.len());
    format!("{mark}{}", &rest[..end])
}

fn head() -> String {
    "# What is seen\n\n\
     Written by `cargo xtask vm-test --kernel all` (tier A) and with `--lsm-off` (tier B) from what the agent really told in \
     each guest. Each row is a technique of `tests/evasion/`, done by a step of a build job; *yes*: told with the right job and step. \
     *gap*: not told, for the reason below. *n/a*: the guest cannot do it (its kernel lacks it, or has it as a module, \
     which these guests do not load).\n\n\
     Tier A: programs in front of the kernel's `security_*` functions, with fanotify beside them. Tier B: tracepoints, \
     cgroup hooks and fanotify, for kernels that refuse such programs (`[sensor] highest_tier = \"B\"` asks for it).\n\n"
        .to_owned()
}

fn matrix(tier: &str, verdicts: &[Verdict]) -> String {
    let mut text = format!("{BEGIN}{tier} -->\n## Tier {tier}\n\n| |");
    for verdict in verdicts {
        let _infallible = write!(text, " {} |", verdict.kernel.name());
    }
    let _infallible = writeln!(text, "\n|---|{}", "---|".repeat(verdicts.len()));
    for verdict in verdicts.iter().filter(|verdict| verdict.techniques.is_empty()) {
        let word = match verdict.facts.first() {
            Some((fact, Cell::Good(_))) => (*fact).to_owned(),
            _ => "not tested".to_owned(),
        };
        let _infallible = writeln!(text, "| *{}: {word}* |", verdict.kernel.name());
    }
    for family in FAMILIES {
        let _infallible = writeln!(text, "| **{}** |", family.name());
        for technique in techniques().into_iter().filter(|technique| technique.family == family) {
            let _infallible = write!(text, "| {} |", technique.what);
            for verdict in verdicts {
                let seen = verdict.techniques.iter().find(|(known, _)| known.name == technique.name);
                let _infallible = write!(text, " {} |", seen.map_or("-", |(_, verdict)| verdict.word()));
            }
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

/// Reasons, from the table and from what cannot be tried.
fn tail() -> String {
    let mut text = format!("{BEGIN}end -->\n## Why a gap is one\n\n");
    for technique in techniques() {
        for (tier, letter) in [(Tier::A, "A"), (Tier::B, "B")] {
            if let Seen::Gap(reason) | Seen::Race(_, reason) = technique.at(tier) {
                let _infallible = writeln!(text, "- Tier {letter}, {}: {reason}", technique.what);
            }
        }
    }
    for (place, name, reason) in degraded::reasons() {
        if let Some(technique) = techniques().into_iter().find(|technique| technique.name == name) {
            let _infallible = writeln!(text, "- {place}, {}: {reason}.", technique.what);
        }
    }
    text.push_str("\n## What no tier sees\n\n");
    for sentence in NEVER_SEEN {
        let _infallible = writeln!(text, "- {sentence}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_tiers_matrix_is_kept() {
        let page = format!("head\n{}{}{}", matrix("A", &[]), matrix("B", &[]), tail());
        assert_eq!(section_of(&page, "A"), matrix("A", &[]));
        assert_eq!(section_of(&page, "B"), matrix("B", &[]));
        assert_eq!(section_of("", "B"), "");
    }
}
