//! Debian's kernels, fetched once and kept in the target directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::apt::Apt;

/// Names the newest kernel for virtual machines in each release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// From Debian 13's backports on, the kernel itself is in a package of this name that the image depends on.
const BINARY_PREFIX: &str = "linux-binary-";
const IMAGE_PREFIX: &str = "linux-image-";

/// A kernel to test with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 11.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 12, backports.
    #[value(name = "6.12")]
    V6_12,
    /// Debian 13, backports.
    #[value(name = "6.18")]
    V6_18,
    /// Debian 13, backports.
    #[value(name = "7.3")]
    V7_3,
}

impl Kernel {
    /// Major and minor version.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V6_18 => "6.18",
            Self::V7_3 => "7.3",
        }
    }

    /// The Debian release that has it.
    fn release(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "bookworm-backports",
            Self::V6_18 | Self::V7_3 => "trixie-backports",
        }
    }

    /// The guest mounts neither tracefs nor a cgroup hierarchy: the agent has to help itself.
    pub(super) fn bare_guest(self) -> bool {
        matches!(self, Self::V6_12)
    }

    /// QEMU's model of the processor. Without `cmpxchg16b`, whose emulation in QEMU 7.2 was seen to end in a double fault in
    /// 6.12's memory allocator when the machine is busy; but 7.3 needs it to allocate storage for sockets
    /// (mm/slub.c, `kmalloc_nolock`).
    pub(super) fn processor(self) -> &'static str {
        match self {
            Self::V7_3 => "max",
            _ => "max,-cx16",
        }
    }

    /// Tells how many instructions the verifier followed (since 5.16).
    pub(super) fn counts_instructions(self) -> bool {
        !matches!(self, Self::V5_10)
    }
}

/// Path of the kernel's boot image; fetches it when it is not there.
pub(super) fn fetch(kernel: Kernel, directory: &Path) -> Result<PathBuf> {
    let home = directory.join("kernels").join(kernel.name());
    let image = home.join("vmlinuz");
    if image.exists() {
        return Ok(image);
    }
    let apt = Apt::open(kernel.release(), &directory.join("apt"))?;
    let with = |package: &str, prefix: &str| -> Result<Option<String>> {
        Ok(apt.dependencies(package)?.into_iter().find(|name| name.starts_with(prefix)))
    };
    let package = match with(META_PACKAGE, IMAGE_PREFIX)? {
        Some(newest) if newest.starts_with(&format!("{IMAGE_PREFIX}{}", kernel.name())) => newest,
        _ => apt
            .newest(&format!("{IMAGE_PREFIX}{}.", kernel.name()), "-cloud-amd64")
            .with_context(|| format!("{} has no kernel {}", kernel.release(), kernel.name()))?,
    };
    let package = with(&package, BINARY_PREFIX)?.unwrap_or(package);

    let unpacked = home.join("unpacked");
    fs::create_dir_all(&unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    apt.unpack(&package, &unpacked)?;
    let found = find_image(&unpacked).with_context(|| format!("no kernel in the package {package}"))?;
    fs::rename(found, &image).context("cannot keep the kernel")?;
    fs::remove_dir_all(&unpacked).context("cannot remove the rest of a kernel package")?;
    Ok(image)
}

fn find_image(unpacked: &Path) -> Option<PathBuf> {
    let modules = unpacked.join("usr/lib/modules");
    let entries = |directory: &Path| {
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let in_boot = entries(&unpacked.join("boot"));
    let in_modules = entries(&modules).into_iter().map(|release| release.join("vmlinuz"));
    let is_image = |path: &PathBuf| {
        path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
    };
    in_boot.into_iter().chain(in_modules).find(is_image)
}

/// Path of a busybox that needs no library; fetches it when it is not there.
pub(super) fn fetch_busybox(directory: &Path) -> Result<PathBuf> {
    let home = directory.join("busybox");
    let program = ["bin/busybox", "usr/bin/busybox"].map(|place| home.join(place));
    let there = || program.iter().find(|path| path.is_file()).cloned();
    if let Some(path) = there() {
        return Ok(path);
    }
    let apt = Apt::open("bookworm", &directory.join("apt"))?;
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    apt.unpack("busybox-static", &home)?;
    there().context("no busybox in the package busybox-static")
}
