//! Where things are: the workspace, its target directory, and the tools installed under it.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Variables that `cargo run` sets for this program, or a user for the main toolchain, and that would steer a
/// different toolchain wrongly.
const TOOLCHAIN_VARIABLES: [&str; 9] = [
    "CARGO",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// The workspace's places.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self> {
        let output = Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).context("cannot read the answer of cargo metadata")?;
        Ok(Self { root: metadata.workspace_root, target: metadata.target_directory })
    }

    /// The clone.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the eBPF workspace, which has its own toolchain and lock file.
    pub(crate) fn ebpf(&self) -> PathBuf {
        self.root.join("agent-ebpf")
    }

    /// Where cargo builds the eBPF programs.
    pub(crate) fn ebpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The release binaries.
    pub(crate) fn binaries(&self) -> PathBuf {
        self.target.join("release")
    }

    /// The binaries that were built without optimisation.
    pub(crate) fn debug_binaries(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// Tools installed for this workspace alone.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The workflow runner that the demo and the end-to-end tests use.
    pub(crate) fn act(&self) -> PathBuf {
        self.tools().join("act/bin/act")
    }

    /// What runs GitLab pipelines in the end-to-end tests, for `node`.
    pub(crate) fn gitlab_ci_local(&self) -> PathBuf {
        self.tools().join("gitlab/node_modules/.bin/gitlab-ci-local")
    }

    /// The `OpenID` Connect provider that tests sign in through.
    pub(crate) fn oidc_provider(&self) -> PathBuf {
        self.tools().join("oidc/bin/oidc-provider-mock")
    }

    /// The directory for logs and other files of this program.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.target.join("xtask")
    }

    /// Kernels, and guests that run them.
    pub(crate) fn vm(&self) -> PathBuf {
        self.target.join("vm")
    }

    /// A cargo command in the workspace's root, with the toolchain that runs this program.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(arguments).current_dir(&self.root);
        if self.target != self.root.join("target") {
            // The agent's build looks in the default target directory unless told otherwise.
            command.env("BUILDTRAIL_BPF_DIRECTORY", self.ebpf_target());
        }
        command
    }
}

/// A command that does not inherit the toolchain which runs this program.
pub(crate) fn command_of_other_toolchain(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for name in TOOLCHAIN_VARIABLES {
        command.env_remove(name);
    }
    command
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
