use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;

const LIMITS: Limits = Limits { max_record_bytes: 1024, segment_bytes: 200 };

/// Record `index`: 5 to 31 bytes, different from its neighbours.
fn payload(index: u64) -> Vec<u8> {
    let length = 5 + usize::try_from(index * 13 % 27).unwrap();
    (0..length).map(|position| u8::try_from((index + position as u64) % 251).unwrap()).collect()
}

/// A directory of records that were synced as one group.
fn filled(records: u64) -> TempDir {
    filled_in_groups(records, records)
}

fn filled_in_groups(records: u64, group: u64) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, recovery) = RecordLog::open(directory.path(), LIMITS).unwrap();
    assert!(recovery.is_clean());
    for index in 0..records {
        assert_eq!(log.append(&payload(index)).unwrap(), RecordIndex(index));
        if (index + 1) % group == 0 {
            log.sync().unwrap();
        }
    }
    assert_eq!(log.sync().unwrap(), RecordIndex(records));
    directory
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    segment::list(&disk::SystemDisk, directory).unwrap().into_iter().map(|segment| segment.path).collect()
}

fn copy(template: &Path) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for path in segments(template) {
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    directory
}

fn read_all(directory: &Path) -> Vec<Entry> {
    Reader::whole(directory, LIMITS.max_record_bytes).unwrap().map(Result::unwrap).collect()
}

/// Every record that was read is the one of its index, in order; returns the indexes.
fn check_records(entries: &[Entry]) -> Vec<u64> {
    let mut read = Vec::new();
    for entry in entries {
        if let Entry::Record { index, payload: bytes } = entry {
            assert_eq!(*bytes, payload(index.0));
            read.push(index.0);
        }
    }
    assert!(read.is_sorted_by(|a, b| a < b));
    read
}

/// Every index below `records` was read or lies in a reported range.
fn check_accounted(entries: &[Entry], records: u64) {
    let read = check_records(entries);
    for index in 0..records {
        let quarantined = entries.iter().any(|entry| match entry {
            Entry::Quarantined(range) => (range.first.0..range.end.0).contains(&index),
            Entry::Record { .. } => false,
        });
        assert!(read.contains(&index) != quarantined, "record {index} in {entries:?}");
    }
}

#[test]
fn records_come_back_in_order_over_segments_and_restarts() {
    let directory = filled(40);
    assert!(segments(directory.path()).len() > 3);
    assert_eq!(check_records(&read_all(directory.path())), (0..40).collect::<Vec<_>>());
    let (mut log, recovery) = RecordLog::open(directory.path(), LIMITS).unwrap();
    assert!(recovery.is_clean());
    assert_eq!(log.append(&payload(40)).unwrap(), RecordIndex(40));
    let from_17: Vec<_> = log.reader(RecordIndex(17)).unwrap().map(Result::unwrap).collect();
    assert_eq!(check_records(&from_17), (17..41).collect::<Vec<_>>());
    let on_disk: u64 = segments(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(log.total_bytes(), on_disk);
}

#[test]
fn a_log_cut_at_any_byte_of_its_last_segment_opens_with_every_whole_record() {
    let directory = filled(40);
    let last = segments(directory.path()).pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    assert!(bytes.len() > 60);
    for cut in 0..bytes.len() {
        fs::write(&last, &bytes[..cut]).unwrap();
        let (mut log, recovery) = RecordLog::open(directory.path(), LIMITS).unwrap();
        assert!(recovery.quarantined.is_empty());
        let end = log.end().0;
        if let Some(torn) = recovery.torn_tail {
            assert_eq!(torn.offset + torn.bytes, cut as u64);
            assert_eq!(torn.index, RecordIndex(end));
        }
        log.append(&payload(end)).unwrap();
        log.sync().unwrap();
        drop(log);
        assert_eq!(check_records(&read_all(directory.path())), (0..=end).collect::<Vec<_>>());
    }
}

#[test]
fn a_zero_filled_end_is_cut_off() {
    let directory = filled(3);
    let last = segments(directory.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let length = bytes.len() as u64;
    bytes.extend([0; 50]);
    fs::write(&last, bytes).unwrap();
    let (log, recovery) = RecordLog::open(directory.path(), LIMITS).unwrap();
    let torn = recovery.torn_tail.unwrap();
    assert_eq!((torn.offset, torn.bytes, log.end()), (length, 50, RecordIndex(3)));
}

#[test]
fn every_flipped_byte_is_reported_and_costs_no_record_outside_the_reported_range() {
    let directory = filled(40);
    for path in segments(directory.path()) {
        let bytes = fs::read(&path).unwrap();
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let entries = read_all(directory.path());
            check_accounted(&entries, 40);
            assert!(entries.iter().any(|entry| matches!(entry, Entry::Quarantined(_))), "byte {position}");
        }
        fs::write(&path, &bytes).unwrap();
    }
}

#[test]
fn a_flipped_byte_in_the_last_segment_never_costs_a_good_record_that_was_synced_behind_it() {
    let template = filled_in_groups(40, 1);
    let name = segments(template.path()).pop().unwrap().file_name().unwrap().to_owned();
    let bytes = fs::read(template.path().join(&name)).unwrap();
    for position in 0..bytes.len() {
        let directory = copy(template.path());
        let mut flipped = bytes.clone();
        flipped[position] ^= 0x80;
        fs::write(directory.path().join(&name), &flipped).unwrap();
        let (mut log, recovery) = RecordLog::open(directory.path(), LIMITS).unwrap();
        assert!(!recovery.is_clean(), "byte {position}");
        let end = log.end();
        let appended = log.append(&payload(end.0)).unwrap();
        log.sync().unwrap();
        drop(log);
        let entries = read_all(directory.path());
        assert_eq!(check_records(&entries).last(), Some(&appended.0));
        if recovery.torn_tail.is_none() {
            assert!(appended >= RecordIndex(40));
            check_accounted(&entries, 40);
        } else {
            assert_eq!(appended, RecordIndex(39), "only the very last record can look unfinished");
        }
    }
}

#[test]
fn of_a_group_that_was_never_synced_nothing_stays_behind_a_hole() {
    let directory = filled_in_groups(40, 2);
    let (mut log, _) = RecordLog::open(directory.path(), LIMITS).unwrap();
    log.rotate().unwrap();
    for index in 40..44 {
        log.append(&payload(index)).unwrap();
    }
    drop(log);
    let last = segments(directory.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    // The second write of the group did not reach the disk, the third and fourth did.
    let hole = 12 + payload(40).len();
    bytes[hole..hole + 12 + payload(41).len()].fill(0);
    fs::write(&last, &bytes).unwrap();
    let (log, recovery) = RecordLog::open(directory.path(), LIMITS).unwrap();
    assert_eq!(recovery.quarantined, []);
    assert_eq!(recovery.torn_tail.map(|torn| torn.offset), Some(hole as u64));
    assert_eq!(log.end(), RecordIndex(41));
    drop(log);
    assert_eq!(check_records(&read_all(directory.path())), (0..41).collect::<Vec<_>>());
}

#[test]
fn rewriting_changes_records_and_keeps_their_numbers() {
    let directory = filled(40);
    let (mut log, _) = RecordLog::open(directory.path(), LIMITS).unwrap();
    let (before, closed) = (log.total_bytes(), log.closed_segments().nth(1).unwrap());
    let reader = log.reader(RecordIndex(0)).unwrap();
    assert!(log.rewrite_segment(closed.first, |index, _| (index.0 % 2 == 0).then(|| vec![9])).unwrap());
    let on_disk: u64 = segments(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(log.total_bytes() == on_disk && on_disk < before);
    assert_eq!(reader.count(), 40);
    for entry in log.reader(RecordIndex(0)).unwrap() {
        let Entry::Record { index, payload: found } = entry.unwrap() else { panic!("damaged") };
        let is_changed = (closed.first.0..closed.end.0).contains(&index.0) && index.0 % 2 == 0;
        assert_eq!(found, if is_changed { vec![9] } else { payload(index.0) });
    }
    let active = log.closed_segments().last().unwrap().end;
    for missing in [closed.first.next(), active] {
        assert!(matches!(log.rewrite_segment(missing, |_, _| None), Err(RecordsError::NoSegment(_))));
    }
}

#[test]
fn a_damaged_segment_is_not_rewritten() {
    let directory = filled(40);
    let (mut log, _) = RecordLog::open(directory.path(), LIMITS).unwrap();
    let first = segments(directory.path()).remove(0);
    let mut bytes = fs::read(&first).unwrap();
    bytes[20] ^= 1;
    fs::write(&first, &bytes).unwrap();
    assert!(!log.rewrite_segment(RecordIndex(0), |_, _| Some(vec![9])).unwrap());
    assert_eq!(fs::read(&first).unwrap(), bytes);
}

#[test]
fn a_missing_segment_is_a_named_range() {
    let directory = filled(40);
    let paths = segments(directory.path());
    fs::remove_file(&paths[1]).unwrap();
    let entries = read_all(directory.path());
    check_accounted(&entries, 40);
    let missing: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::Quarantined(range) => Some(range.damage),
            Entry::Record { .. } => None,
        })
        .collect();
    assert_eq!(missing, [Damage::Missing]);
}

#[test]
fn a_reader_follows_a_log_that_grows_and_rotates() {
    let directory = filled(1);
    let (mut log, _) = RecordLog::open(directory.path(), LIMITS).unwrap();
    let mut reader = log.reader(RecordIndex(0)).unwrap();
    for index in 0..30 {
        let entry = reader.next().unwrap().unwrap();
        assert_eq!(entry, Entry::Record { index: RecordIndex(index), payload: payload(index) });
        assert!(reader.next().is_none());
        log.append(&payload(index + 1)).unwrap();
        reader.advance_end(log.end());
    }
}

#[test]
fn removal_keeps_what_is_still_needed() {
    let directory = filled(40);
    let (mut log, _) = RecordLog::open(directory.path(), LIMITS).unwrap();
    let before = log.total_bytes();
    let freed = log.remove_segments_before(RecordIndex(20)).unwrap();
    assert!(freed > 0 && log.total_bytes() == before - freed);
    assert!(log.first() <= RecordIndex(20) && log.first() > RecordIndex(0));
    let rest: Vec<_> = log.reader(RecordIndex(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(check_records(&rest), (log.first().0..40).collect::<Vec<_>>());
    log.remove_segments_before(RecordIndex(1000)).unwrap();
    assert_eq!(segments(directory.path()).len(), 1);
    drop(log);
    let (log, _) = RecordLog::open(directory.path(), LIMITS).unwrap();
    assert_eq!(log.end(), RecordIndex(40));
}

#[test]
fn a_second_writer_is_refused() {
    let directory = filled(1);
    let _log = RecordLog::open(directory.path(), LIMITS).unwrap();
    assert!(matches!(RecordLog::open(directory.path(), LIMITS), Err(RecordsError::InUse(_))));
}

#[test]
fn empty_and_oversized_records_are_refused_and_change_nothing() {
    let directory = filled(2);
    let (mut log, _) = RecordLog::open(directory.path(), LIMITS).unwrap();
    for size in [0, 1025] {
        assert!(matches!(log.append(&vec![1; size]), Err(RecordsError::Size { .. })));
    }
    log.append(&[7; 1024]).unwrap();
    assert_eq!(log.end(), RecordIndex(3));
}

#[test]
fn an_allocation_is_never_larger_than_the_bound_whatever_the_length_says() {
    let directory = filled(1);
    let last = segments(directory.path()).pop().unwrap();
    fs::write(&last, [0xff; 64]).unwrap();
    assert!(
        matches!(&read_all(directory.path())[..], [Entry::Quarantined(range)] if range.damage == Damage::Length)
    );
}
