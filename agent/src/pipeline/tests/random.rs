//! Random histories of a host: whatever is forked, executed, ended and numbered anew, nothing is blamed on the wrong job.
//!
//! A model beside the pipeline knows who is who, because it made everybody. `BUILDTRAIL_SEED` repeats a run.

use std::collections::{BTreeMap, HashMap};

use super::*;

const HISTORIES: u64 = 6;
const ACTS: u32 = 6000;
/// Few, so that numbers are used again and again.
const NUMBERS: u64 = 70;

/// The same numbers for the same seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// Repository and step, as events would have them.
type Blame = (String, String);

/// What a process is, in truth.
#[derive(Clone, Debug, PartialEq)]
enum Truth {
    Stranger,
    /// With its own number among the runners.
    Runner(u32),
    /// A runner made it or its ancestor, and nobody has said for which job. Only what the runner itself made is asked, and
    /// only when it executes its first program.
    Unnamed {
        runner: u32,
        may_say: bool,
    },
    Member(Blame),
}

#[derive(Clone, Debug)]
struct Modelled {
    id: ProcessId,
    truth: Truth,
}

struct World {
    random: Random,
    history: History,
    live: Vec<Modelled>,
    /// Jobs that each live runner has begun.
    jobs: HashMap<u32, Vec<String>>,
    runners: u32,
    connections: u32,
    expected: BTreeMap<u32, Blame>,
}

impl World {
    fn new(seed: u64) -> Self {
        let history = History::new();
        let clock = history.clock;
        let mut world = Self {
            random: Random(seed),
            history,
            live: Vec::new(),
            jobs: HashMap::new(),
            runners: 0,
            connections: 0,
            expected: BTreeMap::new(),
        };
        // Everybody's ancestor, whose number is used once.
        let first = ProcessId { pid: RUNNER - 1, start: BootTime(clock + 1) };
        world.tell(ProcessId { pid: 1, start: BootTime(0) }, What::Fork { child: first, parent_pid: 1 });
        world.live.push(Modelled { id: first, truth: Truth::Stranger });
        world
    }

    fn tell(&mut self, process: ProcessId, what: What) {
        // Never a multiple of what /proc can tell.
        self.history.clock += 1_000_003;
        let time = BootTime(self.history.clock);
        let record = Record { time, process, users: Users::default(), what };
        self.history.pipeline.process(Batch { records: vec![record], ..Batch::default() });
    }

    fn pick(&mut self) -> usize {
        usize::try_from(self.random.below(self.live.len() as u64)).unwrap()
    }

    fn act(&mut self) {
        match self.random.below(100) {
            0..40 => self.fork(),
            40..60 => self.exec(),
            60..64 => self.begin_runner(),
            64..84 => self.exit(),
            _ => self.connect(),
        }
        if self.random.below(20) == 0 {
            self.history.clock += JOB_END_GRACE;
            self.history.pipeline.tick(BootTime(self.history.clock), NO_LOSSES);
        }
    }

    fn fork(&mut self) {
        let number = RUNNER + u32::try_from(self.random.below(NUMBERS)).unwrap();
        if self.live.iter().any(|process| process.id.pid == number) {
            return;
        }
        let creator = self.pick();
        let creator = self.live[creator].clone();
        let child = ProcessId { pid: number, start: BootTime(self.history.clock + 1) };
        // As after a double fork, or CLONE_PARENT.
        let parent = if self.random.below(3) == 0 { 1 } else { creator.id.pid };
        self.tell(creator.id, What::Fork { child, parent_pid: parent });
        let truth = match creator.truth {
            Truth::Runner(runner) => Truth::Unnamed { runner, may_say: true },
            Truth::Unnamed { runner, .. } => Truth::Unnamed { runner, may_say: false },
            other => other,
        };
        self.live.push(Modelled { id: child, truth });
    }

    fn execute(&mut self, id: ProcessId, path: &str, environment: &[(&str, &str)]) {
        let variable = |(name, value): &(&str, &str)| Variable {
            name: name.as_bytes().to_vec(),
            value: Some(value.as_bytes().to_vec()),
        };
        let exec = Exec {
            filename: path.as_bytes().to_vec(),
            variables: environment.iter().map(variable).collect(),
            parent_pid: 1,
            ..Exec::default()
        };
        self.tell(id, What::Exec(Box::new(exec)));
    }

    /// Strangers get a job's environment as well, and jobs' processes one of another job.
    fn exec(&mut self) {
        let index = self.pick();
        let Modelled { id, truth } = self.live[index].clone();
        let repository = match &truth {
            Truth::Unnamed { runner, .. } => format!("acme/{runner}-{}", self.random.below(2)),
            _ => "other/repo".to_owned(),
        };
        let step = format!("step-{}", self.random.below(4));
        let names_a_job = self.random.below(3) > 0;
        match truth {
            Truth::Runner(_) => {}
            Truth::Unnamed { runner, may_say: true } if names_a_job => {
                self.execute(id, "/bin/bash", &step_of(&repository, &step));
                let jobs = self.jobs.entry(runner).or_default();
                if !jobs.contains(&repository) {
                    jobs.push(repository.clone());
                }
                self.live[index].truth = Truth::Member((repository, step));
            }
            Truth::Unnamed { runner, .. } => {
                let given = step_of(&repository, &step);
                self.execute(id, "/usr/bin/git", if names_a_job { &given } else { &[] });
                self.live[index].truth = match self.jobs.get(&runner).map(Vec::as_slice) {
                    Some([only]) => Truth::Member((only.clone(), String::new())),
                    _ => Truth::Unnamed { runner, may_say: false },
                };
            }
            Truth::Stranger | Truth::Member(_) => {
                self.execute(id, "/bin/bash", &step_of(&repository, &step));
            }
        }
    }

    /// Or what looks like one, in a job.
    fn begin_runner(&mut self) {
        let index = self.pick();
        let Modelled { id, truth } = self.live[index].clone();
        if id.pid == RUNNER - 1 || matches!(truth, Truth::Runner(_) | Truth::Unnamed { .. }) {
            return;
        }
        self.execute(id, "/opt/runner/Runner.Worker", &[]);
        if truth == Truth::Stranger {
            self.runners += 1;
            self.live[index].truth = Truth::Runner(self.runners);
        }
    }

    fn exit(&mut self) {
        let index = self.pick();
        if self.live[index].id.pid == RUNNER - 1 {
            return;
        }
        let Modelled { id, truth } = self.live.swap_remove(index);
        self.tell(id, What::Exit { core_dumped: false });
        if let Truth::Runner(runner) = truth {
            // Until its jobs are over, children that it left could still be named: the model does not go into that.
            self.jobs.remove(&runner);
            self.live.retain(
                |process| !matches!(process.truth, Truth::Unnamed { runner: of, .. } if of == runner),
            );
            self.history.clock += JOB_END_GRACE;
            self.history.pipeline.tick(BootTime(self.history.clock), NO_LOSSES);
        }
    }

    fn connect(&mut self) {
        let index = self.pick();
        let Modelled { id, truth } = self.live[index].clone();
        self.connections += 1;
        let connect = Connect {
            address: std::net::Ipv4Addr::from_bits(0x0a00_0000 + self.connections).into(),
            socket: SocketId(u64::from(self.connections)),
            ..connection(443)
        };
        self.tell(id, What::Connect(connect));
        if let Truth::Member(blame) = truth {
            self.expected.insert(self.connections, blame);
        }
    }
}

fn found(events: &[AuditEvent]) -> BTreeMap<u32, Blame> {
    let connection = |event: &AuditEvent| match &event.body {
        Some(Body::ConnectionOpened(opened)) => {
            let address: std::net::Ipv4Addr = opened.remote_address.parse().unwrap();
            let repository = event.job.as_ref().map(|job| job.repository.clone()).unwrap_or_default();
            let step = event.step.as_ref().map(|step| step.id.clone()).unwrap_or_default();
            Some((address.to_bits() - 0x0a00_0000, (repository, step)))
        }
        _ => None,
    };
    events.iter().filter_map(connection).collect()
}

#[test]
fn no_history_puts_an_event_on_a_wrong_job() {
    let given = std::env::var("BUILDTRAIL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
    println!("seed {seed}");
    for history in 0..HISTORIES {
        let mut world = World::new(seed.wrapping_mul(1000).wrapping_add(history));
        (0..ACTS).for_each(|_| world.act());
        let expected = std::mem::take(&mut world.expected);
        assert!(expected.len() > 100 && world.runners > 10, "too little happened to say anything");
        let sizes = world.history.pipeline.processes.sizes();
        assert!(
            sizes.1 < 20_000 && world.history.pipeline.jobs.over() < 100,
            "what has ended is forgotten: {sizes:?}"
        );
        assert_eq!(found(&world.history.finish()), expected, "history {history} of seed {seed}");
    }
}
