//! Whether a rule can work, with the sentence that the operator reads.

use std::collections::BTreeSet;

use buildtrail_settings::Invalid;

use super::{
    facts::FACTS,
    rule::{Ends, JobRule, NamedBy, PlatformRule, RunnerRule, StepOf},
};

/// Most rules of the settings.
pub const MAX_PLATFORMS: usize = 32;
/// Most ways to name a job.
const MAX_JOB_RULES: usize = 16;
/// Most variables that one rule looks at.
const MAX_VARIABLES: usize = 64;

/// Checks one rule; `key` is where it stands in the settings, with a full stop behind it.
///
/// # Errors
/// The first thing that cannot work.
pub fn rule(rule: &PlatformRule, key: &str) -> Result<(), Invalid> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if rule.name.is_empty() || rule.name.len() > 64 || !rule.name.chars().all(word) {
        return Err(Invalid::new(format!("{key}name"), "expected 1 to 64 lower-case letters, digits or '-'"));
    }
    if rule.runner == RunnerRule::default() {
        let problem = "says nothing: give executables, arguments, units or variables of the runner process";
        return Err(Invalid::new(format!("{key}runner"), problem));
    }
    if rule.job.is_empty() || rule.job.len() > MAX_JOB_RULES {
        let problem = format!("expected 1 to {MAX_JOB_RULES} [[job]] tables");
        return Err(Invalid::new(format!("{key}job"), problem));
    }
    rule.job.iter().enumerate().try_for_each(|(index, way)| job(way, &format!("{key}job.{index}.")))
}

fn job(rule: &JobRule, key: &str) -> Result<(), Invalid> {
    let no_variables = rule.when.is_empty();
    if no_variables && rule.named_by == NamedBy::FirstToShow {
        let problem = "must not be empty with named_by = \"first-to-show\": any process would do";
        return Err(Invalid::new(format!("{key}when"), problem));
    }
    let fields = &rule.fields;
    if fields.repository.is_empty() && fields.workflow.is_empty() && fields.run_id.is_empty() {
        let problem = "give at least one of repository, workflow and run_id";
        return Err(Invalid::new(format!("{key}fields"), problem));
    }
    if rule.step.of == StepOf::Grandchild && rule.ends != Ends::WithChild {
        let problem = "\"grandchild\" needs ends = \"with-child\": the runner's child runs the whole job";
        return Err(Invalid::new(format!("{key}step.of"), problem));
    }
    let extracts: BTreeSet<&str> = rule.extract.iter().map(|extract| extract.name.as_str()).collect();
    for (place, template) in rule.templates() {
        let of_extract = place.starts_with("extract");
        let unknown =
            template.facts().find(|fact| !FACTS.contains(fact) && (of_extract || !extracts.contains(fact)));
        if let Some(unknown) = unknown {
            let known = FACTS.join(", @");
            let problem =
                format!("there is no ${{@{unknown}}}: expected @{known}, or the name of an [[extract]]");
            return Err(Invalid::new(format!("{key}{place}"), problem));
        }
    }
    if rule.variables().collect::<BTreeSet<_>>().len() > MAX_VARIABLES {
        let problem = format!("looks at more than {MAX_VARIABLES} variables");
        return Err(Invalid::new(format!("{key}fields"), problem));
    }
    Ok(())
}
