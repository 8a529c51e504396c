//! What the collector's log records mean. `docs/formats/log.md` is the specification.

use buildtrail_proto::v1::{CollectorEntry, SignedBatch};
use prost::Message;

use crate::key::ED25519_SPKI;

/// Longest leaf of the tree, in bytes: the tile format counts an entry's length in 16 bits.
pub const MAX_LEAF_BYTES: usize = u16::MAX as usize;

const HOST_TAG: u8 = 1;
const BATCH_TAG: u8 = 2;
const COLLECTOR_TAG: u8 = 3;

/// Who a host is. Stands in the log once, before the host's first batch.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HostRecord {
    /// The id in its certificate.
    #[prost(string, tag = "1")]
    pub host_id: String,
    /// The name in its certificate, for people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its Ed25519 public key, 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub public_key: Vec<u8>,
    /// The certificate it showed, DER.
    #[prost(bytes = "vec", tag = "4")]
    pub certificate: Vec<u8>,
}

impl HostRecord {
    /// Whether the certificate's subject key is [`HostRecord::public_key`].
    ///
    /// Looks for the DER of an Ed25519 `SubjectPublicKeyInfo` (RFC 8410); whether the certificate is valid and by whom
    /// it was issued is not checked here.
    #[must_use]
    pub fn key_is_in_certificate(&self) -> bool {
        let info = [&ED25519_SPKI[..], &self.public_key].concat();
        self.public_key.len() == 32 && self.certificate.windows(info.len()).any(|window| window == info)
    }
}

/// One record of the collector's log.
#[derive(Debug, Clone, PartialEq)]
pub enum LogEntry {
    /// A host's key, before its first batch.
    Host(HostRecord),
    /// A batch, exactly as the host signed it.
    Batch(SignedBatch),
    /// What the collector itself did or noticed.
    Collector(CollectorEntry),
}

/// A record is intact but is no log entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogEntryError {
    /// No type byte, or one that this build does not know.
    #[error("the record is of a type unknown to this version; use a newer one to read it")]
    UnknownType,
    /// The payload does not decode.
    #[error("the record does not decode as what its type byte says")]
    Malformed,
    /// What stands for the record in the tree is longer than [`MAX_LEAF_BYTES`].
    #[error("the record's leaf has {0} bytes, more than the {MAX_LEAF_BYTES} that the tree can hold")]
    LongLeaf(usize),
}

impl LogEntry {
    /// The record: one type byte, then the protobuf encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Host(host) => encode(HOST_TAG, host),
            Self::Batch(batch) => encode(BATCH_TAG, batch),
            Self::Collector(entry) => encode(COLLECTOR_TAG, entry),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The record is of an unknown type or does not decode.
    pub fn decode(record: &[u8]) -> Result<Self, LogEntryError> {
        let (tag, payload) = record.split_first().ok_or(LogEntryError::UnknownType)?;
        match *tag {
            HOST_TAG => HostRecord::decode(payload).map(Self::Host),
            BATCH_TAG => SignedBatch::decode(payload).map(Self::Batch),
            COLLECTOR_TAG => CollectorEntry::decode(payload).map(Self::Collector),
            _ => return Err(LogEntryError::UnknownType),
        }
        .map_err(|_| LogEntryError::Malformed)
    }
}

/// What stands for a record in the collector's Merkle tree.
///
/// The record itself, type byte included; of a batch only the type byte and the header, so that the leaf stays the same
/// when the batch's events are removed.
///
/// # Errors
/// The record is of an unknown type, or a batch that does not decode, or its leaf would be too long.
pub fn leaf_bytes(record: &[u8]) -> Result<Vec<u8>, LogEntryError> {
    let (tag, payload) = record.split_first().ok_or(LogEntryError::UnknownType)?;
    let leaf = match *tag {
        HOST_TAG | COLLECTOR_TAG => record.to_vec(),
        BATCH_TAG => {
            let mut leaf = vec![BATCH_TAG];
            leaf.extend(HeaderOfBatch::decode(payload).map_err(|_| LogEntryError::Malformed)?.header);
            leaf
        }
        _ => return Err(LogEntryError::UnknownType),
    };
    if leaf.len() > MAX_LEAF_BYTES { Err(LogEntryError::LongLeaf(leaf.len())) } else { Ok(leaf) }
}

/// A `SignedBatch` of which only the header is decoded.
#[derive(Clone, PartialEq, Message)]
struct HeaderOfBatch {
    #[prost(bytes = "vec", tag = "1")]
    header: Vec<u8>,
}

fn encode(tag: u8, message: &impl Message) -> Vec<u8> {
    let mut record = Vec::with_capacity(1 + message.encoded_len());
    record.push(tag);
    record.extend_from_slice(&message.encode_to_vec());
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostRecord {
        HostRecord { host_id: "h".into(), name: "n".into(), public_key: vec![1; 32], ..Default::default() }
    }

    fn batch(body: &[u8]) -> SignedBatch {
        SignedBatch {
            header: vec![1, 2, 3],
            signature: vec![2],
            body: body.to_vec(),
            lost_before: Vec::new(),
        }
    }

    #[test]
    fn entries_round_trip_and_foreign_records_are_refused() {
        let entry = CollectorEntry { time: Some(buildtrail_proto::timestamp_from_unix_nanos(1)), act: None };
        for entry in [LogEntry::Host(host()), LogEntry::Batch(batch(&[3])), LogEntry::Collector(entry)] {
            assert_eq!(LogEntry::decode(&entry.encode()).unwrap(), entry);
        }
        assert_eq!(LogEntry::decode(&[]), Err(LogEntryError::UnknownType));
        assert_eq!(LogEntry::decode(&[9, 1]), Err(LogEntryError::UnknownType));
        assert_eq!(LogEntry::decode(&[BATCH_TAG, 0xff]), Err(LogEntryError::Malformed));
    }

    #[test]
    fn a_leaf_is_the_record_but_of_a_batch_only_the_header() {
        let record = LogEntry::Host(host()).encode();
        assert_eq!(leaf_bytes(&record).unwrap(), record);
        let record = LogEntry::Collector(CollectorEntry::default()).encode();
        assert_eq!(leaf_bytes(&record).unwrap(), [COLLECTOR_TAG]);
        for body in [&[][..], &[3; 1000]] {
            let record = LogEntry::Batch(batch(body)).encode();
            assert_eq!(leaf_bytes(&record).unwrap(), [BATCH_TAG, 1, 2, 3]);
        }
    }

    #[test]
    fn what_cannot_stand_in_the_tree_is_refused() {
        assert_eq!(leaf_bytes(&[]), Err(LogEntryError::UnknownType));
        assert_eq!(leaf_bytes(&[9, 1]), Err(LogEntryError::UnknownType));
        assert_eq!(leaf_bytes(&[BATCH_TAG, 0xff]), Err(LogEntryError::Malformed));
        let long = LogEntry::Host(HostRecord { certificate: vec![0; MAX_LEAF_BYTES], ..host() }).encode();
        assert_eq!(leaf_bytes(&long), Err(LogEntryError::LongLeaf(long.len())));
    }
}
