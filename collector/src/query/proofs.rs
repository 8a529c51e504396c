//! Proofs from the tree, each checked before it is given out.

use std::sync::PoisonError;

use buildtrail_evidence::{
    batch,
    digest::Digest,
    log::LogEntry,
    records::{Entry, Limits, Reader, RecordIndex},
    tlog::{
        note::{Checkpoint, SignedCheckpoint},
        proof::TlogProof,
        tiles::{TILE_WIDTH, TreeError},
    },
};
use buildtrail_proto::v1::{
    GetCheckpointResponse, ProveConsistencyResponse, ProveEventRequest, ProveEventResponse,
    ProveRecordResponse, SignedBatch,
};
use tonic::Status;

use super::{Service, Tree};
use crate::access::Person;

impl Tree {
    pub(crate) fn checkpoint(&self) -> GetCheckpointResponse {
        let heads = self.published.borrow().clone();
        GetCheckpointResponse {
            checkpoint: heads.latest.note(),
            log_key: self.log_key.to_string(),
            witnessed: heads.witnessed.as_ref().map(SignedCheckpoint::note).unwrap_or_default(),
            witnesses: self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn latest(&self) -> Checkpoint {
        self.published.borrow().latest.checkpoint().clone()
    }

    /// The newest checkpoint over a record, one with a quorum if there is one.
    fn over(&self, record: u64) -> Result<SignedCheckpoint, Status> {
        let heads = self.published.borrow().clone();
        let covers = |head: &&SignedCheckpoint| head.checkpoint().size > record;
        let head = heads.witnessed.iter().find(covers).or(Some(&heads.latest).filter(covers));
        head.cloned().ok_or_else(|| {
            Status::not_found(format!(
                "no signed checkpoint covers record {record} yet; there is one every few seconds"
            ))
        })
    }

    fn prove(&self, record: u64) -> Result<TlogProof, Status> {
        let head = self.over(record)?;
        let path = self.tiles.inclusion(head.checkpoint(), record).map_err(status)?;
        Ok(TlogProof { index: record, path, checkpoint: head.note() })
    }

    fn leaf(&self, record: u64) -> Result<Vec<u8>, Status> {
        let number = record / TILE_WIDTH;
        let size = self.latest().size;
        let width = size.saturating_sub(number.saturating_mul(TILE_WIDTH)).min(TILE_WIDTH);
        let leaves = self.tiles.leaves(number, width).map_err(status)?;
        let leaf = usize::try_from(record % TILE_WIDTH).ok().and_then(|place| leaves.into_iter().nth(place));
        leaf.ok_or_else(|| Status::not_found(format!("record {record} is not in the tree yet")))
    }
}

pub(super) async fn record(service: &Service, record: u64) -> Result<ProveRecordResponse, Status> {
    blocking(service, move |tree| {
        Ok(ProveRecordResponse { proof: tree.prove(record)?.to_text(), leaf: tree.leaf(record)? })
    })
    .await
}

pub(super) async fn consistency(
    service: &Service,
    old_size: u64,
    new_size: u64,
) -> Result<ProveConsistencyResponse, Status> {
    blocking(service, move |tree| {
        let latest = tree.latest();
        let new_size = if new_size == 0 { latest.size } else { new_size };
        let (path, old_root, new_root) =
            tree.tiles.consistency_between(&latest, old_size, new_size).map_err(status)?;
        Ok(ProveConsistencyResponse {
            path: bytes(&path),
            old_root: old_root.as_bytes().to_vec(),
            new_root: new_root.as_bytes().to_vec(),
            new_size,
        })
    })
    .await
}

pub(super) async fn event(
    service: &Service,
    person: &Person,
    asked: ProveEventRequest,
) -> Result<ProveEventResponse, Status> {
    let ProveEventRequest { host_id, boot_id, sequence } = asked;
    let (host, boot) = (host_id.clone(), boot_id);
    let found = service
        .queries
        .ask(person, move |asked, scope| {
            let record = asked.record_of_event(scope, &host, &boot, sequence)?;
            Ok((record, asked.host_key(scope, &host)?))
        })
        .await?;
    let (Some(record), Some(host_key)) = found else {
        return Err(Status::not_found(format!(
            "there is no event {sequence} of that boot and host {host_id}"
        )));
    };
    let (directory, end) = (service.log_directory.clone(), service.ledger.durable_end());
    blocking(service, move |tree| {
        let mut reader =
            Reader::up_to(&directory, Limits::default().max_record_bytes, record, end).map_err(unreadable)?;
        let batch = match reader.next() {
            Some(Ok(Entry::Record { index, payload })) if index == record => batch_of(&payload)?,
            Some(Err(error)) => return Err(unreadable(error)),
            _ => return Err(Status::data_loss("the batch with this event is damaged in the log")),
        };
        respond(tree, record, &batch, sequence, host_key)
    })
    .await
}

fn batch_of(record: &[u8]) -> Result<SignedBatch, Status> {
    match LogEntry::decode(record) {
        Ok(LogEntry::Batch(batch)) => Ok(batch),
        _ => Err(Status::data_loss("the batch with this event is damaged in the log")),
    }
}

fn respond(
    tree: &Tree,
    record: RecordIndex,
    batch: &SignedBatch,
    sequence: u64,
    host_key: Vec<u8>,
) -> Result<ProveEventResponse, Status> {
    let damaged = |error: batch::BatchError| Status::data_loss(error.to_string());
    let header = batch::decode_header(&batch.header).map_err(damaged)?;
    let position =
        sequence.checked_sub(header.first_sequence).and_then(|position| u32::try_from(position).ok());
    let position = position.ok_or_else(|| Status::data_loss("the index leads to another batch"))?;
    let found = batch::event_path(batch, usize::try_from(position).unwrap_or(usize::MAX)).map_err(damaged)?;
    let found = found.ok_or_else(|| Status::data_loss("the index leads to another batch"))?;
    Ok(ProveEventResponse {
        event: found.event.unwrap_or_default(),
        leaf_hash: found.leaf_hash.as_bytes().to_vec(),
        position,
        events: u32::try_from(found.events).unwrap_or(u32::MAX),
        path: bytes(&found.path),
        header: batch.header.clone(),
        signature: batch.signature.clone(),
        host_key,
        proof: tree.prove(record.0)?.to_text(),
    })
}

fn bytes(path: &[Digest]) -> Vec<Vec<u8>> {
    path.iter().map(|hash| hash.as_bytes().to_vec()).collect()
}

/// Files are read on a thread of their own.
async fn blocking<T: Send + 'static>(
    service: &Service,
    question: impl FnOnce(&Tree) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let tree = service.tree.clone();
    let answered = tokio::task::spawn_blocking(move || question(&tree)).await;
    answered.unwrap_or_else(|_| Err(Status::internal("a question failed; see the collector's own log")))
}

#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn unreadable(error: buildtrail_evidence::records::RecordsError) -> Status {
    tracing::error!(%error, "a question failed");
    Status::internal("the collector's log cannot be read; its own log says more")
}

#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn status(error: TreeError) -> Status {
    match error {
        TreeError::Beyond { .. } => Status::out_of_range(error.to_string()),
        TreeError::Read { .. } | TreeError::Altered(_) => {
            tracing::error!(%error, "a proof failed");
            Status::data_loss("the tree's files on the collector are damaged; its own log says more")
        }
    }
}
