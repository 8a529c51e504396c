//! Where the programs under test are, and the repositories they work on.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Environment variable that names the directory with the release binaries.
pub const BINARIES: &str = "BUILDTRAIL_BIN_DIR";
/// Environment variable that names the `act` program.
pub const ACT: &str = "BUILDTRAIL_ACT";

/// Environment variable that names the directory with the runners that were installed for the tests.
pub const TOOLS: &str = "BUILDTRAIL_TOOLS";

/// Path of one of the workspace's release binaries.
///
/// # Errors
/// When [`BINARIES`] is unset or the binary is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directory = env::var_os(BINARIES).with_context(|| {
        format!("{BINARIES} is not set: run this through `cargo xtask test` or `cargo xtask demo`")
    })?;
    let path = Path::new(&directory).join(name);
    if !path.is_file() {
        bail!("{} is not there: run `cargo xtask build` first", path.display());
    }
    Ok(path)
}

/// Path of the `act` program.
///
/// # Errors
/// When [`ACT`] is unset or the program is not there.
pub fn act() -> Result<PathBuf> {
    let path = PathBuf::from(env::var_os(ACT).with_context(|| {
        format!("{ACT} is not set: run this through `cargo xtask test` or `cargo xtask demo`")
    })?);
    if !path.is_file() {
        bail!("{} is not there: run `cargo xtask setup` first", path.display());
    }
    Ok(path)
}

/// The script that `node` runs as gitlab-ci-local.
///
/// # Errors
/// When [`TOOLS`] is unset or the script is not there.
pub fn gitlab_ci_local() -> Result<PathBuf> {
    tool("gitlab/node_modules/.bin/gitlab-ci-local")
}

/// A program of Buildbot's: `buildbot` or `buildbot-worker`.
///
/// # Errors
/// When [`TOOLS`] is unset or the program is not there.
pub fn buildbot(name: &str) -> Result<PathBuf> {
    tool(&format!("buildbot/bin/{name}"))
}

fn tool(name: &str) -> Result<PathBuf> {
    let directory = env::var_os(TOOLS)
        .with_context(|| format!("{TOOLS} is not set: run this through `cargo xtask test`"))?;
    let path = Path::new(&directory).join(name);
    if !path.is_file() {
        bail!("{} is not there: run `cargo xtask setup` first", path.display());
    }
    Ok(path)
}

/// What packages install, as it stands in the workspace.
#[must_use]
pub fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

/// The repository `name` under `scenario/`.
#[must_use]
pub fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenario").join(name)
}
