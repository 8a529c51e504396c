//! What an agent's spool proves: one host's batches, not yet at the collector.

use std::path::Path;

use buildtrail_proto::v1::SignedBatch;
use prost::Message as _;

use super::{
    Report,
    examine::Facts,
    host::{Beginning, HostWalk},
    span::Span,
};
use crate::{
    id::HostId,
    log::HostRecord,
    records::{Entry, Limits, Reader, RecordIndex, RecordsError},
};

/// Verifies the record files of a spool (`<state>/spool/<key>/records`), whose batches the host `record` introduces has
/// signed. They may begin anywhere: what the collector has acknowledged is deleted. `last_number` is the number of the
/// last batch, where somebody knows it: the end of a spool stands nowhere else.
///
/// # Errors
/// The directory or a file in it cannot be read. Damage is no error: it is in the report.
pub fn verify_spool(
    directory: &Path,
    record: &HostRecord,
    last_number: Option<u64>,
) -> Result<Report, RecordsError> {
    let mut walk = match Walk::new(record) {
        Ok(walk) => walk,
        Err(problem) => return Ok(Report { problems: vec![problem], ..Report::default() }),
    };
    for entry in Reader::whole(directory, Limits::default().max_record_bytes)? {
        match entry? {
            Entry::Record { index, payload } => {
                if let Err(what) = walk.record(index, &payload) {
                    walk.problems.push(format!("Record {index}: {what}."));
                }
            }
            Entry::Quarantined(range) => walk.problems.push(format!("The spool is damaged: {range}.")),
        }
    }
    Ok(walk.finish(last_number))
}

struct Walk {
    host_id: HostId,
    host: HostWalk,
    last: u64,
    problems: Vec<String>,
}

impl Walk {
    fn new(record: &HostRecord) -> Result<Self, String> {
        let host_id = HostId::parse(&record.host_id).map_err(|error| format!("{error}."))?;
        let host = HostWalk::new(record, Span::default(), Beginning::Anywhere);
        let host = host.map_err(|error| format!("Host {host_id}: {error}."))?;
        Ok(Self { host_id, host, last: 0, problems: Vec::new() })
    }

    fn record(&mut self, index: RecordIndex, payload: &[u8]) -> Result<(), String> {
        let batch = SignedBatch::decode(payload).map_err(|_| "it is no batch")?;
        if batch.encode_to_vec() != payload {
            return Err("the batch is written down in another way than the agent does".into());
        }
        let facts = Facts::of(&batch, &self.host.key, &Span::default()).map_err(|error| {
            self.host.refuse();
            error.to_string()
        })?;
        if facts.opened.header.host_id != self.host_id.as_str() {
            return Err(format!("a batch of host {}", facts.opened.header.host_id));
        }
        self.host.batch(index, &facts)?;
        self.last = facts.opened.header.number;
        Ok(())
    }

    fn finish(mut self, last_number: Option<u64>) -> Report {
        for gap in self.host.unexplained_gaps(RecordIndex(0)) {
            self.problems.push(format!("Batches are missing: {gap}."));
        }
        if let Some(expected) = last_number.filter(|expected| *expected != self.last) {
            self.problems.push(format!(
                "The spool ends with batch {}, but batch {expected} was the last one: the end was cut off, or an older \
                 state was put back.",
                self.last
            ));
        }
        let host = self.host.report(&self.host_id, &[]);
        Report {
            batches: host.batches,
            events: host.events,
            hosts: vec![host],
            problems: self.problems,
            notes: Vec::new(),
        }
    }
}
