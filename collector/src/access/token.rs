//! API tokens: `btapi_<id, 16 hexadecimal digits>_<secret, 64>`. The secret is 256 random bits, so that its plain SHA-256 is
//! all that needs to be kept.

use buildtrail_evidence::digest::Digest;
use rustls::crypto::{GetRandomFailed, ring};

const PREFIX: &str = "btapi_";

/// What a program shows. No `Debug`: it holds the secret.
pub(super) struct ApiToken {
    id: [u8; 8],
    secret: [u8; 32],
}

impl ApiToken {
    pub(super) fn generate() -> Result<Self, GetRandomFailed> {
        let random = ring::default_provider().secure_random;
        let mut token = Self { id: [0; 8], secret: [0; 32] };
        random.fill(&mut token.id)?;
        random.fill(&mut token.secret)?;
        Ok(token)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let mut token = Self { id: [0; 8], secret: [0; 32] };
        hex::decode_to_slice(id, &mut token.id).ok()?;
        hex::decode_to_slice(secret, &mut token.secret).ok()?;
        Some(token)
    }

    /// The part that may be shown, kept and logged.
    pub(super) fn id(&self) -> String {
        hex::encode(self.id)
    }

    pub(super) fn digest(&self) -> Vec<u8> {
        Digest::of(&self.secret).as_bytes().to_vec()
    }

    /// What its owner sees once.
    pub(super) fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id(), hex::encode(self.secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_shown_and_other_text_is_none() {
        let token = ApiToken::generate().unwrap();
        let shown = token.reveal();
        let read = ApiToken::parse(&shown).unwrap();
        assert_eq!((read.id(), read.digest()), (token.id(), token.digest()));
        for wrong in ["", "btapi_", "btapi__", &shown[1..], &shown[..shown.len() - 1], &format!("{shown}0")] {
            assert!(ApiToken::parse(wrong).is_none(), "{wrong}");
        }
    }
}
