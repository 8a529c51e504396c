//! GitHub Actions (actions/runner) and `act`, which imitates it: a step is one process that the runner starts with the
//! default variables (docs.github.com, "Variables reference").

use buildtrail_proto::v1;

use super::Claim;
use crate::{config::Platform, event::text::lossless, sensor::records::Exec};

/// Environment variables whose values the kernel side copies. None of them is a secret: they are in every job's log.
pub const IDENTITY_VARIABLES: &[&str] = &[
    "ACT",
    "GITHUB_ACTION",
    "GITHUB_ACTIONS",
    "GITHUB_ACTOR",
    "GITHUB_EVENT_NAME",
    "GITHUB_JOB",
    "GITHUB_REF",
    "GITHUB_REPOSITORY",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_RUN_ID",
    "GITHUB_SERVER_URL",
    "GITHUB_SHA",
    "GITHUB_WORKFLOW",
    "GITHUB_WORKSPACE",
    "RUNNER_NAME",
];

/// What a process that the runner started says about its job. `None` when it is no step (`git`, `tar`, …).
pub(super) fn claim(platform: Platform, exec: &Exec) -> Option<Claim> {
    let value = |name: &str| exec.value(name).map(lossless).unwrap_or_default();
    if value("GITHUB_ACTIONS") != "true"
        || value("GITHUB_JOB").is_empty()
        || value("GITHUB_RUN_ID").is_empty()
    {
        return None;
    }
    let job = v1::Job {
        job_id: String::new(),
        platform: platform.as_str().to_owned(),
        server: value("GITHUB_SERVER_URL"),
        repository: value("GITHUB_REPOSITORY"),
        workflow: value("GITHUB_WORKFLOW"),
        run_id: value("GITHUB_RUN_ID"),
        run_attempt: value("GITHUB_RUN_ATTEMPT"),
        name: value("GITHUB_JOB"),
        actor: value("GITHUB_ACTOR"),
        r#ref: value("GITHUB_REF"),
        sha: value("GITHUB_SHA"),
        trigger: value("GITHUB_EVENT_NAME"),
        runner_name: value("RUNNER_NAME"),
        assurance: v1::Assurance::Observed.into(),
        ..v1::Job::default()
    };
    let step = Some(value("GITHUB_ACTION")).filter(|step| !step.is_empty());
    Some(Claim { job, workspace: value("GITHUB_WORKSPACE"), step })
}
