//! Other names and places of a secret file: links, mounts, layers, roots, deep directories, races.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, ensure};
use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    call::{self, absent, c, checked, own, read_secret},
    expect::{Event, Match::Ends, Seen, Technique, secret},
    files::{BY_CALL, ONLY_OPENED, OPENED, file, way},
    place::{Place, SECRET},
};

const NONE: Option<&str> = None;
const INNOCENT: &[Event] = &[secret(&[("path", Ends(".innocent"))])];

pub(crate) const TECHNIQUES: &[Technique] = &[
    way("symlink", "through a symbolic link", through_symlink, BY_CALL),
    way("hard-link", "through a hard link", through_link, BY_CALL),
    way("bind-mount", "through a bind mount of the file", bind_mount, BY_CALL),
    way("detached-mount", "through a detached mount (open_tree)", detached_mount, BY_CALL),
    way("mount-namespace", "in a mount namespace, at another place", mount_namespace, BY_CALL),
    way("user-namespace", "in a user namespace", user_namespace, BY_CALL),
    way("pid-namespace", "in a pid namespace", pid_namespace, BY_CALL),
    way("chroot", "under another root", chroot, BY_CALL),
    way("rename-read-rename", "renamed, read, renamed back", rename_back, BY_CALL),
    way("overlay-lower", "in the lower layer of an overlay", |place| overlay(place, false), BY_CALL),
    file(
        "overlay-copied-up",
        "copied up in an overlay, the copy read",
        |place| overlay(place, true),
        Seen::Told(&[secret(&[OPENED])]),
        Seen::Told(&[secret(&[OPENED])]),
    ),
    way("deep-path", "at the end of a path of 6,000 characters", deep_path, BY_CALL),
    file("swapped-path", "path swapped while it is opened", swapped, ONLY_OPENED, ONLY_OPENED),
    file("appears", "secret that appears during the job, read at once", appears, ONLY_OPENED, ONLY_OPENED),
    file(
        "appears-renamed",
        "secret renamed into its place during the job, read at once",
        appears_renamed,
        ONLY_OPENED,
        ONLY_OPENED,
    ),
    Technique {
        never: INNOCENT,
        ..file(
            "inode-reuse",
            "another file with the inode number of a deleted secret is no secret",
            inode_reuse,
            Seen::Told(&[]),
            Seen::Told(&[]),
        )
    },
];

fn read(path: impl AsRef<Path>) -> Result<()> {
    read_secret(call::open(path, libc::O_RDONLY)?)
}

fn through_symlink(place: &Place) -> Result<()> {
    let link = place.aside("link");
    symlink(place.secret(), &link)?;
    read(link)
}

fn through_link(place: &Place) -> Result<()> {
    let link = place.aside("link");
    fs::hard_link(place.secret(), &link)?;
    read(&link)?;
    Ok(fs::remove_file(link)?)
}

/// A mount namespace of its own, from which nothing gets out.
fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?)
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    Ok(mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)?)
}

fn bind_mount(place: &Place) -> Result<()> {
    own_mounts()?;
    let other = place.aside("other");
    fs::write(&other, "")?;
    bind(&place.secret(), &other)?;
    read(other)
}

fn detached_mount(place: &Place) -> Result<()> {
    own_mounts()?;
    // OPEN_TREE_CLONE
    let path = c(place.secrets())?;
    let tree = own(call!(SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), 1)?)?;
    let name = c(place.secret().file_name().map(PathBuf::from).unwrap_or_default())?;
    read_secret(own(call!(SYS_openat, tree.as_raw_fd(), name.as_ptr(), libc::O_RDONLY)?)?)
}

fn mount_namespace(place: &Place) -> Result<()> {
    own_mounts()?;
    let other = place.new_directory("elsewhere")?;
    bind(&place.secrets(), &other)?;
    mount(Some("none"), &place.secrets(), Some("tmpfs"), MsFlags::empty(), NONE)?;
    ensure!(!place.secret().exists(), "the secret is still at its place");
    read(other.join(place.secret().file_name().unwrap_or_default()))
}

fn user_namespace(place: &Place) -> Result<()> {
    call::fork(|| {
        let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        unshare(flags).map_err(|error| absent(format!("user namespaces: {error}")))?;
        read(place.secret())
    })?
    .succeed()
}

fn pid_namespace(place: &Place) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    call::fork(|| read(place.secret()))?.succeed()
}

fn chroot(place: &Place) -> Result<()> {
    let path = c(place.secrets())?;
    call!(SYS_chroot, path.as_ptr())?;
    let name = place.secret();
    read(Path::new("/").join(name.file_name().unwrap_or_default()))
}

fn rename_back(place: &Place) -> Result<()> {
    let other = place.aside("renamed");
    fs::rename(place.secret(), &other)?;
    let result = read(&other);
    fs::rename(other, place.secret())?;
    result
}

fn overlay(place: &Place, copy_up: bool) -> Result<()> {
    own_mounts()?;
    let layers = place.new_directory("layers")?;
    mount(Some("none"), &layers, Some("tmpfs"), MsFlags::empty(), NONE)?;
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| layers.join(name));
    for directory in [&upper, &work, &merged] {
        fs::create_dir(directory)?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        place.secrets().display(),
        upper.display(),
        work.display()
    );
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|error| absent(format!("overlay: {error}")))?;
    let file = merged.join(place.secret().file_name().unwrap_or_default());
    if copy_up {
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
    }
    read(file)
}

fn deep_path(place: &Place) -> Result<()> {
    let name = c("d".repeat(200))?;
    let mut directory = call::open(place.new_directory("deep")?, libc::O_PATH)?;
    for _ in 0..30 {
        call!(SYS_mkdirat, directory.as_raw_fd(), name.as_ptr(), 0o700)?;
        directory = own(call!(SYS_openat, directory.as_raw_fd(), name.as_ptr(), libc::O_PATH)?)?;
    }
    let (secret, link) = (c(place.secret())?, c("key")?);
    call!(SYS_linkat, libc::AT_FDCWD, secret.as_ptr(), directory.as_raw_fd(), link.as_ptr(), 0)?;
    read_secret(own(call!(SYS_openat, directory.as_raw_fd(), link.as_ptr(), libc::O_RDONLY)?)?)
}

/// Exchanges an innocent file and a link to the secret until an open has met the secret.
fn swapped(place: &Place) -> Result<()> {
    let (one, two) = (place.aside("one"), place.aside("two"));
    fs::write(&one, "nothing\n")?;
    symlink(place.secret(), &two)?;
    let (first, second) = (c(&one)?, c(&two)?);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // RENAME_EXCHANGE
                let _busy =
                    call!(SYS_renameat2, libc::AT_FDCWD, first.as_ptr(), libc::AT_FDCWD, second.as_ptr(), 2);
            }
        });
        let met = (0..1_000_000).any(|_| fs::read_to_string(&one).is_ok_and(|text| text == SECRET));
        done.store(true, Ordering::Relaxed);
        ensure!(met, "the open never met the secret");
        Ok(())
    })
}

fn appears(place: &Place) -> Result<()> {
    fs::write(place.secret(), SECRET)?;
    read(place.secret())
}

fn appears_renamed(place: &Place) -> Result<()> {
    let other = place.aside("new");
    fs::write(&other, SECRET)?;
    fs::rename(other, place.secret())?;
    read(place.secret())
}

fn inode_reuse(place: &Place) -> Result<()> {
    let number = fs::metadata(place.secret())?.ino();
    fs::remove_file(place.secret())?;
    for index in 0..4096 {
        let path = place.aside(&format!("{index}.innocent"));
        fs::write(&path, "nothing\n")?;
        if fs::metadata(&path)?.ino() == number {
            // SAFETY: a call without pointers: the file is really on its file system then.
            checked(i64::from(unsafe { libc::fsync(fs::File::open(&path)?.as_raw_fd()) }))?;
            fs::read(&path)?;
            return Ok(());
        }
    }
    Err(absent("the file system does not use inode numbers again"))
}
