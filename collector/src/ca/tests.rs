use std::{fs, os::unix::fs::PermissionsExt as _};

use buildtrail_evidence::key::HostKey;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::*;
use crate::peer::Peer;

fn authority() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path(), &["localhost".into(), "127.0.0.1".into()]).unwrap();
    directory
}

fn peer_in(directory: &Path) -> Peer {
    Peer::of_certificate(&CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap())
}

#[test]
fn a_hosts_certificate_holds_its_role_and_the_key_that_signs_batches() {
    let ca = authority();
    let out = ca.path().join("host");
    let id = issue_host(ca.path(), "runner-7", &out).unwrap();
    let Peer::Host(host) = peer_in(&out) else { panic!("not a host") };
    assert_eq!((host.id.as_str(), host.name.as_str()), (&*id, "runner-7"));
    let key = HostKey::from_pkcs8_pem(&fs::read_to_string(out.join("key.pem")).unwrap()).unwrap();
    assert_eq!(key.public(), host.key);
    assert_eq!(fs::metadata(out.join("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_reader_is_a_reader_and_the_server_is_nobody() {
    let ca = authority();
    let out = ca.path().join("reader");
    issue_reader(ca.path(), "alice", &out).unwrap();
    assert_eq!(peer_in(&out), Peer::Reader("alice".into()));
    assert!(matches!(peer_in(ca.path()), Peer::Nobody(_)));
    assert!(matches!(Peer::of_certificate(b"garbage"), Peer::Nobody(_)));
}

#[test]
fn nothing_is_ever_overwritten() {
    let ca = authority();
    let before = fs::read(ca.path().join("ca-key.pem")).unwrap();
    assert!(matches!(init(ca.path(), &["localhost".into()]), Err(CaError::Exists(_))));
    let out = ca.path().join("host");
    issue_host(ca.path(), "a", &out).unwrap();
    let error = issue_host(ca.path(), "a", &out).unwrap_err().to_string();
    assert!(error.contains("choose another directory"), "{error}");
    assert_eq!(fs::read(ca.path().join("ca-key.pem")).unwrap(), before);
}

#[test]
fn unusable_names_and_directories_are_explained() {
    let ca = authority();
    for name in ["", "a b", "../x", "a\n"] {
        let error = issue_reader(ca.path(), name, &ca.path().join("out")).unwrap_err();
        assert!(matches!(error, CaError::Name { .. }), "{name:?}");
    }
    assert!(matches!(init(&ca.path().join("new"), &[]), Err(CaError::Name { .. })));
    assert!(matches!(init(&ca.path().join("new"), &["a/b".into()]), Err(CaError::Name { .. })));
    let nowhere = ca.path().join("nowhere");
    assert!(matches!(issue_host(&nowhere, "a", &ca.path().join("out")), Err(CaError::Io { .. })));
    assert!(!ca.path().join("out").exists());
}
