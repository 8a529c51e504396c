//! A month of jobs, the same each time.

use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{
        AuditEvent, ConnectionClosed, ConnectionOpened, CredentialUse, DnsLookup, Heartbeat, Job,
        JobFinished, JobStarted, Process, ProcessExec, SecretAccess, Step, audit_event::Body,
    },
};

/// 2026-11-22 00:00:00 UTC: the end of the month.
pub(crate) const END: i128 = 1_795_305_600;
pub(crate) const HOSTS: u64 = 20;
pub(crate) const REPOSITORIES: u64 = 300;
/// Events of a job, about.
const EVENTS: u64 = 500;
const MONTH: u64 = 30 * 86_400;
const FAMILIES: [&str; 6] = ["aws", "npm", "ssh", "docker", "git", "kubernetes"];
const PROGRAMS: [&str; 12] =
    ["bash", "node", "cargo", "rustc", "cc1plus", "ld", "git", "curl", "tar", "python3", "docker", "make"];

/// How many events there are to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    pub(crate) events: u64,
}

/// The same numbers for the same key (`SplitMix64`).
pub(crate) fn mix(key: u64) -> u64 {
    let mut mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl History {
    pub(crate) fn new(events: u64) -> Self {
        Self { events }
    }

    pub(crate) fn of_host(self) -> u64 {
        self.events / HOSTS
    }

    /// Seconds since 1970 of a host's event.
    fn second(self, number: u64) -> u64 {
        let end = u64::try_from(END).unwrap();
        // Beyond the month it goes on at 1,000 events a second for each host.
        if number >= self.of_host() {
            return end + (number - self.of_host()) / 1000;
        }
        end - MONTH + number * MONTH / self.of_host().max(1)
    }

    /// A host's event.
    pub(crate) fn event(self, host: u64, number: u64) -> AuditEvent {
        let (job, place) = (number / EVENTS, number % EVENTS);
        let seed = mix(host << 40 | job);
        let random = mix(seed ^ number << 1);
        let nanos = i128::from(self.second(number)) * 1_000_000_000 + i128::from(random % 1_000_000_000);
        let mut event = AuditEvent {
            time: Some(timestamp_from_unix_nanos(nanos)),
            boot_time_ns: number * 1_000_000,
            body: Some(body(seed, place, random)),
            ..AuditEvent::default()
        };
        if !matches!(event.body, Some(Body::Heartbeat(_))) {
            let program = PROGRAMS[usize::try_from(random >> 8).unwrap() % PROGRAMS.len()];
            event.job = Some(identity(seed));
            event.step = (place > 0).then(|| Step {
                id: format!("__run_{}", place * 8 / EVENTS),
                index: u32::try_from(place * 8 / EVENTS + 1).unwrap(),
                name: "Build and test".into(),
                ..Step::default()
            });
            event.process = Some(Process {
                pid: u32::try_from(random % 30_000).unwrap(),
                start_boot_time_ns: number,
                parent_pid: 4000,
                executable: format!("/usr/bin/{program}"),
                uid: 1001,
                effective_uid: 1001,
                ..Process::default()
            });
        }
        event
    }
}

/// Few repositories have most of the jobs.
fn repository(seed: u64) -> u64 {
    let even = seed % (REPOSITORIES * REPOSITORIES);
    REPOSITORIES - 1 - even.isqrt()
}

fn identity(seed: u64) -> Job {
    let repository = repository(seed);
    Job {
        job_id: format!("{seed:016x}{:016x}", mix(seed)),
        platform: "github-actions".into(),
        server: "https://github.example".into(),
        repository: format!("org-{}/service-{repository}", repository % 12),
        workflow: [".github/workflows/ci.yml", ".github/workflows/release.yml"]
            [usize::try_from(seed % 2).unwrap()]
        .into(),
        run_id: (seed % 10_000_000_000).to_string(),
        run_attempt: "1".into(),
        name: ["build", "test", "publish"][usize::try_from(seed % 3).unwrap()].into(),
        actor: format!("dev-{}", seed % 120),
        r#ref: "refs/heads/main".into(),
        sha: format!("{:016x}{seed:016x}", mix(seed ^ 7)),
        trigger: "push".into(),
        runner_name: format!("runner-{}", seed % 40),
        ..Job::default()
    }
}

/// What a job does: programs, now and then secrets and connections.
fn body(seed: u64, place: u64, random: u64) -> Body {
    let small = |bound: u64| random / 7 % bound;
    match place {
        0 => Body::JobStarted(JobStarted::default()),
        499 => Body::JobFinished(JobFinished { processes: 400, ..JobFinished::default() }),
        250 => Body::Heartbeat(Heartbeat { events_captured: random, ..Heartbeat::default() }),
        _ => match random % 100 {
            0..2 => secret(mix(seed ^ small(4)) % 60),
            2 => Body::CredentialUse(CredentialUse {
                kind: 1,
                name: "environment".into(),
                family: FAMILIES[usize::try_from(small(6)).unwrap()].into(),
                variables: vec!["NPM_TOKEN".into()],
                ..CredentialUse::default()
            }),
            3..10 => connection(repository(seed), small(12), random),
            10..13 => Body::DnsLookup(DnsLookup {
                name: destination(repository(seed), small(12)),
                r#type: "A".into(),
                answers: vec!["192.0.2.7".into()],
                resolver: "127.0.0.53".into(),
                response_code: "NOERROR".into(),
            }),
            _ => Body::ProcessExec(ProcessExec {
                filename: format!("/usr/bin/{}", PROGRAMS[usize::try_from(small(12)).unwrap()]),
                argv: vec!["cc1plus".into(), "-O2".into(), format!("src/module_{}.rs", small(400))],
                working_directory: "/home/runner/work/service/service".into(),
                inode: small(5000),
                ..ProcessExec::default()
            }),
        },
    }
}

fn secret(number: u64) -> Body {
    let family = FAMILIES[usize::try_from(number % 6).unwrap()];
    Body::SecretAccess(SecretAccess {
        secret: format!("{family} credentials {number}"),
        family: family.into(),
        path: format!("/home/runner/.{family}/credentials-{number}"),
        inode: number,
        way: 1,
        operations: vec![1, 2],
        ..SecretAccess::default()
    })
}

/// Most jobs go where others of their repository go, and all to a few places.
fn destination(repository: u64, number: u64) -> String {
    if number < 6 {
        format!("cdn-{number}.example.com")
    } else {
        format!("api-{number}.service-{repository}.example.net")
    }
}

fn connection(repository: u64, number: u64, random: u64) -> Body {
    let address = format!("198.51.{}.{}", repository % 200, number);
    let dns_names = vec![destination(repository, number)];
    if random.is_multiple_of(2) {
        return Body::ConnectionOpened(ConnectionOpened {
            protocol: 1,
            remote_address: address,
            remote_port: 443,
            dns_names,
            socket: random,
            ..ConnectionOpened::default()
        });
    }
    Body::ConnectionClosed(ConnectionClosed {
        protocol: 1,
        remote_address: address,
        remote_port: 443,
        dns_names,
        socket: random,
        result: 1,
        bytes_out: random % 20_000,
        bytes_in: random % 2_000_000,
        ..ConnectionClosed::default()
    })
}
