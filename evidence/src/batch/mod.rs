//! Sealing events into signed batches, and opening them again. `docs/formats/batch.md` is the specification.
//!
//! In: events in the order they happened. Out: a [`SignedBatch`] that names its predecessor, and the other way round.
//! Must never encode an event twice (the bytes are what is hashed) nor decode more than its bounds allow.

mod body;
mod path;

pub use path::{EventPath, check_event_path, event_path};

use std::collections::BTreeMap;

use buildtrail_proto::{
    Timestamp,
    v1::{AuditEvent, BatchHeader, SignedBatch},
};
use prost::Message as _;

use self::body::Slot;

use crate::{
    digest::Digest,
    id::{BootId, HostId, is_valid_id},
    key::{HostKey, HostPublicKey},
};

/// What a signature covers before the header's bytes: keeps signatures of other formats from being passed off as this.
pub const SIGNATURE_CONTEXT: &[u8] = b"buildtrail batch v2\n";
/// What the host's word about lost batches covers before the digest of the header behind them.
const LOST_CONTEXT: &[u8] = b"buildtrail lost before v1\n";
/// Most events in one batch.
pub const MAX_EVENTS: usize = 65_536;
/// Longest encoded event, in bytes.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Longest encoded header, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Longest [`Build::agent_build`], in bytes.
const MAX_BUILD_BYTES: usize = 128;

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

/// What made a batch, as its header states it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Build {
    /// The agent's version and the SHA-256 of its executable; at most 128 bytes.
    pub agent_build: String,
    /// SHA-256 of the eBPF object; `None` where there is none.
    pub ebpf_digest: Option<Digest>,
    /// SHA-256 of the effective settings and catalogue.
    pub policy_digest: Digest,
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
    build: Build,
    key: HostKey,
    head: ChainHead,
}

impl Sealer {
    /// A sealer that continues after `head` ([`ChainHead::default`] for a host's first batch).
    #[must_use]
    pub fn new(host_id: HostId, build: Build, key: HostKey, head: ChainHead) -> Self {
        Self { host_id, build, key, head }
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
        let encoded: Vec<Vec<u8>> = events.iter().map(AuditEvent::encode_to_vec).collect();
        let slots: Vec<Slot<'_>> = encoded.iter().map(|event| Slot::Event(event)).collect();
        let header = BatchHeader {
            host_id: self.host_id.to_string(),
            boot_id: boot_id.to_string(),
            number: self.head.number + 1,
            previous: self.head.digest.as_bytes().to_vec(),
            first_sequence,
            last_sequence,
            events_root: body::root(&slots).as_bytes().to_vec(),
            counts,
            lost_in_kernel: lost.in_kernel,
            lost_in_agent: lost.in_agent,
            agent_build: self.build.agent_build.clone(),
            ebpf_digest: self.build.ebpf_digest.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
            policy_digest: self.build.policy_digest.as_bytes().to_vec(),
        };
        let bytes = header.encode_to_vec();
        self.head = ChainHead::after(&header, Digest::of(&bytes));
        let signature = sign_header(&self.key, &bytes).to_vec();
        Sealed {
            batch: SignedBatch {
                header: bytes,
                signature,
                body: body::encode(&slots),
                lost_before: Vec::new(),
            },
            head: self.head.clone(),
        }
    }
}

/// A batch whose signature, root, counts and sequences were found right.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenedBatch {
    /// The decoded header.
    pub header: BatchHeader,
    /// The events that are there, in order.
    pub events: Vec<AuditEvent>,
    /// Sequence numbers of the events of which only the hash is there, ascending.
    pub withheld: Vec<u64>,
    /// SHA-256 of the encoded header: the batch's name in the chain.
    pub digest: Digest,
    /// The host says, signed, that batches just before this one can no longer be read there.
    pub behind_loss: bool,
}

impl OpenedBatch {
    /// How many events of each kind are withheld. Signed, as the counts are of all events.
    #[must_use]
    pub fn withheld_counts(&self) -> BTreeMap<String, u64> {
        counts_without(&self.header, self.events.iter().map(AuditEvent::kind))
    }
}

/// What is left of the header's counts without events of these kinds.
pub(crate) fn counts_without(
    header: &BatchHeader,
    kinds: impl Iterator<Item = &'static str>,
) -> BTreeMap<String, u64> {
    let mut counts = header.counts.clone();
    for kind in kinds {
        if let Some(count) = counts.get_mut(kind) {
            *count = count.saturating_sub(1);
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
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
    /// The events are not those that were signed.
    #[error("the batch's events are not the ones its header was signed for")]
    EventsRoot,
    /// The body is no `BatchBody`, or breaks a bound.
    #[error("the batch body is malformed: {0}")]
    Body(&'static str),
    /// An event contradicts the signed header.
    #[error("event {position} of the batch contradicts its header: {what}")]
    Event {
        /// Position in the batch, from 0.
        position: usize,
        /// What does not agree.
        what: &'static str,
    },
    /// The header's counts per kind are not those of the body.
    #[error("the batch's header counts other events than its body holds")]
    Counts,
}

/// Checks a batch against the key of its host and decodes it.
///
/// # Errors
/// Says which of signature, root, bounds, counts or sequences is wrong; nothing of such a batch may be used.
pub fn open(batch: &SignedBatch, key: &HostPublicKey) -> Result<OpenedBatch, BatchError> {
    let mut events = Vec::new();
    let opened = inspect(batch, key, |event| events.push(event))?;
    Ok(OpenedBatch { events, ..opened })
}

/// As [`open`], handing out each event as soon as it was checked instead of keeping them: the batch that is returned
/// has none.
///
/// # Errors
/// As [`open`]; then nothing that was handed out may be used.
pub fn inspect(
    batch: &SignedBatch,
    key: &HostPublicKey,
    mut each: impl FnMut(AuditEvent),
) -> Result<OpenedBatch, BatchError> {
    let header = decode_header(&batch.header)?;
    if !key.has_signed(&signed_bytes(&batch.header), &batch.signature) {
        return Err(BatchError::Signature);
    }
    let digest = Digest::of(&batch.header);
    let behind_loss = !batch.lost_before.is_empty();
    if behind_loss && !key.has_signed(&lost_bytes(digest), &batch.lost_before) {
        return Err(BatchError::Signature);
    }
    let slots = body::parse(&batch.body, event_count(&header))?;
    if body::root(&slots).as_bytes() != header.events_root {
        return Err(BatchError::EventsRoot);
    }
    let (mut withheld, mut kinds) = (Vec::new(), BTreeMap::new());
    for (position, (slot, sequence)) in slots.iter().zip(header.first_sequence..).enumerate() {
        match slot {
            Slot::Event(encoded) => {
                let event = AuditEvent::decode(*encoded).map_err(|_| UNDECODABLE)?;
                check_event(&event, sequence, &header)
                    .map_err(|what| BatchError::Event { position, what })?;
                *kinds.entry(event.kind()).or_insert(0) += 1;
                each(event);
            }
            Slot::Withheld(_) => withheld.push(sequence),
        }
    }
    check_counts(&kinds, withheld.len(), &header)?;
    Ok(OpenedBatch { digest, header, events: Vec::new(), withheld, behind_loss })
}

/// The same batch, its header and signature untouched, with the hashes alone of all events whose kind is not to be
/// kept. What was withheld before stays so.
///
/// # Errors
/// The batch is malformed. Signature and root are not checked: a host thins its own batches, a collector those that it
/// opened before.
pub fn thin(batch: &SignedBatch, keep: impl Fn(&str) -> bool) -> Result<SignedBatch, BatchError> {
    thin_events(batch, |event| keep(event.kind()))
}

/// As [`thin`], deciding by the whole event.
///
/// # Errors
/// As [`thin`].
pub fn thin_events(
    batch: &SignedBatch,
    keep: impl Fn(&AuditEvent) -> bool,
) -> Result<SignedBatch, BatchError> {
    let header = decode_header(&batch.header)?;
    let mut slots = body::parse(&batch.body, event_count(&header))?;
    for slot in &mut slots {
        if let Slot::Event(encoded) = slot {
            let event = AuditEvent::decode(*encoded).map_err(|_| UNDECODABLE)?;
            if !keep(&event) {
                *slot = Slot::Withheld(slot.leaf_hash());
            }
        }
    }
    Ok(SignedBatch { body: body::encode(&slots), ..batch.clone() })
}

const UNDECODABLE: BatchError = BatchError::Body("an event in it does not decode");

/// The signature that makes `header` a batch of the host with this key. For tests and tools that make batches a
/// [`Sealer`] never would; whoever seals batches uses that.
#[must_use]
pub fn sign_header(key: &HostKey, header: &[u8]) -> [u8; 64] {
    key.sign(&signed_bytes(header))
}

/// Adds the host's word that batches just before this one can no longer be read on the host. Whoever keeps the chain then
/// goes on behind the gap, which stays a gap.
pub fn say_lost_before(key: &HostKey, batch: &mut SignedBatch) {
    batch.lost_before = key.sign(&lost_bytes(Digest::of(&batch.header))).to_vec();
}

fn lost_bytes(header: Digest) -> Vec<u8> {
    [LOST_CONTEXT, header.as_bytes()].concat()
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
    ensure(header.events_root.len() == 32, "the root over its events has not 32 bytes")?;
    ensure(header.first_sequence > 0, "events are numbered from 1")?;
    ensure(header.last_sequence >= header.first_sequence, "it covers no event")?;
    let events = header.last_sequence - header.first_sequence;
    ensure(events < MAX_EVENTS as u64, "it covers more events than a batch may hold")?;
    ensure(header.agent_build.len() <= MAX_BUILD_BYTES, "its agent build is too long")?;
    ensure(matches!(header.ebpf_digest.len(), 0 | 32), "the eBPF object's digest has not 32 bytes")?;
    ensure(header.policy_digest.len() == 32, "the policy's digest has not 32 bytes")?;
    Ok(header)
}

/// [`decode_header`] has found it within [`MAX_EVENTS`].
fn event_count(header: &BatchHeader) -> usize {
    usize::try_from(header.last_sequence - header.first_sequence).map_or(usize::MAX, |span| span + 1)
}

fn check_event(event: &AuditEvent, sequence: u64, header: &BatchHeader) -> Result<(), &'static str> {
    if event.host_id != header.host_id {
        return Err("it names another host");
    }
    if event.boot_id != header.boot_id {
        return Err("it names another boot");
    }
    if event.sequence != sequence {
        return Err("its sequence number is out of order");
    }
    if !event.time.as_ref().is_none_or(is_valid_time) {
        return Err("its time is not within 1970 to 2200");
    }
    Ok(())
}

/// The header counts every event that is there, and as many more as are withheld.
fn check_counts(
    here: &BTreeMap<&'static str, u64>,
    withheld: usize,
    header: &BatchHeader,
) -> Result<(), BatchError> {
    let counted = |kind| header.counts.get(kind).copied().unwrap_or_default();
    let covers = here.iter().all(|(kind, count)| counted(*kind) >= *count);
    let total = header.counts.values().try_fold(0_u64, |total, count| total.checked_add(*count));
    let all = here.values().sum::<u64>() + withheld as u64;
    if covers && total == Some(all) && header.counts.values().all(|count| *count > 0) {
        Ok(())
    } else {
        Err(BatchError::Counts)
    }
}

/// Within bounds that every reader (64-bit nanoseconds, RFC 3339) can take.
fn is_valid_time(time: &Timestamp) -> bool {
    const YEAR_2200: i64 = 7_258_118_400;
    (0..YEAR_2200).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
}

fn count_kinds(events: &[AuditEvent]) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for event in events {
        *counts.entry(event.kind()).or_default() += 1;
    }
    counts.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect()
}

#[cfg(test)]
mod tests;
