//! What the unit tests share: a host with a fixed key, and events.

use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{AuditEvent, Heartbeat, SecretAccess, audit_event::Body},
};

use crate::{
    batch::{Build, ChainHead, LossTotals, Sealed, Sealer},
    id::{BootId, HostId},
    key::HostKey,
    log::HostRecord,
};

pub(crate) const SEED: [u8; 32] = [0x42; 32];
pub(crate) const HOST: &str = "0190c0de-0000-7000-8000-000000000001";
/// 2026-11-22 09:00:00 UTC.
pub(crate) const NINE: i128 = 1_795_338_000_000_000_000;

pub(crate) fn key() -> HostKey {
    HostKey::from_seed(&SEED)
}

pub(crate) fn boot(name: &str) -> BootId {
    BootId::parse(name).unwrap()
}

pub(crate) fn sealer() -> Sealer {
    Sealer::new(HostId::parse(HOST).unwrap(), Build::default(), key(), ChainHead::default())
}

pub(crate) fn heartbeat(seconds: i128) -> AuditEvent {
    AuditEvent {
        time: Some(timestamp_from_unix_nanos(NINE + seconds * 1_000_000_000)),
        body: Some(Body::Heartbeat(Heartbeat::default())),
        ..Default::default()
    }
}

pub(crate) fn secret(seconds: i128) -> AuditEvent {
    let access = SecretAccess { secret: "AWS shared credentials".into(), ..Default::default() };
    AuditEvent { body: Some(Body::SecretAccess(access)), ..heartbeat(seconds) }
}

/// One batch of two events in boot "b1".
pub(crate) fn seal(sealer: &mut Sealer) -> Sealed {
    let at = i128::from(sealer.head().number) * 60;
    sealer.seal(&boot("b1"), vec![secret(at), heartbeat(at + 7)], LossTotals::default())
}

pub(crate) fn host_record() -> HostRecord {
    let public_key = key().public().as_bytes().to_vec();
    let spki = hex::decode("302a300506032b6570032100").unwrap();
    let certificate = [b"FAKE certificate around a key: ", &spki[..], &public_key].concat();
    HostRecord { host_id: HOST.into(), name: "runner-7".into(), public_key, certificate }
}
