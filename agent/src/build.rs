//! What every batch says about the agent that made it: program, eBPF object and policy, by their digests.
//!
//! In: the effective settings. Out: the [`Build`] of the batch headers. Must never hold a setting's value itself.
//!
//! The policy's digest is SHA-256 over the settings as one line of JSON (fields in the order of `config`, defaults
//! filled in), then a line for each built-in entry of the catalogue's tables of files, commands and variables. What
//! else the agent looks for is fixed in its executable, whose digest stands beside it.

use std::{fs::File, io};

use buildtrail_evidence::{batch::Build, digest::Digest};

use crate::{
    catalog::{commands, files, relocations, variables},
    config::Config,
    sensor::object,
};

/// The kernel's name for the running program's file, also when that was replaced meanwhile.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// The agent cannot say which program it is.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// /proc is missing, or the disk failed.
    #[error("cannot read the agent's own executable ({OWN_EXECUTABLE}): {0}; is /proc mounted?")]
    Executable(#[from] io::Error),
    /// A path in the settings is no text.
    #[error("the settings cannot be written down: {0}; use paths of UTF-8 text")]
    Settings(#[from] serde_json::Error),
}

/// Which program runs here, with which settings.
///
/// # Errors
/// The executable cannot be read.
pub fn describe(config: &Config) -> Result<Build, BuildError> {
    let executable = Digest::of_reader(File::open(OWN_EXECUTABLE)?)?;
    Ok(Build {
        agent_build: format!("{} sha256:{executable}", env!("CARGO_PKG_VERSION")),
        ebpf_digest: Some(Digest::of(object::choose())),
        policy_digest: policy_digest(config)?,
    })
}

fn policy_digest(config: &Config) -> Result<Digest, BuildError> {
    let mut text = serde_json::to_string(config)?;
    for line in
        files::listing().chain(commands::listing()).chain(variables::listing()).chain(relocations::listing())
    {
        text.push('\n');
        text.push_str(&line);
    }
    Ok(Digest::of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_names_this_program_and_any_change_of_the_settings() {
        let mut config = Config::default();
        let build = describe(&config).unwrap();
        let executable = Digest::of(&std::fs::read(std::env::current_exe().unwrap()).unwrap());
        assert!(build.agent_build.ends_with(&format!(" sha256:{executable}")), "{}", build.agent_build);
        assert_eq!(describe(&config).unwrap(), build);
        config.catalog.homes.push("/srv/*".into());
        assert_ne!(describe(&config).unwrap().policy_digest, build.policy_digest);
    }
}
