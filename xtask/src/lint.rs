//! Formatting and lints, with warnings as errors.

use anyhow::Result;

use crate::{compile, setup, shell, workspace::Workspace};

/// Checks the workspace and the eBPF programs.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    shell::run("formatting: workspace", &mut workspace.cargo(&["fmt", "--all", "--check"]))?;
    let mut format_ebpf = workspace.cargo(&["fmt", "--check"]);
    shell::run("formatting: eBPF programs", format_ebpf.current_dir(workspace.ebpf()))?;

    setup::run(workspace)?;
    compile::lint_ebpf(workspace)?;
    // The agent embeds the eBPF object, so that even a check needs it.
    compile::ebpf(workspace)?;
    let mut clippy = workspace.cargo(&["clippy", "--workspace", "--all-targets", "--all-features"]);
    clippy.args(shell::cargo_verbosity()).args(["--", "-D", "warnings"]);
    shell::run("clippy: workspace", &mut clippy)
}
