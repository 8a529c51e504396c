//! Changes of a secret file: content, length, names, rights.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
};

use anyhow::Result;

use crate::{
    call::c,
    expect::{Match, Match::Has, Seen, Technique, secret},
    files::{OPENED, WRITTEN, file},
    place::{Place, SECRET},
};

const CHANGED: (&str, Match) = ("operations", Has("OPERATION_CHANGE_ATTRIBUTES"));
const LINKED: Seen = Seen::Told(&[secret(&[("operations", Has("OPERATION_LINK"))])]);
const RENAMED: Seen = Seen::Told(&[secret(&[("operations", Has("OPERATION_RENAME"))])]);
const REMOVED: Seen = Seen::Told(&[secret(&[("operations", Has("OPERATION_UNLINK"))])]);
const REPLACED: Seen = Seen::Told(&[secret(&[("operations", Has("OPERATION_REPLACE"))])]);
const ATTRIBUTES: Seen = Seen::Told(&[secret(&[CHANGED])]);
const OPENED_AND_WRITTEN: Seen = Seen::Told(&[secret(&[OPENED]), secret(&[WRITTEN])]);
/// A change that fanotify tells as a write.
const SHORTER: Seen = Seen::Told(&[secret(&[WRITTEN])]);

pub(crate) const TECHNIQUES: &[Technique] = &[
    file("write", "written", write, OPENED_AND_WRITTEN, OPENED_AND_WRITTEN),
    file("append", "appended to", append, OPENED_AND_WRITTEN, OPENED_AND_WRITTEN),
    file("truncate", "cut by truncate, never opened", truncate, ATTRIBUTES, SHORTER),
    file("rename", "renamed", rename, RENAMED, RENAMED),
    file("rename-over", "another file renamed over it", rename_over, REPLACED, REPLACED),
    file("link", "given another name", link, LINKED, ATTRIBUTES),
    file("unlink", "removed", |place| Ok(fs::remove_file(place.secret())?), REMOVED, REMOVED),
    file("chmod", "made readable to all", chmod, ATTRIBUTES, ATTRIBUTES),
    file("chown", "given to another user", owner, ATTRIBUTES, ATTRIBUTES),
];

fn write(place: &Place) -> Result<()> {
    Ok(fs::write(place.secret(), SECRET)?)
}

fn append(place: &Place) -> Result<()> {
    Ok(fs::OpenOptions::new().append(true).open(place.secret())?.write_all(SECRET.as_bytes())?)
}

fn truncate(place: &Place) -> Result<()> {
    let path = c(place.secret())?;
    call!(SYS_truncate, path.as_ptr(), 5_i64).map(drop).map_err(Into::into)
}

fn rename(place: &Place) -> Result<()> {
    Ok(fs::rename(place.secret(), place.aside("renamed"))?)
}

fn rename_over(place: &Place) -> Result<()> {
    let other = place.aside("other");
    fs::write(&other, SECRET)?;
    Ok(fs::rename(other, place.secret())?)
}

fn link(place: &Place) -> Result<()> {
    Ok(fs::hard_link(place.secret(), place.aside("link"))?)
}

fn chmod(place: &Place) -> Result<()> {
    let mode = fs::metadata(place.secret())?.permissions().mode() ^ 0o004;
    Ok(fs::set_permissions(place.secret(), fs::Permissions::from_mode(mode & 0o7777))?)
}

fn owner(place: &Place) -> Result<()> {
    Ok(chown(place.secret(), Some(65534), Some(65534))?)
}
