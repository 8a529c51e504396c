//! Sealing events into signed batches, and opening them again. `docs/formats/batch.md` is the specification.
//!
//! In: events in the order they happened. Out: a [`SignedBatch`] that names its predecessor, and the other way round.
//! Must never encode a body twice (the bytes are what is signed) nor decode more than its bounds allow.

use std::collections::HashMap;

use buildtrail_proto::{
    Timestamp,
    v1::{AuditEvent, BatchBody, BatchHeader, SignedBatch},
};
use prost::Message as _;

use crate::{
    digest::Digest,
    id::{BootId, HostId, is_valid_id},
    key::{HostKey, HostPublicKey},
};

/// What a signature covers before the header's bytes: keeps signatures of other formats from being passed off as this.
pub const SIGNATURE_CONTEXT: &[u8] = b"buildtrail batch v1\n";
/// Most events in one batch.
pub const MAX_EVENTS: usize = 65_536;
/// Longest encoded event, in bytes.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Longest encoded header, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Longest agent version, in bytes.
const MAX_VERSION_BYTES: usize = 128;

/// Where a host's chain ends. The default is the start of a chain: nothing sealed yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChainHead {
    /// Number of the last batch; 0: none yet.
    pub number: u64,
    /// SHA-256 of the last batch's encoded header; zero: none yet.
    pub digest: Digest,
    /// Boot of the last batch; empty: none yet.
    pub boot_id: String,
    /// Last event's sequence in that boot.
    pub last_sequence: u64,
}

impl ChainHead {
    /// The head after the batch with this header and digest.
    #[must_use]
    pub fn after(header: &BatchHeader, digest: Digest) -> Self {
        Self {
            number: header.number,
            digest,
            boot_id: header.boot_id.clone(),
            last_sequence: header.last_sequence,
        }
    }

    /// The head after `batch`, whose signature is *not* checked: for a host that reads back its own spool.
    ///
    /// # Errors
    /// The header does not decode.
    pub fn after_own(batch: &SignedBatch) -> Result<Self, BatchError> {
        let header = decode_header(&batch.header)?;
        Ok(Self::after(&header, Digest::of(&batch.header)))
    }
}

/// Events lost since boot, as the batch's header states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LossTotals {
    /// Lost in the kernel, before the agent could read them.
    pub in_kernel: u64,
    /// Lost in the agent.
    pub in_agent: u64,
}

/// A sealed batch and the chain's new head.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// What is kept and sent.
    pub batch: SignedBatch,
    /// Where the chain ends now.
    pub head: ChainHead,
}

/// Turns events into signed, chained batches.
#[derive(Debug)]
pub struct Sealer {
    host_id: HostId,
    agent_version: String,
    key: HostKey,
    head: ChainHead,
}

impl Sealer {
    /// A sealer that continues after `head` ([`ChainHead::default`] for a host's first batch).
    #[must_use]
    pub fn new(host_id: HostId, agent_version: impl Into<String>, key: HostKey, head: ChainHead) -> Self {
        Self { host_id, agent_version: agent_version.into(), key, head }
    }

    /// Where the chain ends.
    #[must_use]
    pub fn head(&self) -> &ChainHead {
        &self.head
    }

    /// Takes back the batches sealed after `head`. Only right when none of them was stored or sent: a second batch of
    /// the same number is a fork.
    pub fn rewind(&mut self, head: ChainHead) {
        self.head = head;
    }

    /// Seals `events` (host, boot and sequence are filled in here: sequences go on within a boot and start at 1 in a
    /// new one) and moves the chain's head on.
    ///
    /// Give 1 to [`MAX_EVENTS`] events: [`open`] refuses larger batches.
    pub fn seal(&mut self, boot_id: &BootId, mut events: Vec<AuditEvent>, lost: LossTotals) -> Sealed {
        let same_boot = self.head.boot_id == boot_id.as_str();
        let first_sequence = if same_boot { self.head.last_sequence + 1 } else { 1 };
        let mut last_sequence = first_sequence - 1;
        for event in &mut events {
            last_sequence += 1;
            event.host_id.clear();
            event.host_id.push_str(self.host_id.as_str());
            event.boot_id.clear();
            event.boot_id.push_str(boot_id.as_str());
            event.sequence = last_sequence;
        }
        let counts = count_kinds(&events);
        let body = BatchBody { events }.encode_to_vec();
        let header = BatchHeader {
            host_id: self.host_id.to_string(),
            boot_id: boot_id.to_string(),
            number: self.head.number + 1,
            previous: self.head.digest.as_bytes().to_vec(),
            first_sequence,
            last_sequence,
            body_digest: Digest::of(&body).as_bytes().to_vec(),
            counts,
            lost_in_kernel: lost.in_kernel,
            lost_in_agent: lost.in_agent,
            agent_version: self.agent_version.clone(),
        };
        let bytes = header.encode_to_vec();
        self.head = ChainHead::after(&header, Digest::of(&bytes));
        let signature = self.key.sign(&signed_bytes(&bytes)).to_vec();
        Sealed { batch: SignedBatch { header: bytes, signature, body }, head: self.head.clone() }
    }
}

/// A batch whose signature, digest, counts and sequences were found right.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenedBatch {
    /// The decoded header.
    pub header: BatchHeader,
    /// The body's events, in order.
    pub events: Vec<AuditEvent>,
    /// SHA-256 of the encoded header: the batch's name in the chain.
    pub digest: Digest,
}

/// Why a batch is not what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The header is no `BatchHeader`, or breaks a bound.
    #[error("the batch header is malformed: {0}")]
    Header(&'static str),
    /// The signature is not by the expected key over this header.
    #[error("the batch is not signed by this host's key")]
    Signature,
    /// The body is not the one that was signed.
    #[error("the batch body is not the one its header was signed for")]
    BodyDigest,
    /// The body is no `BatchBody`, or breaks a bound.
    #[error("the batch body is malformed: {0}")]
    Body(&'static str),
    /// An event contradicts the signed header.
    #[error("event {position} of the batch contradicts its header: {what}")]
    Event {
        /// Position in the body, from 0.
        position: usize,
        /// What does not agree.
        what: &'static str,
    },
    /// The header's counts per kind are not those of the body.
    #[error("the batch header counts other events than the body holds")]
    Counts,
}

/// Checks a batch against the key of its host and decodes it.
///
/// # Errors
/// Says which of signature, body digest, bounds, counts or sequences is wrong; nothing of such a batch may be used.
pub fn open(batch: &SignedBatch, key: &HostPublicKey) -> Result<OpenedBatch, BatchError> {
    let header = decode_header(&batch.header)?;
    if !key.has_signed(&signed_bytes(&batch.header), &batch.signature) {
        return Err(BatchError::Signature);
    }
    if Digest::of(&batch.body).as_bytes() != header.body_digest {
        return Err(BatchError::BodyDigest);
    }
    let events = decode_body(&batch.body, &header)?;
    check_events(&events, &header)?;
    Ok(OpenedBatch { digest: Digest::of(&batch.header), header, events })
}

fn signed_bytes(header: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, header].concat()
}

/// Decodes and bounds a header; does not check the signature.
///
/// # Errors
/// [`BatchError::Header`].
pub fn decode_header(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let ensure = |good: bool, what| if good { Ok(()) } else { Err(BatchError::Header(what)) };
    ensure(bytes.len() <= MAX_HEADER_BYTES, "it is longer than a header may be")?;
    let header = BatchHeader::decode(bytes).map_err(|_| BatchError::Header("it does not decode"))?;
    ensure(is_valid_id(&header.host_id), "its host id is not valid")?;
    ensure(is_valid_id(&header.boot_id), "its boot id is not valid")?;
    ensure(header.number > 0, "batches are numbered from 1")?;
    ensure(header.previous.len() == 32, "the previous batch's digest has not 32 bytes")?;
    ensure(header.body_digest.len() == 32, "the body's digest has not 32 bytes")?;
    ensure(header.first_sequence > 0, "events are numbered from 1")?;
    ensure(header.last_sequence >= header.first_sequence, "it covers no event")?;
    let events = header.last_sequence - header.first_sequence;
    ensure(events < MAX_EVENTS as u64, "it covers more events than a batch may hold")?;
    ensure(header.agent_version.len() <= MAX_VERSION_BYTES, "its agent version is too long")?;
    Ok(header)
}

fn decode_body(body: &[u8], header: &BatchHeader) -> Result<Vec<AuditEvent>, BatchError> {
    let expected = header.last_sequence - header.first_sequence + 1;
    // A two-byte empty event becomes hundreds of bytes in memory: count before decoding.
    let found = count_encoded_events(body)
        .ok_or(BatchError::Body("it holds something other than events of at most 256 KiB each"))?;
    if found != expected {
        return Err(BatchError::Body("it holds another number of events than the header says"));
    }
    let body = BatchBody::decode(body).map_err(|_| BatchError::Body("it does not decode"))?;
    Ok(body.events)
}

/// How many events an encoded body holds; `None` when it is anything but a row of length-delimited field 1, each
/// within its bound.
fn count_encoded_events(mut body: &[u8]) -> Option<u64> {
    const EVENTS_TAG: u8 = 0x0a;
    let mut count = 0;
    while let Some((&tag, rest)) = body.split_first() {
        if tag != EVENTS_TAG {
            return None;
        }
        body = rest;
        let length = prost::decode_length_delimiter(&mut body).ok()?;
        if length > MAX_EVENT_BYTES {
            return None;
        }
        body = body.get(length..)?;
        count += 1;
    }
    Some(count)
}

fn check_events(events: &[AuditEvent], header: &BatchHeader) -> Result<(), BatchError> {
    for (position, (event, sequence)) in events.iter().zip(header.first_sequence..).enumerate() {
        let error = |what| Err(BatchError::Event { position, what });
        if event.host_id != header.host_id {
            return error("it names another host");
        }
        if event.boot_id != header.boot_id {
            return error("it names another boot");
        }
        if event.sequence != sequence {
            return error("its sequence number is out of order");
        }
        if !event.time.as_ref().is_none_or(is_valid_time) {
            return error("its time is not within 1970 to 2200");
        }
    }
    if count_kinds(events) == header.counts { Ok(()) } else { Err(BatchError::Counts) }
}

/// Within bounds that every reader (64-bit nanoseconds, RFC 3339) can take.
fn is_valid_time(time: &Timestamp) -> bool {
    const YEAR_2200: i64 = 7_258_118_400;
    (0..YEAR_2200).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
}

fn count_kinds(events: &[AuditEvent]) -> HashMap<String, u64> {
    let mut counts: HashMap<&'static str, u64> = HashMap::new();
    for event in events {
        *counts.entry(event.kind()).or_default() += 1;
    }
    counts.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect()
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
