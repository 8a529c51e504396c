//! Files that somebody handed over: bundles, in-toto envelopes, spools.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use buildtrail_evidence::{
    bundle::MAX_BUNDLE_BYTES,
    dsse, in_toto,
    key::HostPublicKey,
    verify::{self, Report, Trust},
};

/// Says why where the file cannot be read or is something else.
pub(super) fn bundle(path: &Path, trust: &Trust) -> Result<Report, String> {
    let unreadable = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_BUNDLE_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.first() == Some(&b'{') {
        return envelope(&bytes, trust);
    }
    let found = verify::verify_bundle(&bytes, trust);
    found.map(|found| found.report).map_err(|error| format!("{}: {error}", path.display()))
}

/// What an in-toto envelope is worth: the word of the log's key.
fn envelope(bytes: &[u8], trust: &Trust) -> Result<Report, String> {
    let mut report = Report::default();
    match dsse::open(bytes, trust.log_key.as_ref()) {
        Ok((payload, key)) => {
            let statement: serde_json::Value =
                serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
            let expected = statement["_type"] == in_toto::STATEMENT_TYPE
                && statement["predicateType"] == in_toto::PREDICATE_TYPE;
            if !expected {
                report.problems.push("The envelope holds another statement than a runtime trace.".into());
            }
            let said = statement["predicate"]["buildtrail_completeness"].as_array();
            for said in said.into_iter().flatten().filter_map(|said| said["statement"].as_str()) {
                report.notes.push(format!("The collector says: {said}."));
            }
            let log = key.name();
            report.notes.push(format!("Signed by the log {log}; the bundle of the same job proves it."));
            if trust.log_key.is_none() {
                let note = "The key was taken from the envelope: name the one that you know (--log-key).";
                report.notes.push(note.into());
            }
        }
        Err(error @ dsse::DsseError::NotAnEnvelope) => return Err(error.to_string()),
        Err(error) => report.problems.push(format!("{error}.")),
    }
    Ok(report)
}

/// A spool's batches, with the key of its host's certificate.
pub(super) fn spool(
    directory: &Path,
    certificate: &Path,
    last_batch: Option<u64>,
) -> Result<Result<Report, String>> {
    let text =
        fs::read_to_string(certificate).with_context(|| format!("cannot read {}", certificate.display()))?;
    let key = key_in(&text);
    let key = key.with_context(|| format!("{} holds no Ed25519 certificate", certificate.display()))?;
    Ok(verify::verify_spool(directory, &key, last_batch).map_err(|error| error.to_string()))
}

/// The key of the first certificate in PEM form.
fn key_in(text: &str) -> Option<HostPublicKey> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    HostPublicKey::in_certificate(&BASE64_STANDARD.decode(body).ok()?)
}
