//! Passwords and codes of local administrators: argon2id, and RFC 6238 codes of a device, or a recovery code.

use argon2::{Algorithm, Argon2, Params, Version};
use buildtrail_evidence::digest::Digest;
use data_encoding::BASE32_NOPAD;
use ring::hmac;
use rustls::crypto::{GetRandomFailed, ring as provider};

/// 19 MiB, twice, in one lane: what OWASP's password storage recommendations begin with.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Of one code, in seconds; codes have six digits. Authenticator programs know no other values for sure.
const STEP: i64 = 30;
/// As RFC 4226 recommends for the key of HMAC-SHA-1.
const DEVICE_BYTES: usize = 20;
const RECOVERY_CODES: usize = 10;

/// The shortest password.
pub(crate) const MIN_PASSWORD: usize = 12;
/// The longest one, in bytes.
pub(crate) const MAX_PASSWORD: usize = 1024;

/// A password cannot be kept or checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("the system gives no random numbers")]
    Random,
    #[error("the password cannot be hashed: {0}")]
    Hash(argon2::Error),
}

impl From<GetRandomFailed> for PasswordError {
    fn from(_: GetRandomFailed) -> Self {
        Self::Random
    }
}

/// `argon2id$<memory>,<passes>$<salt>$<hash>`, so that later versions may use more of both.
pub(super) fn hash(password: &str) -> Result<String, PasswordError> {
    let mut salt = [0; SALT_BYTES];
    provider::default_provider().secure_random.fill(&mut salt)?;
    let hash = argon2id(password, &salt, MEMORY_KIB, PASSES)?;
    Ok(format!("argon2id${MEMORY_KIB},{PASSES}${}${}", hex::encode(salt), hex::encode(hash)))
}

/// Whether this is the password. Unreadable hashes fit none.
pub(super) fn verify(password: &str, kept: &str) -> bool {
    let parts: Vec<&str> = kept.split('$').collect();
    let ["argon2id", costs, salt, hash] = parts[..] else { return false };
    let costs =
        costs.split_once(',').and_then(|(memory, passes)| memory.parse().ok().zip(passes.parse().ok()));
    let (Some((memory, passes)), Ok(salt), Ok(hash)) = (costs, hex::decode(salt), hex::decode(hash)) else {
        return false;
    };
    argon2id(password, &salt, memory, passes).is_ok_and(|made| same(&made, &hash))
}

fn argon2id(
    password: &str,
    salt: &[u8],
    memory: u32,
    passes: u32,
) -> Result<[u8; HASH_BYTES], PasswordError> {
    let params = Params::new(memory, passes, 1, Some(HASH_BYTES)).map_err(PasswordError::Hash)?;
    let mut hash = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut hash)
        .map_err(PasswordError::Hash)?;
    Ok(hash)
}

/// Compares digests, of which nobody learns a secret byte by byte.
fn same(one: &[u8], other: &[u8]) -> bool {
    Digest::of(one) == Digest::of(other)
}

/// A new device's key.
pub(super) fn new_device() -> Result<Vec<u8>, PasswordError> {
    let mut key = vec![0; DEVICE_BYTES];
    provider::default_provider().secure_random.fill(&mut key)?;
    Ok(key)
}

/// As authenticator programs take it by hand.
pub(super) fn device_text(key: &[u8]) -> String {
    BASE32_NOPAD.encode(key)
}

/// As authenticator programs take it from a QR code.
pub(super) fn device_uri(name: &str, key: &[u8]) -> String {
    format!("otpauth://totp/Buildtrail:{name}?secret={}&issuer=Buildtrail", device_text(key))
}

/// The step to which a code belongs: the present one, or a neighbour, as clocks differ.
pub(super) fn step_of(code: &str, key: &[u8], now: i64) -> Option<i64> {
    let present = now / STEP;
    (present - 1..=present + 1).find(|step| same(code_at(*step, key).as_bytes(), code.as_bytes()))
}

fn code_at(step: i64, key: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag.last().copied().unwrap_or_default() & 15);
    let word = tag.iter().skip(offset).take(4).fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

/// Codes that stand in for a lost device, each once: to show, and to keep.
pub(super) fn recovery_codes() -> Result<(Vec<String>, Vec<Vec<u8>>), PasswordError> {
    let mut shown = Vec::new();
    for _ in 0..RECOVERY_CODES {
        let mut code = [0; 10];
        provider::default_provider().secure_random.fill(&mut code)?;
        let text = BASE32_NOPAD.encode(&code).to_lowercase();
        shown.push(format!("{}-{}", &text[..8], &text[8..]));
    }
    let kept = shown.iter().map(|code| recovery_digest(code)).collect();
    Ok((shown, kept))
}

/// What is kept of a recovery code; of 80 random bits a plain digest is enough.
pub(super) fn recovery_digest(code: &str) -> Vec<u8> {
    let plain: String =
        code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    Digest::of(plain.as_bytes()).as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let key = b"12345678901234567890";
        for (time, code) in [(59, "287082"), (1_111_111_109, "081804"), (20_000_000_000, "353130")] {
            assert_eq!(code_at(time / STEP, key), code);
            assert_eq!(step_of(code, key, time + STEP), Some(time / STEP));
            assert_eq!(step_of(code, key, time + 3 * STEP), None);
        }
        assert_eq!(step_of("", key, 59), None);
    }

    #[test]
    fn a_password_fits_its_own_hash_only() {
        let kept = hash("correct horse battery").unwrap();
        assert!(kept.starts_with("argon2id$19456,2$") && !kept.contains("horse"));
        assert!(verify("correct horse battery", &kept));
        for (password, kept) in [
            ("correct horse", &*kept),
            ("", &kept),
            ("x", ""),
            ("x", "argon2id$0,0$00$00"),
            ("x", "a$1,1$z$z"),
        ] {
            assert!(!verify(password, kept), "{password} {kept}");
        }
        assert_ne!(hash("correct horse battery").unwrap(), kept, "salted");
    }

    #[test]
    fn recovery_codes_are_known_however_they_are_typed() {
        let (shown, kept) = recovery_codes().unwrap();
        assert_eq!((shown.len(), kept.len()), (RECOVERY_CODES, RECOVERY_CODES));
        assert_eq!(recovery_digest(&shown[0].to_uppercase().replace('-', " ")), kept[0]);
        assert_ne!(recovery_digest(&shown[1]), kept[0]);
    }
}
