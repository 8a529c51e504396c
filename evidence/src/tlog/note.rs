//! Signed notes: the log's checkpoints and its witnesses' cosignatures (C2SP signed-note, tlog-checkpoint,
//! tlog-cosignature).

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use signed_note::{Note, NoteError, Signature, Verifier, VerifierList};

use super::MAX_SIZE;
use crate::{
    digest::Digest,
    key::{HostKey, HostPublicKey},
};

/// Longest note that is read, in bytes.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// Bytes of a cosignature: a time and an Ed25519 signature.
const COSIGNATURE_BYTES: usize = 8 + 64;

/// What a key's signatures mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Of a log: over the note's text.
    Log,
    /// Of a witness: over a time and the note's text.
    Witness,
}

impl KeyKind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }
}

/// The public key of a log or of a witness, with its name; displayed as a C2SP vkey (`name+id+key`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    key: HostPublicKey,
}

/// Text is no vkey of a log or witness, or a name cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteKeyError {
    /// Empty, longer than 255 bytes, or with spaces, pluses or control characters.
    #[error("a key's name has 1 to 255 bytes and no spaces, pluses or control characters")]
    Name,
    /// Not `name+id+key`.
    #[error("this is not a public key of the form name+id+key; the log writes its own to tlog/log.vkey")]
    Format,
    /// The id is not that of name and key.
    #[error("the id in the public key does not belong to its name and key: it was mistyped or altered")]
    Id,
    /// Neither a log's nor a witness's Ed25519 key.
    #[error("the public key is of another kind than Ed25519 of a log (01) or of a witness (04)")]
    Kind,
}

impl NoteKey {
    /// A key under a name.
    ///
    /// # Errors
    /// [`NoteKeyError::Name`].
    pub fn new(name: &str, kind: KeyKind, key: HostPublicKey) -> Result<Self, NoteKeyError> {
        let sane = name.len() <= 255 && !name.chars().any(char::is_control);
        if sane && signed_note::is_key_name_valid(name) {
            Ok(Self { name: name.to_owned(), kind, key })
        } else {
            Err(NoteKeyError::Name)
        }
    }

    /// The name; a log's is its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The Ed25519 key.
    #[must_use]
    pub fn public_key(&self) -> &HostPublicKey {
        &self.key
    }

    /// The first four bytes of a digest over name and key.
    #[must_use]
    pub fn id(&self) -> u32 {
        signed_note::key_id(&self.name, &self.encoded())
    }

    fn encoded(&self) -> Vec<u8> {
        [&[self.kind.byte()], &self.key.as_bytes()[..]].concat()
    }

    fn signature(&self, bytes: Vec<u8>) -> Result<Signature, NoteKeyError> {
        Signature::new(self.name.clone(), self.id(), bytes).map_err(|_| NoteKeyError::Name)
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.id(), BASE64_STANDARD.encode(self.encoded()))
    }
}

impl FromStr for NoteKey {
    type Err = NoteKeyError;

    fn from_str(vkey: &str) -> Result<Self, NoteKeyError> {
        // The key's base64 may hold pluses; names and ids cannot.
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteKeyError::Format);
        };
        let id_is_hex = id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = BASE64_STANDARD.decode(key).map_err(|_| NoteKeyError::Format)?;
        let (Some((kind, key)), true) = (key.split_first(), id_is_hex) else {
            return Err(NoteKeyError::Format);
        };
        let kind = match *kind {
            0x01 => KeyKind::Log,
            0x04 => KeyKind::Witness,
            _ => return Err(NoteKeyError::Kind),
        };
        let key = Self::new(name, kind, HostPublicKey::try_from(key).map_err(|_| NoteKeyError::Kind)?)?;
        let same_id = u32::from_str_radix(id, 16).is_ok_and(|id| id == key.id());
        if same_id { Ok(key) } else { Err(NoteKeyError::Id) }
    }
}

impl Verifier for NoteKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn key_id(&self) -> u32 {
        self.id()
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        match self.kind {
            KeyKind::Log => self.key.has_signed(text, signature),
            KeyKind::Witness => cosigned_at(signature)
                .is_some_and(|time| self.key.has_signed(&cosigned_message(time, text), &signature[8..])),
        }
    }
}

/// The time that a cosignature states, unverified.
fn cosigned_at(signature: &[u8]) -> Option<u64> {
    let time = u64::from_be_bytes(*signature.first_chunk()?);
    (signature.len() == COSIGNATURE_BYTES && i64::try_from(time).is_ok()).then_some(time)
}

fn cosigned_message(time: u64, text: &[u8]) -> Vec<u8> {
    [format!("cosignature/v1\ntime {time}\n").as_bytes(), text].concat()
}

/// A log's or witness's private key under its name. `Debug` shows the public half only.
#[derive(Debug)]
pub struct NoteSigner {
    private: HostKey,
    public: NoteKey,
}

impl NoteSigner {
    /// A key under a name.
    ///
    /// # Errors
    /// [`NoteKeyError::Name`].
    pub fn new(name: &str, kind: KeyKind, key: HostKey) -> Result<Self, NoteKeyError> {
        let public = NoteKey::new(name, kind, key.public())?;
        Ok(Self { private: key, public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &NoteKey {
        &self.public
    }

    /// Signs `text`: a line for the end of a note. A witness states `unix_seconds`; a log states no time.
    ///
    /// # Errors
    /// [`NoteKeyError::Name`], which [`NoteSigner::new`] has excluded.
    pub fn sign(&self, text: &[u8], unix_seconds: u64) -> Result<SignatureLine, NoteKeyError> {
        let bytes = match self.public.kind {
            KeyKind::Log => self.private.sign(text).to_vec(),
            KeyKind::Witness => {
                let signature = self.private.sign(&cosigned_message(unix_seconds, text));
                [&unix_seconds.to_be_bytes()[..], &signature].concat()
            }
        };
        self.public.signature(bytes).map(SignatureLine)
    }
}

/// One signature of a note; displayed as its line, without the newline.
#[derive(Debug, Clone, PartialEq)]
pub struct SignatureLine(Signature);

impl SignatureLine {
    /// Reads the lines that a witness answers with. Lines that are no signatures make all of it wrong.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn parse_all(text: &str) -> Result<Vec<Self>, CheckpointError> {
        let line = |line: &str| Signature::from_bytes(line.as_bytes()).map(Self);
        text.lines().take(100).map(line).collect::<Result<_, _>>().map_err(|_| CheckpointError::Malformed)
    }

    /// Whether it is by `key` over `text`.
    #[must_use]
    pub fn is_by(&self, key: &NoteKey, text: &[u8]) -> bool {
        self.0.name() == key.name && self.0.id() == key.id() && key.verify(text, self.0.signature())
    }

    /// The signature itself: of a log's key 64 bytes of Ed25519.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.signature()
    }

    /// The time that a witness's signature states, in seconds since 1970; unverified.
    #[must_use]
    pub fn unix_seconds(&self) -> Option<u64> {
        cosigned_at(self.0.signature())
    }
}

impl fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0.to_bytes()).trim_end())
    }
}

/// A tree at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log: the name of its key.
    pub origin: String,
    /// Leaves.
    pub size: u64,
    /// RFC 6962 tree hash over them.
    pub root: Digest,
}

impl Checkpoint {
    /// The tree that a note claims; no signature is checked. For a note that was kept since it was checked.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn claimed(note: &[u8]) -> Result<Self, CheckpointError> {
        let text = note.windows(2).position(|window| window == b"\n\n").and_then(|end| note.get(..=end));
        parse(text.ok_or(CheckpointError::Malformed)?)
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(self.root.as_bytes()))
    }

    /// The signed note.
    ///
    /// # Errors
    /// [`NoteKeyError::Name`], which [`NoteSigner::new`] has excluded.
    pub fn sign(self, signer: &NoteSigner) -> Result<SignedCheckpoint, NoteKeyError> {
        let text = self.text();
        let signature = signer.sign(text.as_bytes(), 0)?;
        Ok(SignedCheckpoint { checkpoint: self, text, signatures: vec![signature] })
    }
}

/// Why a checkpoint counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// No signed note, or its text is no checkpoint.
    #[error("the checkpoint is malformed")]
    Malformed,
    /// Of another log.
    #[error("the checkpoint is of the log {found:?}, not of {expected:?}")]
    Origin {
        /// Whose checkpoint was asked for.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// Not signed by the log's key.
    #[error("the checkpoint is not signed by the key of {0:?}")]
    Signature(String),
}

/// A checkpoint that its log has signed.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    text: String,
    /// The log's, then all others, which are unverified.
    signatures: Vec<SignatureLine>,
}

impl SignedCheckpoint {
    /// Reads a note and checks that `log` has signed it.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open(note: &[u8], log: &NoteKey) -> Result<Self, CheckpointError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(CheckpointError::Malformed);
        }
        let note = Note::from_bytes(note).map_err(|_| CheckpointError::Malformed)?;
        let text = String::from_utf8(note.text().to_vec()).map_err(|_| CheckpointError::Malformed)?;
        let checkpoint = parse(text.as_bytes())?;
        if checkpoint.origin != log.name {
            let (expected, found) = (log.name.clone(), checkpoint.origin);
            return Err(CheckpointError::Origin { expected, found });
        }
        let known = VerifierList::new(vec![Box::new(log.clone())]);
        let (mut signatures, others) = note.verify(&known).map_err(|error| match error {
            NoteError::MalformedNote => CheckpointError::Malformed,
            _ => CheckpointError::Signature(log.name.clone()),
        })?;
        signatures.extend(others);
        Ok(Self { checkpoint, text, signatures: signatures.into_iter().map(SignatureLine).collect() })
    }

    /// What was signed.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The note: text, empty line, one line per signature.
    #[must_use]
    pub fn note(&self) -> String {
        let lines: Vec<String> = self.signatures.iter().map(SignatureLine::to_string).collect();
        format!("{}\n{}\n", self.text, lines.join("\n"))
    }

    /// Adds a witness's signature if it is by `key` over this checkpoint; says whether it is. A newer one replaces an
    /// older one.
    pub fn add(&mut self, line: &SignatureLine, key: &NoteKey) -> bool {
        let good = line.is_by(key, self.text.as_bytes());
        if good {
            let same = |known: &SignatureLine| known.0.name() == key.name && known.0.id() == key.id();
            self.signatures.retain(|known| !same(known));
            self.signatures.push(line.clone());
        }
        good
    }

    /// The time at which `witness` says that it saw this checkpoint, in seconds since 1970, if its cosignature is
    /// there and right.
    #[must_use]
    pub fn cosigned_by(&self, witness: &NoteKey) -> Option<u64> {
        let by_witness = |line: &&SignatureLine| line.is_by(witness, self.text.as_bytes());
        self.signatures.iter().find(by_witness).and_then(SignatureLine::unix_seconds)
    }
}

/// The origin that a note claims, unverified: to find the key to open it with.
///
/// # Errors
/// [`CheckpointError::Malformed`].
pub fn claimed_origin(note: &[u8]) -> Result<String, CheckpointError> {
    let line = note.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(origin) if !origin.is_empty() && origin.len() <= 255 => Ok(origin.to_owned()),
        _ => Err(CheckpointError::Malformed),
    }
}

fn parse(text: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let parsed = tlog_tiles::Checkpoint::from_bytes(text).map_err(|_| CheckpointError::Malformed)?;
    if parsed.size() > MAX_SIZE {
        return Err(CheckpointError::Malformed);
    }
    let (origin, root) = (parsed.origin().to_owned(), Digest(parsed.hash().0));
    Ok(Checkpoint { origin, size: parsed.size(), root })
}
