//! A real workflow under the real agent: its audit trail is complete, and nothing of anyone else is in it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::{sync::LazyLock, time::Duration};

use buildtrail_proto::v1::{Assurance, AuditEvent, Job, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{
        describe_all, finished_jobs, is_access_to, is_connection_to, lost, of_repository, outside_jobs,
        repository_of, step_of,
    },
    expected::{self, Fact, STEPS},
    scene::{ACTOR, Scene},
};

const WIDGETS: &str = "acme/widgets";
const OTHER: &str = "acme/other";

/// What the agent said about one run of the scene.
struct Observed {
    events: Vec<AuditEvent>,
    facts: Vec<Fact>,
    home: String,
    commit: String,
}

static OBSERVED: LazyLock<Observed> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let scene = Scene::prepare(directory.path()).unwrap();
    let agent = Agent::start_with_json(&Settings::new(directory.path(), scene.home())).unwrap();
    scene.run().unwrap();
    agent
        .wait_for("the end of both jobs", Duration::from_secs(30), |events| {
            finished_jobs(events).count() >= 2
        })
        .unwrap();
    let (status, events) = agent.stop().unwrap();
    assert_eq!(status.code(), Some(0), "the agent stops cleanly");
    Observed {
        events,
        facts: expected::facts(&scene),
        home: scene.home().display().to_string(),
        commit: scene.widgets().commit.clone(),
    }
});

#[test]
fn everything_that_the_workflow_does_is_there_with_its_step() {
    let job = of_repository(&OBSERVED.events, WIDGETS);
    let missing: Vec<&Fact> =
        OBSERVED.facts.iter().filter(|fact| !job.iter().any(|event| fact.is_told_by(event))).collect();
    assert!(missing.is_empty(), "missing: {missing:#?}\nof:\n{}", describe_all(job));
}

#[test]
fn nothing_that_the_workflow_does_not_do_is_there() {
    let is_about_secrets_or_network = |event: &&&AuditEvent| {
        matches!(
            event.body,
            Some(
                Body::SecretAccess(_)
                    | Body::CredentialUse(_)
                    | Body::ConnectionOpened(_)
                    | Body::DnsLookup(_)
            )
        )
    };
    let job = of_repository(&OBSERVED.events, WIDGETS);
    let surplus: Vec<&AuditEvent> = job
        .iter()
        .filter(is_about_secrets_or_network)
        .filter(|event| !OBSERVED.facts.iter().any(|fact| fact.is_told_by(event)))
        .copied()
        .collect();
    assert!(surplus.is_empty(), "not in the list:\n{}", describe_all(surplus));
}

#[test]
fn the_job_is_named_in_full_on_every_event() {
    let job = of_repository(&OBSERVED.events, WIDGETS);
    let id = &job[0].job.as_ref().unwrap().job_id;
    let expected = Job {
        job_id: id.clone(),
        platform: "act".to_owned(),
        server: "https://github.com".to_owned(),
        repository: WIDGETS.to_owned(),
        workflow: "release".to_owned(),
        run_id: "1".to_owned(),
        run_attempt: "1".to_owned(),
        name: "build".to_owned(),
        actor: ACTOR.to_owned(),
        r#ref: "refs/heads/main".to_owned(),
        sha: OBSERVED.commit.clone(),
        trigger: "push".to_owned(),
        runner_name: String::new(),
        assurance: Assurance::Observed.into(),
        ..Job::default()
    };
    assert_eq!(id.len(), 32, "{id}");
    for event in job {
        assert_eq!(event.job.as_ref(), Some(&expected));
    }
}

#[test]
fn steps_are_numbered_in_the_order_in_which_they_ran() {
    let job = of_repository(&OBSERVED.events, WIDGETS);
    let index_of = |id: &str| {
        let step = job.iter().find(|event| step_of(event) == id).and_then(|event| event.step.as_ref());
        step.unwrap_or_else(|| panic!("no event of step {id}")).index
    };
    let indices: Vec<u32> = STEPS.iter().map(|step| index_of(step)).collect();
    assert!(indices.is_sorted_by(|a, b| a < b), "{indices:?}");
}

#[test]
fn a_job_begins_ends_and_counts_what_it_did() {
    let job = of_repository(&OBSERVED.events, WIDGETS);
    assert!(matches!(job.first().unwrap().body, Some(Body::JobStarted(_))), "{}", describe_all(job));
    let Some(Body::JobFinished(summary)) = &job.last().unwrap().body else {
        panic!("the last event of the job is not its end:\n{}", describe_all(job));
    };
    let count = |kind: &str| job.iter().filter(|event| event.kind() == kind).count() as u64;
    assert_eq!(summary.secret_accesses, count("secret.access"));
    assert_eq!(summary.credential_uses, count("credential.use"));
    assert_eq!(summary.connections, count("connection.opened"));
    assert_eq!(summary.dns_lookups, count("dns.lookup"));
    assert!(summary.duration_ns > 0);
}

#[test]
fn the_job_beside_it_has_its_own_events_and_no_others() {
    let other = of_repository(&OBSERVED.events, OTHER);
    let docker = format!("{}/.docker/config.json", OBSERVED.home);
    let told = |step: &str, is: &dyn Fn(&AuditEvent) -> bool| {
        assert!(
            other.iter().any(|event| step_of(event) == step && is(event)),
            "{step} is missing in:\n{}",
            describe_all(other.iter().copied())
        );
        for event in OBSERVED.events.iter().filter(|event| is(event)) {
            assert_eq!(repository_of(event), Some(OTHER), "{}", describe_all([event]));
        }
    };
    told("registry-login", &|event| is_access_to(event, &docker));
    told("report", &|event| is_connection_to(event, 8445));
    let identity = other[0].job.as_ref().unwrap();
    assert_eq!((identity.workflow.as_str(), identity.name.as_str()), ("nightly", "audit"));
    assert_ne!(identity.job_id, of_repository(&OBSERVED.events, WIDGETS)[0].job.as_ref().unwrap().job_id);
}

#[test]
fn work_outside_any_job_is_in_no_job() {
    let netrc = format!("{}/.netrc", OBSERVED.home);
    let outside = outside_jobs(&OBSERVED.events);
    assert!(
        outside.iter().any(|event| is_access_to(event, &netrc)),
        "the outsider's access is missing in:\n{}",
        describe_all(outside)
    );
    for event in &OBSERVED.events {
        if is_access_to(event, &netrc) || is_connection_to(event, 8446) {
            assert_eq!(event.job, None, "{}", describe_all([event]));
        }
    }
}

#[test]
fn nothing_is_lost_and_sequence_numbers_have_no_holes() {
    assert_eq!(lost(&OBSERVED.events), 0);
    for (event, number) in OBSERVED.events.iter().zip(1..) {
        assert_eq!(event.sequence, number);
    }
}

#[test]
fn no_secret_value_is_in_the_events() {
    let holds_a_value = |event: &&AuditEvent| serde_json::to_string(event).unwrap().contains("FAKE-not-a-");
    let leaks: Vec<&AuditEvent> = OBSERVED.events.iter().filter(holds_a_value).collect();
    assert!(leaks.is_empty(), "values of secrets in:\n{}", describe_all(leaks));
}
