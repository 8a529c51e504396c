//! The wire format of Buildtrail: protobuf messages, gRPC services and their protobuf JSON.
//!
//! In: `buildtrail/v1/*.proto`. Out: the Rust types that every other crate speaks. Must never hold behaviour:
//! meaning lives in the `.proto` comments, rules live in the crates that use these types.

/// Version 1 of the schema.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code; its documentation is in the .proto files"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/buildtrail.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/buildtrail.v1.serde.rs"));
}

mod acts;

/// The `.proto` files, compiled and with their comments: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/buildtrail.v1.descriptor.bin"));

pub use acts::ACT_KINDS;
pub use pbjson_types::Timestamp;

/// Nanoseconds in one second.
const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// Builds a protobuf timestamp from nanoseconds since the Unix epoch (negative before it).
#[must_use]
pub fn timestamp_from_unix_nanos(nanos: i128) -> Timestamp {
    let seconds = nanos.div_euclid(NANOS_PER_SECOND);
    let rest = nanos.rem_euclid(NANOS_PER_SECOND);
    Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(rest).unwrap_or_default(),
    }
}

/// Nanoseconds since the Unix epoch of a protobuf timestamp.
#[must_use]
pub fn unix_nanos(time: &Timestamp) -> i128 {
    i128::from(time.seconds) * NANOS_PER_SECOND + i128::from(time.nanos)
}

/// The wall clock's time.
#[must_use]
pub fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    timestamp_from_unix_nanos(i128::try_from(since.as_nanos()).unwrap_or_default())
}

/// Every word that [`v1::AuditEvent::kind`] can say.
pub const EVENT_KINDS: [&str; 20] = [
    "job.started",
    "job.finished",
    "process.exec",
    "secret.access",
    "credential.use",
    "connection.opened",
    "dns.lookup",
    "memory.access",
    "loss",
    "heartbeat",
    "coverage",
    "connection.closed",
    "socket.opened",
    "identity.spoof",
    "contamination",
    "credential.left",
    "escape",
    "delegation",
    "identity.verified",
    "unknown",
];

impl v1::AuditEvent {
    /// The event's kind in the words of the event reference (`secret.access`, `process.exec`, …);
    /// `unknown` when a newer peer sent a body that this build does not know.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        use v1::audit_event::Body;
        match &self.body {
            Some(Body::JobStarted(_)) => "job.started",
            Some(Body::JobFinished(_)) => "job.finished",
            Some(Body::ProcessExec(_)) => "process.exec",
            Some(Body::SecretAccess(_)) => "secret.access",
            Some(Body::CredentialUse(_)) => "credential.use",
            Some(Body::ConnectionOpened(_)) => "connection.opened",
            Some(Body::DnsLookup(_)) => "dns.lookup",
            Some(Body::MemoryAccess(_)) => "memory.access",
            Some(Body::Loss(_)) => "loss",
            Some(Body::Heartbeat(_)) => "heartbeat",
            Some(Body::Coverage(_)) => "coverage",
            Some(Body::ConnectionClosed(_)) => "connection.closed",
            Some(Body::SocketOpened(_)) => "socket.opened",
            Some(Body::IdentitySpoof(_)) => "identity.spoof",
            Some(Body::Contamination(_)) => "contamination",
            Some(Body::CredentialLeftBehind(_)) => "credential.left",
            Some(Body::Escape(_)) => "escape",
            Some(Body::Delegation(_)) => "delegation",
            Some(Body::IdentityVerified(_)) => "identity.verified",
            None => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_round_trip_on_both_sides_of_the_epoch() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, -5_000_000_001] {
            assert_eq!(unix_nanos(&timestamp_from_unix_nanos(nanos)), nanos);
        }
    }

    #[test]
    fn every_kind_of_event_is_listed() {
        use v1::audit_event::Body;
        let bodies = [
            Some(Body::JobStarted(v1::JobStarted::default())),
            Some(Body::JobFinished(v1::JobFinished::default())),
            Some(Body::ProcessExec(v1::ProcessExec::default())),
            Some(Body::SecretAccess(v1::SecretAccess::default())),
            Some(Body::CredentialUse(v1::CredentialUse::default())),
            Some(Body::ConnectionOpened(v1::ConnectionOpened::default())),
            Some(Body::DnsLookup(v1::DnsLookup::default())),
            Some(Body::MemoryAccess(v1::MemoryAccess::default())),
            Some(Body::Loss(v1::Loss::default())),
            Some(Body::Heartbeat(v1::Heartbeat::default())),
            Some(Body::Coverage(v1::Coverage::default())),
            Some(Body::ConnectionClosed(v1::ConnectionClosed::default())),
            Some(Body::SocketOpened(v1::SocketOpened::default())),
            Some(Body::IdentitySpoof(v1::IdentitySpoof::default())),
            Some(Body::Contamination(v1::Contamination::default())),
            Some(Body::CredentialLeftBehind(v1::CredentialLeftBehind::default())),
            Some(Body::Escape(v1::Escape::default())),
            Some(Body::Delegation(v1::Delegation::default())),
            Some(Body::IdentityVerified(v1::IdentityVerified::default())),
            None,
        ];
        let kinds = bodies.map(|body| v1::AuditEvent { body, ..Default::default() }.kind());
        assert_eq!(kinds, EVENT_KINDS);
    }

    #[test]
    fn json_uses_snake_case_names_and_rfc3339_times() {
        let event = v1::AuditEvent {
            host_id: "h".into(),
            sequence: 7,
            time: Some(timestamp_from_unix_nanos(1_700_000_000_000_000_000)),
            body: Some(v1::audit_event::Body::SecretAccess(v1::SecretAccess {
                secret: "AWS shared credentials".into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let json: serde_json::Value = serde_json::to_value(&event).unwrap();
        assert_eq!(json["host_id"], "h");
        assert_eq!(json["sequence"], "7");
        assert_eq!(json["time"], "2023-11-14T22:13:20+00:00");
        assert_eq!(json["secret_access"]["secret"], "AWS shared credentials");
        let back: v1::AuditEvent = serde_json::from_value(json).unwrap();
        assert_eq!(back, event);
    }
}
