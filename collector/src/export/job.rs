//! One job's bundle (`docs/formats/bundle.md`).

use std::{path::PathBuf, sync::Arc};

use buildtrail_evidence::{
    batch::thin_events,
    bundle::{BundleError, Writer},
    log::LogEntry,
    records::{Entry, Limits, Reader, RecordIndex},
    tlog::{
        note::{NoteSigner, SignedCheckpoint},
        tiles::Tiles,
    },
    verify::HOST_KINDS,
};
use buildtrail_proto::{
    now,
    v1::{AuditEvent, BundleHeader, BundleRecord, SignedBatch},
};
use tonic::Status;

use crate::store::JobRecords;

/// Longest bundle that is made, in bytes.
const MAX_BUNDLE_BYTES: usize = 256 << 20;

/// Where a bundle's parts come from.
pub(super) struct Source {
    pub(super) directory: PathBuf,
    pub(super) tiles: Tiles,
    pub(super) end: RecordIndex,
    pub(super) signer: Arc<NoteSigner>,
    /// Who asked.
    pub(super) reader: String,
}

/// A bundle and what it holds.
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) batches: u64,
    /// Of the job.
    pub(super) events: u64,
}

/// Makes the bundle of a job. Blocks.
pub(super) fn bundle(
    source: &Source,
    job: &JobRecords,
    checkpoint: &SignedCheckpoint,
) -> Result<Made, Status> {
    let header = BundleHeader {
        log_key: source.signer.public().to_string(),
        job_id: job.job_id.clone(),
        host_id: job.host_id.clone(),
        exported: Some(now()),
        exported_for: source.reader.clone(),
        collector_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let writer = Writer::new(&header, &checkpoint.note()).map_err(too_long)?;
    let mut making = Making { source, job, checkpoint, writer, events: 0 };
    making.add(job.host_record)?;
    for record in &job.batches {
        making.add(*record)?;
    }
    let bytes = making.writer.finish(&source.signer).map_err(too_long)?;
    Ok(Made { bytes, batches: job.batches.len() as u64, events: making.events })
}

struct Making<'a> {
    source: &'a Source,
    job: &'a JobRecords,
    checkpoint: &'a SignedCheckpoint,
    writer: Writer,
    events: u64,
}

impl Making<'_> {
    fn add(&mut self, index: RecordIndex) -> Result<(), Status> {
        let record = match LogEntry::decode(&self.read(index)?) {
            Ok(LogEntry::Batch(batch)) => LogEntry::Batch(self.thinned(&batch)?).encode(),
            Ok(entry @ LogEntry::Host(_)) => entry.encode(),
            _ => return Err(damaged(index)),
        };
        let path = self.source.tiles.inclusion(self.checkpoint.checkpoint(), index.0).map_err(|error| {
            tracing::error!(%error, "a proof failed");
            Status::data_loss("the tree's files on the collector are damaged; its own log says more")
        })?;
        let path = path.iter().flat_map(|hash| hash.0).collect();
        self.writer.record(&BundleRecord { index: index.0, record, path }).map_err(too_long)?;
        if self.writer.len() > MAX_BUNDLE_BYTES {
            return Err(Status::resource_exhausted(
                "the job's bundle would be longer than 256 MiB; verify the log itself instead",
            ));
        }
        Ok(())
    }

    fn read(&self, index: RecordIndex) -> Result<Vec<u8>, Status> {
        let max = Limits::default().max_record_bytes;
        let mut reader =
            Reader::up_to(&self.source.directory, max, index, self.source.end).map_err(unreadable)?;
        match reader.next() {
            Some(Ok(Entry::Record { index: found, payload })) if found == index => Ok(payload),
            Some(Err(error)) => Err(unreadable(error)),
            _ => Err(damaged(index)),
        }
    }

    /// Without the events of others.
    fn thinned(&mut self, batch: &SignedBatch) -> Result<SignedBatch, Status> {
        let events = std::cell::Cell::new(0);
        let kept = |event: &AuditEvent| match &event.job {
            Some(job) => {
                let ours = job.job_id == self.job.job_id;
                events.set(events.get() + u64::from(ours));
                ours
            }
            None => HOST_KINDS.contains(&event.kind()),
        };
        let thinned = thin_events(batch, kept).map_err(|error| Status::data_loss(error.to_string()))?;
        self.events += events.get();
        Ok(thinned)
    }
}

fn damaged(index: RecordIndex) -> Status {
    Status::data_loss(format!("record {index}, which the job needs, is damaged in the collector's log"))
}

#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn unreadable(error: buildtrail_evidence::records::RecordsError) -> Status {
    tracing::error!(%error, "an export failed");
    Status::internal("the collector's log cannot be read; its own log says more")
}

fn too_long(error: BundleError) -> Status {
    Status::resource_exhausted(error.to_string())
}
