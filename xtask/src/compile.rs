//! Builds: first the eBPF object, then the programs, one of which embeds it.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    setup::{self, EbpfToolchain},
    shell,
    workspace::Workspace,
};

const EBPF_TARGET: &str = "bpfel-unknown-none";
const EBPF_BINARY: &str = "buildtrail-ebpf";

/// Packages whose binaries are run, by people and by the end-to-end tests.
const PACKAGES: [&str; 5] =
    ["buildtrail-agent", "buildtrail-collector", "buildtrail-cli", "buildtrail-tests", "buildtrail-evasion"];

/// Installs what is missing and builds everything.
pub(crate) fn everything(workspace: &Workspace, debug: bool) -> Result<()> {
    setup::run(workspace)?;
    ebpf(workspace)?;
    let mut command = workspace.cargo(&["build", "--bins"]);
    command.args(shell::cargo_verbosity()).args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    let profile = if debug {
        "debug"
    } else {
        command.arg("--release");
        "release"
    };
    shell::run(&format!("building agent, collector and command line ({profile})"), &mut command)
}

/// The objects that the agent embeds: file, how it is told, and features of the programs' crate.
const OBJECTS: [(&str, &str, &[&str]); 2] = [
    ("buildtrail.bpf.o", "building the eBPF programs", &[]),
    (
        "buildtrail-before-5.12.bpf.o",
        "building the eBPF programs for kernels before 5.12",
        &["--features", "before-5-12"],
    ),
];

/// Builds the eBPF objects. A file that the agent embeds is touched only when its content changed, so that the agent is
/// not built again for nothing.
pub(crate) fn ebpf(workspace: &Workspace) -> Result<()> {
    OBJECTS.iter().try_for_each(|(file, what, features)| ebpf_object(workspace, file, what, features))
}

fn ebpf_object(workspace: &Workspace, file: &str, what: &str, features: &[&str]) -> Result<()> {
    let mut command = ebpf_cargo(workspace, "build");
    shell::run(what, command.args(features))?;

    let built = workspace.ebpf_target().join(EBPF_TARGET).join("release").join(EBPF_BINARY);
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let embedded = workspace.ebpf_target().join(file);
    if fs::read(&embedded).is_ok_and(|old| old == object) {
        return Ok(());
    }
    fs::write(&embedded, object).with_context(|| format!("cannot write {}", embedded.display()))
}

/// Lints the eBPF programs with the compiler that builds them.
pub(crate) fn lint_ebpf(workspace: &Workspace) -> Result<()> {
    let mut command = ebpf_cargo(workspace, "clippy");
    command.args(["--", "-D", "warnings"]);
    shell::run("clippy: eBPF programs", &mut command)
}

fn ebpf_cargo(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = EbpfToolchain::choose(workspace).cargo(subcommand);
    command
        .args(["--release", "--target", EBPF_TARGET, "--target-dir"])
        .arg(workspace.ebpf_target())
        .args(shell::cargo_verbosity())
        .current_dir(workspace.ebpf());
    command
}
