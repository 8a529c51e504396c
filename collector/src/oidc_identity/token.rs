//! Whether a token is what it says: a JSON Web Token (RFC 7519) signed with RS256 or ES256 (RFC 7518) by a key of its
//! issuer's set (RFC 7517).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest token, in bytes.
pub(crate) const MAX_TOKEN: usize = 8 * 1024;
/// Most keys of one issuer that are looked at.
const MAX_KEYS: usize = 64;
/// How far the clocks of issuer and collector may differ, in seconds.
const SKEW: i64 = 60;

/// A key set, as an issuer publishes it. Keys of other kinds are left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed point of P-256 (SEC 1).
    P256(Vec<u8>),
}

#[derive(Deserialize)]
struct KeySetText {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct KeyText {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a key set; `None` when it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let KeySetText { keys } = serde_json::from_str(text).ok()?;
        let known = keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value(key).ok());
        Some(Self(known.filter_map(key).collect()))
    }

    /// Whether it has a key of this name.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }
}

fn key(text: KeyText) -> Option<Key> {
    if text.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return None;
    }
    let material = match (text.kty.as_str(), text.crv.as_deref()) {
        ("RSA", _) => Material::Rsa { modulus: bytes(&text.n?)?, exponent: bytes(&text.e?)? },
        ("EC", Some("P-256")) => {
            let point = [vec![4], bytes(&text.x?)?, bytes(&text.y?)?].concat();
            (point.len() == 65).then_some(Material::P256(point))?
        }
        _ => return None,
    };
    Some(Key { id: text.kid, material })
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

/// A token whose signature has not been looked at.
#[derive(Debug)]
pub(crate) struct Unproven<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    algorithm: String,
    /// Which key of the issuer's.
    pub(crate) key_id: Option<String>,
    claims: Map<String, Value>,
}

/// What is wrong with a token. The texts go into the log and never hold the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("it is no token")]
    Malformed,
    #[error("its algorithm is neither RS256 nor ES256")]
    Algorithm,
    #[error("the issuer has no such key")]
    NoKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is for somebody else: its audience is another one")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
}

impl<'a> Unproven<'a> {
    /// Takes a token apart.
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let json = |part: &str| bytes(part).ok_or(TokenError::Malformed);
        let header: Header = serde_json::from_slice(&json(header)?).map_err(|_| TokenError::Malformed)?;
        let claims = serde_json::from_slice(&json(claims)?).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let signature = json(signature)?;
        Ok(Self { signed, signature, algorithm: header.alg, key_id: header.kid, claims })
    }

    /// Who says to have signed it.
    pub(crate) fn issuer(&self) -> &str {
        text(&self.claims, "iss")
    }

    /// The claims, when key, audience and time are right. `now` is in seconds since 1970.
    pub(crate) fn prove(
        self,
        keys: &KeySet,
        audience: &str,
        now: i64,
    ) -> Result<Map<String, Value>, TokenError> {
        self.check_signature(keys)?;
        if !audiences(&self.claims).any(|found| found == audience) {
            return Err(TokenError::Audience);
        }
        let seconds = |name: &str| self.claims.get(name).and_then(Value::as_i64);
        let expires = seconds("exp").ok_or(TokenError::Expired)?;
        if expires.saturating_add(SKEW) <= now {
            return Err(TokenError::Expired);
        }
        let begins = seconds("nbf").or_else(|| seconds("iat")).unwrap_or(i64::MIN);
        if begins.saturating_sub(SKEW) > now {
            return Err(TokenError::NotYet);
        }
        Ok(self.claims)
    }

    fn check_signature(&self, keys: &KeySet) -> Result<(), TokenError> {
        if !matches!(self.algorithm.as_str(), "RS256" | "ES256") {
            return Err(TokenError::Algorithm);
        }
        let mut fitting = keys
            .0
            .iter()
            .filter(|key| self.key_id.is_none() || key.id == self.key_id)
            .filter(|key| matches!(key.material, Material::Rsa { .. }) == (self.algorithm == "RS256"))
            .peekable();
        if fitting.peek().is_none() {
            return Err(TokenError::NoKey);
        }
        if fitting.any(|key| key.material.signed(self.signed.as_bytes(), &self.signature)) {
            Ok(())
        } else {
            Err(TokenError::Signature)
        }
    }
}

impl Material {
    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
        }
    }
}

/// `aud` is a text or a list of them.
fn audiences(claims: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let value = claims.get("aud");
    let one = value.and_then(Value::as_str);
    let many = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(many)
}

/// A claim that is a text; empty when it is not there.
pub(crate) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}
