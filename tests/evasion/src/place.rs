//! Where the techniques work: a directory of fake secrets, each technique's own, and of what came of it.
//!
//! ```text
//! DIRECTORY/secrets/NAME.key   a fake secret of each technique (the agent's settings name it)
//! DIRECTORY/aside/             files that are no secrets
//! DIRECTORY/bin/               this program, also as `reader`
//! DIRECTORY/results            one line for each technique that ran: name, exit status, what it said
//! ```

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{call::Absent, techniques};

/// What every fake secret holds.
pub const SECRET: &str = "FAKE-not-a-secret\n";
/// Exit status of a technique that this machine has no way to do.
pub const ABSENT: i32 = 77;

/// Where one technique works.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    name: String,
}

impl Place {
    /// For the technique `name`.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        Self { directory: directory.to_owned(), name: name.to_owned() }
    }

    /// The directory of all.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of secrets.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.directory.join("secrets")
    }

    /// This technique's own secret.
    #[must_use]
    pub fn secret(&self) -> PathBuf {
        self.secrets().join(format!("{}.key", self.name))
    }

    /// A name beside the secrets, of this technique only.
    #[must_use]
    pub fn aside(&self, name: &str) -> PathBuf {
        self.directory.join("aside").join(format!("{}.{name}", self.name))
    }

    /// A new directory beside the secrets.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.aside(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// This program under the name `reader`, which tells its events from those of the technique's first process.
    #[must_use]
    pub fn reader(&self) -> Command {
        Command::new(self.directory.join("bin/reader"))
    }
}

/// Makes the directory.
///
/// # Errors
/// When something cannot be written.
pub fn prepare(directory: &Path) -> Result<()> {
    for name in ["secrets", "aside", "bin"] {
        let path = directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    for name in ["evasion", "reader"] {
        fs::copy(&program, directory.join("bin").join(name)).context("cannot copy this program")?;
    }
    for technique in techniques() {
        let place = Place::new(directory, technique.name);
        // Those have to do without a file at first.
        if !technique.name.starts_with("appears") {
            fs::write(place.secret(), SECRET).context("cannot write a fake secret")?;
        }
    }
    crate::credentials::prepare(directory)
}

/// Settings that make the fake secrets known to the agent.
#[must_use]
pub fn settings(directory: &Path) -> String {
    format!(
        "[[catalog.files]]\nname = \"evasion secret\"\nfamily = \"evasion\"\npath = \"{}/secrets/*.key\"\n",
        directory.display()
    )
}

/// The script of the step that does the technique `name`.
#[must_use]
pub fn script(directory: &Path, name: &str) -> String {
    let at = directory.display();
    format!(
        "said=$({at}/bin/evasion {name} {at} 2>&1) && status=0 || status=$?\n\
         printf '%s %s %s\\n' {name} \"$status\" \"${{said//$'\\n'/ }}\" >> {at}/results\n"
    )
}

/// Says on standard error what went wrong; the exit status for it.
#[must_use]
pub fn explain(error: &anyhow::Error) -> i32 {
    let _nobody_listens = writeln!(std::io::stderr(), "{error:#}");
    if error.is::<Absent>() { ABSENT } else { 1 }
}

/// Does the technique `name` in `directory`.
///
/// # Errors
/// When there is none of this name, or it fails.
pub fn run(name: &str, directory: &Path) -> Result<()> {
    let technique = techniques().into_iter().find(|technique| technique.name == name);
    let technique = technique.with_context(|| format!("no technique is called {name}"))?;
    ensure!(directory.is_absolute(), "give an absolute path");
    (technique.run)(&Place::new(directory, name))
}
