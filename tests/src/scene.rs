//! Two real jobs at the same time, and work outside any job.
//!
//! In: a temporary directory. Out: two `act` processes that ran `scenario/widgets` and `scenario/other`, and one
//! process that belongs to no job. What the first job must leave in the audit trail is in [`crate::expected`].

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    paths,
    process::{Launch, Running},
    standins::Standins,
};

/// Who triggers both workflows.
pub const ACTOR: &str = "octavia";
/// How long the jobs may take on a busy machine.
const JOBS_DEADLINE: Duration = Duration::from_mins(2);
/// For programs that do one small thing.
const SHORT: Duration = Duration::from_secs(20);

/// The files of the temporary home directory. Values are fake and say so.
const HOME_FILES: [(&str, &str); 6] = [
    (
        ".aws/credentials",
        "[default]\naws_access_key_id = FAKE-not-a-key\naws_secret_access_key = FAKE-not-a-secret\n",
    ),
    (".npmrc", "//registry.example.test/:_authToken=FAKE-not-a-token\n"),
    (".git-credentials", "https://octavia:FAKE-not-a-secret@git.example.test\n"),
    (".docker/config.json", "{\"auths\":{\"registry.example.test\":{\"auth\":\"FAKE-not-a-secret\"}}}\n"),
    (".netrc", "machine git.example.test login octavia password FAKE-not-a-secret\n"),
    (
        ".gitconfig",
        "[user]\n\tname = Octavia\n\temail = octavia@example.test\n[credential]\n\thelper = store\n",
    ),
];

/// The surroundings of the jobs, ready for them to run.
#[derive(Debug)]
pub struct Scene {
    directory: PathBuf,
    home: PathBuf,
    standins: Standins,
    ssh_agent: SshAgent,
    widgets: Repository,
    other: Repository,
}

/// A clone that a workflow runs in.
#[derive(Debug)]
pub struct Repository {
    /// Where it is.
    pub path: PathBuf,
    /// The commit that is checked out.
    pub commit: String,
}

#[derive(Debug)]
struct SshAgent {
    socket: PathBuf,
    /// Stops the agent when dropped.
    _running: Running,
}

impl Scene {
    /// Makes home, repositories, stand-ins and an ssh-agent, all in `directory`.
    ///
    /// # Errors
    /// When something cannot be made or started.
    pub fn prepare(directory: &Path) -> Result<Self> {
        let home = make_home(directory)?;
        let logs = directory.join("logs");
        Ok(Self {
            standins: Standins::start(&logs)?,
            ssh_agent: SshAgent::start(directory, &logs)?,
            widgets: Repository::make("widgets", directory)?,
            other: Repository::make("other", directory)?,
            directory: directory.to_owned(),
            home,
        })
    }

    /// The jobs' home directory, with the secrets.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The repository of the job that the audit trail is checked against.
    #[must_use]
    pub fn widgets(&self) -> &Repository {
        &self.widgets
    }

    /// The repository of the job that runs beside it.
    #[must_use]
    pub fn other(&self) -> &Repository {
        &self.other
    }

    /// The socket of the ssh-agent that the job talks to.
    #[must_use]
    pub fn ssh_agent(&self) -> &Path {
        &self.ssh_agent.socket
    }

    /// Runs both jobs and the outsider at the same time and waits for all three.
    ///
    /// # Errors
    /// When one of them fails; the end of what it wrote is part of the error.
    pub fn run(&self) -> Result<()> {
        let mut widgets = self.start_job("act-widgets", &self.widgets)?;
        let mut other = self.start_job("act-other", &self.other)?;
        self.run_outside()?;
        for job in [&mut widgets, &mut other] {
            let status = job.wait(JOBS_DEADLINE)?;
            anyhow::ensure!(status.success(), "a job failed with {status}\n{}", job.tail(60));
        }
        Ok(())
    }

    fn start_job(&self, name: &str, repository: &Repository) -> Result<Running> {
        let socket = self.ssh_agent.socket.to_str().context("the temporary directory's name is not UTF-8")?;
        self.launch(name, paths::act()?)
            .args(["push", "-P", "self-hosted=-self-hosted", "--no-cache-server", "--actor", ACTOR])
            .arg("--env")
            .arg(format!("SSH_AUTH_SOCK={socket}"))
            .directory(&repository.path)
            .spawn()
    }

    /// Reads a secret and connects, in no job.
    fn run_outside(&self) -> Result<()> {
        self.launch("outside", "bash")
            .args(["-c", "cat \"$HOME/.netrc\" > /dev/null; : > /dev/tcp/127.0.0.10/8446"])
            .directory(&self.home)
            .run_successfully(SHORT)?;
        Ok(())
    }

    fn launch(&self, name: &str, program: impl AsRef<std::ffi::OsStr>) -> Launch {
        Launch::new(name, program, &self.directory.join("logs"))
            .clean_environment()
            .env("HOME", &self.home)
            .env("XDG_CACHE_HOME", self.home.join(".cache"))
            .env("LANG", "C.UTF-8")
            .in_namespaces_of(self.standins.pid())
    }
}

impl Repository {
    fn make(name: &str, directory: &Path) -> Result<Self> {
        let path = directory.join(name);
        copy_tree(&paths::scenario(name), &path)?;
        let origin = format!("https://github.com/acme/{name}");
        let git = |arguments: &[&str]| {
            Launch::new("git", "git", &directory.join("logs"))
                .clean_environment()
                .env("HOME", directory.join("home"))
                .directory(&path)
                .args(arguments)
                .run_successfully(SHORT)
        };
        git(&["init", "--quiet", "--initial-branch=main"])?;
        git(&["add", "--all"])?;
        git(&["commit", "--quiet", "--message=The scenario"])?;
        git(&["remote", "add", "origin", &origin])?;
        let commit = git(&["rev-parse", "HEAD"])?.text();
        Ok(Self { path, commit })
    }
}

impl SshAgent {
    /// Starts an agent that holds one key made for the purpose.
    fn start(directory: &Path, logs: &Path) -> Result<Self> {
        let socket = directory.join("ssh-agent.sock");
        let key = directory.join("throw-away-key");
        let mut running =
            Launch::new("ssh-agent", "ssh-agent", logs).arg("-D").arg("-a").arg(&socket).spawn()?;
        running.wait_until("its socket", SHORT, || socket.exists())?;
        Launch::new("ssh-keygen", "ssh-keygen", logs)
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "throw-away", "-f"])
            .arg(&key)
            .run_successfully(SHORT)?;
        Launch::new("ssh-add", "ssh-add", logs)
            .env("SSH_AUTH_SOCK", &socket)
            .arg("-q")
            .arg(&key)
            .run_successfully(SHORT)?;
        Ok(Self { socket, _running: running })
    }
}

/// Makes `directory/home` with its fake secrets.
///
/// # Errors
/// When a file cannot be written.
pub fn make_home(directory: &Path) -> Result<PathBuf> {
    let home = directory.join("home");
    for (name, content) in HOME_FILES {
        let path = home.join(name);
        let parent = path.parent().context("a file of the home directory without a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(home)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_of_the_scene_says_that_it_is_fake() {
        for (name, content) in HOME_FILES {
            assert!(name == ".gitconfig" || content.contains("FAKE-not-a-"), "{name}");
        }
    }
}
