//! What an evidence bundle proves about its job.

use std::collections::BTreeMap;

use buildtrail_proto::v1::{
    AuditEvent, BatchHeader, BundleHeader, BundleRecord, Job, JobFinished, SignedBatch, audit_event::Body,
};

use super::{
    Report, Trust,
    examine::Facts,
    host::{Beginning, HostReport, HostWalk},
    span::Span,
    text::{counted, printable, time_span},
};
use crate::{
    batch,
    bundle::{Bundle, BundleError},
    digest::Digest,
    id::HostId,
    log::{HostRecord, LogEntry, leaf_bytes},
    merkle::leaf_hash,
    records::RecordIndex,
    tlog::{
        note::{Checkpoint, NoteKey},
        proof::check_inclusion,
    },
};

/// Events about the host that stand in every bundle: whether it saw everything.
pub const HOST_KINDS: [&str; 3] = ["loss", "coverage", "heartbeat"];

/// A verified bundle: what it proves, and the job's events in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct BundleReport {
    /// One host at most, its statement about the job.
    pub report: Report,
    /// Which job, which log, when and for whom.
    pub header: BundleHeader,
    /// Events of the job that are proven.
    pub events: Vec<AuditEvent>,
    /// Header of the last batch that holds one of them: which agent saw them.
    pub last_batch: Option<BatchHeader>,
}

/// Verifies a bundle from nothing but its bytes and what the verifier believes.
///
/// # Errors
/// The bytes are no bundle at all. A damaged one is no error: it is in the report.
pub fn verify_bundle(bytes: &[u8], trust: &Trust) -> Result<BundleReport, BundleError> {
    let mut walk = Walk::default();
    match Bundle::read(bytes) {
        Ok(bundle) => walk.bundle(&bundle, trust),
        Err(BundleError::NotABundle) => return Err(BundleError::NotABundle),
        Err(error) => walk.problems.push(sentence(&error.to_string())),
    }
    Ok(walk.finish())
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(characters).chain(['.']).collect()
}

#[derive(Default)]
struct Walk {
    problems: Vec<String>,
    notes: Vec<String>,
    host: Option<(HostId, HostWalk)>,
    job: JobFacts,
}

impl Walk {
    fn bundle(&mut self, bundle: &Bundle, trust: &Trust) {
        let shown: NoteKey = match bundle.header.log_key.parse() {
            Ok(key) => key,
            Err(error) => {
                return self.problems.push(format!("The log's key in the bundle is damaged: {error}."));
            }
        };
        let checkpoint = match trust.open(&bundle.checkpoint, Some(&shown)) {
            Ok(checkpoint) => checkpoint,
            Err(problem) => return self.problems.push(problem),
        };
        if !bundle.is_signed_by(&shown) {
            self.problems.push("The bundle was altered: it is not what the log's key has signed.".into());
        }
        trust.judge(&checkpoint, &mut self.notes, &mut self.problems);
        self.check_seen(checkpoint.checkpoint(), trust);
        self.job.header = bundle.header.clone();
        for record in &bundle.records {
            if let Err(what) = self.record(record, checkpoint.checkpoint()) {
                self.problems.push(format!("Record {}: {what}.", record.index));
            }
        }
    }

    /// Two trees of one size must be the same; of two sizes a bundle proves nothing.
    fn check_seen(&mut self, tree: &Checkpoint, trust: &Trust) {
        let Some((seen, source)) = &trust.seen else { return };
        if seen.size != tree.size {
            self.notes.push(format!(
                "The bundle's tree has {} records, that of {source} {}: whether one continues the other is for \
                 `buildtrail verify` to ask the collector.",
                tree.size, seen.size
            ));
        } else if seen.root != tree.root {
            self.problems
                .push(format!("The bundle is of another history than {source}: the log was forked."));
        }
    }

    fn record(&mut self, record: &BundleRecord, tree: &Checkpoint) -> Result<(), String> {
        let leaf = leaf_bytes(&record.record).map_err(|error| error.to_string())?;
        let path = path(&record.path).ok_or("its proof is malformed")?;
        check_inclusion(leaf_hash(&leaf), record.index, &path, tree).map_err(|error| error.to_string())?;
        match LogEntry::decode(&record.record).map_err(|error| error.to_string())? {
            LogEntry::Host(host) => self.host(&host),
            LogEntry::Batch(batch) => self.batch(RecordIndex(record.index), &batch),
            LogEntry::Collector(_) => Ok(()),
        }
    }

    fn host(&mut self, record: &HostRecord) -> Result<(), String> {
        let host_id = HostId::parse(&record.host_id).map_err(|error| error.to_string())?;
        if self.host.is_some() || record.host_id != self.job.header.host_id {
            return Err("it introduces a host that the job did not run on".into());
        }
        if !record.key_is_in_certificate() {
            return Err(format!("the key of host {host_id} is not the one in its certificate"));
        }
        let walk = HostWalk::new(record, Span::default(), Beginning::Anywhere);
        self.host = Some((host_id, walk.map_err(|error| error.to_string())?));
        Ok(())
    }

    fn batch(&mut self, index: RecordIndex, signed: &SignedBatch) -> Result<(), String> {
        let (_, host) =
            self.host.as_mut().ok_or("a batch of a host whose key is not in the bundle before it")?;
        let facts = Facts::of(signed, &host.key, &Span::default()).map_err(|error| {
            host.refuse();
            error.to_string()
        })?;
        host.batch(index, &facts)?;
        let opened = batch::open(signed, &host.key).map_err(|error| error.to_string())?;
        for event in opened.events {
            self.job.event(event)?;
        }
        self.job.last_batch = Some(opened.header);
        Ok(())
    }

    fn finish(mut self) -> BundleReport {
        let (kept, withheld) =
            (self.job.events.len() as u64, self.host.as_ref().map_or(0, |(_, host)| host.withheld()));
        let mut hosts = Vec::new();
        if let Some((host_id, host)) = self.host {
            hosts.push(self.job.report(host.excerpt_report(&host_id)));
        } else if self.problems.is_empty() {
            self.problems.push("The bundle holds nothing about its job.".into());
        }
        self.notes.push(format!(
            "{} of the job; {} of others stand in the bundle as hashes.",
            counted(kept, "event"),
            counted(withheld, "event")
        ));
        let report = Report {
            batches: hosts.iter().map(|host| host.batches).sum(),
            events: hosts.iter().map(|host| host.events).sum(),
            hosts,
            problems: self.problems,
            notes: self.notes,
        };
        let JobFacts { header, events, last_batch, .. } = self.job;
        BundleReport { report, header, events, last_batch }
    }
}

fn path(bytes: &[u8]) -> Option<Vec<Digest>> {
    let hashes = bytes.chunks(32).map(|hash| Digest::try_from(hash).ok());
    hashes.collect()
}

/// The bundle's job, from its proven events.
#[derive(Default)]
struct JobFacts {
    header: BundleHeader,
    job: Option<Job>,
    started: bool,
    finished: Option<JobFinished>,
    counts: BTreeMap<&'static str, u64>,
    last_batch: Option<BatchHeader>,
    events: Vec<AuditEvent>,
}

impl JobFacts {
    fn event(&mut self, event: AuditEvent) -> Result<(), String> {
        let Some(job) = &event.job else {
            // Losses and heartbeats belong to the host.
            let known = HOST_KINDS.contains(&event.kind());
            return if known { Ok(()) } else { Err("it holds an event outside the job".into()) };
        };
        if job.job_id != self.header.job_id {
            return Err("it holds an event of another job".into());
        }
        self.job.get_or_insert_with(|| job.clone());
        match &event.body {
            Some(Body::JobStarted(_)) => self.started = true,
            Some(Body::JobFinished(finished)) => self.finished = Some(*finished),
            _ => {}
        }
        *self.counts.entry(event.kind()).or_default() += 1;
        self.events.push(event);
        Ok(())
    }

    /// What the agent counted while the job ran, and is not here.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.started {
            missing.push("the job's start".to_owned());
        }
        let Some(finished) = &self.finished else {
            missing.push("the job's end: it still ran, or its end is not in the log".to_owned());
            return missing;
        };
        for (kind, counted) in [
            ("process.exec", finished.processes),
            ("secret.access", finished.secret_accesses),
            ("credential.use", finished.credential_uses),
            ("connection.opened", finished.connections),
            ("dns.lookup", finished.dns_lookups),
        ] {
            let here = self.counts.get(kind).copied().unwrap_or_default();
            if here < counted {
                missing.push(format!("{} of {counted} {kind} that the agent counted", counted - here));
            }
        }
        missing
    }

    /// The host's report as one about the job.
    fn report(&self, host: HostReport) -> HostReport {
        let mut gaps = host.gaps;
        gaps.extend(self.missing());
        let complete = gaps.is_empty() && host.batches > 0;
        let what = match &self.job {
            Some(job) => printable(&format!("{} ({} {})", self.header.job_id, job.repository, job.workflow)),
            None => printable(&self.header.job_id),
        };
        let span = match (
            self.events.first().and_then(|event| event.time),
            self.events.last().and_then(|event| event.time),
        ) {
            (Some(first), Some(last)) => time_span(&first, &last),
            _ => "no events".into(),
        };
        let verdict = if complete { "complete from its start to its end" } else { "INCOMPLETE" };
        let events = self.events.len() as u64;
        let mut statement = format!(
            "job {what} on {}: {span}: {verdict}, {events} events, {} lost on the host meanwhile",
            host.name, host.lost
        );
        if !gaps.is_empty() {
            statement.push_str("; missing: ");
            statement.push_str(&gaps.join("; "));
        }
        HostReport { events, gaps, complete, statement, ..host }
    }
}
