//! Who asks, what the engine does, and whose it is.

use std::{fs, path::PathBuf};

use super::*;

const SECOND: u64 = 1_000_000_000;
/// Of a container and its process, as its engine names them.
const ID: &str = "0123456789abcdef0123456789abcdef";

struct Host {
    containers: Containers,
    files: tempfile::TempDir,
    now: BootTime,
}

fn id(pid: u32) -> ProcessId {
    ProcessId { pid, start: BootTime(u64::from(pid)) }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn job(name: &str) -> Party {
    Party::Job(Membership::for_test(name))
}

impl Host {
    fn new() -> Self {
        Self {
            containers: Containers::default(),
            files: tempfile::tempdir().unwrap(),
            now: BootTime(100 * SECOND),
        }
    }

    /// A client that only root can write, or another program that talks to the engine, with its command line.
    fn asks(&mut self, pid: u32, party: Party, line: &str, trusted: bool) {
        let program = self.files.path().join(line.split(' ').next().unwrap());
        fs::write(&program, "").unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&program).unwrap());
        let exec = Exec { arguments: words(line), inode, ..Exec::default() };
        let executable = program.into_os_string().into_encoded_bytes();
        self.containers.note_client(id(pid), &executable, &exec, false);
        if let Some((client, _)) = self.containers.clients.get_mut(&id(pid)) {
            // Files of the test belong to whoever runs it.
            client.trusted = trusted;
        }
        self.containers.connected(id(pid), party, &executable, Vec::new());
    }

    fn describe(&self, name: &str, image: &str, command: &str, labels: &str) -> PathBuf {
        let directory = self.files.path().join("containers").join(ID);
        fs::create_dir_all(&directory).unwrap();
        let command = command.replace(' ', "\", \"");
        fs::write(
            directory.join("config.v2.json"),
            format!("{{\"Name\": \"/{name}\", \"Config\": {{\"Image\": \"{image}\", \"Cmd\": [\"{command}\"], \"Labels\": {{{labels}}}}}}}"),
        )
        .unwrap();
        let hostname = format!("/containers/{ID}/hostname");
        fs::write(
            directory.join("config.json"),
            format!("{{\"process\": {{\"cwd\": \"/builds\"}}, \"mounts\": [{{\"destination\": \"/etc/hostname\", \"type\": \"bind\", \"source\": \"{hostname}\"}}]}}"),
        )
        .unwrap();
        PathBuf::from(format!("/containers/{ID}"))
    }

    fn begins(&mut self, bundle: Option<PathBuf>) -> Entered {
        let call = Call { id: ID.to_owned(), begins: true, bundle, caller: 1, staged: true };
        self.containers.enter(Rc::new(call), self.files.path(), &[], self.now)
    }

    fn executes(&mut self, line: &str) -> Entered {
        let call = Call { id: ID.to_owned(), begins: false, bundle: None, caller: 1, staged: true };
        self.containers.enter(Rc::new(call), self.files.path(), &words(line), self.now)
    }
}

#[test]
fn the_program_behind_the_runtimes_two_stages_is_the_containers() {
    let mut containers = Containers::default();
    let exec = |line: &str| Exec { arguments: words(line), ..Exec::default() };
    let runc = b"/usr/sbin/runc";
    assert_eq!(containers.exec(id(1), runc, &exec(&format!("runc create --bundle /b {ID}"))), None);
    containers.fork(id(1), id(2));
    assert_eq!(containers.exec(id(2), b"/memfd:runc_cloned", &exec("runc init")), None);
    containers.fork(id(2), id(3));
    containers.fork(id(1), id(4));
    assert_eq!(containers.exec(id(4), b"/usr/bin/hook", &exec("hook")), None, "a hook runs on the host");
    let call = containers.exec(id(3), b"/bin/sh", &exec("sh")).unwrap();
    assert_eq!((call.id.as_str(), call.begins), (ID, true));
    assert_eq!(containers.exec(id(3), b"/bin/ls", &exec("ls")), None, "once");
    for pid in 1..=4 {
        containers.exit(id(pid), BootTime(9));
    }
    assert_eq!(containers.remembered(), 0);
}

#[test]
fn the_only_job_that_talks_to_an_engine_has_its_container() {
    let mut host = Host::new();
    host.asks(10, job("a"), "python", false);
    let entered = host.begins(None);
    assert_eq!((entered.party, entered.by_the_job_itself), (job("a"), true));
    assert_eq!(host.executes("sh").party, job("a"), "and whatever is started in it");
}

#[test]
fn a_container_of_one_job_cannot_be_claimed_by_another() {
    let mut host = Host::new();
    host.asks(10, job("a"), "docker run --name mine img", true);
    let bundle = host.describe("mine", "img", "sleep 9", "");
    assert_eq!(host.begins(Some(bundle.clone())).party, job("a"));
    host.asks(11, job("b"), &format!("docker start {ID}"), true);
    assert_eq!(host.begins(Some(bundle)).party, job("a"), "started again by another");
    host.asks(12, job("b"), "curl", false);
    assert_eq!(host.executes("sh").party, job("a"));
}

#[test]
fn a_process_that_another_job_starts_in_a_container_is_that_jobs() {
    let mut host = Host::new();
    host.asks(10, job("a"), "docker run --name mine img", true);
    let bundle = host.describe("mine", "img", "sleep 9", "");
    host.begins(Some(bundle));
    host.asks(11, job("b"), "docker exec mine cat /key", true);
    let entered = host.executes("cat /key");
    assert_eq!((entered.party, entered.by_the_job_itself), (job("b"), true));
}

#[test]
fn two_clients_at_once_get_what_each_asked_for() {
    let mut host = Host::new();
    host.asks(10, job("a"), "docker run img sleep 9", true);
    host.asks(11, job("b"), "docker run img sleep 8", true);
    let bundle = host.describe("random_name", "img", "sleep 8", "");
    assert_eq!(host.begins(Some(bundle)).party, job("b"));
}

#[test]
fn what_two_jobs_can_have_asked_for_is_nobodys_and_both_are_told_of() {
    let mut host = Host::new();
    host.asks(10, job("a"), "python", false);
    host.asks(11, job("b"), "python", false);
    let bundle = host.describe("x", "img", "sleep 9", "");
    let entered = host.begins(Some(bundle));
    assert_eq!((entered.party, entered.undecided.len()), (Party::Outside, 2));
}

#[test]
fn a_jobs_own_program_called_docker_names_nothing() {
    let mut host = Host::new();
    host.asks(10, job("a"), "python", false);
    host.asks(11, job("b"), "docker run --name mine img", false);
    let bundle = host.describe("mine", "img", "sleep 9", "");
    let entered = host.begins(Some(bundle));
    assert_eq!((entered.party, entered.undecided.len()), (Party::Outside, 2));
}

#[test]
fn labels_of_a_runner_do_not_hide_who_asked() {
    let mut host = Host::new();
    host.asks(5, Party::Runner(id(5)), "gitlab-runner", false);
    host.asks(10, job("a"), "docker run --label com.gitlab.gitlab-runner.job.id=7 img sleep 9", true);
    let bundle = host.describe("x", "img", "sleep 9", "\"com.gitlab.gitlab-runner.job.id\": \"7\"");
    let entered = host.begins(Some(bundle));
    assert_ne!(entered.party, Party::Runner(id(5)));
    assert_eq!(entered.undecided.len(), 1, "the job is told of");
}

#[test]
fn between_a_runner_and_others_outside_jobs_the_runners_labels_decide() {
    let mut host = Host::new();
    host.asks(5, Party::Runner(id(5)), "gitlab-runner", false);
    host.asks(6, Party::Outside, "monitor", false);
    let bundle = host.describe("x", "img", "sleep 9", "\"com.gitlab.gitlab-runner.job.id\": \"7\"");
    assert_eq!(host.begins(Some(bundle)).party, Party::Runner(id(5)));
}

#[test]
fn of_two_runners_the_one_that_works_there_has_it() {
    let mut host = Host::new();
    for (pid, place) in [(5, "/elsewhere"), (6, "/builds")] {
        host.containers.connected(
            id(pid),
            Party::Runner(id(pid)),
            b"/usr/bin/act",
            place.as_bytes().to_vec(),
        );
    }
    let bundle = host.describe("x", "img", "sleep 9", "");
    assert_eq!(host.begins(Some(bundle)).party, Party::Runner(id(6)));
}

#[test]
fn the_step_is_the_clients() {
    let mut host = Host::new();
    let step = |name: &str| {
        let Party::Job(membership) = job("a") else { unreachable!() };
        let step = buildtrail_proto::v1::Step { id: name.to_owned(), ..Default::default() };
        Party::Job(Membership { step: Some(Rc::new(step)), ..membership })
    };
    host.asks(10, job("a"), &format!("docker start {ID}"), true);
    host.begins(None);
    host.asks(11, step("build"), &format!("docker exec {ID} sh -e one"), true);
    host.asks(12, step("test"), &format!("docker exec {ID} sh -e two"), true);
    assert_eq!(host.executes("sh -e two").party, step("test"));
    assert_eq!(host.executes("sh -e one").party, step("build"));
    assert_eq!(host.executes("sh -e one").party, job("a"), "a client asks once");
}

#[test]
fn a_request_is_forgotten_some_time_after_whoever_made_it() {
    let mut host = Host::new();
    host.asks(10, job("a"), "curl", false);
    host.containers.exit(id(10), host.now);
    host.now = BootTime(host.now.0 + REQUEST_MEMORY - 1);
    let mut early =
        Host { containers: Containers::default(), files: tempfile::tempdir().unwrap(), now: host.now };
    std::mem::swap(&mut early.containers.requests, &mut host.containers.requests);
    assert_eq!(early.begins(None).party, job("a"));
    early.now = BootTime(early.now.0 + 2);
    early.containers.known.clear();
    assert_eq!(early.begins(None).party, Party::Outside);
    early.containers.sweep(early.now);
    early.containers.known.clear();
    assert_eq!(early.containers.remembered(), 0);
}

#[test]
fn a_job_that_ended_leaves_nothing_behind() {
    let mut host = Host::new();
    host.asks(10, job("a"), "curl", false);
    host.begins(None);
    host.containers.exit(id(10), host.now);
    host.containers.end_job("a");
    assert_eq!(host.containers.remembered(), 0);
}
