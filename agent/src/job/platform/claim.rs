//! What a process that a runner started says about its job and step.

use buildtrail_proto::v1;

use super::{
    Platform,
    facts::{Facts, Place},
    rule::{JobRule, StepOf},
    template::{Choice, Lookup as _},
};
use crate::sensor::records::Exec;

/// Longest text of a job or step, in bytes.
const MAX_TEXT: usize = 2048;
/// What stands for a commit while it is not looked up yet.
const SYMBOLIC_COMMIT: &str = "HEAD";
/// Most actions around a step.
const MAX_PATH: usize = 16;

/// What was said, before the job has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// By which rule it was understood.
    pub rule: &'a JobRule,
    /// The rule's place among those of its platform.
    pub index: usize,
    /// Without id, platform and assurance.
    pub job: v1::Job,
    /// Tells two jobs of one runner process apart that are otherwise alike (a matrix).
    pub distinct: String,
    /// Of two jobs in the same slot one has ended; empty: none.
    pub slot: String,
    /// The step, where the process begins one.
    pub step: Option<StepClaim>,
}

/// What was said about a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepClaim {
    /// Empty: the platform does not say, it is to be numbered.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Actions around it, the outermost first.
    pub path: Vec<String>,
}

impl Platform {
    /// What this execution says. `None` when it is no job's process (`git`, `tar`, …).
    #[must_use]
    pub fn claim(&self, exec: &Exec, place: Place<'_>) -> Option<Claim<'_>> {
        let mut rules = self.rule.job.iter().enumerate();
        let (index, rule) = rules.find(|(_, rule)| holds(&Facts { exec, place, rule }))?;
        let facts = Facts { exec, place, rule };
        let step = (rule.step.of == StepOf::Child).then(|| step_claim(&facts)).flatten();
        let job = job(&facts);
        if job.repository.is_empty() && job.workflow.is_empty() && job.run_id.is_empty() {
            return None;
        }
        Some(Claim {
            rule,
            index,
            job,
            distinct: fill(&rule.distinct, &facts),
            slot: fill(&rule.slot, &facts),
            step,
        })
    }
}

impl Platform {
    /// The job that the variables of this execution name, whoever set them.
    #[must_use]
    pub fn claimed_job(&self, exec: &Exec) -> Option<v1::Job> {
        let exec = Exec { variables: exec.variables.clone(), ..Exec::default() };
        let claim = self.claim(&exec, Place::default())?;
        (!claim.rule.when.is_empty()).then_some(claim.job)
    }
}

impl JobRule {
    /// What the execution of a child of the process that runs the whole job says about the step that it begins.
    #[must_use]
    pub fn grandchild_step(&self, exec: &Exec, place: Place<'_>) -> Option<StepClaim> {
        (self.step.of == StepOf::Grandchild).then(|| step_claim(&Facts { exec, place, rule: self })).flatten()
    }
}

/// `None` where the platform has ids for its steps and this process shows none.
fn step_claim(facts: &Facts<'_>) -> Option<StepClaim> {
    let rule = &facts.rule.step;
    let parts = rule.path.iter().map(|choice| fill(choice, facts)).flat_map(|text| {
        let separator = Some(rule.path_separator.as_str()).filter(|separator| !separator.is_empty());
        match separator {
            Some(separator) => text.split(separator).map(str::to_owned).collect(),
            None => vec![text],
        }
    });
    let id = fill(&rule.id, facts);
    (rule.id.is_empty() || !id.is_empty()).then(|| StepClaim {
        id,
        name: fill(&rule.name, facts),
        path: parts.filter(|part| !part.is_empty()).take(MAX_PATH).collect(),
    })
}

fn holds(facts: &Facts<'_>) -> bool {
    facts.rule.when.iter().all(|condition| condition.holds(facts.variable(&condition.name).as_deref()))
}

fn job(facts: &Facts<'_>) -> v1::Job {
    let fields = &facts.rule.fields;
    let text = |choice: &Choice| fill(choice, facts);
    v1::Job {
        server: without_user(text(&fields.server)),
        repository: without_user(text(&fields.repository)),
        workflow: text(&fields.workflow),
        run_id: text(&fields.run_id),
        run_attempt: text(&fields.run_attempt),
        name: text(&fields.name),
        actor: text(&fields.actor),
        r#ref: text(&fields.reference),
        sha: Some(text(&fields.sha)).filter(|sha| sha != SYMBOLIC_COMMIT).unwrap_or_default(),
        trigger: text(&fields.trigger),
        runner_name: text(&fields.runner_name),
        url: without_user(text(&fields.url)),
        ..v1::Job::default()
    }
}

fn fill(choice: &Choice, facts: &Facts<'_>) -> String {
    let mut text = choice.fill(facts);
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// A URL without what stands before the `@`: it could be a password.
fn without_user(url: String) -> String {
    let Some(start) = url.find("://").map(|at| at + 3) else { return url };
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}{}", &url[..start], &url[start + at + 1..]),
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_no_user_and_password() {
        for (url, shown) in [
            ("https://u:p@host/x@y", "https://host/x@y"),
            ("https://host/u@x", "https://host/u@x"),
            ("https://u@host", "https://host"),
            ("host", "host"),
        ] {
            assert_eq!(without_user(url.into()), shown);
        }
    }
}
