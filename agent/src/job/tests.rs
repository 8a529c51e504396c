use super::*;
use crate::{config::Config, sensor::records::Variable};

const RUNNER: ProcessId = ProcessId { pid: 10, start: BootTime(1_000_000_000) };

fn tracker() -> JobTracker {
    JobTracker::new(HostIdentity {
        host_id: HostId::parse("h").unwrap(),
        boot_id: BootId::parse("b").unwrap(),
    })
}

/// What the runner named `platform` started; the root is a process of its own each time.
fn assign(
    tracker: &mut JobTracker,
    platform: &str,
    runner: ProcessId,
    exec: &Exec,
    time: BootTime,
) -> Option<Assigned> {
    let platform = platform::Platforms::new(&Config::default()).unwrap().named(platform).unwrap();
    let root = ProcessId { pid: 100, start: time };
    tracker.assign(&platform, Asked { runner, root, exec, place: Place::default(), time })
}

fn exec(pairs: &[(&str, &str)]) -> Exec {
    let defaults = [("GITHUB_ACTIONS", "true"), ("GITHUB_JOB", "build"), ("GITHUB_RUN_ID", "7")];
    let variable = |(name, value): &(&str, &str)| Variable {
        name: name.as_bytes().to_vec(),
        value: Some(value.as_bytes().to_vec()),
    };
    // Later ones win in the tests' tables, the first one wins in an environment.
    Exec { variables: pairs.iter().chain(&defaults).map(variable).collect(), ..Exec::default() }
}

#[test]
fn steps_are_numbered_in_the_order_in_which_the_runner_starts_them() {
    let mut tracker = tracker();
    let mut index = |step: &str| {
        let exec = exec(&[("GITHUB_ACTION", step)]);
        let assigned = assign(&mut tracker, "act", RUNNER, &exec, BootTime(1)).unwrap();
        assigned.membership.step.unwrap().index
    };
    assert_eq!([index("checkout"), index("test"), index("checkout")], [1, 2, 1]);
}

#[test]
fn jobs_of_one_runner_process_stay_apart() {
    let variants: [&[(&str, &str)]; 5] = [
        &[],
        &[("GITHUB_JOB", "other")],
        &[("GITHUB_RUN_ID", "8")],
        &[("GITHUB_REPOSITORY", "acme/widgets")],
        &[("GITHUB_WORKSPACE", "/matrix/2")],
    ];
    let mut tracker = tracker();
    let ids: HashSet<String> = variants
        .iter()
        .map(|variant| {
            let assigned = assign(&mut tracker, "act", RUNNER, &exec(variant), BootTime(1));
            assigned.unwrap().membership.job.job_id.clone()
        })
        .collect();
    assert_eq!(ids.len(), variants.len());
    assert_eq!(tracker.only_job_of(RUNNER), None);
}

#[test]
fn the_same_job_has_the_same_id_when_the_runners_start_is_known_only_coarsely() {
    let precise = ProcessId { pid: 10, start: BootTime(1_234_567_890) };
    let coarse = ProcessId { pid: 10, start: BootTime(1_230_000_000) };
    let id = |runner| {
        let assigned = assign(&mut tracker(), "act", runner, &exec(&[]), BootTime(1));
        assigned.unwrap().membership.job.job_id.clone()
    };
    assert_eq!(id(precise), id(coarse));
    assert_eq!(id(precise).len(), 32);
}

#[test]
fn what_is_no_step_names_no_job() {
    let mut tracker = tracker();
    for missing in ["GITHUB_ACTIONS", "GITHUB_JOB", "GITHUB_RUN_ID"] {
        assert!(
            assign(&mut tracker, "act", RUNNER, &exec(&[(missing, "")]), BootTime(1)).is_none(),
            "{missing}"
        );
    }
    assert_eq!(tracker.running(), 0);
}

#[test]
fn a_runners_end_ends_its_jobs_and_no_others() {
    let other = ProcessId { pid: 11, ..RUNNER };
    let mut tracker = tracker();
    assign(&mut tracker, "act", RUNNER, &exec(&[]), BootTime(100)).unwrap();
    assign(&mut tracker, "act", other, &exec(&[]), BootTime(100)).unwrap();
    tracker.runner_ended(RUNNER, BootTime(150));
    let finished = tracker.take_ended(|_| true);
    assert_eq!(finished.len(), 1);
    assert_eq!(finished[0].summary.duration_ns, 50);
    assert_eq!(tracker.running(), 1);
}

#[test]
fn a_credential_variable_is_reported_once_for_each_step() {
    let mut tracker = tracker();
    let Assigned { membership, .. } = assign(&mut tracker, "act", RUNNER, &exec(&[]), BootTime(1)).unwrap();
    let state = tracker.get_mut(&membership.job.job_id).unwrap();
    let step = v1::Step { index: 1, ..v1::Step::default() };
    let names = || vec!["NPM_TOKEN".to_owned()];
    assert_eq!(state.unreported_variables(Some(&step), names()), names());
    assert_eq!(state.unreported_variables(Some(&step), names()), Vec::<String>::new());
    assert_eq!(state.unreported_variables(None, names()), names());
}

const GITEA: [(&str, &str); 1] = [("GITEA_ACTIONS", "true")];

/// A tracker with one job of a runner that goes on after it; what the runner started has ended at 50.
fn idle_job() -> (JobTracker, Exec) {
    let (mut tracker, exec) = (tracker(), exec(&GITEA));
    assign(&mut tracker, "gitea", RUNNER, &exec, BootTime(10)).unwrap();
    tracker.root_ended(ProcessId { pid: 100, start: BootTime(10) }, BootTime(50));
    (tracker, exec)
}

const PATIENCE: std::time::Duration = std::time::Duration::from_nanos(100);

#[test]
fn a_job_of_which_nothing_runs_is_over_after_a_while_and_ended_when_its_last_process_did() {
    let (mut tracker, _) = idle_job();
    tracker.end_idle(BootTime(149), PATIENCE, |_| false);
    assert!(!tracker.has_ending() && tracker.has_idle());
    tracker.end_idle(BootTime(150), PATIENCE, |_| false);
    let ended = tracker.take_ended(|_| true);
    assert_eq!((ended[0].time, ended[0].summary.duration_ns), (BootTime(50), 40));
    assert_eq!(tracker.running(), 0);
}

#[test]
fn a_job_that_starts_something_after_its_end_goes_on() {
    let (mut tracker, exec) = idle_job();
    tracker.end_idle(BootTime(150), PATIENCE, |_| false);
    tracker.take_ended(|_| true);
    for forgotten in [false, true] {
        if forgotten {
            tracker.forget_over(|_| false);
        }
        let assigned = assign(&mut tracker, "gitea", RUNNER, &exec, BootTime(200)).unwrap();
        assert!(assigned.begins.unwrap().continued);
        tracker.root_ended(ProcessId { pid: 100, start: BootTime(200) }, BootTime(210));
        tracker.end_idle(BootTime(400), PATIENCE, |_| false);
        assert_eq!(tracker.take_ended(|_| true).len(), 1);
    }
}

#[test]
fn a_job_goes_on_while_something_of_it_runs() {
    let (mut tracker, exec) = idle_job();
    assign(&mut tracker, "gitea", RUNNER, &exec, BootTime(60)).unwrap();
    tracker.end_idle(BootTime(1000), PATIENCE, |_| false);
    assert!(!tracker.has_ending() && !tracker.has_idle());
}

#[test]
fn another_job_in_its_slot_ends_a_job_at_once() {
    let build = |tag, executor| {
        exec(&[("BUILD_TAG", tag), ("JOB_NAME", tag), ("BUILD_NUMBER", "1"), ("EXECUTOR_NUMBER", executor)])
    };
    let mut tracker = tracker();
    for (tag, executor, time) in [("a", "0", 10), ("b", "1", 20), ("c", "0", 30)] {
        assign(&mut tracker, "jenkins", RUNNER, &build(tag, executor), BootTime(time)).unwrap();
    }
    let ended = tracker.take_ended(|_| true);
    assert_eq!(ended.iter().map(|ended| ended.job.name.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn what_an_earlier_process_could_not_say_is_learned_from_a_later_one() {
    let build = |commit| {
        exec(&[("BUILD_TAG", "t"), ("JOB_NAME", "j"), ("BUILD_NUMBER", "1"), ("GIT_COMMIT", commit)])
    };
    let mut tracker = tracker();
    let mut commit = |commit| {
        let assigned = assign(&mut tracker, "jenkins", RUNNER, &build(commit), BootTime(1)).unwrap();
        assigned.membership.job.sha.clone()
    };
    assert_eq!([commit(""), commit("abc"), commit("def")], ["", "abc", "abc"]);
}
