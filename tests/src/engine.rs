//! A real Docker engine that one test has for itself.
//!
//! In: a temporary directory. Out: an engine with its data, its sockets and its control groups there, without network and
//! without a registry: its one image is busybox from this machine. Stopping it removes its containers; dropping it leaves
//! no control group.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::process::{Launch, Running};

/// What its image is called.
pub const IMAGE: &str = "buildtrail-test:1";
/// The command line client of Debian's docker.io, and elsewhere.
pub const CLIENT: &str = "docker";
/// Where Debian's busybox-static has its program.
const BUSYBOX: &str = "/usr/bin/busybox";
/// Programs of the image; each is busybox.
const PROGRAMS: [&str; 12] =
    ["sh", "ash", "cat", "sleep", "tail", "ls", "env", "true", "id", "mkdir", "rm", "echo"];
/// Starting an engine takes a second or two; a busy machine takes more.
const START: Duration = Duration::from_mins(1);
/// For clients.
const SHORT: Duration = Duration::from_secs(30);

/// An engine that runs.
#[derive(Debug)]
pub struct Engine {
    running: Option<Running>,
    socket: PathBuf,
    logs: PathBuf,
    group: String,
}

impl Engine {
    /// Starts an engine whose files are all in `directory`, and gives it its image.
    ///
    /// # Errors
    /// When it does not start, or refuses the image.
    pub fn start(directory: &Path) -> Result<Self> {
        let at = |name: &str| directory.join("engine").join(name);
        let (socket, logs) = (at("docker.sock"), directory.join("logs"));
        fs::create_dir_all(directory.join("engine"))?;
        let group = format!("buildtrail-test-{}", std::process::id());
        let mut running = Launch::new("dockerd", "dockerd", &logs)
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2"])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("run"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--cgroup-parent")
            .arg(format!("/{group}"))
            .arg("-H")
            .arg(format!("unix://{}", socket.display()))
            .spawn()?;
        running.wait_until("the engine's socket", START, || socket.exists())?;
        let engine = Self { running: Some(running), socket, logs, group };
        engine.import(directory)?;
        Ok(engine)
    }

    fn import(&self, directory: &Path) -> Result<()> {
        let root = directory.join("image");
        let programs = root.join("bin");
        fs::create_dir_all(&programs)?;
        for place in ["tmp", "etc", "home/ci", "work"] {
            fs::create_dir_all(root.join(place))?;
        }
        fs::copy(BUSYBOX, programs.join("busybox"))
            .with_context(|| format!("cannot copy {BUSYBOX}: the package busybox-static has it"))?;
        for name in PROGRAMS {
            symlink("busybox", programs.join(name))?;
        }
        let archive = directory.join("image.tar");
        Launch::new("tar", "tar", &self.logs)
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .run_successfully(SHORT)?;
        self.client("docker-import").arg("import").arg(&archive).arg(IMAGE).run_successfully(SHORT)?;
        Ok(())
    }

    /// A client of this engine; its output goes to `logs/NAME.*`.
    #[must_use]
    pub fn client(&self, name: &str) -> Launch {
        Launch::new(name, CLIENT, &self.logs).env("DOCKER_HOST", self.address())
    }

    /// As `DOCKER_HOST` has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The end of what it said, for a person to read.
    #[must_use]
    pub fn tail(&self) -> String {
        self.running.as_ref().map(|running| running.tail(30)).unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && let Err(error) = running.stop()
        {
            eprintln!("the engine did not stop by itself: {error:#}");
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Only where the engine made one; containers' own are gone with them.
            let _ = fs::remove_dir(hierarchy.path().join(&self.group));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.group));
    }
}
