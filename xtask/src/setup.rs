//! Installs what building and testing need and this machine lacks; does nothing where all is there.
//!
//! Three steps, each idempotent: Debian packages, the eBPF linker, the CI runners. The last two go into the target
//! directory. A rustup nightly with rust-src and a bpf-linker are used where they exist; otherwise Debian's own Rust
//! compiles the eBPF programs, because its sources and its LLVM come as packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    runners,
    shell::{self, answer, say},
    workspace::{Workspace, command_of_other_toolchain},
};

/// Compatible with LLVM 22, which Debian's compiler uses.
const BPF_LINKER_VERSION: &str = "0.13";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// How the eBPF programs are compiled on this machine.
#[derive(Debug)]
pub(crate) enum EbpfToolchain {
    /// A nightly toolchain and a linker that are there already.
    Nightly,
    /// Debian's compiler, with a linker of our own.
    Debian {
        /// Path of that linker.
        linker: PathBuf,
    },
}

impl EbpfToolchain {
    /// What is there, or else what [`run`] installs.
    pub(crate) fn choose(workspace: &Workspace) -> Self {
        if has_nightly_toolchain() {
            Self::Nightly
        } else {
            Self::Debian { linker: own_bpf_linker(workspace) }
        }
    }

    /// `cargo SUBCOMMAND` for the kernel's BPF machine, whose core library is built along.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self {
            Self::Nightly => {
                let mut command = command_of_other_toolchain("cargo");
                command.arg("+nightly").env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", "bpf-linker");
                command
            }
            Self::Debian { linker } => debian_cargo(subcommand, linker),
        };
        command.args([subcommand, "-Z", "build-std=core"]);
        command
    }
}

fn debian_cargo(subcommand: &str, linker: &Path) -> Command {
    // cargo looks for its subcommands in the user's own directory before its own, and would find another toolchain's.
    let program = if subcommand == "clippy" { "/usr/bin/cargo-clippy" } else { "/usr/bin/cargo" };
    let mut command = command_of_other_toolchain(program);
    command
        .env("CARGO", "/usr/bin/cargo")
        .env("RUSTC", "/usr/bin/rustc")
        // A released compiler is to accept `-Z build-std`.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    command
}

/// Something that a Debian package provides.
struct Need {
    package: &'static str,
    why: &'static str,
    there: There,
}

/// How to see whether it is there already, perhaps from another source.
enum There {
    Program(&'static str),
    File(&'static str),
    Package,
    PythonVenv,
}

const ALWAYS: [Need; 17] = [
    need("gcc", "compiles SQLite, and the C project of the demo's job", There::Program("gcc")),
    need("libc6-dev", "C headers and start files", There::File("/usr/include/stdlib.h")),
    need("make", "builds the C project of the demo's job", There::Program("make")),
    need("git", "the jobs' repositories", There::Program("git")),
    need("openssh-client", "the ssh-agent that the demo's job talks to", There::Program("ssh-agent")),
    need("curl", "asks the metadata service in the demo's job", There::Program("curl")),
    need("iproute2", "addresses in the tests' network namespaces", There::Program("ip")),
    need("util-linux", "enters namespaces, gives up root", There::Program("setpriv")),
    need("mount", "looks whether a cgroup2 file system can be mounted", There::Program("mount")),
    need("libc-bin", "name lookups in the demo's job", There::Program("getent")),
    need(
        "python3",
        "act, Buildbot, the OpenID Connect provider, emulated runners",
        There::File("/usr/bin/python3"),
    ),
    need("python3-venv", "installs act, Buildbot and the provider", There::PythonVenv),
    need("nodejs", "gitlab-ci-local", There::Program("node")),
    need("npm", "installs gitlab-ci-local", There::Program("npm")),
    need("rsync", "gitlab-ci-local", There::Program("rsync")),
    need("docker.io", "the engine of the tests' container jobs", There::Program("dockerd")),
    need("busybox-static", "what is in those containers", There::File("/usr/bin/busybox")),
];

const DEBIAN_EBPF: [Need; 9] = [
    need("rustc-web", "compiles the eBPF programs", There::Package),
    need("cargo-web", "builds the eBPF programs", There::Package),
    need("rust-web-src", "the core library, built for the BPF target", There::Package),
    need("rust-web-clippy", "lints the eBPF programs", There::Package),
    need("g++", "links bpf-linker to LLVM", There::Program("g++")),
    need("llvm-22-dev", "bpf-linker's LLVM, the same as the compiler's", There::Package),
    need("libpolly-22-dev", "part of that LLVM", There::Package),
    need("zlib1g-dev", "bpf-linker", There::File("/usr/include/zlib.h")),
    need("libzstd-dev", "bpf-linker", There::File("/usr/include/zstd.h")),
];

const EMULATOR: [Need; 1] =
    [need("qemu-system-x86", "boots other kernels", There::Program("qemu-system-x86_64"))];

const BROWSER: [Need; 2] = [
    need("chromium", "looks at the web pages", There::Program("chromium")),
    need("chromium-driver", "drives that browser", There::Program("chromedriver")),
];

const ORACLE: [Need; 2] = [
    need("golang-go", "runs the independent judge of the log's proofs", There::Program("go")),
    need(
        "golang-golang-x-mod-dev",
        "Go's own signed notes and transparency logs",
        There::File("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tlog.go"),
    ),
];

const fn need(package: &'static str, why: &'static str, there: There) -> Need {
    Need { package, why, there }
}

impl Need {
    fn is_there(&self) -> bool {
        match self.there {
            There::Program(name) => in_path(name),
            There::File(path) => Path::new(path).exists(),
            There::Package => is_installed(self.package),
            There::PythonVenv => {
                answer(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_some()
            }
        }
    }
}

/// Installs what is missing.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let nightly = has_nightly_toolchain();
    let for_ebpf: &[Need] = if nightly { &[] } else { &DEBIAN_EBPF };
    let missing: Vec<&Need> = ALWAYS.iter().chain(for_ebpf).filter(|need| !need.is_there()).collect();
    let linker = !nightly && !is_version(&own_bpf_linker(workspace), BPF_LINKER_VERSION);
    if !missing.is_empty() {
        install_packages(workspace, &missing)?;
    }
    if linker {
        install_bpf_linker(workspace)?;
    }
    let others = runners::install(workspace)?;
    if missing.is_empty() && !linker && !others {
        say("▸ set-up: everything is there");
    }
    Ok(())
}

/// Installs what booting other kernels needs and is missing.
pub(crate) fn emulator(workspace: &Workspace) -> Result<()> {
    let missing: Vec<&Need> = EMULATOR.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() { Ok(()) } else { install_packages(workspace, &missing) }
}

/// Installs the browser that looks at the web pages, if it is missing.
pub(crate) fn browser(workspace: &Workspace) -> Result<()> {
    let missing: Vec<&Need> = BROWSER.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() { Ok(()) } else { install_packages(workspace, &missing) }
}

/// Installs what the independent judge of checkpoints and proofs needs and is missing.
pub(crate) fn oracle(workspace: &Workspace) -> Result<()> {
    let missing: Vec<&Need> = ORACLE.iter().filter(|need| !need.is_there()).collect();
    if missing.is_empty() { Ok(()) } else { install_packages(workspace, &missing) }
}

fn install_packages(workspace: &Workspace, missing: &[&Need]) -> Result<()> {
    say("▸ set-up: these Debian packages are missing");
    for need in missing {
        say(&format!("    {:<16} {}", need.package, need.why));
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    if !in_path("apt-get") {
        bail!("this machine has no apt-get; install what these packages hold, then try again");
    }
    if !is_root() {
        bail!("only root can install packages; run this, then try again:\n    {by_hand}");
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        command
    };
    let logs = workspace.scratch();
    shell::run_quietly("apt-get update", &mut apt(&["update"]), &logs, "apt-update")?;
    shell::run_quietly(
        &by_hand,
        apt(&["install", "--yes", "--no-install-recommends"]).args(&packages),
        &logs,
        "apt-install",
    )
}

fn install_bpf_linker(workspace: &Workspace) -> Result<()> {
    let mut command = command_of_other_toolchain(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    command
        .env_remove("CARGO_TARGET_DIR")
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("RUSTFLAGS", format!("-L{LLVM_PREFIX}/lib"))
        .args(["install", "bpf-linker", "--locked", "--force", "--no-default-features"])
        .args(["--features", "llvm-22", "--version", &format!("^{BPF_LINKER_VERSION}"), "--root"])
        .arg(workspace.tools());
    shell::run_quietly(
        "set-up: bpf-linker, which links the eBPF programs (compiled into the target directory, about a minute)",
        &mut command,
        &workspace.scratch(),
        "bpf-linker",
    )
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
    })
}

fn own_bpf_linker(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/bpf-linker")
}

fn has_nightly_toolchain() -> bool {
    // Asks for the list first: rustup installs a toolchain that is merely named.
    let listed = answer(Command::new("rustup").args(["toolchain", "list"]))
        .is_some_and(|list| list.lines().any(|line| line.starts_with("nightly")));
    listed
        && in_path("bpf-linker")
        && answer(command_of_other_toolchain("rustc").args(["+nightly", "--print", "sysroot"])).is_some_and(
            |sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file(),
        )
}

fn is_version(program: &Path, version: &str) -> bool {
    let start = format!("{version}.");
    answer(Command::new(program).arg("--version"))
        .is_some_and(|text| text.split_whitespace().any(|word| word == version || word.starts_with(&start)))
}

fn is_installed(package: &str) -> bool {
    answer(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_some_and(|status| status == "installed")
}

fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|directory| directory.join(program).is_file())
}
