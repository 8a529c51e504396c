//! Verifying a bundle, or an in-toto envelope, that anybody may have made.
#![no_main]

use buildtrail_evidence::{
    bundle::Bundle,
    dsse,
    verify::{Trust, verify_bundle},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let form = Bundle::read(data);
    match verify_bundle(data, &Trust::default()) {
        Ok(found) => assert!(form.is_ok() || !found.report.is_intact()),
        Err(_) => assert!(form.is_err()),
    }
    if let Ok((payload, key)) = dsse::open(data, None) {
        assert!(dsse::open(data, Some(&key)).is_ok_and(|(again, _)| again == payload));
    }
});
