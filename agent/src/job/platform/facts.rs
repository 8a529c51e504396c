//! What one execution shows, as templates ask for it.

use super::{
    rule::{Extract, JobRule},
    template::Lookup,
};
use crate::{catalog::base_name, event::text::lossless, sensor::records::Exec};

/// Facts that every execution has; templates write them `${@program}`.
pub(super) const FACTS: [&str; 5] = ["program", "last_argument", "arguments", "directory", "below_runner"];

/// Where something was executed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// The process's working directory.
    pub directory: &'a [u8],
    /// The runner's.
    pub runner_directory: &'a [u8],
}

impl Place<'_> {
    /// The working directory as seen from the runner's, where it is below that.
    fn below_runner(&self) -> Option<&[u8]> {
        let rest = self.directory.strip_prefix(self.runner_directory)?.strip_prefix(b"/")?;
        (!self.runner_directory.is_empty()).then_some(rest)
    }
}

/// An execution under a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// What was executed.
    pub(super) exec: &'a Exec,
    /// Where it was executed.
    pub(super) place: Place<'a>,
    /// The rule.
    pub(super) rule: &'a JobRule,
}

impl Lookup for Facts<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        if self.rule.prefix.is_empty() {
            return self.exec.value(name).map(lossless);
        }
        self.exec.value(&format!("{}{name}", self.rule.prefix)).map(lossless)
    }

    fn fact(&self, name: &str) -> Option<String> {
        match name {
            "program" => Some(lossless(base_name(&self.exec.filename))),
            "last_argument" => self.exec.arguments.last().map(|argument| lossless(argument)),
            "arguments" => Some(lossless(&self.exec.arguments.join(&b' '))),
            "directory" => Some(lossless(self.place.directory)),
            "below_runner" => self.place.below_runner().map(lossless),
            _ => {
                let mut found = self.rule.extract.iter().filter(|extract| extract.name == name);
                found.find_map(|extract| extract.take(self))
            }
        }
    }
}

impl Extract {
    /// Takes it out of its text. An extract takes from variables and from what every execution has, not from others.
    fn take(&self, facts: &Facts<'_>) -> Option<String> {
        let text = self.from.fill(&Plain(facts))?;
        let from = text.find(&self.after)? + self.after.len();
        let rest = &text[from..];
        let end = match (self.until.as_str(), self.last) {
            ("", _) => rest.len(),
            (until, false) => rest.find(until)?,
            (until, true) => rest.rfind(until)?,
        };
        Some(rest[..end].to_owned())
    }
}

/// Without extracts, so that none asks for itself.
struct Plain<'a>(&'a Facts<'a>);

impl Lookup for Plain<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name)
    }

    fn fact(&self, name: &str) -> Option<String> {
        FACTS.contains(&name).then(|| self.0.fact(name))?
    }
}
