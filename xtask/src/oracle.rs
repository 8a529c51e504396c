//! The independent judge of checkpoints and proofs: a Go program over Debian's packages of `golang.org/x/mod`.

use std::process::Command;

use crate::{
    setup,
    shell::{answer, say},
    tally::Tally,
    workspace::Workspace,
};

/// The test that asks it.
pub(crate) const TEST: &str = "go_agrees_with_every_checkpoint_and_proof_up_to_5000_leaves";

/// Installs what it needs where that is possible. Why it cannot be asked on this machine; nothing when it can.
pub(crate) fn obstacle(workspace: &Workspace) -> Option<String> {
    if let Err(error) = setup::oracle(workspace) {
        return Some(format!("{error:#}"));
    }
    let works = answer(Command::new("go").arg("version")).is_some();
    (!works).then(|| "go does not run here".to_owned())
}

/// Counts the test as skipped, and says why.
pub(crate) fn skip(reason: &str) -> Tally {
    say(&format!("    test {TEST} ... skipped: {reason}"));
    Tally { skipped: 1, ..Tally::default() }
}
