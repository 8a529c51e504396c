//! Packages of other Debian releases, without touching what apt knows about this machine.
//!
//! In: the release. Out: unpacked packages. The mirror is the one that this machine uses; lists and downloads stay in the
//! target directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::shell::{self, answer};

/// Debian's keys, from the package debian-archive-keyring, which every Debian system has.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt, with one release as its only source.
#[derive(Debug)]
pub(super) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Fetches the release's package lists. Fails when the mirror does not have the release.
    pub(super) fn open(release: &str, directory: &Path) -> Result<Self> {
        let apt = Self { directory: directory.join(release) };
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let path = apt.directory.join(part);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {} {release} main\n", mirror()?);
        fs::write(apt.sources(), source).context("cannot write apt's source list")?;
        fs::write(apt.directory.join("status"), "").context("cannot write apt's list of packages")?;
        let mut update = apt.command("apt-get");
        shell::run_quietly(
            &format!("package lists of {release} (for this test alone)"),
            update.args(["--error-on=any", "update"]),
            &apt.directory,
            "update",
        )?;
        Ok(apt)
    }

    /// The packages that `package` depends on; of alternatives, the first.
    pub(super) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        let shown = answer(command.args(["show", "--no-all-versions", package]))
            .with_context(|| format!("the release has no package {package}"))?;
        Ok(dependencies_in(&shown))
    }

    /// The package with the highest version in its name among those that begin and end so.
    pub(super) fn newest(&self, start: &str, end: &str) -> Option<String> {
        let names = answer(self.command("apt-cache").arg("pkgnames").arg(start))?;
        let version = |name: &&str| -> Vec<u32> {
            name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
        };
        names.lines().filter(|name| name.ends_with(end)).max_by_key(version).map(str::to_owned)
    }

    /// Downloads `package` and unpacks it into `target`.
    pub(super) fn unpack(&self, package: &str, target: &Path) -> Result<()> {
        let download = self.directory.join("download");
        let _ = fs::remove_dir_all(&download);
        fs::create_dir_all(&download).with_context(|| format!("cannot make {}", download.display()))?;
        let mut command = self.command("apt-get");
        command.args(["download", package]).current_dir(&download);
        shell::run_quietly(&format!("fetching {package}"), &mut command, &self.directory, "download")?;
        let archive = fs::read_dir(&download)?.next().context("apt-get downloaded nothing")??.path();
        let status =
            Command::new("dpkg-deb").arg("--extract").args([&archive, &target.to_path_buf()]).status();
        let status = status.context("cannot run dpkg-deb: this needs Debian or a relative of it")?;
        ensure!(status.success(), "cannot unpack {}: {status}", archive.display());
        fs::remove_dir_all(&download).context("cannot remove a downloaded package")
    }

    fn sources(&self) -> PathBuf {
        self.directory.join("sources.list")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (key, path) in [
            ("Dir::Etc::sourcelist", self.sources()),
            ("Dir::State", self.directory.join("state")),
            ("Dir::State::status", self.directory.join("status")),
            ("Dir::Cache", self.directory.join("cache")),
        ] {
            command.arg(format!("--option={key}={}", path.display()));
        }
        // The usual unprivileged user may not write to the target directory.
        command.args(["--option=Dir::Etc::sourceparts=-", "--option=APT::Sandbox::User=root"]);
        command.args(["--option=Acquire::Languages=none"]);
        command
    }
}

/// Where this machine gets Debian's packages from.
fn mirror() -> Result<String> {
    let arguments = ["indextargets", "--format=$(REPO_URI) $(ORIGIN)/$(LABEL)", "Created-By: Packages"];
    let list =
        answer(Command::new("apt-get").args(arguments)).context("cannot run apt-get: this needs Debian")?;
    let mirror = list.lines().find_map(|line| line.strip_suffix(" Debian/Debian"));
    mirror.map(str::to_owned).context("apt knows no Debian mirror: run `apt-get update`, then try again")
}

/// The names in a `Depends:` line.
fn dependencies_in(shown: &str) -> Vec<String> {
    let Some(list) = shown.lines().find_map(|line| line.strip_prefix("Depends: ")) else { return Vec::new() };
    list.split(',').filter_map(|entry| entry.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_alternatives_are_left_out_of_dependencies() {
        let shown =
            "Package: linux-image\nDepends: kmod, linux-base (>= 4.3~), dracut | initramfs-tools\nSize: 1\n";
        assert_eq!(dependencies_in(shown), ["kmod", "linux-base", "dracut"]);
        assert!(dependencies_in("Package: alone\n").is_empty());
    }
}
