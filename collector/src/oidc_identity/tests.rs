//! Tokens of a local issuer, right and wrong.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use buildtrail_proto::v1::IdentityClaim;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use token::{KeySet, TokenError};

const ISSUER: &str = "https://issuer.example.test";
const NOW: i64 = 1_800_000_000;

/// Made once with OpenSSL; the private key is gone. It says repository acme/widgets and run 7, until 2100.
const RSA_TOKEN: &str = include_str!("../../../tests/scenario/issuer/token");
const RSA_KEYS: &str = include_str!("../../../tests/scenario/issuer/jwks.json");

/// A key, and what its owner publishes.
struct LocalIssuer {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl LocalIssuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        Self { key, random }
    }

    fn key_set(&self) -> String {
        let point = self.key.public_key().as_ref();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "ec-1", "use": "sig", "x": part(&point[1..33]), "y": part(&point[33..])});
        let rsa: Value = serde_json::from_str(RSA_KEYS).unwrap();
        let others = [
            json!({"kty": "oct", "k": "FAKE"}),
            json!(7),
            json!({"kty": "EC", "crv": "P-256", "x": "!", "y": ""}),
        ];
        json!({"keys": [ec, rsa["keys"][0], others[0], others[1], others[2]]}).to_string()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": "ec-1"}), claims)
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "buildtrail", "sub": "repo:acme/widgets:ref:refs/heads/main", "iat": NOW - 5, "exp": NOW + 300,
           "repository": "acme/widgets", "run_id": "7", "ref": "refs/heads/main", "sha": "abc", "actor": "octavia"})
}

fn job() -> Job {
    Job {
        job_id: "0".repeat(32),
        repository: "acme/widgets".to_owned(),
        run_id: "7".to_owned(),
        r#ref: "refs/heads/main".to_owned(),
        sha: "abc".to_owned(),
        actor: "octavia".to_owned(),
        ..Job::default()
    }
}

fn proven(issuer: &LocalIssuer, token: &str) -> Result<(), TokenError> {
    let keys = KeySet::parse(&issuer.key_set()).unwrap();
    Unproven::parse(token)?.prove(&keys, "buildtrail", NOW).map(|_| ())
}

#[test]
fn tokens_signed_by_the_issuer_are_proven_with_either_algorithm() {
    let issuer = LocalIssuer::new();
    assert_eq!(proven(&issuer, &issuer.token(&claims())), Ok(()));
    assert_eq!(proven(&issuer, RSA_TOKEN), Ok(()));
    let mut several = claims();
    several["aud"] = json!(["other", "buildtrail"]);
    assert_eq!(proven(&issuer, &issuer.token(&several)), Ok(()));
}

#[test]
fn each_thing_that_is_wrong_with_a_token_is_told() {
    let issuer = LocalIssuer::new();
    let with = |name: &str, value: Value| {
        let mut changed = claims();
        changed[name] = value;
        issuer.token(&changed)
    };
    let header = |header: Value| issuer.sign(&header, &claims());
    let (start, _) = RSA_TOKEN.rsplit_once('.').unwrap();
    let table = [
        (with("aud", json!("others")), TokenError::Audience),
        (with("aud", json!(7)), TokenError::Audience),
        (with("exp", json!(NOW - 61)), TokenError::Expired),
        (with("exp", Value::Null), TokenError::Expired),
        (with("nbf", json!(NOW + 61)), TokenError::NotYet),
        (LocalIssuer::new().token(&claims()), TokenError::Signature),
        (format!("{start}.{}", URL_SAFE_NO_PAD.encode([0; 256])), TokenError::Signature),
        (header(json!({"alg": "none", "kid": "ec-1"})), TokenError::Algorithm),
        (header(json!({"alg": "HS256", "kid": "ec-1"})), TokenError::Algorithm),
        (header(json!({"alg": "RS256", "kid": "ec-1"})), TokenError::NoKey),
        (header(json!({"alg": "ES256", "kid": "unknown"})), TokenError::NoKey),
        (header(json!({"alg": "ES256", "crit": ["b64"]})), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
        ("a.b".to_owned(), TokenError::Malformed),
        ("e30.e30.!".to_owned(), TokenError::Malformed),
        ("A".repeat(MAX_TOKEN + 1), TokenError::Malformed),
    ];
    for (token, wrong) in table {
        assert_eq!(proven(&issuer, &token), Err(wrong), "{token}");
    }
}

#[test]
fn clocks_may_differ_a_little() {
    let issuer = LocalIssuer::new();
    let mut skewed = claims();
    skewed["exp"] = json!(NOW - 30);
    skewed["nbf"] = json!(NOW + 30);
    assert_eq!(proven(&issuer, &issuer.token(&skewed)), Ok(()));
}

#[test]
fn what_differs_between_token_and_job_is_named_and_nothing_is_verified() {
    let compared = |change: fn(&mut Job)| {
        let mut job = job();
        change(&mut job);
        let Value::Object(claims) = claims() else { unreachable!() };
        claims::compare(&claims, &job)
    };
    let same = compared(|_| {});
    assert!(same.verifies() && same.agreed.len() == 5, "{same:?}");
    assert!(compared(|job| job.r#ref = "main".to_owned()).verifies(), "GitLab's short names");
    let other = compared(|job| job.repository = "acme/other".to_owned());
    let expected = IdentityClaim {
        name: "repository".to_owned(),
        claimed: "acme/widgets".to_owned(),
        known: "acme/other".to_owned(),
    };
    assert_eq!(other.differing, [expected]);
    assert!(!other.verifies());
    assert!(!compared(|job| job.run_id.clear()).verifies(), "without the run a token proves nothing");
}

/// Serves a key set on the loopback interface; how often it was asked is what it returns.
async fn serve(keys: String) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{keys}", keys.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked)
}

fn service(keys_url: String) -> Service {
    let settings = IdentityIssuer {
        issuer: ISSUER.to_owned(),
        keys_url,
        audience: "buildtrail".to_owned(),
        ca: "/unused".into(),
    };
    Service::new(&[settings], Acts::new().0, Arc::default()).unwrap()
}

#[tokio::test]
async fn a_job_is_verified_with_keys_that_are_fetched_once() {
    let issuer = LocalIssuer::new();
    let (url, asked) = serve(issuer.key_set()).await;
    let service = service(url);
    for _ in 0..3 {
        let (verified, result) = service.check(RSA_TOKEN, &job()).await;
        assert!(verified, "{result:?}");
        assert_eq!((result.issuer.as_str(), result.key_id.as_str()), (ISSUER, "rsa-1"));
        assert_eq!(result.agreed, ["repository", "run_id"]);
    }
    let strange = issuer.sign(&json!({"alg": "ES256", "kid": "made-up"}), &claims());
    let (verified, result) = service.check(&strange, &job()).await;
    assert!(!verified && result.refused.contains("no such key"), "{result:?}");
    assert_eq!(
        asked.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "a made-up key fetches nothing soon after"
    );
}

#[tokio::test]
async fn an_issuer_that_is_not_in_the_settings_is_not_asked() {
    let issuer = LocalIssuer::new();
    let (url, asked) = serve(issuer.key_set()).await;
    let mut foreign = claims();
    foreign["iss"] = json!(url);
    let (verified, result) = service(url).check(&issuer.token(&foreign), &job()).await;
    assert!(!verified && result.refused.contains("settings"), "{result:?}");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_verify_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (verified, result) = service(format!("http://{free}/jwks")).check(RSA_TOKEN, &job()).await;
    assert!(!verified && result.refused.contains("cannot be fetched"), "{result:?}");
}

#[test]
fn a_host_may_ask_only_so_often() {
    let service = service("http://127.0.0.1:1/".to_owned());
    let admitted = (0..100).filter(|_| service.admit("host")).count();
    assert_eq!(admitted, MOST as usize);
    assert!(service.admit("another"));
}

#[test]
fn keys_come_over_tls_or_from_this_machine() {
    for (url, good) in [
        ("https://issuer.example.test/jwks", true),
        ("http://127.0.0.1:8080/jwks", true),
        ("http://[::1]:8080/jwks", true),
        ("http://issuer.example.test/jwks", false),
        ("http://127.0.0.1.example.test/jwks", false),
        ("file:///etc/keys", false),
        ("", false),
    ] {
        assert_eq!(is_keys_url(url), good, "{url}");
    }
}
