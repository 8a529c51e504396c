//! What one job writes and another uses.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    catalog::secret_paths::SecretPaths,
    config::Catalog,
    sensor::written::{Act, Version},
};

const SECOND: u32 = RUNNER + 50;
const SECOND_STEP: u32 = SECOND + 1;

/// Files, and a history whose first job can write them.
struct Host {
    directory: tempfile::TempDir,
    history: History,
}

impl Host {
    fn new() -> Self {
        let mut history = History::with_a_step();
        let no_more = Catalog { homes: Vec::new(), files: Vec::new() };
        history.pipeline = history.pipeline.with_secrets(SecretPaths::new(&no_more));
        Self { directory: tempfile::tempdir().unwrap(), history }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn act(&mut self, pid: u32, path: &Path, written: bool) {
        let act = Act {
            time: BootTime(self.history.clock),
            process: Who::Number { pid, alive: true },
            version: Version::of(&fs::metadata(path).unwrap()),
            path: path.as_os_str().as_bytes().to_vec(),
            written,
            read: !written,
        };
        self.history.pipeline.process(Batch { acts: vec![act], ..Batch::default() });
    }

    fn write(&mut self, pid: u32, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "content\n").unwrap();
        self.act(pid, &path, true);
        path
    }

    fn end_first_and_start_second_job(&mut self) {
        self.history.record(STEP, What::Exit { core_dumped: false });
        self.history.record(RUNNER, What::Exit { core_dumped: false });
        self.history.clock += JOB_END_GRACE;
        self.history.pipeline.tick(BootTime(self.history.clock), NO_LOSSES);
        self.history.exec(SECOND, 1, "/opt/runner/bin/Runner.Worker", &[]);
        self.history.fork(SECOND, SECOND_STEP);
        self.history.exec(SECOND_STEP, SECOND, "/bin/bash", &step_of("acme/second", "use"));
    }

    fn execute(&mut self, pid: u32, program: &Path, arguments: &[&Path]) {
        let file = FileId::of(&fs::metadata(program).unwrap());
        let exec = Exec {
            filename: program.as_os_str().as_bytes().to_vec(),
            arguments: [program]
                .iter()
                .chain(arguments)
                .map(|path| path.as_os_str().as_bytes().to_vec())
                .collect(),
            inode: file.inode,
            device: u32::try_from(file.device).unwrap(),
            ..Exec::default()
        };
        self.history.record(pid, What::Exec(Box::new(exec)));
    }

    fn contaminations(self) -> Vec<(v1::ContaminationUse, String, String, String)> {
        let events = self.history.finish();
        let of = |event: &AuditEvent| match &event.body {
            Some(Body::Contamination(found)) => Some((
                found.r#use(),
                found.path.rsplit('/').next().unwrap_or_default().to_owned(),
                found.writer.as_ref()?.repository.clone(),
                event.job.as_ref()?.repository.clone(),
            )),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}

fn told(how: v1::ContaminationUse, name: &str) -> (v1::ContaminationUse, String, String, String) {
    (how, name.to_owned(), "acme/widgets".to_owned(), "acme/second".to_owned())
}

#[test]
fn what_one_job_wrote_and_another_executes_reads_or_is_configured_by_is_told_with_both() {
    let mut host = Host::new();
    let program = host.write(STEP, "bin/tool");
    let script = host.write(STEP, "bin/run.sh");
    let settings = host.write(STEP, "home/.npmrc");
    let profile = host.write(STEP, "home/.bashrc");
    host.end_first_and_start_second_job();
    for _ in 0..2 {
        host.execute(SECOND_STEP, &program, &[]);
        host.execute(SECOND_STEP, Path::new("/bin/sh"), &[&script]);
        host.act(SECOND_STEP, &settings, false);
        host.act(SECOND_STEP, &profile, false);
    }
    assert_eq!(
        host.contaminations(),
        [
            told(v1::ContaminationUse::Executed, "tool"),
            told(v1::ContaminationUse::Sourced, "run.sh"),
            told(v1::ContaminationUse::Configuration, ".npmrc"),
            told(v1::ContaminationUse::Sourced, ".bashrc"),
        ]
    );
}

#[test]
fn a_jobs_own_files_and_those_that_others_wrote_since_are_no_contamination() {
    let mut host = Host::new();
    let own = host.write(STEP, "bin/own");
    host.execute(STEP, &own, &[]);
    let replaced = host.write(STEP, "home/.npmrc");
    let rewritten = host.write(STEP, "home/.bashrc");
    host.end_first_and_start_second_job();
    host.act(STRANGER, &replaced, true);
    host.act(SECOND_STEP, &rewritten, true);
    host.act(SECOND_STEP, &replaced, false);
    host.act(SECOND_STEP, &rewritten, false);
    host.act(STRANGER, &own, false);
    assert_eq!(host.contaminations(), []);
}

#[test]
fn credential_files_that_a_job_leaves_are_told_at_its_end() {
    let mut host = Host::new();
    let left = host.write(STEP, "home/.docker/config.json");
    let removed = host.write(STEP, "home/.netrc");
    fs::remove_file(removed).unwrap();
    host.end_first_and_start_second_job();
    let events = host.history.finish();
    let found: Vec<&v1::CredentialLeftBehind> = events
        .iter()
        .filter_map(|event| match &event.body {
            Some(Body::CredentialLeftBehind(found)) => Some(found),
            _ => None,
        })
        .collect();
    let [found] = found[..] else { panic!("{found:?}") };
    assert_eq!((found.path.as_str(), found.family.as_str()), (left.to_str().unwrap(), "docker"));
    assert_eq!(blamed(&events, "credential.left"), [("acme/widgets".to_owned(), String::new())]);
    let counts = events.iter().find_map(|event| match &event.body {
        Some(Body::JobFinished(finished)) => Some(finished.credentials_left),
        _ => None,
    });
    assert_eq!(counts, Some(1));
}

#[test]
fn a_copied_registration_is_an_attempt_to_be_a_runner() {
    let mut host = Host::new();
    host.write(STEP, "second-runner/.runner");
    host.write(STRANGER, "other/.runner");
    let events = host.history.finish();
    let spoofs: Vec<v1::SpoofKind> = events
        .iter()
        .filter_map(|event| match &event.body {
            Some(Body::IdentitySpoof(spoof)) => Some(spoof.kind()),
            _ => None,
        })
        .collect();
    assert_eq!(spoofs, [v1::SpoofKind::RunnerRegistration]);
}
