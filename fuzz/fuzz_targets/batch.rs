//! Opening a batch that anybody may have sent. The input is a `SignedBatch`; so that more than the signature check is
//! reached, its header is also signed anew with the key that the batch is opened with.
#![no_main]

use std::sync::LazyLock;

use buildtrail_evidence::{
    batch::{self, BatchError},
    key::HostKey,
};
use buildtrail_proto::v1::SignedBatch;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

static KEY: LazyLock<HostKey> = LazyLock::new(|| HostKey::from_seed(&[0x42; 32]));

fuzz_target!(|data: &[u8]| {
    let Ok(mut received) = SignedBatch::decode(data) else { return };
    let as_sent = batch::open(&received, &KEY.public());
    received.signature = batch::sign_header(&KEY, &received.header).to_vec();
    let signed = batch::open(&received, &KEY.public());
    assert!(!matches!(signed, Err(BatchError::Signature)));
    assert!(as_sent.is_err() || as_sent == signed);
    let Ok(opened) = signed else { return };
    let thinned =
        batch::thin(&received, |kind| kind == "heartbeat").expect("a batch that opens can be thinned");
    let thinned = batch::open(&thinned, &KEY.public()).expect("a thinned batch still opens");
    assert_eq!(thinned.digest, opened.digest);
    assert_eq!(thinned.events.len() + thinned.withheld.len(), opened.events.len() + opened.withheld.len());
});
