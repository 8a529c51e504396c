//! The index against the model: random events, scopes and questions. What the index answers must be what
//! [`Compiled::matches`] and [`Scope::allows`] say of the events one by one, also after some were removed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    time::UNIX_EPOCH,
};

use buildtrail_evidence::{
    batch::{self, Build, LossTotals, OpenedBatch, Sealer},
    id::BootId,
    key::HostKey,
    log::HostRecord,
};
use buildtrail_proto::{
    timestamp_from_unix_nanos, unix_nanos,
    v1::{
        AuditEvent, ConnectionClosed, CredentialUse, DnsLookup, Heartbeat, Job, JobFinished, Process,
        ProcessExec, SecretAccess, Step, audit_event::Body,
    },
};
use buildtrail_query::{Compiled, Field, Scope, parse};

use super::{aggregate::groups_of, *};

const HOUR: i128 = 3_600_000_000_000;
const START: i128 = 1_795_338_000_000_000_000;
const HISTORIES: u64 = 5;
const QUESTIONS: u64 = 16;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

const REPOSITORIES: [&str; 5] = ["acme/widgets", "acme/gadgets", "other/x", "ACME/widgets", ""];
const HOSTILE: [&str; 5] = ["<b>'\";--", "\0\u{1b}[31m", "a*b?\\c", "\u{202e}evil", "=cmd|' /C calc'!A0"];
const NAMES: [&str; 4] = ["a.example.com", "B.example.com", "cdn.example.net", "x"];

/// Few different values, so that questions meet them; some jobs are said to be of two repositories.
fn event(random: &mut Random) -> AuditEvent {
    let number = random.below(6);
    let job = (random.below(5) > 0).then(|| Job {
        job_id: format!("{number:032x}"),
        repository: random
            .of(&REPOSITORIES[..if number == 0 { 5 } else { 1 + usize::try_from(number).unwrap() % 4 }])
            .into(),
        workflow: random.of(&["ci", "release"]).into(),
        name: random.of(&["build", "test"]).into(),
        actor: format!("dev-{}", number % 3),
        ..Job::default()
    });
    let time = START + i128::from(random.below(60)) * HOUR / 10 + i128::from(random.below(3));
    AuditEvent {
        time: Some(timestamp_from_unix_nanos(time)),
        step: (random.below(2) > 0).then(|| Step {
            id: format!("s{}", random.below(3)),
            index: 1,
            ..Step::default()
        }),
        process: (random.below(4) > 0).then(|| Process {
            executable: random.of(&["/bin/sh", "/usr/bin/curl", HOSTILE[0]]).into(),
            uid: u32::try_from(random.below(3)).unwrap(),
            ..Process::default()
        }),
        job,
        body: Some(body(random)),
        ..AuditEvent::default()
    }
}

fn body(random: &mut Random) -> Body {
    match random.below(7) {
        0 | 1 => Body::SecretAccess(SecretAccess {
            secret: random.of(&["npm token", "AWS credentials", HOSTILE[1]]).into(),
            family: random.of(&["npm", "aws"]).into(),
            path: random.of(&["/home/.npmrc", "/root/.aws", HOSTILE[2]]).into(),
            ..SecretAccess::default()
        }),
        2 | 3 => Body::ConnectionClosed(ConnectionClosed {
            protocol: i32::try_from(1 + random.below(2)).unwrap(),
            remote_address: random.of(&["192.0.2.7", "192.0.3.8", "2001:db8::1"]).into(),
            remote_port: u32::try_from(random.below(3)).unwrap(),
            dns_names: (0..random.below(3)).map(|_| random.of(&NAMES).to_owned()).collect(),
            bytes_out: random.below(5000),
            bytes_in: random.below(5000),
            result: i32::try_from(random.below(4)).unwrap(),
            ..ConnectionClosed::default()
        }),
        4 => Body::ProcessExec(ProcessExec {
            filename: random.of(&["/bin/sh", HOSTILE[3]]).into(),
            argv: (0..random.below(3)).map(|_| random.of(&["-c", "curl", HOSTILE[4]]).to_owned()).collect(),
            ..ProcessExec::default()
        }),
        5 => match random.below(3) {
            0 => Body::DnsLookup(DnsLookup { name: random.of(&NAMES).into(), ..DnsLookup::default() }),
            1 => Body::CredentialUse(CredentialUse {
                kind: 1,
                name: "environment".into(),
                family: "aws".into(),
                ..CredentialUse::default()
            }),
            _ => Body::JobFinished(JobFinished::default()),
        },
        _ => Body::Heartbeat(Heartbeat::default()),
    }
}

const QUESTION: [&str; 34] = [
    "repo=acme/*",
    "repo=acme/widgets",
    "repo!=acme/widgets",
    "repo=\"\"",
    "secret~AWS",
    "secret=\"npm token\"",
    "secret!=\"npm token\"",
    "family=aws,npm",
    "kind=secret.access",
    "kind=connection.*,secret.access",
    "kind!=heartbeat",
    "dest=*.example.com",
    "dest=192.0.2.0/24",
    "dest=b.example.com",
    "dest!=a.example.com",
    "dest=\"\"",
    "address=192.0.3.8",
    "name~example",
    "port>=1",
    "port<=1",
    "bytes>=2k",
    "exe=/bin/*",
    "exe~CURL",
    "path=*/.npmrc",
    "argument=curl",
    "outcome=refused",
    "uid=1",
    "job=\"\"",
    "job=0000000000000000000000000000000",
    "job=build",
    "step=s1",
    "host=h2",
    "actor=dev-1,dev-2",
    "\"EVIL\"",
];

/// None to three conditions, and sometimes a time.
fn question(random: &mut Random) -> (String, Compiled) {
    let mut words: Vec<String> = (0..random.below(4)).map(|_| random.of(&QUESTION).to_owned()).collect();
    let mut time = |name: &str, random: &mut Random| {
        if random.below(3) == 0 {
            let nanos = START + i128::from(random.below(61)) * HOUR / 10 + i128::from(random.below(3));
            words.push(format!("{name}={}", jiff::Timestamp::from_nanosecond(nanos).unwrap()));
        }
    };
    time("since", random);
    time("until", random);
    let text = words.join(" ");
    let compiled = Compiled::new(&parse(&text).unwrap()).unwrap();
    (text, compiled)
}

fn scope(random: &mut Random) -> Scope {
    match random.below(4) {
        0 => Scope::Everything,
        1 => Scope::Repositories(vec![]),
        _ => Scope::Repositories(
            (0..=random.below(2))
                .map(|_| random.of(&["acme/*", "other/x", "*", "a*gadgets"]).parse().unwrap())
                .collect(),
        ),
    }
}

struct World {
    _directory: tempfile::TempDir,
    store: Store,
    model: Model,
    batches: u64,
}

/// All events, by record and place, as the index counts.
#[derive(Clone, Default)]
struct Model {
    events: BTreeMap<i64, AuditEvent>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("index.sqlite")).unwrap();
        let mut world = Self { _directory: directory, store, model: Model::default(), batches: 0 };
        let mut sealers = Vec::new();
        for (record, id) in ["h1", "h2"].into_iter().enumerate() {
            let key = HostKey::from_seed(&[u8::try_from(record).unwrap() + 1; 32]);
            let public_key = key.public().as_bytes().to_vec();
            let entry = ItemEntry::Host(HostRecord {
                host_id: id.into(),
                public_key: public_key.clone(),
                ..HostRecord::default()
            });
            world.store.apply(&[Item { record: RecordIndex(record as u64), entry }]).unwrap();
            let sealer = Sealer::new(HostId::parse(id).unwrap(), Build::default(), key, ChainHead::default());
            sealers.push((sealer, HostPublicKey::try_from(&public_key[..]).unwrap()));
        }
        for number in 0..8 + random.below(8) {
            let (sealer, key) = &mut sealers[usize::try_from(random.below(2)).unwrap()];
            let events = (0..=random.below(30)).map(|_| event(random)).collect();
            let made = sealer.seal(&BootId::parse("b1").unwrap(), events, LossTotals::default());
            world.add(number + 2, batch::open(&made.batch, key).unwrap());
        }
        world
    }

    fn add(&mut self, record: u64, batch: OpenedBatch) {
        for (place, event) in batch.events.iter().enumerate() {
            self.model.events.insert(apply::event_id(RecordIndex(record), place), event.clone());
        }
        self.batches = record + 1;
        self.store
            .apply(&[Item { record: RecordIndex(record), entry: ItemEntry::Batch(Box::new(batch)) }])
            .unwrap();
    }

    /// Removes the events of some records from log and index.
    fn thin(&mut self, random: &mut Random) {
        let first = RecordIndex(2 + random.below(self.batches - 2));
        let end = RecordIndex(first.0 + 1 + random.below(self.batches - first.0));
        let range = apply::event_id(first, 0)..apply::event_id(end, 0);
        self.model.events.retain(|id, _| !range.contains(id));
        let entry = ItemEntry::Thinned { first, end };
        self.store.apply(&[Item { record: RecordIndex(self.batches), entry }]).unwrap();
    }
}

impl Model {
    fn seen(&self, scope: &Scope, search: &Compiled) -> Vec<(Position, &AuditEvent)> {
        let time = |event: &AuditEvent| i64::try_from(unix_nanos(event.time.as_ref().unwrap())).unwrap();
        let all = self.events.iter().filter(|(_, event)| scope.allows(event) && search.matches(event));
        let mut seen: Vec<_> =
            all.map(|(row, event)| (Position { time: time(event), row: *row }, event)).collect();
        seen.sort_by_key(|(position, _)| *position);
        seen
    }
}

fn check_events(asked: &Asked, model: &Model, scope: &Scope, search: &Compiled, random: &mut Random) {
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let mut expected: Vec<&AuditEvent> =
            model.seen(scope, search).into_iter().map(|(_, event)| event).collect();
        if order == Order::NewestFirst {
            expected.reverse();
        }
        let bounds = Bounds {
            events: usize::try_from(1 + random.below(20)).unwrap(),
            bytes: usize::try_from(200 + random.below(5000)).unwrap(),
            looked_at: usize::try_from(20 + random.below(100)).unwrap(),
        };
        let (mut found, mut after) = (Vec::new(), None);
        for page in 0.. {
            assert!(page < 2000, "no end");
            let part = asked.search(scope, search, order, after, bounds).unwrap();
            assert!(part.events.len() <= bounds.events);
            found.extend(part.events);
            after = part.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{order:?}");
    }
}

fn check_numbers(asked: &Asked, model: &Model, scope: &Scope, search: &Compiled, random: &mut Random) {
    let fields = [
        Field::Secret,
        Field::Dest,
        Field::Kind,
        Field::Repo,
        Field::Job,
        Field::Family,
        Field::Exe,
        Field::Host,
        Field::Step,
        Field::Name,
        Field::Address,
        Field::Port,
        Field::Actor,
    ];
    let mut by = By { fields: Vec::new(), bucket: None };
    for _ in 0..random.below(3) {
        let field = fields[usize::try_from(random.below(fields.len() as u64)).unwrap()];
        if !by.fields.contains(&field) {
            by.fields.push(field);
        }
    }
    by.bucket = [None, Some(60_000_000_000), Some(3_600_000_000_000), Some(86_400_000_000_000)]
        [usize::try_from(random.below(4)).unwrap()];
    let mut expected: HashMap<Group, (u64, HashSet<_>, i64, i64, u64)> = HashMap::new();
    for (position, event) in model.seen(scope, search) {
        for group in groups_of(event, position.time, &by, search) {
            let known = expected.entry(group).or_insert_with(|| (0, HashSet::new(), i64::MAX, i64::MIN, 0));
            known.0 += 1;
            known.1.extend(event.job.as_ref().map(|job| (&event.host_id, &job.job_id, &job.repository)));
            known.2 = known.2.min(position.time);
            known.3 = known.3.max(position.time);
            known.4 += buildtrail_query::bytes(event).0;
        }
    }
    let counted = asked.aggregate(scope, search, &by, usize::MAX).unwrap();
    assert_eq!(counted.only_since, None);
    let as_expected =
        |tally: &Tally| (tally.events, tally.jobs.len(), tally.first, tally.last, tally.bytes_out);
    let found: BTreeMap<_, _> =
        counted.groups.iter().map(|(group, tally)| (group, as_expected(tally))).collect();
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(group, it)| (group, (it.0, it.1.len(), it.2, it.3, it.4))).collect();
    assert_eq!(found, expected, "{by:?}");
}

fn check_jobs(asked: &Asked, model: &Model, scope: &Scope, search: &Compiled, random: &mut Random) {
    let nothing = Compiled::new(&buildtrail_proto::v1::Search::default()).unwrap();
    let mut jobs: BTreeMap<(String, String, String), Vec<&AuditEvent>> = BTreeMap::new();
    for (position, event) in model.seen(scope, &nothing) {
        if let Some(job) = &event.job
            && (search.since()..search.until()).contains(&position.time)
        {
            let key = (event.host_id.clone(), job.job_id.clone(), job.repository.clone());
            jobs.entry(key).or_default().push(event);
        }
    }
    jobs.retain(|_, events| {
        search.conditions().iter().all(|condition| {
            let mut events = events.iter();
            if condition.is_negated() {
                events.all(|event| condition.matches(event))
            } else {
                events.any(|event| condition.matches(event))
            }
        })
    });
    let by = [JobKey::Started, JobKey::Duration, JobKey::Events, JobKey::BytesOut]
        [usize::try_from(random.below(4)).unwrap()];
    let order = JobOrder { by, descending: random.below(2) == 0 };
    let limit = usize::try_from(1 + random.below(5)).unwrap();
    let (mut found, mut after) = (Vec::new(), None);
    for page in 0.. {
        assert!(page < 500, "no end");
        let part = asked.jobs(scope, search, order, after, limit).unwrap();
        assert!(part.jobs.len() <= limit);
        found.extend(part.jobs);
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    let key = |job: &buildtrail_proto::v1::JobSummary| {
        let time = |time: &Option<buildtrail_proto::Timestamp>| unix_nanos(time.as_ref().unwrap());
        let key = match by {
            JobKey::Started => time(&job.first_event),
            JobKey::Duration => time(&job.last_event) - time(&job.first_event),
            JobKey::Events => i128::from(job.counts.values().sum::<u64>()),
            JobKey::BytesOut => i128::from(job.bytes_out),
        };
        if order.descending { -key } else { key }
    };
    assert!(found.is_sorted_by_key(key), "{order:?}");
    let names: HashSet<_> = found
        .iter()
        .map(|it| {
            let job = it.job.as_ref().unwrap();
            (it.host_id.clone(), job.job_id.clone(), job.repository.clone())
        })
        .collect();
    assert_eq!(names.len(), found.len(), "a job twice");
    assert_eq!(names, jobs.keys().cloned().collect::<HashSet<_>>(), "{order:?}");
    for job in &found {
        check_job(asked, model, scope, job);
    }
}

/// One job's numbers and its timeline hold all of its events, and none of another repository's job of the same id.
fn check_job(asked: &Asked, model: &Model, scope: &Scope, summary: &buildtrail_proto::v1::JobSummary) {
    let job = summary.job.as_ref().unwrap();
    let is_its = |event: &&AuditEvent| {
        event.host_id == summary.host_id
            && event.job.as_ref().is_some_and(|it| it.job_id == job.job_id && it.repository == job.repository)
    };
    let events: Vec<&AuditEvent> = model.events.values().filter(is_its).collect();
    let mut counts: HashMap<String, u64> = HashMap::new();
    for event in &events {
        *counts.entry(event.kind().to_owned()).or_default() += 1;
    }
    assert_eq!(summary.counts, counts);
    let first = events.iter().map(|event| unix_nanos(event.time.as_ref().unwrap())).min().unwrap();
    assert_eq!(unix_nanos(summary.first_event.as_ref().unwrap()), first);
    assert_eq!(summary.finished, counts.contains_key("job.finished"));
    if let Resolved::One(row) = asked.resolve(scope, &job.job_id).unwrap() {
        let bounds = Bounds { events: 10_000, bytes: usize::MAX, looked_at: usize::MAX };
        let (timeline, more) = asked.timeline(scope, row, "process.exec", bounds).unwrap();
        let shown = events.iter().filter(|event| event.kind() != "process.exec").count();
        assert_eq!((timeline.len(), more), (shown, false));
        let steps: u64 =
            asked.steps(scope, row, 1000).unwrap().iter().flat_map(|step| step.counts.values()).sum();
        assert_eq!(steps, events.iter().filter(|event| event.step.is_some()).count() as u64);
    }
}

/// No value in the index that no event has.
fn check_dictionary(asked: &Asked, model: &Model) {
    let mut told: HashSet<(i64, String)> = HashSet::new();
    for event in model.events.values() {
        told.extend(buildtrail_query::facts(event).into_iter().map(|fact| (fact.field as i64, fact.value)));
    }
    let mut statement = asked.raw().prepare("SELECT field, text FROM dictionary").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let known: HashSet<(i64, String)> = rows.map(Result::unwrap).collect();
    assert_eq!(known, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_answers_as_the_model_within_every_scope_and_after_removals() {
    let given = env::var("BUILDTRAIL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_secs());
    println!("seed {seed}; BUILDTRAIL_SEED={seed} uses it again");
    for history in 0..HISTORIES {
        let mut random = Random(seed.wrapping_add(history));
        let mut world = World::new(&mut random);
        for removal in 0..3 {
            if removal > 0 {
                world.thin(&mut random);
            }
            let reader = world.store.reader();
            let model = world.model.clone();
            let mut asking = Random(random.below(u64::MAX));
            reader
                .ask(Duration::from_mins(10), move |asked| {
                    check_dictionary(asked, &model);
                    for _ in 0..QUESTIONS {
                        let (text, search) = question(&mut asking);
                        let scope = scope(&mut asking);
                        println!("{scope} asks {text}");
                        check_events(asked, &model, &scope, &search, &mut asking);
                        check_numbers(asked, &model, &scope, &search, &mut asking);
                        check_jobs(asked, &model, &scope, &search, &mut asking);
                    }
                    Ok::<_, StoreError>(())
                })
                .await
                .unwrap();
        }
    }
}
