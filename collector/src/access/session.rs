//! What stands for a person between requests: the cookie's value, of which only a digest is kept.

use std::fmt;

use buildtrail_evidence::digest::Digest;
use rustls::crypto::{GetRandomFailed, ring};

/// The cookie of a browser's session. With this prefix browsers take it only from this very host, over TLS.
pub(crate) const COOKIE: &str = "__Host-buildtrail";
/// What makes the token of forms another value than the session's.
const CSRF_DOMAIN: &[u8] = b"buildtrail csrf\0";

/// 256 random bits that only browser and collector know. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; 32]);

/// What is kept of a session's secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(Digest);

/// What a form must carry to count as its person's will.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Csrf(String);

impl Secret {
    pub(crate) fn generate() -> Result<Self, GetRandomFailed> {
        let mut bytes = [0; 32];
        ring::default_provider().secure_random.fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// As it stands in the cookie.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    pub(crate) fn reveal(&self) -> String {
        hex::encode(self.0)
    }

    pub(crate) fn id(&self) -> SessionId {
        SessionId(Digest::of(&self.0))
    }

    pub(crate) fn csrf(&self) -> Csrf {
        Csrf(hex::encode(Digest::of(&[CSRF_DOMAIN, &self.0].concat()).as_bytes()))
    }
}

impl SessionId {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Csrf {
    /// For a hidden field named `csrf`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is(&self, text: &str) -> bool {
        same_text(&self.0, text)
    }
}

/// Compares digests, of which nobody learns a secret byte by byte.
pub(super) fn same_text(one: &str, other: &str) -> bool {
    Digest::of(one.as_bytes()) == Digest::of(other.as_bytes())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Debug for Csrf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Csrf")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_by_a_digest_and_its_forms_by_another_value() {
        let secret = Secret::generate().unwrap();
        let shown = secret.reveal();
        assert_eq!(Secret::parse(&shown).unwrap().id(), secret.id());
        assert_ne!(hex::encode(secret.id().as_bytes()), shown);
        assert!(secret.csrf().is(secret.csrf().as_str()) && !secret.csrf().is(&shown));
        assert_ne!(Secret::generate().unwrap(), secret);
        assert_eq!(format!("{secret:?} {:?}", secret.csrf()), "Secret Csrf");
        for wrong in ["", "0", &shown[1..], "zz", &format!("{shown}0")] {
            assert!(Secret::parse(wrong).is_none(), "{wrong}");
        }
    }
}
