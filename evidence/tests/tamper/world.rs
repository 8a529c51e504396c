//! An honest history: two hosts, a job, the collector's acts; its log, tree, spool and a bundle of the job.

use std::{
    fs,
    path::{Path, PathBuf},
};

use buildtrail_evidence::{
    batch::{Build, ChainHead, LossTotals, Sealer, thin_events},
    bundle::Writer,
    id::{BootId, HostId},
    key::HostKey,
    log::{HostRecord, LogEntry, leaf_bytes},
    records::{Limits, RecordLog},
    tlog::{
        builder::TreeBuilder,
        note::{Checkpoint, KeyKind, NoteSigner, SignedCheckpoint},
        policy::Policy,
        tiles::Tiles,
    },
    verify::{self, HOST_KINDS, Paths, Question, Trust},
};
use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{
        AuditEvent, BundleHeader, BundleRecord, CollectorEntry, CollectorStarted, Heartbeat, Job,
        JobFinished, JobStarted, ReaderAsked, SecretAccess, SignedBatch, audit_event::Body,
        collector_entry::Act,
    },
};
use prost::Message as _;
use tempfile::TempDir;

/// 2026-11-22 09:00:00 UTC.
const NINE: i128 = 1_795_338_000_000_000_000;
const ORIGIN: &str = "collector.example/log";
const JOB: &str = "0aaa0000000000000000000000000001";
/// Small, so that a short history has several segments.
const LIMITS: Limits = Limits { max_record_bytes: 16 << 20, segment_bytes: 4096 };

/// What is tampered with.
pub(crate) struct World {
    directory: TempDir,
    /// The log's records, in order.
    pub(crate) records: Vec<Vec<u8>>,
    /// The spool's.
    pub(crate) spooled: Vec<Vec<u8>>,
    /// Another history, as long, signed with the same keys.
    pub(crate) forked: Vec<Vec<u8>>,
    pub(crate) bundle: Vec<u8>,
    trust: Trust,
}

pub(crate) fn log_key() -> NoteSigner {
    NoteSigner::new(ORIGIN, KeyKind::Log, HostKey::from_seed(&[1; 32])).unwrap()
}

fn witness_key() -> NoteSigner {
    NoteSigner::new("witness.example/w", KeyKind::Witness, HostKey::from_seed(&[2; 32])).unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = crate::scratch();
        let mut history = History::new(0);
        let records = history.make();
        let spool = history.spool();
        let forked = History::new(1).make();
        let policy = format!("log {}\nwitness w {}\nquorum w\n", log_key().public(), witness_key().public());
        let seen = build_tree(&records[..records.len() / 2], |_, _| {}).checkpoint().clone();
        let trust = Trust {
            log_key: Some(log_key().public().clone()),
            policy: Some(Policy::parse(&policy).unwrap()),
            seen: Some((seen, "the checkpoint that was seen before".into())),
        };
        let mut world = Self { directory, records, spooled: spool, forked, bundle: Vec::new(), trust };
        write_records(&world.path("log"), &world.records);
        write_tree(&world.path("tlog"), &world.records);
        write_records(&world.path("spool"), &world.spooled);
        world.bundle = bundle(&world.records, &world.path("tlog"));
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Problems of log and tree, of the spool, and of the bundle.
    pub(crate) fn verify_all(&self) -> [Vec<String>; 3] {
        [
            self.verify_log(&self.path("")),
            self.verify_spool(&self.path("spool")),
            self.verify_bundle(&self.bundle),
        ]
    }

    pub(crate) fn verify_log(&self, directory: &Path) -> Vec<String> {
        let paths = Paths { records: directory.join("log"), tree: Some(directory.join("tlog")) };
        match verify::verify_directory(&paths, &self.trust, Question::default()) {
            Ok(report) => report.problems,
            Err(error) => vec![error.to_string()],
        }
    }

    pub(crate) fn verify_spool(&self, directory: &Path) -> Vec<String> {
        let last = self.spooled.len() as u64;
        match verify::verify_spool(directory, &HostKey::from_seed(&[0x11; 32]).public(), Some(last)) {
            Ok(report) => report.problems,
            Err(error) => vec![error.to_string()],
        }
    }

    pub(crate) fn verify_bundle(&self, bytes: &[u8]) -> Vec<String> {
        match verify::verify_bundle(bytes, &self.trust) {
            Ok(found) => found.report.problems,
            Err(error) => vec![error.to_string()],
        }
    }
}

pub(crate) fn write_records(directory: &Path, records: &[Vec<u8>]) {
    let (mut log, _) = RecordLog::open(directory, LIMITS).unwrap();
    for group in records.chunks(3) {
        for record in group {
            log.append(record).unwrap();
        }
        log.sync().unwrap();
    }
}

/// The tree over the records' leaves, signed and cosigned; `file` gets every file of it.
fn build_tree(records: &[Vec<u8>], mut file: impl FnMut(&str, &[u8])) -> SignedCheckpoint {
    let (mut builder, mut full) = (TreeBuilder::default(), Vec::new());
    for record in records {
        builder.push(&leaf_bytes(record).unwrap(), &mut full).unwrap();
    }
    for made in full.iter().chain(&builder.partial()) {
        file(&made.path, &made.bytes);
    }
    let tree = Checkpoint { origin: ORIGIN.into(), size: builder.size(), root: builder.root() };
    let mut signed = tree.sign(&log_key()).unwrap();
    let line = witness_key().sign(signed.text().as_bytes(), 1_795_338_100).unwrap();
    assert!(signed.add(&line, witness_key().public()));
    signed
}

pub(crate) fn write_tree(directory: &Path, records: &[Vec<u8>]) {
    let write = |path: &str, bytes: &[u8]| {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let checkpoint = build_tree(records, write);
    write("checkpoint", checkpoint.note().as_bytes());
    write("witnessed", checkpoint.note().as_bytes());
    write("log.vkey", format!("{}\n", log_key().public()).as_bytes());
}

fn bundle(records: &[Vec<u8>], tree: &Path) -> Vec<u8> {
    let note = fs::read_to_string(tree.join("checkpoint")).unwrap();
    let checkpoint = SignedCheckpoint::open(note.as_bytes(), log_key().public()).unwrap();
    let header = BundleHeader {
        log_key: log_key().public().to_string(),
        job_id: JOB.into(),
        host_id: "host-1".into(),
        exported: Some(timestamp_from_unix_nanos(NINE)),
        exported_for: "auditor".into(),
        collector_version: "0.1.0".into(),
    };
    let mut writer = Writer::new(&header, &note).unwrap();
    for (index, record) in (0..).zip(records) {
        let record = match LogEntry::decode(record).unwrap() {
            LogEntry::Host(host) if host.host_id == "host-1" => record.clone(),
            LogEntry::Batch(batch) if host_of(&batch) == "host-1" => {
                let kept = |event: &AuditEvent| {
                    event.job.as_ref().map_or(HOST_KINDS.contains(&event.kind()), |job| job.job_id == JOB)
                };
                LogEntry::Batch(thin_events(&batch, kept).unwrap()).encode()
            }
            _ => continue,
        };
        let path = Tiles::new(tree).inclusion(checkpoint.checkpoint(), index).unwrap();
        let path = path.iter().flat_map(|hash| hash.0).collect();
        writer.record(&BundleRecord { index, record, path }).unwrap();
    }
    writer.finish(&log_key()).unwrap()
}

fn host_of(batch: &SignedBatch) -> String {
    buildtrail_evidence::batch::decode_header(&batch.header).unwrap().host_id
}

fn introduction(host_id: &str, seed: u8) -> HostRecord {
    let public_key = HostKey::from_seed(&[seed; 32]).public().as_bytes().to_vec();
    let spki = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let certificate = [b"FAKE certificate around a key: ", &spki[..], &public_key].concat();
    HostRecord { host_id: host_id.into(), name: host_id.into(), public_key, certificate }
}

/// Makes records; `variant` tells histories apart.
struct History {
    variant: u64,
    seconds: i128,
    hosts: [Sealer; 2],
}

impl History {
    fn new(variant: u64) -> Self {
        let sealer = |host: &str, seed: u8| {
            let key = HostKey::from_seed(&[seed; 32]);
            Sealer::new(HostId::parse(host).unwrap(), Build::default(), key, ChainHead::default())
        };
        Self { variant, seconds: 0, hosts: [sealer("host-1", 0x11), sealer("host-2", 0x22)] }
    }

    fn make(&mut self) -> Vec<Vec<u8>> {
        let mut records = vec![self.act(Act::CollectorStarted(CollectorStarted::default()))];
        records.push(LogEntry::Host(introduction("host-1", 0x11)).encode());
        records.push(LogEntry::Host(introduction("host-2", 0x22)).encode());
        for round in 0..12 {
            let job = (3..9).contains(&round).then_some(round);
            records.push(LogEntry::Batch(self.batch(0, job)).encode());
            if round % 2 == 0 {
                records.push(LogEntry::Batch(self.batch(1, None)).encode());
            }
            if round % 4 == 0 {
                let asked = ReaderAsked { reader: "auditor".into(), count: 1, ..Default::default() };
                records.push(self.act(Act::ReaderAsked(asked)));
            }
        }
        records
    }

    /// What host 1 has not sent yet, after all of its log's batches.
    fn spool(&mut self) -> Vec<Vec<u8>> {
        let fresh = &mut Self::new(self.variant);
        (0..10).map(|_| fresh.batch(0, None).encode_to_vec()).collect()
    }

    fn act(&mut self, act: Act) -> Vec<u8> {
        self.seconds += 1;
        let time = Some(timestamp_from_unix_nanos(NINE + self.seconds * 1_000_000_000));
        LogEntry::Collector(CollectorEntry { time, act: Some(act) }).encode()
    }

    fn batch(&mut self, host: usize, job: Option<u64>) -> SignedBatch {
        let mut events =
            vec![self.event(None, Body::Heartbeat(Heartbeat { running_jobs: 1, ..Default::default() }))];
        let secret =
            SecretAccess { secret: format!("AWS shared credentials {}", self.variant), ..Default::default() };
        events.push(self.event(None, Body::SecretAccess(secret.clone())));
        if let Some(round) = job {
            if round == 3 {
                events.push(self.event(Some(JOB), Body::JobStarted(JobStarted::default())));
            }
            events.push(self.event(Some(JOB), Body::SecretAccess(secret)));
            if round == 8 {
                let finished = JobFinished { secret_accesses: 6, ..Default::default() };
                events.push(self.event(Some(JOB), Body::JobFinished(finished)));
            }
        }
        self.hosts[host].seal(&BootId::parse("b1").unwrap(), events, LossTotals::default()).batch
    }

    fn event(&mut self, job: Option<&str>, body: Body) -> AuditEvent {
        self.seconds += 1;
        AuditEvent {
            time: Some(timestamp_from_unix_nanos(NINE + self.seconds * 1_000_000_000)),
            job: job.map(|job_id| Job { job_id: job_id.into(), ..Default::default() }),
            body: Some(body),
            ..Default::default()
        }
    }
}
