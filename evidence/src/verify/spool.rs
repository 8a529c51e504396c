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
    key::HostPublicKey,
    log::HostRecord,
    records::{Entry, Limits, Reader, RecordIndex, RecordsError},
};

/// Verifies the record files of a spool (`<state>/spool/<key>/records`), whose batches are signed with `key`. They may begin anywhere: what the collector has acknowledged is deleted. `last_number` is the number of the
/// last batch, where somebody knows it: the end of a spool stands nowhere else.
///
/// # Errors
/// The directory or a file in it cannot be read. Damage is no error: it is in the report.
pub fn verify_spool(
    directory: &Path,
    key: &HostPublicKey,
    last_number: Option<u64>,
) -> Result<Report, RecordsError> {
    let mut walk = Walk { key: *key, host: None, last: 0, problems: Vec::new() };
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
    key: HostPublicKey,
    /// Known from the first batch on.
    host: Option<(HostId, HostWalk)>,
    last: u64,
    problems: Vec<String>,
}

impl Walk {
    fn record(&mut self, index: RecordIndex, payload: &[u8]) -> Result<(), String> {
        let batch = SignedBatch::decode(payload).map_err(|_| "it is no batch")?;
        if batch.encode_to_vec() != payload {
            return Err("the batch is written down in another way than the agent does".into());
        }
        let facts = Facts::of(&batch, &self.key, &Span::default()).map_err(|error| {
            if let Some((_, host)) = &mut self.host {
                host.refuse();
            }
            error.to_string()
        })?;
        let host_id = HostId::parse(&facts.opened.header.host_id).map_err(|error| error.to_string())?;
        if self.host.is_none() {
            self.host = Some((host_id.clone(), self.introduce(&host_id)?));
        }
        match &mut self.host {
            Some((known, host)) if *known == host_id => host.batch(index, &facts)?,
            _ => return Err(format!("a batch of another host, {host_id}")),
        }
        self.last = facts.opened.header.number;
        Ok(())
    }

    fn introduce(&self, host_id: &HostId) -> Result<HostWalk, String> {
        let public_key = self.key.as_bytes().to_vec();
        let record = HostRecord { host_id: host_id.to_string(), public_key, ..HostRecord::default() };
        HostWalk::new(&record, Span::default(), Beginning::Anywhere).map_err(|error| error.to_string())
    }

    fn finish(mut self, last_number: Option<u64>) -> Report {
        if let Some(expected) = last_number.filter(|expected| *expected != self.last) {
            self.problems.push(format!(
                "The spool ends with batch {}, but batch {expected} was the last one: the end was cut off, or an older \
                 state was put back.",
                self.last
            ));
        }
        let mut hosts = Vec::new();
        if let Some((host_id, host)) = self.host {
            for gap in host.unexplained_gaps(RecordIndex(0)) {
                self.problems.push(format!("Batches are missing: {gap}."));
            }
            hosts.push(host.report(&host_id, &[]));
        }
        Report {
            batches: hosts.iter().map(|host| host.batches).sum(),
            events: hosts.iter().map(|host| host.events).sum(),
            hosts,
            problems: self.problems,
            notes: Vec::new(),
        }
    }
}
