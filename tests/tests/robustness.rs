//! What a hostile job or a sudden stop must not break.
#![allow(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use std::time::Duration;

use buildtrail_proto::v1::{AuditEvent, audit_event::Body};
use buildtrail_tests::{
    agent::{Agent, Settings},
    events::{describe_all, finished_jobs, is_access_to},
    fakerunner::{self, Job, Plan},
    scene::make_home,
};

/// A newline, an ANSI escape, a byte that is not UTF-8, both quotes and a backslash: as bash writes it …
const HOSTILE_IN_BASH: &str = r#"$'a\nb\e[31mc\xffd"e\'f\\g'"#;
/// … and as an event must hold it (see the head of event.proto).
const HOSTILE_IN_EVENTS: &str = "a\nb\u{1b}[31mc\\xFFd\"e'f\\\\g";

#[test]
fn hostile_text_is_kept_and_every_line_stays_an_event() {
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let vault = home.join("vault");
    std::fs::create_dir(&vault).unwrap();
    let script = format!(
        r#"name={HOSTILE_IN_BASH}
echo FAKE-not-a-secret > "$HOME/vault/$name"
cat "$HOME/vault/$name" > /dev/null
long=$(printf 'L%.0s' {{1..4096}})
/bin/true marked "$name" "$long" $'\x01\x02' ''
cp /bin/sleep "$name"
"./$name" 0.31
mkdir "directory $name"
cd "directory $name"
sleep 0.32
"#
    );
    let settings = Settings::new(directory.path(), &home).with(&format!(
        "[[catalog.files]]\nname = \"vault\"\nfamily = \"vault\"\npath = \"{}/*\"\n",
        vault.display()
    ));
    let agent = Agent::start_with_json(&settings).unwrap();
    let plan = Plan { at_once: 1, jobs: vec![Job::new("acme/hostile", "1", "hostile", &script)] };
    let mut runner = fakerunner::start(directory.path(), &home, &plan).unwrap();
    assert!(runner.wait(Duration::from_secs(30)).unwrap().success(), "{}", runner.tail(20));
    agent
        .wait_for("the job's end", Duration::from_secs(20), |events| finished_jobs(events).count() == 1)
        .unwrap();
    // Reading the output fails on any line that is not an event.
    let (_, events) = agent.stop().unwrap();

    let (event, argv) = exec_with(&events, "marked");
    assert_eq!(argv[2], HOSTILE_IN_EVENTS);
    assert!(event.text_escaped);
    assert!(argv.get(3).is_some_and(|long| long.len() == 4096) || event.truncated, "{argv:?}");
    let (event, _) = exec_with(&events, "0.31");
    let executable = &event.process.as_ref().unwrap().executable;
    assert!(executable.ends_with(&format!("/{HOSTILE_IN_EVENTS}")), "{executable:?}");
    let (event, _) = exec_with(&events, "0.32");
    let Some(Body::ProcessExec(exec)) = &event.body else { unreachable!() };
    assert!(exec.working_directory.ends_with(&format!("directory {HOSTILE_IN_EVENTS}")), "{exec:?}");
    let path = format!("{}/{HOSTILE_IN_EVENTS}", vault.display());
    assert!(
        events.iter().any(|event| is_access_to(event, &path)),
        "no access to {path:?} in:\n{}",
        describe_all(&events)
    );
}

/// The execution that has `word` among its arguments.
fn exec_with<'a>(events: &'a [AuditEvent], word: &str) -> (&'a AuditEvent, &'a [String]) {
    let mut found = events.iter().filter_map(|event| match &event.body {
        Some(Body::ProcessExec(exec)) if exec.argv.iter().any(|argument| argument == word) => {
            Some((event, exec.argv.as_slice()))
        }
        _ => None,
    });
    found.next().unwrap_or_else(|| panic!("no execution with {word:?} in:\n{}", describe_all(events)))
}

#[test]
fn stopping_the_agent_loses_nothing_that_was_captured() {
    const READS: usize = 100;
    let directory = tempfile::tempdir().unwrap();
    let home = make_home(directory.path()).unwrap();
    let agent = Agent::start_with_json(&Settings::new(directory.path(), &home)).unwrap();
    let script = format!("for i in $(seq {READS}); do cat \"$HOME/.npmrc\" > /dev/null; done\n");
    let plan = Plan { at_once: 1, jobs: vec![Job::new("acme/stop", "1", "reads", &script)] };
    let mut runner = fakerunner::start(directory.path(), &home, &plan).unwrap();
    assert!(runner.wait(Duration::from_secs(30)).unwrap().success(), "{}", runner.tail(20));
    // At once: what the kernel side holds is still to be read.
    let (status, events) = agent.stop().unwrap();

    assert_eq!(status.code(), Some(0));
    let npmrc = home.join(".npmrc").display().to_string();
    assert_eq!(events.iter().filter(|event| is_access_to(event, &npmrc)).count(), READS);
    assert_eq!(finished_jobs(&events).count(), 1, "the end of the job was captured before the stop");
}
