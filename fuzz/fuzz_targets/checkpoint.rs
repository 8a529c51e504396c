//! Reading checkpoints, keys, proofs and policies that anybody may have written.
#![no_main]

use buildtrail_evidence::tlog::{
    note::{NoteKey, SignatureLine, SignedCheckpoint, claimed_origin},
    policy::Policy,
    proof::TlogProof,
};
use libfuzzer_sys::fuzz_target;

const LOG: &str = "example.org/build+79f91a4e+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";

fuzz_target!(|data: &[u8]| {
    let log: NoteKey = LOG.parse().expect("the key of docs/formats/tree.md");
    if let Ok(checkpoint) = SignedCheckpoint::open(data, &log) {
        assert_eq!(claimed_origin(data).as_deref(), Ok(log.name()));
        let again =
            SignedCheckpoint::open(checkpoint.note().as_bytes(), &log).expect("what was written is read");
        assert_eq!(again.checkpoint(), checkpoint.checkpoint());
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<NoteKey>() {
        assert_eq!(key.to_string().parse::<NoteKey>().as_ref(), Ok(&key));
    }
    if let Ok(proof) = TlogProof::parse(text) {
        assert_eq!(TlogProof::parse(&proof.to_text()).as_ref(), Ok(&proof));
    }
    if let Ok(policy) = Policy::parse(text) {
        let _any_verdict = policy.judge(data);
    }
    let _any_lines = SignatureLine::parse_all(text);
});
