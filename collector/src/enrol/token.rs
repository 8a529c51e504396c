//! Join tokens: what a new host shows once in place of a certificate.
//!
//! `btjoin_<id, 16 hexadecimal digits>_<secret, 64>`. The secret is 256 random bits, so its plain SHA-256 is all that
//! needs to be kept.

use std::fmt;

use buildtrail_evidence::digest::Digest;
use rustls::crypto::{GetRandomFailed, ring};

const PREFIX: &str = "btjoin_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// A join token. `Debug` and `Display` never show the secret.
pub(crate) struct JoinToken {
    id: [u8; ID_BYTES],
    secret: [u8; SECRET_BYTES],
}

impl JoinToken {
    /// A new one, from the system's random numbers.
    pub(crate) fn generate() -> Result<Self, GetRandomFailed> {
        let random = ring::default_provider().secure_random;
        let mut token = Self { id: [0; ID_BYTES], secret: [0; SECRET_BYTES] };
        random.fill(&mut token.id)?;
        random.fill(&mut token.secret)?;
        Ok(token)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let mut token = Self { id: [0; ID_BYTES], secret: [0; SECRET_BYTES] };
        hex::decode_to_slice(id, &mut token.id).ok()?;
        hex::decode_to_slice(secret, &mut token.secret).ok()?;
        Some(token)
    }

    /// The part that may be shown, stored and logged.
    pub(crate) fn id(&self) -> String {
        hex::encode(self.id)
    }

    /// What is kept of the secret, and compared: of two digests nobody learns a secret byte by byte.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.secret)
    }

    /// What the administrator sees once.
    pub(crate) fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id(), hex::encode(self.secret))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_shown_and_debug_hides_its_secret() {
        let token = JoinToken::generate().unwrap();
        let shown = token.reveal();
        let read = JoinToken::parse(&shown).unwrap();
        assert_eq!((read.id(), read.digest()), (token.id(), token.digest()));
        assert!(!format!("{token:?}").contains(&hex::encode(token.secret)));
        assert_ne!(JoinToken::generate().unwrap().reveal(), shown);
    }

    #[test]
    fn other_text_is_no_token() {
        let good = JoinToken::generate().unwrap().reveal();
        for wrong in ["", "btjoin_", "btjoin__", &good[1..], &good[..good.len() - 1], &format!("{good}0")] {
            assert!(JoinToken::parse(wrong).is_none(), "{wrong}");
        }
    }
}
