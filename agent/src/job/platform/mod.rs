//! The CI platforms that the agent understands, as data.
//!
//! In: the rules that come with the agent (`job/platforms/*.toml`) and those of the settings (`[[platform]]`, same keys),
//! and what an execution shows. Out: whether a process looks like a runner, and what a process that a runner started says
//! about its job and step. Must never decide whether a runner is to be trusted, nor look at what a job's own processes
//! say: who is asked is the tracker's and the pipeline's to know.

pub mod check;
mod claim;
mod facts;
pub mod rule;
pub mod template;

use std::{collections::BTreeSet, path::Path, rc::Rc};

use buildtrail_agent_abi::RUNNER_NAME_BYTES;
use buildtrail_settings::SettingsError;

use crate::{
    catalog::base_name,
    config::{Config, RunnerProgram},
    event::text::lossless,
};
pub use claim::{Claim, StepClaim};
pub use facts::Place;
pub use rule::PlatformRule;
use rule::{Condition, JobRule, RunnerRule, Wildcard};

/// The rules that come with the agent, by file name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("act.toml", include_str!("../platforms/act.toml")),
    ("azure-pipelines.toml", include_str!("../platforms/azure-pipelines.toml")),
    ("buildbot.toml", include_str!("../platforms/buildbot.toml")),
    ("buildkite.toml", include_str!("../platforms/buildkite.toml")),
    ("circleci.toml", include_str!("../platforms/circleci.toml")),
    ("drone.toml", include_str!("../platforms/drone.toml")),
    ("forgejo.toml", include_str!("../platforms/forgejo.toml")),
    ("gitea.toml", include_str!("../platforms/gitea.toml")),
    ("github-actions.toml", include_str!("../platforms/github-actions.toml")),
    ("gitlab-ci-local.toml", include_str!("../platforms/gitlab-ci-local.toml")),
    ("gitlab.toml", include_str!("../platforms/gitlab.toml")),
    ("jenkins.toml", include_str!("../platforms/jenkins.toml")),
    ("teamcity.toml", include_str!("../platforms/teamcity.toml")),
    ("woodpecker.toml", include_str!("../platforms/woodpecker.toml")),
];

/// Programs that a runner puts in front of a job's: what they are given counts as not executed yet.
const HELPERS: [&[u8]; 2] = [b"jspawnhelper", b"setsid"];

/// A process that may be a runner.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "holds functions")]
pub struct Candidate<'a> {
    /// What it runs, as the host sees it.
    pub executable: &'a [u8],
    /// Its arguments.
    pub arguments: &'a [Vec<u8>],
    /// Value of a variable that it was given.
    pub variable: &'a dyn Fn(&str) -> Option<Vec<u8>>,
    /// The systemd unit that it runs in, by its control group; asked only when a rule wants to know.
    pub unit: &'a dyn Fn() -> Option<String>,
}

/// A platform ready to be compared.
#[derive(Debug)]
pub struct Platform {
    /// The rule.
    pub rule: PlatformRule,
    /// Paths of `runners.programs`, which need nothing else.
    declared: Vec<Vec<u8>>,
}

/// All platforms, the operator's first.
#[derive(Clone, Debug)]
pub struct Platforms {
    all: Rc<[Rc<Platform>]>,
    variables: Rc<BTreeSet<String>>,
}

impl Platforms {
    /// The settings' platforms, then those that come with the agent; a name of the settings replaces one of the agent's.
    ///
    /// # Errors
    /// When a rule cannot be understood.
    pub fn new(config: &Config) -> Result<Self, SettingsError> {
        let built_in = built_in()?;
        let replaced = |rule: &PlatformRule| config.platform.iter().any(|own| own.name == rule.name);
        let rules =
            config.platform.iter().cloned().chain(built_in.into_iter().filter(|rule| !replaced(rule)));
        let all = rules.map(|rule| Rc::new(Platform::new(rule, &config.runners.programs)));
        let all: Rc<[Rc<Platform>]> = all.collect();
        let variables = all.iter().flat_map(|platform| platform.variables()).collect();
        Ok(Self { all, variables: Rc::new(variables) })
    }

    /// The platform whose runner this looks like.
    #[must_use]
    pub fn recognise(&self, candidate: &Candidate<'_>) -> Option<Rc<Platform>> {
        self.all.iter().find(|platform| platform.fits(candidate)).map(Rc::clone)
    }

    /// The platform of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Rc<Platform>> {
        self.all.iter().find(|platform| platform.rule.name == name).map(Rc::clone)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Platform> {
        self.all.iter().map(Rc::as_ref)
    }

    /// Environment variables whose values the kernel side copies. None of them is a credential.
    #[must_use]
    pub fn variables(&self) -> &BTreeSet<String> {
        &self.variables
    }

    /// Names of executables that say alone that a process is a runner: the kernel side notes who executes one.
    #[must_use]
    pub fn runner_names(&self) -> BTreeSet<Vec<u8>> {
        self.all().flat_map(Platform::plain_names).collect()
    }
}

/// The rules that come with the agent.
fn built_in() -> Result<Vec<PlatformRule>, SettingsError> {
    let parse = |(file, text): &(&str, &str)| {
        buildtrail_settings::parse_checked(text, Path::new(file), |rule| check::rule(rule, ""))
    };
    BUILT_IN.iter().map(parse).collect()
}

/// Names of the platforms that come with the agent.
#[must_use]
pub fn built_in_names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(file, _)| file.trim_end_matches(".toml")).collect()
}

impl Platform {
    fn new(rule: PlatformRule, programs: &[RunnerProgram]) -> Self {
        let own = programs.iter().filter(|program| program.platform == rule.name);
        let declared =
            own.map(|program| program.executable.as_os_str().as_encoded_bytes().to_vec()).collect();
        Self { rule, declared }
    }

    fn variables(&self) -> impl Iterator<Item = String> {
        let runner = self.rule.runner.variables.iter().map(|condition| condition.name.clone());
        runner.chain(self.rule.job.iter().flat_map(JobRule::variables))
    }

    fn fits(&self, candidate: &Candidate<'_>) -> bool {
        if self.declared.iter().any(|path| path == candidate.executable) {
            return true;
        }
        let RunnerRule { executables, arguments, units, variables } = &self.rule.runner;
        let executable = || executables.iter().any(|wildcard| wildcard.fits_path(candidate.executable));
        let argument = |wildcard: &Wildcard| candidate.arguments.iter().any(|given| wildcard.fits(given));
        let variable = |condition: &Condition| {
            let value = (candidate.variable)(&condition.name).map(|value| lossless(&value));
            condition.holds(value.as_deref())
        };
        let unit = || {
            let unit = (candidate.unit)();
            unit.is_some_and(|unit| units.iter().any(|wildcard| wildcard.fits(unit.as_bytes())))
        };
        (executables.is_empty() || executable())
            && arguments.iter().all(argument)
            && variables.iter().all(variable)
            && (units.is_empty() || unit())
    }

    /// Its executables' names, if these are enough to know it and have no wildcards.
    fn plain_names(&self) -> Vec<Vec<u8>> {
        let declared = self.declared.iter().map(|path| base_name(path).to_vec());
        let runner = &self.rule.runner;
        let enough = runner.arguments.is_empty() && runner.variables.is_empty();
        let plain = |text: &&str| enough && !text.contains(['*', '?', '[', '{']);
        let names = runner.executables.iter().map(Wildcard::as_str).filter(plain);
        let names = names.map(|text| base_name(text.as_bytes()).to_vec());
        declared.chain(names).filter(|name| name.len() < RUNNER_NAME_BYTES).collect()
    }
}

/// Whether this program only starts another one for the runner.
#[must_use]
pub fn is_helper(executable: &[u8]) -> bool {
    HELPERS.contains(&base_name(executable))
}

#[cfg(test)]
mod tests;
