//! Evidence bundles: everything about one job that a verifier needs, in one file. `docs/formats/bundle.md` is the
//! specification.
//!
//! In: records of the log with their places in its tree, and the log's signature over all of it. Out: one row of bytes,
//! and the other way round. Must never hold events of another job, nor let a byte be changed unseen.

use buildtrail_proto::v1::{BundleHeader, BundleRecord};
use prost::Message as _;

use crate::{
    digest::Digest,
    tlog::note::{NoteKey, NoteKeyError, NoteSigner, SignatureLine},
};

/// The first bytes of every bundle, and of what its signature covers.
pub const MAGIC: &[u8] = b"buildtrail bundle v1\n";
/// Longest section, in bytes.
pub const MAX_SECTION_BYTES: usize = 17 << 20;
/// Longest bundle, in bytes.
pub const MAX_BUNDLE_BYTES: u64 = 1 << 30;

const HEADER: u8 = 1;
const CHECKPOINT: u8 = 2;
const RECORD: u8 = 3;
const SIGNATURE: u8 = 4;

/// A bundle that was read. Only its form was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// Which job, which log, when and for whom.
    pub header: BundleHeader,
    /// The signed note that the records' proofs lead to.
    pub checkpoint: Vec<u8>,
    /// By index, ascending.
    pub records: Vec<BundleRecord>,
    digest: Digest,
    signature: SignatureLine,
}

/// The bytes are no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Something else, or of a newer version.
    #[error("this is no evidence bundle of version 1; `buildtrail export --job J --bundle F` makes one")]
    NotABundle,
    /// It begins like one.
    #[error("the bundle is damaged: {0}")]
    Damaged(&'static str),
    /// More than a bundle may hold.
    #[error(
        "a section of {0} bytes does not fit into a bundle; export a shorter job, or verify against the log"
    )]
    TooLong(usize),
    /// The key cannot sign.
    #[error("the bundle cannot be signed: {0}")]
    Signer(#[from] NoteKeyError),
}

/// Writes a bundle, section by section.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins a bundle with the log's checkpoint.
    ///
    /// # Errors
    /// [`BundleError::TooLong`].
    pub fn new(header: &BundleHeader, checkpoint: &str) -> Result<Self, BundleError> {
        let mut writer = Self { bytes: MAGIC.to_vec() };
        writer.section(HEADER, &header.encode_to_vec())?;
        writer.section(CHECKPOINT, checkpoint.as_bytes())?;
        Ok(writer)
    }

    /// Adds a record; give them by index, ascending.
    ///
    /// # Errors
    /// [`BundleError::TooLong`].
    pub fn record(&mut self, record: &BundleRecord) -> Result<(), BundleError> {
        self.section(RECORD, &record.encode_to_vec())
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written, which is never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Signs it with the log's key.
    ///
    /// # Errors
    /// [`BundleError::Signer`].
    pub fn finish(mut self, log: &NoteSigner) -> Result<Vec<u8>, BundleError> {
        let line = log.sign(&signed_bytes(Digest::of(&self.bytes)), 0)?;
        self.section(SIGNATURE, line.to_string().as_bytes())?;
        Ok(self.bytes)
    }

    fn section(&mut self, kind: u8, payload: &[u8]) -> Result<(), BundleError> {
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_SECTION_BYTES);
        let length = length.ok_or(BundleError::TooLong(payload.len()))?;
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(payload);
        Ok(())
    }
}

fn signed_bytes(digest: Digest) -> Vec<u8> {
    [MAGIC, digest.as_bytes()].concat()
}

impl Bundle {
    /// Reads a bundle's form; nothing is verified.
    ///
    /// # Errors
    /// [`BundleError::NotABundle`] or [`BundleError::Damaged`].
    pub fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(BundleError::NotABundle)?;
        let mut sections = Sections { rest };
        let header = BundleHeader::decode(sections.expect(HEADER)?)
            .map_err(|_| BundleError::Damaged("its header does not decode"))?;
        let checkpoint = sections.expect(CHECKPOINT)?.to_vec();
        let mut records: Vec<BundleRecord> = Vec::new();
        loop {
            let signed = bytes.len() - sections.rest.len();
            let (kind, payload) = sections.next()?;
            match kind {
                RECORD => {
                    let record = BundleRecord::decode(payload)
                        .map_err(|_| BundleError::Damaged("a record in it does not decode"))?;
                    if records.last().is_some_and(|before| before.index >= record.index) {
                        return Err(BundleError::Damaged("its records are out of order"));
                    }
                    records.push(record);
                }
                SIGNATURE if sections.rest.is_empty() => {
                    let digest = Digest::of(bytes.get(..signed).unwrap_or_default());
                    let signature = signature_line(payload)?;
                    return Ok(Self { header, checkpoint, records, digest, signature });
                }
                SIGNATURE => return Err(BundleError::Damaged("something stands behind its signature")),
                _ => return Err(BundleError::Damaged("it holds an unknown section")),
            }
        }
    }

    /// Whether the log of this key has signed every byte before the signature.
    #[must_use]
    pub fn is_signed_by(&self, log: &NoteKey) -> bool {
        self.signature.is_by(log, &signed_bytes(self.digest))
    }
}

/// A signature has one written form.
fn signature_line(payload: &[u8]) -> Result<SignatureLine, BundleError> {
    const NO_SIGNATURE: BundleError = BundleError::Damaged("its signature is none");
    let text = str::from_utf8(payload).map_err(|_| NO_SIGNATURE)?;
    let lines = SignatureLine::parse_all(text).map_err(|_| NO_SIGNATURE)?;
    match <[SignatureLine; 1]>::try_from(lines) {
        Ok([line]) if line.to_string() == text => Ok(line),
        _ => Err(NO_SIGNATURE),
    }
}

struct Sections<'a> {
    rest: &'a [u8],
}

impl<'a> Sections<'a> {
    fn next(&mut self) -> Result<(u8, &'a [u8]), BundleError> {
        const CUT_OFF: BundleError = BundleError::Damaged("it was cut off");
        let (&kind, rest) = self.rest.split_first().ok_or(CUT_OFF)?;
        let (length, rest) = rest.split_first_chunk().ok_or(CUT_OFF)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_SECTION_BYTES {
            return Err(BundleError::Damaged("a section is longer than one may be"));
        }
        let (payload, rest) = rest.split_at_checked(length).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok((kind, payload))
    }

    fn expect(&mut self, wanted: u8) -> Result<&'a [u8], BundleError> {
        match self.next()? {
            (kind, payload) if kind == wanted => Ok(payload),
            _ => Err(BundleError::Damaged("its header or its checkpoint is missing")),
        }
    }
}

#[cfg(test)]
mod tests;
