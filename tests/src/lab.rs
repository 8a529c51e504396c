//! Network and mount namespaces of a test's own: links that are cut, disks that are full.
//!
//! In: nothing of the machine. Out: a process id whose namespaces others enter. All is gone with that process.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::process::{Launch, Running};

const SHORT: Duration = Duration::from_secs(30);
const READY: &str = "ready";
/// Longer than any test.
const HOLDER: &str = "mount --make-rprivate / && ip link set lo up && echo ready && exec sleep 3600";

/// The namespaces.
#[derive(Debug)]
pub struct Lab {
    holder: Running,
    logs: std::path::PathBuf,
}

impl Lab {
    /// Makes them; logs go below `directory`.
    ///
    /// # Errors
    /// When they cannot be made: that needs root.
    pub fn start(directory: &Path) -> Result<Self> {
        let logs = directory.join("logs");
        let mut holder = Launch::new("lab", "unshare", &logs)
            .args(["--net", "--mount", "--", "sh", "-c", HOLDER])
            .spawn()?;
        let output = holder.stdout().to_owned();
        holder.wait_until("its namespaces", SHORT, || {
            fs::read_to_string(&output).is_ok_and(|text| text.contains(READY))
        })?;
        Ok(Self { holder, logs })
    }

    /// Whose namespaces to enter.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Cuts the network inside, or mends it.
    ///
    /// # Errors
    /// When the link cannot be set.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.run("ip", &["link", "set", "lo", if up { "up" } else { "down" }])
    }

    /// Mounts a file system of so many MiB, made in a file beside it, at `place`.
    ///
    /// # Errors
    /// When the machine has no loop devices or no ext4.
    pub fn mount_small_disk(&self, place: &Path, mebibytes: u64) -> Result<()> {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
        let image = place.with_extension("img").display().to_string();
        fs::File::create(&image)?.set_len(mebibytes << 20)?;
        self.run("mkfs.ext4", &["-q", "-F", "-m", "0", &image])?;
        // The loop device goes with the mount, and the mount with the namespace.
        self.run("mount", &["-o", "loop", &image, &place.display().to_string()])
    }

    /// Writes the file until the disk is full.
    ///
    /// # Errors
    /// When it cannot be tried.
    pub fn fill(&self, file: &str) -> Result<()> {
        // It ends with "no space left", which is the aim.
        self.run("sh", &["-c", &format!("dd if=/dev/zero of={file} bs=64k; true")])
    }

    /// Runs a program inside, to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        Launch::new(program, program, &self.logs)
            .args(arguments)
            .in_namespaces_of(self.pid())
            .run_successfully(SHORT)?;
        Ok(())
    }
}
