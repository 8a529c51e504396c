//! Other kernels: boots Debian's in QEMU with the agent and a job in them, and judges what the agent saw.
//!
//! In: release binaries. Out: a matrix of hooks and facts by kernel. Everything fetched or built is kept in
//! `target/vm`; the machine itself only gets QEMU. Must never be part of a test that has to be quick.

mod apt;
mod archive;
mod boot;
mod coverage;
mod degraded;
mod facts;
mod guest;
mod kernels;
mod matrix;
mod micro;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

pub(crate) use self::micro::{MEASURED, Place, run as micro};
use self::{
    boot::{Console, Speed},
    kernels::Kernel,
    verdict::Verdict,
};
use crate::{
    compile, setup,
    shell::{complain, say},
    workspace::Workspace,
};

/// Which kernels to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Every one.
    All,
    /// This one.
    One(Kernel),
}

impl Choice {
    fn kernels(self) -> Vec<Kernel> {
        match self {
            Self::All => Kernel::value_variants().to_vec(),
            Self::One(kernel) => vec![kernel],
        }
    }
}

impl std::str::FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let known =
            Kernel::value_variants().iter().map(|kernel| kernel.name()).collect::<Vec<_>>().join(", ");
        Kernel::from_str(text, false).map(Self::One).map_err(|_| format!("known are {known} and all"))
    }
}

/// How guests are booted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mode {
    /// Without security modules, and the agent without programs in front of kernel functions.
    pub lsm_off: bool,
    /// The kernel interrupts itself wherever it can.
    pub preempt_full: bool,
    /// Only prototypes are compared.
    pub hooks_only: bool,
}

impl Mode {
    /// Words on the kernel's command line.
    fn words(self, kernel: Kernel) -> String {
        let words = [
            (kernel.bare_guest(), "BARE=1"),
            (self.lsm_off, "lsm=capability TIER_B=1"),
            (self.preempt_full, "preempt=full"),
            (self.hooks_only, "HOOKS=1"),
        ];
        words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    }
}

/// Compares the prototypes of all hooks with every kernel. Returns whether none differs.
pub(crate) fn check_hooks(workspace: &Workspace, debug: bool) -> Result<bool> {
    run(workspace, Choice::All, debug, Mode { hooks_only: true, ..Mode::default() })
}

/// Boots the chosen kernels, one after the other. Returns whether nothing failed.
pub(crate) fn run(workspace: &Workspace, choice: Choice, debug: bool, mode: Mode) -> Result<bool> {
    ensure!(cfg!(target_arch = "x86_64"), "these guests are x86-64 and so must this machine be");
    compile::everything(workspace, debug)?;
    let (directory, initrd) = prepare(workspace, debug)?;
    let verdicts: Vec<Verdict> =
        choice.kernels().into_iter().map(|kernel| examine(kernel, mode, &directory, &initrd)).collect();
    say("");
    for line in matrix::lines(&verdicts) {
        say(&line);
    }
    if choice == Choice::All && !mode.hooks_only && !mode.preempt_full {
        coverage::write(workspace, mode, &verdicts)?;
    }
    let total = matrix::total(&verdicts);
    say(&total.to_string());
    Ok(total.failed == 0)
}

/// Where guests' files are, and the file system of their programs.
fn prepare(workspace: &Workspace, debug: bool) -> Result<(PathBuf, PathBuf)> {
    let binaries = if debug { workspace.debug_binaries() } else { workspace.binaries() };
    setup::emulator(workspace)?;
    let directory = workspace.vm();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let busybox = kernels::fetch_busybox(&directory)?;
    let initrd = directory.join("initramfs.cpio");
    fs::write(&initrd, guest::build(&binaries, &busybox)?).context("cannot write the guest's file system")?;
    Ok((directory, initrd))
}

/// Boots one kernel and judges what came out. What cannot be had is skipped, with the reason.
fn examine(kernel: Kernel, mode: Mode, directory: &Path, initrd: &Path) -> Verdict {
    let image = match kernels::fetch(kernel, directory) {
        Ok(image) => image,
        Err(error) => {
            say(&format!("▸ kernel {}: skipped: {error:#}", kernel.name()));
            return Verdict::skipped(kernel);
        }
    };
    let words = mode.words(kernel);
    say(&format!("▸ kernel {}: booting ({words})", kernel.name()));
    let console = log_of(directory, kernel);
    let start = Instant::now();
    let verdict = match boot::boot(&image, initrd, kernel.processor(), &words, Speed::Any, &console) {
        Ok(output) => Verdict::of(kernel, mode, &output),
        Err(error) => {
            complain(&format!("{error:#}"));
            Verdict::of(kernel, mode, &Console::default())
        }
    };
    say(&format!("  done in {:.1} s: Linux {}", start.elapsed().as_secs_f64(), verdict.release));
    for trouble in &verdict.troubles {
        say(&format!("    {trouble}"));
    }
    if !verdict.troubles.is_empty() {
        say(&format!("    everything the guest said: {}", console.display()));
    }
    verdict
}

fn log_of(directory: &Path, kernel: Kernel) -> PathBuf {
    directory.join(format!("console-{}.log", kernel.name()))
}
