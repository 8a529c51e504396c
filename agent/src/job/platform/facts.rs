//! What one execution shows, as templates ask for it.

use super::{
    rule::{Extract, JobRule},
    template::Lookup,
};
use crate::{catalog::base_name, event::text::lossless, sensor::records::Exec};

/// Facts that every execution has; templates write them `${@program}`.
pub(super) const FACTS: [&str; 4] = ["program", "last_argument", "arguments", "directory"];

/// An execution under a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// What was executed.
    pub(super) exec: &'a Exec,
    /// The process's working directory.
    pub(super) directory: &'a [u8],
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
            "directory" => Some(lossless(self.directory)),
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
        let taken = if self.until.is_empty() { rest } else { &rest[..rest.find(&self.until)?] };
        Some(taken.to_owned())
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
