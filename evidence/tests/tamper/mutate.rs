//! One random change, and what verifying says about it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    random::Random,
    world::{World, write_records, write_tree},
};

/// A change that was made.
pub(crate) struct Change {
    pub(crate) what: String,
    /// What verifying named. Empty: it was missed.
    pub(crate) problems: Vec<String>,
}

/// Makes a change that really changes something.
pub(crate) fn one(world: &World, random: &mut Random) -> Change {
    loop {
        let change = match random.below(20) {
            0..=4 => files(world, "log", random),
            5..=7 => files(world, "tlog", random),
            8..=9 => files(world, "spool", random),
            10..=13 => bundle(world, random),
            14..=16 => log_records(world, random),
            17 => spool_records(world, random),
            18 => Some(rolled_back(world, random)),
            _ => forked(world, random),
        };
        if let Some(change) = change {
            return change;
        }
    }
}

/// A copy of the spool, or of the log and its tree.
fn copy(world: &World, name: &str) -> TempDir {
    let directory = crate::scratch();
    for name in if name == "spool" { &["spool"][..] } else { &["log", "tlog"] } {
        copy_tree(&world.path(name), &directory.path().join(name));
    }
    directory
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn list(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(list(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn verify(world: &World, name: &str, copy: &TempDir) -> Vec<String> {
    if name == "spool" {
        world.verify_spool(&copy.path().join("spool"))
    } else {
        world.verify_log(copy.path())
    }
}

/// Bytes, and whole files, of a directory.
fn files(world: &World, name: &str, random: &mut Random) -> Option<Change> {
    let copy = copy(world, name);
    let files = list(&copy.path().join(name));
    let file = &files[random.below(files.len())];
    let shown = file.strip_prefix(copy.path()).unwrap().display();
    let what = match random.below(12) {
        // The second copy of a checkpoint is not evidence by itself: it may be missing.
        0 if file.ends_with("witnessed") => return None,
        0 => {
            fs::remove_file(file).unwrap();
            format!("{shown} deleted")
        }
        1 => {
            let other = &files[random.below(files.len())];
            let (one, two) = (fs::read(file).unwrap(), fs::read(other).unwrap());
            if one == two {
                return None;
            }
            fs::write(file, two).unwrap();
            fs::write(other, one).unwrap();
            format!("{shown} exchanged with {}", other.strip_prefix(copy.path()).unwrap().display())
        }
        _ => {
            let mut bytes = fs::read(file).unwrap();
            let what = change_bytes(&mut bytes, random)?;
            fs::write(file, bytes).unwrap();
            format!("{shown}: {what}")
        }
    };
    Some(Change { problems: verify(world, name, &copy), what })
}

/// Flips, cuts, doubles, moves or puts in bytes; `None`: they are as before.
fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) -> Option<String> {
    let before = bytes.clone();
    if bytes.is_empty() {
        return None;
    }
    let at = random.below(bytes.len());
    let length = 1 + random.below((bytes.len() - at).min(64));
    let what = match random.below(8) {
        0..=3 => {
            bytes[at] ^= 1 << random.below(8);
            format!("byte {at} flipped")
        }
        4 => {
            bytes.truncate(at);
            format!("cut off at {at}")
        }
        5 => {
            bytes.drain(at..at + length);
            format!("{length} bytes at {at} taken out")
        }
        6 => {
            let piece = bytes[at..at + length].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, piece);
            format!("{length} bytes at {at} repeated at {to}")
        }
        _ => {
            let piece: Vec<u8> = (0..length).map(|_| random.byte()).collect();
            bytes.splice(at..at, piece);
            format!("{length} bytes put in at {at}")
        }
    };
    (*bytes != before).then_some(what)
}

fn bundle(world: &World, random: &mut Random) -> Option<Change> {
    let mut bytes = world.bundle.clone();
    let what =
        if random.below(2) == 0 { change_bytes(&mut bytes, random)? } else { sections(&mut bytes, random)? };
    Some(Change { problems: world.verify_bundle(&bytes), what: format!("bundle: {what}") })
}

/// Deletes, repeats, moves or exchanges whole sections of a bundle.
fn sections(bytes: &mut Vec<u8>, random: &mut Random) -> Option<String> {
    let magic = buildtrail_evidence::bundle::MAGIC.len();
    let mut sections = Vec::new();
    let mut at = magic;
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().unwrap());
        let end = at + 5 + usize::try_from(length).unwrap();
        sections.push(bytes[at..end].to_vec());
        at = end;
    }
    let what = change_list(&mut sections, random);
    let changed = [&bytes[..magic], &sections.concat()].concat();
    let differs = changed != *bytes;
    *bytes = changed;
    differs.then(|| format!("sections: {what}"))
}

fn change_list(list: &mut Vec<Vec<u8>>, random: &mut Random) -> String {
    let (one, other) = (random.below(list.len()), random.below(list.len()));
    match random.below(5) {
        0 => {
            list.remove(one);
            format!("{one} deleted")
        }
        1 => {
            list.insert(other, list[one].clone());
            format!("{one} repeated at {other}")
        }
        2 => {
            list.swap(one, other);
            format!("{one} and {other} exchanged")
        }
        3 => {
            let moved = list.remove(one);
            list.insert(other.min(list.len()), moved);
            format!("{one} moved to {other}")
        }
        _ => {
            let piece = list[one].len();
            let at = random.below(piece);
            list[one][at] ^= 1 << random.below(8);
            format!("byte {at} of {one} flipped")
        }
    }
}

/// Whole records of the log, written anew with right checksums.
fn log_records(world: &World, random: &mut Random) -> Option<Change> {
    let mut records = world.records.clone();
    let what = if random.below(4) == 0 {
        let at = random.below(records.len());
        let foreign = world.forked[random.below(world.forked.len())].clone();
        records.insert(at, foreign);
        format!("a record of another history put in at {at}")
    } else {
        change_list(&mut records, random)
    };
    if records == world.records {
        return None;
    }
    let copy = copy(world, "log");
    rewrite(&copy.path().join("log"), &records);
    Some(Change { problems: world.verify_log(copy.path()), what: format!("log records: {what}") })
}

fn spool_records(world: &World, random: &mut Random) -> Option<Change> {
    let mut records = world.spooled.clone();
    let what = change_list(&mut records, random);
    // What is missing at the beginning was acknowledged.
    if world.spooled.ends_with(&records) {
        return None;
    }
    let copy = copy(world, "spool");
    rewrite(&copy.path().join("spool"), &records);
    let problems = world.verify_spool(&copy.path().join("spool"));
    Some(Change { problems, what: format!("spool records: {what}") })
}

fn rewrite(directory: &Path, records: &[Vec<u8>]) {
    fs::remove_dir_all(directory).unwrap();
    write_records(directory, records);
}

/// The log, and perhaps its tree with a checkpoint signed by the log's own key, as they were earlier: before the
/// checkpoint that was seen.
fn rolled_back(world: &World, random: &mut Random) -> Change {
    let seen = world.records.len() / 2;
    let length = random.below(seen);
    let with_tree = random.below(2) == 0;
    let copy = copy(world, "log");
    rewrite(&copy.path().join("log"), &world.records[..length]);
    if with_tree {
        fs::remove_dir_all(copy.path().join("tlog")).unwrap();
        write_tree(&copy.path().join("tlog"), &world.records[..length]);
    }
    let what =
        format!("rolled back to {length} records, {}", if with_tree { "tree as well" } else { "log alone" });
    Change { problems: world.verify_log(copy.path()), what }
}

/// Another history from some record on, consistent in itself, its tree signed by the log's own key.
fn forked(world: &World, random: &mut Random) -> Option<Change> {
    let seen = world.records.len() / 2;
    let keep = random.below(seen);
    let mut records = world.records[..keep].to_vec();
    records.extend_from_slice(&world.forked[keep..]);
    if records[..seen] == world.records[..seen] {
        return None;
    }
    let copy = copy(world, "log");
    rewrite(&copy.path().join("log"), &records);
    fs::remove_dir_all(copy.path().join("tlog")).unwrap();
    write_tree(&copy.path().join("tlog"), &records);
    Some(Change {
        problems: world.verify_log(copy.path()),
        what: format!("another history from record {keep} on"),
    })
}
