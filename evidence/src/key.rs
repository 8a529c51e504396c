//! A host's Ed25519 key: it signs batches and is the key of the host's certificate.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey, pkcs8::DecodePrivateKey as _};

/// A key could not be used. Never says anything about the key's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a PKCS#8 PEM Ed25519 private key.
    #[error(
        "this is not an Ed25519 private key in PKCS#8 PEM form; `buildtrail-collector ca host` makes one"
    )]
    NotEd25519Pem,
    /// Not 32 bytes, or not a point on the curve.
    #[error("this is not an Ed25519 public key")]
    NotPublicKey,
}

/// What stands before an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410).
pub(crate) const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A host's private key. `Debug` never shows it; its memory is wiped on drop.
#[derive(Clone)]
pub struct HostKey(SigningKey);

impl HostKey {
    /// Reads a PKCS#8 PEM file's text (`-----BEGIN PRIVATE KEY-----`).
    ///
    /// # Errors
    /// [`KeyError::NotEd25519Pem`] for anything else.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        SigningKey::from_pkcs8_pem(pem).map(Self).map_err(|_| KeyError::NotEd25519Pem)
    }

    /// The key of a 32-byte Ed25519 seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> HostPublicKey {
        HostPublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey(private key of {})", self.public())
    }
}

/// A host's public key; displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostPublicKey(VerifyingKey);

impl HostPublicKey {
    /// The 32 bytes of RFC 8032.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key of a certificate in DER form, where that is an Ed25519 key. Whether the certificate is valid and by whom
    /// it was issued is not checked.
    #[must_use]
    pub fn in_certificate(der: &[u8]) -> Option<Self> {
        let at = der.windows(ED25519_SPKI.len()).position(|window| window == ED25519_SPKI)?;
        Self::try_from(der.get(at + ED25519_SPKI.len()..)?.get(..32)?).ok()
    }

    /// Whether `signature` is this key's over `message` (strict: no weak keys, no malleable signatures).
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

impl TryFrom<&[u8]> for HostPublicKey {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| KeyError::NotPublicKey)?;
        VerifyingKey::from_bytes(bytes).map(Self).map_err(|_| KeyError::NotPublicKey)
    }
}

impl fmt::Display for HostPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for HostPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPublicKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::pkcs8::{EncodePrivateKey as _, spki::der::pem::LineEnding};

    use super::*;

    #[test]
    fn a_pem_key_round_trips_and_debug_shows_only_the_public_half() {
        let seed = [7_u8; 32];
        let pem = SigningKey::from_bytes(&seed).to_pkcs8_pem(LineEnding::default()).unwrap();
        let key = HostKey::from_pkcs8_pem(&pem).unwrap();
        assert_eq!(key.public(), HostKey::from_seed(&seed).public());
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().to_string()) && !shown.contains(&hex::encode(seed)));
    }

    #[test]
    fn other_text_is_refused_without_repeating_it() {
        let error = HostKey::from_pkcs8_pem("FAKE-not-a-secret").unwrap_err();
        assert!(!error.to_string().contains("FAKE"));
        assert!(HostPublicKey::try_from(&[1_u8; 5][..]).is_err());
    }

    #[test]
    fn a_signature_counts_only_for_its_message_and_key() {
        let key = HostKey::from_seed(&[1; 32]);
        let signature = key.sign(b"message");
        assert!(key.public().has_signed(b"message", &signature));
        assert!(!key.public().has_signed(b"massage", &signature));
        assert!(!HostKey::from_seed(&[2; 32]).public().has_signed(b"message", &signature));
        assert!(!key.public().has_signed(b"message", &signature[..63]));
    }
}
