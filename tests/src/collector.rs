//! The collector under test, and the command line that asks it: the real binaries, with certificates of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use buildtrail_proto::v1::{AuditEvent, JobSummary};

use crate::{
    agent, events, paths,
    process::{Finished, Launch, Running},
};

/// The name of the host in its certificate and in every event.
pub const HOST: &str = "demo-host";
const READY_DEADLINE: Duration = Duration::from_secs(30);
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Certificates and data of a collector that may be started and stopped several times.
#[derive(Debug, Clone)]
pub struct Site {
    directory: PathBuf,
    namespaces_of: Option<u32>,
    more: String,
}

/// A collector that serves.
#[derive(Debug)]
pub struct Collector {
    running: Running,
    site: Site,
    /// Address and port.
    pub address: String,
}

impl Site {
    /// Makes an authority and the certificates of a collector, one host and one reader, in `directory`.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn prepare(directory: &Path) -> Result<Self> {
        let site = Self { directory: directory.to_owned(), namespaces_of: None, more: String::new() };
        let authority = site.part("collector");
        site.certificates("init", &authority, &["--name", "127.0.0.1,localhost"])?;
        for (kind, name) in [("host", HOST), ("reader", "demo-reader"), ("admin", "demo-admin")] {
            let out = site.part(kind).display().to_string();
            site.certificates(kind, &authority, &["--name", name, "--out", &out])?;
        }
        Ok(site)
    }

    /// The same, with all that is started in the namespaces of process `pid`.
    #[must_use]
    pub fn in_namespaces_of(mut self, pid: u32) -> Self {
        self.namespaces_of = Some(pid);
        self
    }

    /// Adds tables to the collector's settings.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self
    }

    /// Where the collector keeps its log and its index.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.part("collector-data")
    }

    /// Starts the collector at `address` (port 0: a free one).
    ///
    /// # Errors
    /// When it does not get so far as to listen.
    pub fn start(&self, address: &str, stays: bool) -> Result<Collector> {
        let address_file = self.directory.join("collector-address");
        if address_file.exists() {
            fs::remove_file(&address_file).context("cannot remove the address file of an earlier start")?;
        }
        let mut launch = self
            .launch("collector", "buildtrail-collector")?
            .args(["serve", "--config"])
            .arg(self.write_config(address)?)
            .arg("--address-file")
            .arg(&address_file);
        if stays {
            launch = launch.stays();
        }
        let mut running = launch.spawn()?;
        let mut address = String::new();
        running.wait_until("the collector to listen", READY_DEADLINE, || {
            fs::read_to_string(&address_file).unwrap_or_default().trim().clone_into(&mut address);
            !address.is_empty()
        })?;
        Ok(Collector { running, site: self.clone(), address })
    }

    /// Lines for the settings of an agent on [`HOST`] that sends to `address`.
    #[must_use]
    pub fn agent_lines(&self, address: &str) -> String {
        format!("[collector]\naddresses = [\"https://{address}\"]\n{}", certificate_lines(&self.part("host")))
    }

    /// Lines for the settings of an agent that enrols by itself: the token is put into the file it looks for.
    ///
    /// # Errors
    /// When `collector` gives no token.
    pub fn enrolling_lines(&self, collector: &Collector, name: &str) -> Result<String> {
        let made = collector.administer(&["--json", "enrol", "create", "--uses", "1", "--name", name])?;
        let made: serde_json::Value =
            serde_json::from_slice(&made.stdout).context("cannot understand what `enrol create` says")?;
        let field = |name: &str| made[name].as_str().with_context(|| format!("no {name} in {made}"));
        let file = self.part("token");
        fs::write(&file, field("token")?).with_context(|| format!("cannot write {}", file.display()))?;
        let (address, file) = (&collector.address, file.display().to_string());
        Ok(format!(
            "[collector]\naddresses = [\"https://{address}\"]\n\n[enrol]\nname = {name:?}\ntoken_file = {file:?}\nca_pin = {:?}\n",
            field("ca_pin")?
        ))
    }

    fn certificates(&self, kind: &str, authority: &Path, arguments: &[&str]) -> Result<()> {
        self.launch(&format!("ca-{kind}"), "buildtrail-collector")?
            .args(["ca", kind, "--dir"])
            .arg(authority)
            .args(arguments)
            .run_successfully(ANSWER_DEADLINE)?;
        Ok(())
    }

    fn write_config(&self, address: &str) -> Result<PathBuf> {
        let path = self.directory.join("collector.toml");
        let data = self.part("collector-data").display().to_string();
        let tls = certificate_lines(&self.part("collector"));
        let authority_key = self.part("collector").join("ca-key.pem").display().to_string();
        let text = format!(
            "listen = \"{address}\"\ndata_directory = {data:?}\n\n[tls]\n{tls}\n[enrol]\nauthority_key = {authority_key:?}\n{}",
            self.more
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A launch of one of the workspace's binaries, in the site's namespaces.
    ///
    /// # Errors
    /// When it is not built.
    pub fn launch(&self, name: &str, binary: &str) -> Result<Launch> {
        let launch = Launch::new(name, paths::binary(binary)?, &self.directory.join("logs"));
        Ok(match self.namespaces_of {
            Some(pid) => launch.in_namespaces_of(pid),
            None => launch,
        })
    }

    fn part(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn certificate_lines(directory: &Path) -> String {
    let line = |key: &str, file: &str| format!("{key} = {:?}\n", directory.join(file).display().to_string());
    line("ca", "ca.pem") + &line("certificate", "cert.pem") + &line("private_key", "key.pem")
}

impl Collector {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Leaves it running; it must have been started to stay.
    pub fn leave(self) {
        self.running.leave();
    }

    /// What a person types to ask this collector.
    ///
    /// # Errors
    /// When the command line is not built.
    pub fn command_line(&self) -> Result<String> {
        let program = paths::binary("buildtrail")?;
        Ok(format!("{} {}", program.display(), self.connection("reader").join(" ")))
    }

    /// Asks with the command line; its answer.
    ///
    /// # Errors
    /// When the command line fails.
    pub fn ask(&self, question: &[&str]) -> Result<Finished> {
        self.command(question, "reader")?.run_successfully(ANSWER_DEADLINE)
    }

    /// Asks with the command line; its answer, whatever its exit status.
    ///
    /// # Errors
    /// When the command line cannot be run.
    pub fn ask_for_verdict(&self, question: &[&str]) -> Result<Finished> {
        self.command(question, "reader")?.run(ANSWER_DEADLINE)
    }

    /// Orders something as administrator; the answer.
    ///
    /// # Errors
    /// When the command line fails.
    pub fn administer(&self, order: &[&str]) -> Result<Finished> {
        self.command(order, "admin")?.run_successfully(ANSWER_DEADLINE)
    }

    /// Makes a local administrator; one of their recovery codes, which stands in for a device once.
    ///
    /// # Errors
    /// When the collector's program refuses.
    pub fn local_admin(&self, name: &str, password: &str) -> Result<String> {
        let program = paths::binary("buildtrail-collector")?;
        let made = Launch::new("admin", "sh", &self.site.directory.join("logs"))
            .args(["-c", "printf '%s\n' \"$1\" | \"$2\" admin create \"$3\" --config \"$4\"", "sh", password])
            .arg(program)
            .arg(name)
            .arg(self.site.part("collector.toml"))
            .run_successfully(ANSWER_DEADLINE)?;
        let said = made.text();
        let code = said.lines().last().map(str::trim).filter(|code| !code.is_empty());
        Ok(code.with_context(|| format!("no recovery code in {said:?}"))?.to_owned())
    }

    fn command(&self, words: &[&str], profile: &str) -> Result<Launch> {
        Ok(self.site.launch("buildtrail", "buildtrail")?.args(self.connection(profile)).args(words))
    }

    /// The jobs that it knows.
    ///
    /// # Errors
    /// When the command line fails or its answer is not understood.
    pub fn jobs(&self) -> Result<Vec<JobSummary>> {
        let answer = self.ask(&["jobs", "--ndjson", "--all"])?;
        serde_json::Deserializer::from_slice(&answer.stdout)
            .into_iter()
            .map(|job| job.context("cannot understand what `buildtrail jobs --ndjson` says"))
            .collect()
    }

    /// Ends it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill(self) -> Result<()> {
        self.running.kill()
    }

    /// All events that it has, oldest first.
    ///
    /// # Errors
    /// When the command line fails or its answer is not understood.
    pub fn all_events(&self) -> Result<Vec<AuditEvent>> {
        events::parse(&self.ask(&["events", "--ndjson", "--all", "--sort", "oldest"])?.stdout)
    }

    /// Waits until it knows `count` jobs that ended.
    ///
    /// # Errors
    /// When it does not within `deadline`.
    pub fn wait_for_finished_jobs(&self, count: usize, deadline: Duration) -> Result<Vec<JobSummary>> {
        let start = Instant::now();
        loop {
            let jobs = self.jobs()?;
            if jobs.iter().filter(|job| job.finished).count() >= count {
                return Ok(jobs);
            }
            if start.elapsed() > deadline {
                bail!(
                    "the collector knows {} jobs, not {count} that ended, after {deadline:?}\n{}",
                    jobs.len(),
                    self.running.tail(40)
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until its index holds `count` events of jobs: it follows the log, which is what was acknowledged.
    ///
    /// # Errors
    /// When it does not within `deadline`.
    pub fn wait_for_events_of_jobs(&self, count: u64, deadline: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let indexed: u64 = self.jobs()?.iter().flat_map(|job| job.counts.values()).sum();
            if indexed >= count {
                return Ok(());
            }
            if start.elapsed() > deadline {
                bail!(
                    "the index holds {indexed} events, not {count}, after {deadline:?}\n{}",
                    self.running.tail(40)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it with SIGTERM.
    ///
    /// # Errors
    /// When it does not stop cleanly.
    pub fn stop(self) -> Result<()> {
        let status = self.running.stop()?;
        if !status.success() {
            bail!("the collector ended with {status}");
        }
        Ok(())
    }

    fn connection(&self, profile: &str) -> Vec<String> {
        let profile = self.site.part(profile).display().to_string();
        vec!["--collector".to_owned(), format!("https://{}", self.address), "--profile".to_owned(), profile]
    }
}

/// Settings of an agent that sends to `address` of `site`.
#[must_use]
pub fn agent_settings(site: &Site, address: &str, home: &Path) -> agent::Settings {
    agent::Settings::new(&site.directory, home).with(&site.agent_lines(address))
}
