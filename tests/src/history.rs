//! A day on a few build hosts, made up: for pages and questions that need more than one job has to tell.
//!
//! In: the time at which it is over. Out: events by host, oldest first, as agents would have reported them. Names are
//! invented, addresses are from the ranges for documentation; the same time gives the same day.

use buildtrail_proto::{
    Timestamp, timestamp_from_unix_nanos, unix_nanos,
    v1::{
        Assurance, AuditEvent, ConnectionClosed, ConnectionOpened, ConnectionResult, Coverage,
        CredentialKind, CredentialUse, DnsLookup, FileWay, Heartbeat, HookCoverage, Job, JobFinished,
        JobStarted, MemoryAccess, MemoryMethod, Operation, Process, ProcessExec, Protocol, SecretAccess,
        Step, Tier, audit_event::Body,
    },
};

/// The runner, of which every job's shells are children.
const RUNNER_PID: u32 = 3999;
const SECOND: i128 = 1_000_000_000;

/// A workflow that runs now and then.
struct Workflow {
    repository: &'static str,
    name: &'static str,
    job: &'static str,
    steps: &'static [(&'static str, &'static [Doing])],
}

/// What a step does.
#[derive(Clone, Copy)]
enum Doing {
    Run(&'static [&'static str]),
    Read(&'static str, &'static str, &'static str),
    Use(&'static str, &'static str, CredentialKind),
    Connect(&'static str, &'static str, u64, u64),
    Spy,
}
use Doing::{Connect, Read, Run, Spy, Use};

const CHECKOUT: (&str, &[Doing]) = (
    "Check out",
    &[
        Run(&["git", "clone", "--depth=1", "https://git.example.test/acme"]),
        Use("git credential helper", "git", CredentialKind::Command),
        Connect("git.example.test", "192.0.2.10", 5_120, 4_810_233),
    ],
);

const WORKFLOWS: [Workflow; 5] = [
    Workflow {
        repository: "acme/widgets",
        name: "build",
        job: "test",
        steps: &[
            CHECKOUT,
            (
                "Install",
                &[
                    Run(&["npm", "ci"]),
                    Read("npm token", "npm", "/home/ci/.npmrc"),
                    Connect("registry.example.test", "192.0.2.20", 18_400, 48_200_119),
                ],
            ),
            (
                "Test",
                &[
                    Run(&["node", "--test", "test/"]),
                    Run(&["make", "-j4", "check"]),
                    Run(&["gcc", "-O2", "-c", "widget.c"]),
                ],
            ),
        ],
    },
    Workflow {
        repository: "acme/widgets",
        name: "release",
        job: "publish",
        steps: &[
            CHECKOUT,
            ("Build", &[Run(&["make", "release"]), Run(&["gcc", "-O2", "widget.c"])]),
            (
                "Sign",
                &[
                    Run(&["ssh-keygen", "-Y", "sign", "-f", "release"]),
                    Use("ssh-agent", "ssh", CredentialKind::AgentSocket),
                    Read("SSH private key", "ssh", "/home/ci/.ssh/id_release"),
                ],
            ),
            (
                "Publish",
                &[
                    Run(&["aws", "s3", "cp", "dist/", "s3://widgets.example/"]),
                    Read("AWS shared credentials", "aws", "/home/ci/.aws/credentials"),
                    Use("AWS instance metadata", "aws", CredentialKind::MetadataService),
                    Connect("s3.example.test", "198.51.100.7", 91_844_221, 31_022),
                ],
            ),
        ],
    },
    Workflow {
        repository: "acme/api",
        name: "ci",
        job: "build",
        steps: &[
            CHECKOUT,
            (
                "Build image",
                &[
                    Run(&["docker", "build", "-t", "registry.example.test/api", "."]),
                    Read("Docker registry login", "docker", "/home/ci/.docker/config.json"),
                    Connect("registry.example.test", "192.0.2.20", 220_100_000, 1_840_000),
                ],
            ),
        ],
    },
    Workflow {
        repository: "octo/site",
        name: "deploy",
        job: "pages",
        steps: &[
            CHECKOUT,
            ("Render", &[Run(&["hugo", "--minify"])]),
            (
                "Upload",
                &[
                    Run(&["rsync", "-a", "public/", "web.example.test:/srv"]),
                    Read("SSH private key", "ssh", "/home/ci/.ssh/id_deploy"),
                    Connect("web.example.test", "203.0.113.80", 9_400_000, 12_500),
                ],
            ),
        ],
    },
    Workflow {
        repository: "acme/widgets",
        name: "build",
        job: "test",
        steps: &[
            CHECKOUT,
            (
                "Install",
                &[
                    Run(&["npm", "ci"]),
                    Read("npm token", "npm", "/home/ci/.npmrc"),
                    Connect("registry.example.test", "192.0.2.20", 18_400, 48_200_119),
                ],
            ),
            (
                "Test",
                &[
                    Run(&["node", "postinstall.js"]),
                    Read("AWS shared credentials", "aws", "/home/ci/.aws/credentials"),
                    Read("Git credentials", "git", "/home/ci/.git-credentials"),
                    Spy,
                    Connect("cdn-telemetry.example", "203.0.113.66", 14_541, 220),
                ],
            ),
        ],
    },
];

/// Which workflow runs when: minutes before the end, newest last. The last one is the incident.
const RUNS: [(u32, usize); 22] = [
    (2900, 0),
    (2800, 2),
    (2600, 1),
    (2300, 3),
    (1900, 0),
    (1800, 2),
    (1400, 0),
    (1290, 0),
    (1210, 2),
    (1100, 3),
    (980, 0),
    (905, 2),
    (790, 1),
    (640, 0),
    (520, 2),
    (410, 0),
    (333, 3),
    (250, 2),
    (160, 0),
    (95, 2),
    (31, 0),
    (12, 4),
];

/// A host's part of the day.
#[derive(Debug, Default)]
pub struct HostDay {
    /// In the order in which they happened.
    pub events: Vec<AuditEvent>,
}

/// Two hosts' days, over at `end`; their events carry no host, boot or sequence yet.
#[must_use]
pub fn day(end: &Timestamp) -> [HostDay; 2] {
    let end = unix_nanos(end);
    let mut days = [HostDay::default(), HostDay::default()];
    for (index, day) in days.iter_mut().enumerate() {
        day.events.push(event(end - 3000 * 60 * SECOND, Body::Coverage(coverage(index))));
    }
    for (number, (minutes, workflow)) in RUNS.into_iter().enumerate() {
        let start = end - i128::from(minutes) * 60 * SECOND;
        let run = Performance::new(number, &WORKFLOWS[workflow], start);
        days[number % 2].events.extend(run.events());
    }
    for day in &mut days {
        day.events.push(event(
            end - 5 * SECOND,
            Body::Heartbeat(Heartbeat { events_captured: 48_211, running_jobs: 0, ..Heartbeat::default() }),
        ));
        day.events.sort_by_key(|event| event.time.as_ref().map(unix_nanos));
    }
    days
}

fn coverage(host: usize) -> Coverage {
    let hook = |hook: &str, tier: Tier, detail: &str| HookCoverage {
        hook: hook.into(),
        tier: tier.into(),
        detail: detail.into(),
    };
    let tier = if host == 0 { Tier::A } else { Tier::B };
    Coverage {
        kernel_release: if host == 0 { "6.12.57+deb13-amd64" } else { "6.1.0-42-amd64" }.into(),
        agent_version: "0.1.0".into(),
        hooks: vec![
            hook("exec", tier, "fentry/security_bprm_committed_creds"),
            hook("connect", tier, "fentry/security_socket_connect"),
            hook("secret files", Tier::B, "fanotify inode marks"),
            hook(
                "XDP sockets",
                if host == 0 { Tier::A } else { Tier::None },
                if host == 0 { "fentry/xsk_bind" } else { "the kernel has no such function" },
            ),
        ],
        gaps: if host == 0 {
            vec![]
        } else {
            vec!["Which path a container's process used to reach a secret.".into(), "AF_XDP sockets.".into()]
        },
    }
}

fn event(nanos: i128, body: Body) -> AuditEvent {
    let boot = u64::try_from(nanos.rem_euclid(1 << 50)).unwrap_or_default();
    AuditEvent {
        time: Some(timestamp_from_unix_nanos(nanos)),
        boot_time_ns: boot,
        body: Some(body),
        ..AuditEvent::default()
    }
}

/// One run of a workflow.
struct Performance<'a> {
    workflow: &'a Workflow,
    job: Job,
    now: i128,
    pid: u32,
    shell: Process,
    made: Vec<AuditEvent>,
}

impl<'a> Performance<'a> {
    fn new(number: usize, workflow: &'a Workflow, start: i128) -> Self {
        let actors = ["octavia", "rasheed", "mei", "release-bot"];
        let job = Job {
            job_id: format!(
                "{:032x}",
                0x0b5e_0000_0000_0000_0000_0000_0000_0000_u128 + (number as u128 + 1) * 0x1_0305_0709_0b0d
            ),
            platform: "github-actions".into(),
            server: "https://ci.example.test".into(),
            repository: workflow.repository.into(),
            workflow: workflow.name.into(),
            run_id: (70_410 + number).to_string(),
            run_attempt: "1".into(),
            name: workflow.job.into(),
            actor: actors[number % actors.len()].into(),
            r#ref: if workflow.name == "release" { "refs/tags/v2.4.1" } else { "refs/heads/main" }.into(),
            sha: format!("{:040x}", (number as u128 + 3) * 0x00c0_ffee_1234_5678_9abc_def0),
            trigger: if number.is_multiple_of(3) { "pull_request" } else { "push" }.into(),
            runner_name: format!("runner-{}", number % 2 + 1),
            assurance: Assurance::Observed.into(),
            ..Job::default()
        };
        let pid = 4000 + u32::try_from(number).unwrap_or_default() * 100;
        Self { workflow, job, now: start, pid, shell: Process::default(), made: Vec::new() }
    }

    fn events(mut self) -> Vec<AuditEvent> {
        let start = self.now;
        self.add(None, None, Body::JobStarted(JobStarted::default()));
        for (index, (name, doings)) in self.workflow.steps.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or_default() + 1;
            let step = Step { id: format!("__run_{index}"), index, name: (*name).into(), ..Step::default() };
            self.step(&step, doings);
        }
        self.pass(400);
        let count = |kind: &str| self.made.iter().filter(|event| event.kind() == kind).count() as u64;
        let finished = JobFinished {
            duration_ns: u64::try_from(self.now - start).unwrap_or_default(),
            processes: count("process.exec"),
            secret_accesses: count("secret.access"),
            credential_uses: count("credential.use"),
            connections: count("connection.opened"),
            dns_lookups: count("dns.lookup"),
            ..JobFinished::default()
        };
        self.add(None, None, Body::JobFinished(finished));
        self.made
    }

    fn step(&mut self, step: &Step, doings: &[Doing]) {
        self.pass(900);
        self.shell = self.process("/usr/bin/bash", RUNNER_PID);
        let shell = self.shell.clone();
        self.exec(step, &shell, &["bash", "-e", &format!("/home/ci/work/_temp/{}.sh", step.id)]);
        let mut last = shell;
        for doing in doings {
            self.pass(700 + i128::from(step.index) * 430);
            last = self.doing(step, last, *doing);
        }
    }

    fn doing(&mut self, step: &Step, last: Process, doing: Doing) -> Process {
        match doing {
            Run(argv) => {
                let process =
                    self.process(&format!("/usr/bin/{}", argv.first().unwrap_or(&"true")), self.shell.pid);
                self.exec(step, &process, argv);
                return process;
            }
            Read(secret, family, path) => {
                let access = SecretAccess {
                    secret: secret.into(),
                    family: family.into(),
                    path: path.into(),
                    job_path: path.into(),
                    operations: vec![Operation::Open.into(), Operation::Read.into()],
                    way: FileWay::Open.into(),
                    ..SecretAccess::default()
                };
                self.add(Some(step), Some(&last), Body::SecretAccess(access));
            }
            Use(name, family, kind) => {
                let used = CredentialUse {
                    kind: kind.into(),
                    name: name.into(),
                    family: family.into(),
                    ..CredentialUse::default()
                };
                self.add(Some(step), Some(&last), Body::CredentialUse(used));
            }
            Connect(name, address, out, into) => self.connect(step, &last, (name, address), (out, into)),
            Spy => {
                let target = Process {
                    pid: RUNNER_PID,
                    executable: "/opt/runner/bin/Runner.Worker".into(),
                    ..Process::default()
                };
                let access = MemoryAccess {
                    method: MemoryMethod::ProcMem.into(),
                    target: Some(target),
                    target_is_runner: true,
                    ..MemoryAccess::default()
                };
                self.add(Some(step), Some(&last), Body::MemoryAccess(access));
            }
        }
        last
    }

    fn connect(&mut self, step: &Step, by: &Process, (name, address): (&str, &str), bytes: (u64, u64)) {
        let lookup = DnsLookup {
            name: name.into(),
            r#type: "A".into(),
            answers: vec![address.into()],
            resolver: "192.0.2.53".into(),
            response_code: "NOERROR".into(),
        };
        self.add(Some(step), Some(by), Body::DnsLookup(lookup));
        self.pass(12);
        let socket = u64::from(self.pid);
        let opened = ConnectionOpened {
            protocol: Protocol::Tcp.into(),
            remote_address: address.into(),
            remote_port: 443,
            dns_names: vec![name.into()],
            socket,
            ..ConnectionOpened::default()
        };
        self.add(Some(step), Some(by), Body::ConnectionOpened(opened));
        self.pass(1800);
        let closed = ConnectionClosed {
            protocol: Protocol::Tcp.into(),
            remote_address: address.into(),
            remote_port: 443,
            dns_names: vec![name.into()],
            socket,
            result: ConnectionResult::Closed.into(),
            bytes_out: bytes.0,
            bytes_in: bytes.1,
            duration_ns: 1_800_000_000,
            tls_server_name: name.into(),
            ..ConnectionClosed::default()
        };
        self.add(Some(step), Some(by), Body::ConnectionClosed(closed));
    }

    fn exec(&mut self, step: &Step, process: &Process, argv: &[&str]) {
        let exec = ProcessExec {
            filename: process.executable.clone(),
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            working_directory: "/home/ci/work".into(),
            ..ProcessExec::default()
        };
        self.add(Some(step), Some(process), Body::ProcessExec(exec));
    }

    fn process(&mut self, executable: &str, parent_pid: u32) -> Process {
        self.pid += 1;
        let start = u64::try_from(self.now.rem_euclid(1 << 50)).unwrap_or_default();
        Process {
            pid: self.pid,
            start_boot_time_ns: start,
            parent_pid,
            executable: executable.into(),
            uid: 1001,
            effective_uid: 1001,
            container: String::new(),
        }
    }

    fn pass(&mut self, milliseconds: i128) {
        self.now += milliseconds * 1_000_000;
    }

    fn add(&mut self, step: Option<&Step>, process: Option<&Process>, body: Body) {
        self.now += 1_000_000;
        let made = event(self.now, body);
        self.made.push(AuditEvent {
            job: Some(self.job.clone()),
            step: step.cloned(),
            process: process.cloned(),
            ..made
        });
    }
}
