//! The agent under test: the real binary, with settings of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use buildtrail_proto::v1::AuditEvent;
use nix::sys::signal::Signal;

use crate::{
    events, paths,
    process::{Launch, Running},
};

/// Loading and attaching takes a second; a busy machine takes more.
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// Settings that a test cares about; everything else has its default.
#[derive(Debug)]
pub struct Settings {
    directory: PathBuf,
    text: String,
}

impl Settings {
    /// Settings for an agent that keeps its state in `directory` and looks for secrets in `home`.
    #[must_use]
    pub fn new(directory: &Path, home: &Path) -> Self {
        let text = format!(
            "[host]\nstate_directory = {:?}\n\n[catalog]\nhomes = [{:?}]\n\n[hooks]\nsocket = {:?}\n",
            directory.join("agent-state").display().to_string(),
            home.display().to_string(),
            directory.join("control/hooks.sock").display().to_string(),
        );
        Self { directory: directory.to_owned(), text }
    }

    /// Adds lines.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.text.push('\n');
        self.text.push_str(lines);
        self
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<PathBuf> {
        let path = self.directory.join("agent.toml");
        fs::write(&path, &self.text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// An agent that watches.
#[derive(Debug)]
pub struct Agent {
    running: Running,
}

impl Agent {
    /// Starts an agent that writes events to its standard output, and waits until it sees everything.
    ///
    /// # Errors
    /// When it does not get that far.
    pub fn start_with_json(settings: &Settings) -> Result<Self> {
        Self::start(settings, &["--output", "json"], false)
    }

    /// Starts an agent that sends events to the collector of its settings, and waits until it sees everything.
    ///
    /// # Errors
    /// When it does not get that far.
    pub fn start_with_collector(settings: &Settings, stays: bool) -> Result<Self> {
        Self::start(settings, &[], stays)
    }

    fn start(settings: &Settings, arguments: &[&str], stays: bool) -> Result<Self> {
        let ready = settings.directory.join("agent-ready");
        if ready.exists() {
            fs::remove_file(&ready).with_context(|| format!("cannot remove {}", ready.display()))?;
        }
        let mut launch =
            Launch::new("agent", paths::binary("buildtrail-agent")?, &settings.directory.join("logs"))
                .args(["run", "--config"])
                .arg(settings.write()?)
                .arg("--ready-file")
                .arg(&ready)
                .args(arguments);
        if stays {
            launch = launch.stays();
        }
        let mut running = launch.spawn()?;
        running.wait_until("the agent to be ready", READY_DEADLINE, || ready.exists())?;
        Ok(Self { running })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Waits until it says something in its own log.
    ///
    /// # Errors
    /// When it does not within `deadline`.
    pub fn wait_until_it_says(&mut self, text: &str, deadline: Duration) -> Result<()> {
        let log = self.running.stderr().to_owned();
        let says = || fs::read_to_string(&log).is_ok_and(|said| said.contains(text));
        self.running.wait_until(&format!("the agent to say {text:?}"), deadline, says)
    }

    /// Leaves it running; it must have been started to stay.
    pub fn leave(self) {
        self.running.leave();
    }

    /// What it has written so far.
    ///
    /// # Errors
    /// When a line is no event.
    pub fn events(&self) -> Result<Vec<AuditEvent>> {
        events::parse(&fs::read(self.running.stdout()).context("cannot read the agent's output")?)
    }

    /// Waits until the events so far are enough.
    ///
    /// # Errors
    /// When they are not at the deadline, or a line is no event.
    pub fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        enough: impl Fn(&[AuditEvent]) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let events = self.events()?;
            if enough(&events) {
                return Ok(());
            }
            if start.elapsed() > deadline {
                bail!("the agent did not report {what} within {deadline:?}\n{}", self.running.tail(40));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it with SIGKILL; everything it wrote.
    ///
    /// # Errors
    /// When it cannot be ended or a line is no event.
    pub fn kill(mut self) -> Result<Vec<AuditEvent>> {
        let output = self.running.stdout().to_owned();
        self.running.signal(Signal::SIGKILL)?;
        self.running.wait(READY_DEADLINE)?;
        events::parse(&fs::read(&output).context("cannot read the agent's output")?)
    }

    /// Stops it with SIGTERM; its status and everything it wrote.
    ///
    /// # Errors
    /// When it does not stop by itself or a line is no event.
    pub fn stop(self) -> Result<(ExitStatus, Vec<AuditEvent>)> {
        let output = self.running.stdout().to_owned();
        let status = self.running.stop()?;
        let events = events::parse(&fs::read(&output).context("cannot read the agent's output")?)?;
        Ok((status, events))
    }
}
