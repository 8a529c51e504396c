//! Walks a collector's log and says, host by host, what it proves.
//!
//! In: a log directory, from the collector's disk or a copy of it. Out: a [`Report`] with every problem in a sentence.
//! Must never stop at the first problem, and never call something complete that it did not check event by event.
//! What it cannot see: records cut off the very end of a log, and whether a certificate was issued by the right
//! authority.

mod host;
mod text;

use std::{collections::BTreeMap, path::Path};

use buildtrail_proto::v1::{HostVerification, SignedBatch, VerifyResponse};

use crate::{
    batch,
    id::HostId,
    log::{HostRecord, LogEntry},
    records::{Entry, Limits, Quarantined, Reader, RecordIndex, RecordsError},
};
pub use host::HostReport;
use host::HostWalk;

/// Most problems that are spelled out; further ones are counted.
const MAX_PROBLEMS: usize = 1000;

/// What a log proves.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// One entry per host, by host id.
    pub hosts: Vec<HostReport>,
    /// What makes the log not intact, each in one sentence. Empty: intact.
    pub problems: Vec<String>,
    /// Intact batches.
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

    /// The report as the Verify call returns it.
    #[must_use]
    pub fn to_response(&self) -> VerifyResponse {
        VerifyResponse {
            hosts: self.hosts.iter().map(HostVerification::from).collect(),
            problems: self.problems.clone(),
            batches: self.batches,
            events: self.events,
        }
    }
}

/// Verifies every record of the log in `directory`, as it is on disk now.
///
/// Memory is bounded by the largest record and the number of hosts. While a collector writes to the log, the last
/// record may look unfinished; ask the collector itself then ([`verify_up_to`]).
///
/// # Errors
/// The directory or a file in it cannot be read. Damage is no error: it is in the report.
pub fn verify(directory: &Path) -> Result<Report, RecordsError> {
    walk(Reader::whole(directory, Limits::default().max_record_bytes)?)
}

/// Verifies the records before `end`: for the process that writes the log and knows where it ends.
///
/// # Errors
/// As [`verify`].
pub fn verify_up_to(directory: &Path, end: RecordIndex) -> Result<Report, RecordsError> {
    walk(Reader::up_to(directory, Limits::default().max_record_bytes, RecordIndex(0), end)?)
}

fn walk(reader: Reader) -> Result<Report, RecordsError> {
    let mut walk = Walk::default();
    for entry in reader {
        match entry? {
            Entry::Record { index, payload } => walk.record(index, &payload),
            Entry::Quarantined(range) => walk.quarantined(&range),
        }
    }
    Ok(walk.finish())
}

#[derive(Default)]
struct Walk {
    hosts: BTreeMap<HostId, HostWalk>,
    problems: Problems,
    seen_any: bool,
}

impl Walk {
    fn record(&mut self, index: RecordIndex, payload: &[u8]) {
        self.check_beginning(index);
        match LogEntry::decode(payload) {
            Ok(LogEntry::Host(host)) => self.host(index, &host),
            Ok(LogEntry::Batch(batch)) => self.batch(index, &batch),
            // The collector's own acts belong to no host's chain.
            Ok(LogEntry::Collector(_)) => {}
            Err(error) => self.problems.add(index, &error.to_string()),
        }
    }

    fn quarantined(&mut self, range: &Quarantined) {
        self.check_beginning(range.first);
        self.problems.push(format!("The log is damaged: {range}."));
    }

    fn check_beginning(&mut self, index: RecordIndex) {
        if !self.seen_any && index != RecordIndex(0) {
            self.problems
                .push(format!("The beginning of the log is missing: it starts with record {index}."));
        }
        self.seen_any = true;
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
        match HostWalk::new(record) {
            Ok(host) => {
                self.hosts.insert(host_id, host);
            }
            Err(error) => self.problems.add(index, &format!("host {host_id}: {error}")),
        }
    }

    fn batch(&mut self, index: RecordIndex, signed: &SignedBatch) {
        let header = match batch::decode_header(&signed.header) {
            Ok(header) => header,
            Err(error) => return self.problems.add(index, &error.to_string()),
        };
        let host_id = HostId::parse(&header.host_id).ok();
        let Some(host) = host_id.as_ref().and_then(|id| self.hosts.get_mut(id)) else {
            let what = format!("a batch of host {}, whose key is not in the log before it", header.host_id);
            return self.problems.add(index, &what);
        };
        if let Err(what) = host.batch(signed) {
            self.problems.add(index, &format!("batch {} of host {}: {what}", header.number, header.host_id));
        }
    }

    fn finish(mut self) -> Report {
        let hosts: Vec<HostReport> =
            self.hosts.into_iter().map(|(host_id, host)| host.report(&host_id)).collect();
        for host in hosts.iter().filter(|host| !host.gaps.is_empty()) {
            self.problems.push(format!("Host {} has gaps: {}.", host.host_id, host.gaps.join("; ")));
        }
        Report {
            batches: hosts.iter().map(|host| host.batches).sum(),
            events: hosts.iter().map(|host| host.events).sum(),
            problems: self.problems.into_sentences(),
            hosts,
        }
    }
}

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
