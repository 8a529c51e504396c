//! What is known of one CI platform: the keys of `platforms/*.toml` and of `[[platform]]` in the settings.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::template::{Choice, Template, check_variable};
use crate::catalog::base_name;

/// A CI platform.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformRule {
    /// The word in `Job.platform` and in `runners.programs`.
    pub name: String,
    /// By what its runner is known.
    pub runner: RunnerRule,
    /// How its jobs are named, tried in this order.
    pub job: Vec<JobRule>,
}

/// The process whose children are jobs' processes. What is given here must all be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunnerRule {
    /// Its executable is one of these: absolute paths, or names where that is enough; wildcards are understood.
    pub executables: Vec<Wildcard>,
    /// Each of these wildcards fits one of its arguments.
    pub arguments: Vec<Wildcard>,
    /// It runs in one of these systemd units; wildcards are understood.
    pub units: Vec<Wildcard>,
    /// Variables of its own environment: `NAME`, or `NAME=VALUE`.
    pub variables: Vec<Condition>,
}

/// Which processes belong to a job, and what they say about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JobRule {
    /// All of these variables must be there: `NAME`, or `NAME=VALUE`.
    pub when: Vec<Condition>,
    /// Which of a runner's child and its descendants is asked.
    #[serde(default)]
    pub named_by: NamedBy,
    /// When it is over.
    #[serde(default)]
    pub ends: Ends,
    /// Stands before the name of every variable of this rule.
    #[serde(default)]
    pub prefix: String,
    /// Of two jobs with the same value one has ended when the other begins.
    #[serde(default)]
    pub slot: Choice,
    /// Tells two jobs of one runner apart that are otherwise alike.
    #[serde(default)]
    pub distinct: Choice,
    /// What is said about the job.
    pub fields: Fields,
    /// What is a step.
    #[serde(default)]
    pub step: StepRule,
    /// Further facts for templates, each taken out of another text.
    #[serde(default)]
    pub extract: Vec<Extract>,
}

/// Texts of a job, as in `Job` of event.proto.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "documented in event.proto")]
pub struct Fields {
    pub server: Choice,
    pub repository: Choice,
    pub workflow: Choice,
    pub run_id: Choice,
    pub run_attempt: Choice,
    pub name: Choice,
    pub actor: Choice,
    #[serde(rename = "ref")]
    pub reference: Choice,
    pub sha: Choice,
    pub trigger: Choice,
    pub runner_name: Choice,
    pub url: Choice,
}

/// What is a step, and what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepRule {
    /// Whose start begins a step.
    pub of: StepOf,
    /// Its id; steps of the same id are one. Empty: each start is a step of its own, numbered.
    pub id: Choice,
    /// What people call it.
    pub name: Choice,
    /// Actions or stages around it, the outermost first; a text with this separator is several.
    pub path: Vec<Choice>,
    /// Separates parts of `path`.
    pub path_separator: String,
}

/// Who says which job it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamedBy {
    /// The runner's child, when it executes its first program.
    #[default]
    Child,
    /// The first process of the runner's child's tree that shows the variables. Only right where the runner's own
    /// doings show them before anything of the job runs.
    FirstToShow,
}

/// When a job is over, where no hook says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ends {
    /// With the runner process, which runs one job, or those of one command.
    #[default]
    WithRunner,
    /// With the runner's child that named it.
    WithChild,
    /// When nothing that the runner started for it has run for a while, or another job has its slot.
    WhenIdle,
    /// As `WhenIdle`, and processes that are no longer below the runner's child count as well.
    WhenNothingIsLeft,
}

/// Whose start begins a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOf {
    /// The runner's child.
    #[default]
    Child,
    /// The child of the runner's child, which runs the whole job.
    Grandchild,
    /// Nobody's.
    Nobody,
}

/// A fact taken out of a text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// Its name in templates, behind `${@`.
    pub name: String,
    /// The text: of arguments, the first that fits.
    pub from: Template,
    /// What stands before it; empty: from the start.
    #[serde(default)]
    pub after: String,
    /// What stands behind it; empty: to the end.
    #[serde(default)]
    pub until: String,
    /// Where `until` stands several times, the last one counts.
    #[serde(default)]
    pub last: bool,
}

/// A text with wildcards. Of a path they match within one component.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Wildcard {
    source: String,
    matcher: GlobMatcher,
}

impl Wildcard {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether this fits it.
    #[must_use]
    pub fn fits(&self, text: &[u8]) -> bool {
        std::str::from_utf8(text).is_ok_and(|text| self.matcher.is_match(text))
    }

    /// Whether this path fits it, or its last component where it has no slash itself.
    #[must_use]
    pub fn fits_path(&self, path: &[u8]) -> bool {
        self.fits(if self.source.contains('/') { path } else { base_name(path) })
    }
}

impl PartialEq for Wildcard {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Wildcard {}

impl TryFrom<String> for Wildcard {
    type Error = String;

    fn try_from(source: String) -> Result<Self, String> {
        let glob = GlobBuilder::new(&source)
            .literal_separator(source.starts_with('/'))
            .empty_alternates(true)
            .build();
        let glob = glob.map_err(|error| format!("wrong wildcard \"{source}\": {}", error.kind()))?;
        Ok(Self { matcher: glob.compile_matcher(), source })
    }
}

impl From<Wildcard> for String {
    fn from(wildcard: Wildcard) -> Self {
        wildcard.source
    }
}

/// `NAME` or `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    /// The variable.
    pub name: String,
    /// What it must be.
    pub value: Option<String>,
}

impl Condition {
    /// Whether it is so, when the variable has this value.
    #[must_use]
    pub fn holds(&self, found: Option<&str>) -> bool {
        match &self.value {
            Some(wanted) => found == Some(wanted),
            None => found.is_some_and(|value| !value.is_empty()),
        }
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), None),
        };
        check_variable(name)?;
        Ok(Self { name: name.to_owned(), value })
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        match condition.value {
            Some(value) => format!("{}={value}", condition.name),
            None => condition.name,
        }
    }
}

impl Fields {
    /// All of them, with the names of their keys.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &Choice); 12] {
        [
            ("server", &self.server),
            ("repository", &self.repository),
            ("workflow", &self.workflow),
            ("run_id", &self.run_id),
            ("run_attempt", &self.run_attempt),
            ("name", &self.name),
            ("actor", &self.actor),
            ("ref", &self.reference),
            ("sha", &self.sha),
            ("trigger", &self.trigger),
            ("runner_name", &self.runner_name),
            ("url", &self.url),
        ]
    }
}

impl JobRule {
    /// All templates, with the names of their keys.
    pub fn templates(&self) -> impl Iterator<Item = (&'static str, &Template)> {
        let step = [("step.id", &self.step.id), ("step.name", &self.step.name)];
        let path = self.step.path.iter().map(|choice| ("step.path", choice));
        let other = [("slot", &self.slot), ("distinct", &self.distinct)];
        let choices = self.fields.all().into_iter().chain(step).chain(path).chain(other);
        let extracts = self.extract.iter().map(|extract| ("extract.from", &extract.from));
        choices
            .flat_map(|(key, choice)| choice.templates().map(move |template| (key, template)))
            .chain(extracts)
    }

    /// Names of the variables that it looks at.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        let conditions = self.when.iter().map(|condition| condition.name.as_str());
        let names = conditions.chain(self.templates().flat_map(|(_, template)| template.variables()));
        names.map(|name| format!("{}{name}", self.prefix))
    }
}
