//! Walks a collector's log and says, host by host, what it proves.
//!
//! In: a log's records, from the collector's disk, a copy of it or a stream; its checkpoint and the files of its tree; a
//! checkpoint that was seen before. Out: a [`Report`] with every problem in a sentence.
//! Must never stop at the first problem, and never call something complete that it did not check event by event.
//! What it cannot see: records behind the newest checkpoint that were cut off, and whether a certificate was issued by
//! the right authority.

mod bundle;
mod directory;
mod examine;
mod host;
mod span;
mod spool;
mod text;
mod tree;

use std::{collections::BTreeMap, num::NonZero, path::Path, thread};

use buildtrail_proto::v1::{CollectorEntry, HostVerification, VerifyResponse, collector_entry::Act};

pub use bundle::{BundleReport, HOST_KINDS, verify_bundle};
pub use directory::{Paths, Trust, verify_directory};
use examine::{Content, Examined, Facts, Keys, Raw};
pub use host::HostReport;
use host::{Beginning, HostWalk, Statement};
pub use span::Span;
pub use spool::verify_spool;
pub use tree::Expected;
use tree::TreeWalk;

use crate::{
    digest::Digest,
    id::HostId,
    log::HostRecord,
    records::{Entry, Limits, Quarantined, Reader, RecordIndex, RecordsError},
    tlog::note::SignedCheckpoint,
};

/// Most problems that are spelled out; further ones are counted.
const MAX_PROBLEMS: usize = 1000;
/// Records are examined together until they have this many bytes …
const MAX_WAITING_BYTES: usize = 16 << 20;
/// … or are this many.
const MAX_WAITING: usize = 1024;

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The host reports are about this span of time. Everything is verified all the same.
    pub span: Span,
    /// Only this host is reported, by id or name.
    pub host: Option<String>,
}

/// What a log proves.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// One entry per host, by host id.
    pub hosts: Vec<HostReport>,
    /// What makes the log not intact, each in one sentence. Empty: intact.
    pub problems: Vec<String>,
    /// What else is worth knowing, each in one sentence.
    pub notes: Vec<String>,
    /// Intact batches of the reported hosts.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
}

impl Report {
    /// Nothing in the log was altered, damaged or taken out.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.problems.is_empty()
    }

    /// Every reported host is complete and has lost nothing.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.hosts.iter().all(|host| host.complete && host.lost == 0)
    }

    /// The report as the Verify call returns it.
    #[must_use]
    pub fn to_response(&self) -> VerifyResponse {
        VerifyResponse {
            hosts: self.hosts.iter().map(HostVerification::from).collect(),
            problems: self.problems.clone(),
            notes: self.notes.clone(),
            batches: self.batches,
            events: self.events,
        }
    }
}

/// Verifies every record of the log in `directory`, as it is on disk now, without its tree.
///
/// Memory is bounded by the records that are examined together and the number of hosts. While a collector writes to
/// the log, the last record may look unfinished; ask the collector itself then ([`verify_up_to`]).
///
/// # Errors
/// The directory or a file in it cannot be read. Damage is no error: it is in the report.
pub fn verify(directory: &Path) -> Result<Report, RecordsError> {
    let reader = Reader::whole(directory, Limits::default().max_record_bytes)?;
    walk(reader, Verifier::new(Question::default(), Vec::new(), None))
}

/// Verifies the records before `end`: for the process that writes the log and knows where it ends.
///
/// # Errors
/// As [`verify`].
pub fn verify_up_to(directory: &Path, end: RecordIndex) -> Result<Report, RecordsError> {
    let reader = Reader::up_to(directory, Limits::default().max_record_bytes, RecordIndex(0), end)?;
    walk(reader, Verifier::new(Question::default(), Vec::new(), None))
}

fn walk(reader: Reader, mut verifier: Verifier) -> Result<Report, RecordsError> {
    for entry in reader {
        match entry? {
            Entry::Record { index, payload } => verifier.record(index, payload),
            Entry::Quarantined(range) => verifier.quarantined(&range),
        }
    }
    Ok(verifier.finish())
}

/// Takes a log's records in their order.
pub struct Verifier {
    question: Question,
    threads: usize,
    hosts: BTreeMap<HostId, HostWalk>,
    keys: Keys,
    statements: Vec<Statement>,
    problems: Problems,
    tree: TreeWalk,
    /// Size of the newest tree to compare with.
    proven: u64,
    notes: Vec<String>,
    waiting: Vec<Raw>,
    waiting_bytes: usize,
    seen_any: bool,
}

impl Verifier {
    /// A verifier of a log that must begin with the `expected` trees; `tree_directory` holds the files of its tree.
    #[must_use]
    pub fn new(question: Question, expected: Vec<Expected>, tree_directory: Option<&Path>) -> Self {
        Self {
            question,
            threads: thread::available_parallelism().map_or(1, NonZero::get),
            hosts: BTreeMap::new(),
            keys: Keys::new(),
            statements: Vec::new(),
            problems: Problems::default(),
            proven: expected.iter().map(|expected| expected.size).max().unwrap_or(0),
            tree: TreeWalk::new(expected, tree_directory),
            notes: Vec::new(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            seen_any: false,
        }
    }

    /// Adds a sentence to the report: a problem found elsewhere.
    pub fn problem(&mut self, sentence: String) {
        self.problems.push(sentence);
    }

    /// Adds a sentence to the report.
    pub fn note(&mut self, sentence: String) {
        self.notes.push(sentence);
    }

    /// Adds what is to be said about the newest checkpoint.
    pub fn judge(&mut self, trust: &Trust, checkpoint: &SignedCheckpoint) {
        trust.judge(checkpoint, &mut self.notes, &mut self.problems.sentences);
    }

    /// The next record.
    pub fn record(&mut self, index: RecordIndex, payload: Vec<u8>) {
        self.check_beginning(index);
        // A host's key is needed by what comes behind it.
        let is_batch = payload.first() == Some(&BATCH);
        if !is_batch {
            self.examine_waiting();
        }
        self.waiting_bytes += payload.len();
        self.waiting.push(Raw { index, payload });
        if !is_batch || self.waiting.len() >= MAX_WAITING || self.waiting_bytes >= MAX_WAITING_BYTES {
            self.examine_waiting();
        }
    }

    /// Records that cannot be read.
    pub fn quarantined(&mut self, range: &Quarantined) {
        self.check_beginning(range.first);
        self.examine_waiting();
        self.problems.push(format!("The log is damaged: {range}."));
        for index in range.first.0..range.end.0 {
            self.tree.push(RecordIndex(index), None);
            if self.tree.size().is_none() {
                return;
            }
        }
    }

    /// A record that its collector cannot read, of which it says what the tree remembers.
    pub fn damaged(&mut self, index: RecordIndex, leaf_hash: Option<Digest>, what: &str) {
        self.check_beginning(index);
        self.examine_waiting();
        self.problems.add(index, what);
        self.tree.push_hash(leaf_hash, None);
    }

    fn check_beginning(&mut self, index: RecordIndex) {
        if !self.seen_any && index != RecordIndex(0) {
            self.problems
                .push(format!("The beginning of the log is missing: it starts with record {index}."));
            for missing in 0..index.0 {
                self.tree.push(RecordIndex(missing), None);
                if self.tree.size().is_none() {
                    break;
                }
            }
        }
        self.seen_any = true;
    }

    fn examine_waiting(&mut self) {
        self.waiting_bytes = 0;
        let waiting = std::mem::take(&mut self.waiting);
        for examined in examine::all(waiting, &self.keys, &self.question.span, self.threads) {
            self.take(examined);
        }
    }

    fn take(&mut self, examined: Examined) {
        let index = examined.index;
        self.tree.push(index, examined.leaf.as_deref());
        match examined.content {
            Content::Host(host) => self.host(index, &host),
            Content::Batch(facts) => self.batch(index, &facts),
            Content::Collector(entry) => self.collector(index, &entry),
            Content::Bad(what) => self.problems.add(index, &what),
            Content::BadBatch(host_id, number, what) => {
                self.problems.add(index, &format!("batch {number} of host {host_id}: {what}"));
                if let Some(host) = HostId::parse(&host_id).ok().and_then(|id| self.hosts.get_mut(&id)) {
                    host.refuse();
                }
            }
        }
    }

    fn host(&mut self, index: RecordIndex, record: &HostRecord) {
        let Ok(host_id) = HostId::parse(&record.host_id) else {
            return self.problems.add(index, "the host id is not valid");
        };
        if self.hosts.contains_key(&host_id) {
            return self.problems.add(index, &format!("host {host_id} is introduced a second time"));
        }
        if !record.key_is_in_certificate() {
            self.problems.add(index, &format!("the key of host {host_id} is not the one in its certificate"));
        }
        match HostWalk::new(record, self.question.span, Beginning::First) {
            Ok(host) => {
                self.keys.insert(host_id.to_string(), host.key);
                self.hosts.insert(host_id, host);
            }
            Err(error) => self.problems.add(index, &format!("host {host_id}: {error}")),
        }
    }

    fn batch(&mut self, index: RecordIndex, facts: &Facts) {
        let header = &facts.opened.header;
        let host = HostId::parse(&header.host_id).ok().and_then(|id| self.hosts.get_mut(&id));
        if let Some(Err(what)) = host.map(|host| host.batch(index, facts)) {
            self.problems.add(index, &format!("batch {} of host {}: {what}", header.number, header.host_id));
        }
    }

    fn collector(&mut self, index: RecordIndex, entry: &CollectorEntry) {
        if let Some(Act::BodiesRemoved(removed)) = &entry.act {
            self.statements.push(Statement {
                first: RecordIndex(removed.first_record),
                end: RecordIndex(removed.end_record),
                stands_at: index,
            });
        }
    }

    /// What all of it proves.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.examine_waiting();
        let tree_problems = self.tree.finish();
        // What the signed tree holds was so when it was signed: a hole in a host's chain is then the host's own.
        let proven = if tree_problems.is_empty() { RecordIndex(self.proven) } else { RecordIndex(0) };
        for problem in tree_problems {
            self.problems.push(problem);
        }
        for (host_id, host) in &self.hosts {
            let gaps = host.unexplained_gaps(proven);
            if !gaps.is_empty() {
                self.problems.push(format!("Host {host_id} has gaps: {}.", gaps.join("; ")));
            }
        }
        let wanted = |host: &HostReport| match &self.question.host {
            Some(asked) => *asked == host.name || *asked == host.host_id.as_str(),
            None => true,
        };
        let statements = &self.statements;
        let reports = self.hosts.into_iter().map(|(host_id, host)| host.report(&host_id, statements));
        let hosts: Vec<HostReport> = reports.filter(wanted).collect();
        Report {
            batches: hosts.iter().map(|host| host.batches).sum(),
            events: hosts.iter().map(|host| host.events).sum(),
            problems: self.problems.into_sentences(),
            notes: self.notes,
            hosts,
        }
    }
}

/// Type byte of a batch's record.
const BATCH: u8 = 2;

#[derive(Default)]
struct Problems {
    sentences: Vec<String>,
    unsaid: u64,
}

impl Problems {
    fn add(&mut self, index: RecordIndex, what: &str) {
        self.push(format!("Record {index}: {what}."));
    }

    fn push(&mut self, sentence: String) {
        if self.sentences.len() < MAX_PROBLEMS {
            self.sentences.push(sentence);
        } else {
            self.unsaid += 1;
        }
    }

    fn into_sentences(mut self) -> Vec<String> {
        if self.unsaid > 0 {
            self.sentences.push(format!("{} more problems are not listed.", self.unsaid));
        }
        self.sentences
    }
}

#[cfg(test)]
mod tests;
