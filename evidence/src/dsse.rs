//! DSSE envelopes: signed JSON documents (<https://github.com/secure-systems-lab/dsse>).
//!
//! In: a payload and the log's key. Out: the envelope, and the other way round. The key id is the log's C2SP vkey, so that
//! an envelope says which key it needs. Must never accept an envelope of which any byte is other than written here.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use crate::tlog::note::{NoteKey, NoteKeyError, NoteSigner};

/// The payload type of in-toto statements.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: String,
    sig: String,
}

/// An envelope is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsseError {
    /// No envelope at all.
    #[error("this is no DSSE envelope; `buildtrail export --format in-toto` makes one")]
    NotAnEnvelope,
    /// It is written in another way than this program writes it.
    #[error("the envelope was altered: it is not written as it was made")]
    Altered,
    /// Of another type.
    #[error("the envelope holds something other than an in-toto statement")]
    Type,
    /// The key id is no log's key, or another log's than expected.
    #[error("the envelope is signed with the key {found}, not with the log's")]
    Key {
        /// What stands in the envelope.
        found: String,
    },
    /// The signature is wrong.
    #[error("the envelope was altered: its payload is not what the log's key has signed")]
    Signature,
    /// The key cannot sign.
    #[error("the envelope cannot be signed: {0}")]
    Signer(#[from] NoteKeyError),
}

/// Signs a payload.
///
/// # Errors
/// [`DsseError::Signer`].
pub fn sign(payload: &[u8], log: &NoteSigner) -> Result<String, DsseError> {
    let line = log.sign(&signed_bytes(payload), 0)?;
    let signature =
        EnvelopeSignature { keyid: log.public().to_string(), sig: BASE64_STANDARD.encode(line.bytes()) };
    write(&Envelope {
        payload: BASE64_STANDARD.encode(payload),
        payload_type: IN_TOTO.into(),
        signatures: vec![signature],
    })
}

fn write(envelope: &Envelope) -> Result<String, DsseError> {
    let text = serde_json::to_string(envelope).map_err(|_| DsseError::NotAnEnvelope)?;
    Ok(text + "\n")
}

/// What the signature covers: the pre-authentication encoding.
fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Checks an envelope and returns its payload and the key that signed it: `known`, where one is known.
///
/// # Errors
/// See [`DsseError`].
pub fn open(text: &[u8], known: Option<&NoteKey>) -> Result<(Vec<u8>, NoteKey), DsseError> {
    let envelope: Envelope = serde_json::from_slice(text).map_err(|_| DsseError::NotAnEnvelope)?;
    if write(&envelope)?.as_bytes() != text {
        return Err(DsseError::Altered);
    }
    let [signature] = &envelope.signatures[..] else { return Err(DsseError::Altered) };
    if envelope.payload_type != IN_TOTO {
        return Err(DsseError::Type);
    }
    let foreign = || DsseError::Key { found: signature.keyid.clone() };
    let key: NoteKey = signature.keyid.parse().map_err(|_| foreign())?;
    if known.is_some_and(|known| *known != key) || key.to_string() != signature.keyid {
        return Err(foreign());
    }
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| DsseError::Altered);
    let (payload, sig) = (decode(&envelope.payload)?, decode(&signature.sig)?);
    if key.public_key().has_signed(&signed_bytes(&payload), &sig) {
        Ok((payload, key))
    } else {
        Err(DsseError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::HostKey, tlog::note::KeyKind};

    fn log(seed: u8) -> NoteSigner {
        NoteSigner::new("example.org/build", KeyKind::Log, HostKey::from_seed(&[seed; 32])).unwrap()
    }

    #[test]
    fn an_envelope_opens_with_its_key_and_no_byte_of_it_can_be_changed() {
        let text = sign(b"{\"a\":1}", &log(1)).unwrap();
        let (payload, key) = open(text.as_bytes(), None).unwrap();
        assert_eq!((&payload[..], &key), (&b"{\"a\":1}"[..], log(1).public()));
        assert!(matches!(open(text.as_bytes(), Some(log(2).public())), Err(DsseError::Key { .. })));
        for position in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[position] ^= 1 << (position % 7);
            assert!(open(&changed, None).is_err(), "byte {position}");
        }
    }

    #[test]
    fn white_space_and_further_signatures_are_refused() {
        let text = sign(b"{}", &log(1)).unwrap();
        assert_eq!(open(format!("{text} ").as_bytes(), None), Err(DsseError::Altered));
        assert_eq!(open(b"{}", None), Err(DsseError::NotAnEnvelope));
        let twice = text.replace("\"signatures\":[", "\"signatures\":[{\"keyid\":\"a\",\"sig\":\"\"},");
        assert_eq!(open(twice.as_bytes(), None), Err(DsseError::Altered));
    }

    #[test]
    fn the_pre_authentication_encoding_is_the_specifications() {
        assert_eq!(signed_bytes(b"hello"), b"DSSEv1 28 application/vnd.in-toto+json 5 hello");
    }
}
