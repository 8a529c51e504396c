//! Reading and repairing a record file of any content, and verifying the log that it is.
#![no_main]

use std::fs;

use buildtrail_evidence::{
    records::{Entry, Limits, Reader, RecordLog},
    verify,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { max_record_bytes: 1 << 16, segment_bytes: 1 << 16 };

fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    let path = directory.path();
    fs::write(path.join("00000000000000000000.seg"), data).expect("a file");
    let _any_verdict = verify::verify(path).expect("damage is a verdict, not an error");

    let read = |reader: Reader| -> Vec<Vec<u8>> {
        let records = reader.map(|entry| entry.expect("damage is an entry, not an error"));
        records
            .filter_map(|entry| if let Entry::Record { payload, .. } = entry { Some(payload) } else { None })
            .collect()
    };
    let before = read(Reader::whole(path, LIMITS.max_record_bytes).expect("a readable directory"));
    let (mut log, _) = RecordLog::open(path, LIMITS).expect("any content can be repaired");
    log.append(b"after").expect("a repaired log takes records");
    log.sync().expect("a repaired log takes records");
    let after = read(log.reader(log.first()).expect("a readable directory"));
    assert_eq!(after.last().map(Vec::as_slice), Some(&b"after"[..]));
    assert!(before.len() + 1 >= after.len());
    assert!(before.starts_with(&after[..after.len() - 1]));
});
