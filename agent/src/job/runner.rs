//! Which executables are runners.

use std::os::unix::ffi::OsStrExt as _;

use crate::{
    catalog::base_name,
    config::{Platform, RunnerProgram},
};

/// Runners by the name of their executable. A process inside a job is never one of them.
const BUILT_IN: &[(&[u8], Platform)] =
    &[(b"Runner.Worker", Platform::GithubActions), (b"act", Platform::Act)];

/// What counts as a runner on this host.
#[derive(Clone, Debug, Default)]
pub struct RunnerPrograms {
    declared: Vec<RunnerProgram>,
}

impl RunnerPrograms {
    /// The built-in names and those that the operator declared.
    #[must_use]
    pub fn new(declared: Vec<RunnerProgram>) -> Self {
        Self { declared }
    }

    /// What the executables are called.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        let declared =
            self.declared.iter().map(|program| base_name(program.executable.as_os_str().as_bytes()));
        BUILT_IN.iter().map(|(name, _)| *name).chain(declared)
    }

    /// The platform whose runner this executable is.
    #[must_use]
    pub fn platform_of(&self, executable: &[u8]) -> Option<Platform> {
        let declared =
            self.declared.iter().find(|program| program.executable.as_os_str().as_bytes() == executable);
        if let Some(program) = declared {
            return Some(program.platform);
        }
        let name = base_name(executable);
        BUILT_IN.iter().find(|(built_in, _)| *built_in == name).map(|(_, platform)| *platform)
    }
}
