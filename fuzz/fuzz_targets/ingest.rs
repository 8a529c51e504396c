//! What comes through an agent's stream: a gRPC frame, perhaps compressed with zstd, that holds a batch.
#![no_main]

use std::{io::Read as _, sync::LazyLock};

use buildtrail_evidence::{batch, chain::Chain, key::HostKey, log::LogEntry};
use buildtrail_proto::v1::{AuditEvent, SignedBatch};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

/// As the collector's own bound on a message, but small, so that the fuzzer reaches it.
const MAX_MESSAGE: u64 = 1 << 20;

static KEY: LazyLock<HostKey> = LazyLock::new(|| HostKey::from_seed(&[0x42; 32]));

fuzz_target!(|data: &[u8]| {
    let Some((&compressed, frame)) = data.split_first() else { return };
    let mut message = Vec::new();
    if compressed % 2 == 1 {
        let Ok(reader) = zstd::stream::read::Decoder::new(frame) else { return };
        if reader.take(MAX_MESSAGE).read_to_end(&mut message).is_err() {
            return;
        }
    } else {
        message.extend_from_slice(frame);
    }
    let _any_event = AuditEvent::decode(&message[..]);
    let Ok(mut received) = SignedBatch::decode(&message[..]) else { return };
    let entry = LogEntry::Batch(received.clone());
    assert_eq!(LogEntry::decode(&entry.encode()).as_ref(), Ok(&entry));
    received.signature = batch::sign_header(&KEY, &received.header).to_vec();
    if let Ok(opened) = batch::open(&received, &KEY.public()) {
        let _any_verdict = Chain::default().accept(&opened);
    }
});
