//! Measures the agent. A benchmark prints figures and bounds; it is never a test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{compile, setup, shell::say, vm, workspace::Workspace};

/// Share of one core that the idle agent may use.
const MAX_CPU_PERCENT: f64 = 0.5;
/// Resident memory that the idle agent may use.
const MAX_RESIDENT_MB: f64 = 60.0;
/// Time between start and measurement.
const SETTLE: Duration = Duration::from_secs(10);
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Unit of the times in /proc/PID/stat: `USER_HZ`, which is 100 on every architecture that is supported.
const TICKS_PER_SECOND: f64 = 100.0;

/// Measures the agent while nothing happens. Returns whether it is within its bounds.
pub(crate) fn idle(workspace: &Workspace, seconds: u64) -> Result<bool> {
    if !setup::is_root() {
        bail!("the agent needs root; run this as root");
    }
    compile::everything(workspace, false)?;
    let agent = Agent::start(workspace)?;
    say(&format!("▸ the agent (process {}) settles for {} s", agent.child.id(), SETTLE.as_secs()));
    thread::sleep(SETTLE);

    say(&format!("▸ measuring for {seconds} s"));
    let (before, start) = (agent.cpu_ticks()?, Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (ticks, elapsed) = (agent.cpu_ticks()? - before, start.elapsed());

    let percent = ticks / TICKS_PER_SECOND / elapsed.as_secs_f64() * 100.0;
    let resident = agent.memory_mb("VmRSS")?;
    let within = [
        report("processor", percent, "% of one core", MAX_CPU_PERCENT),
        report("resident memory", resident, "MB", MAX_RESIDENT_MB),
    ];
    say(&format!("    of it anonymous  {:>8.2} MB", agent.memory_mb("RssAnon")?));
    say(&format!("    highest resident {:>8.2} MB", agent.memory_mb("VmHWM")?));
    Ok(within.iter().all(|ok| *ok))
}

/// Measures what the agent adds to single operations: on this machine in nanoseconds, in guests in instructions. Returns
/// whether every goal was reached.
pub(crate) fn micro(
    workspace: &Workspace,
    rounds: u64,
    only: Option<vm::Place>,
    debug: bool,
) -> Result<bool> {
    compile::everything(workspace, debug)?;
    let mut reached = true;
    if only.is_none_or(|only| only == vm::Place::Here) {
        let binaries = if debug { workspace.debug_binaries() } else { workspace.binaries() };
        reached &= program(workspace, &binaries, "micro", "--rounds", rounds)?;
    }
    for kernel in vm::MEASURED {
        if only.is_none_or(|only| only == vm::Place::Guest(kernel)) {
            reached &= vm::micro(workspace, kernel, debug)?;
        }
    }
    Ok(reached)
}

/// Measures a part of the way from an event to its acknowledgement: `what` the program `bench` of the tests does.
/// Returns whether the goal was reached.
pub(crate) fn way(workspace: &Workspace, what: &str, option: &str, value: u64) -> Result<bool> {
    compile::everything(workspace, false)?;
    program(workspace, &workspace.binaries(), what, option, value)
}

fn program(workspace: &Workspace, binaries: &Path, what: &str, option: &str, value: u64) -> Result<bool> {
    let directory = workspace.scratch().join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    say(&format!("▸ measuring: {what}"));
    let status = Command::new(binaries.join("bench"))
        .args([what, "--directory"])
        .arg(&directory)
        .args([option, &value.to_string()])
        .env("BUILDTRAIL_BIN_DIR", binaries)
        .status()
        .context("cannot run the benchmark")?;
    Ok(status.success())
}

fn report(what: &str, value: f64, unit: &str, bound: f64) -> bool {
    let within = value < bound;
    let verdict = if within { "within" } else { "ABOVE" };
    say(&format!("    {what:<16} {value:>8.2} {unit} ({verdict} the bound of {bound} {unit})"));
    within
}

struct Agent {
    child: Child,
}

impl Agent {
    fn start(workspace: &Workspace) -> Result<Self> {
        let directory = workspace.scratch().join("bench");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let (config, ready) = (directory.join("agent.toml"), directory.join("ready"));
        write_config(&config, &directory)?;
        let _ = fs::remove_file(&ready);
        let errors = fs::File::create(directory.join("agent.err")).context("cannot write the agent's log")?;
        let child = Command::new(workspace.binaries().join("buildtrail-agent"))
            .args(["run", "--output", "json", "--config"])
            .arg(&config)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .context("cannot start the agent")?;
        let mut agent = Self { child };
        agent.wait_until_ready(&ready, &directory)?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self, ready: &Path, directory: &Path) -> Result<()> {
        let start = Instant::now();
        while !ready.exists() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status}; see {}/agent.err", directory.display());
            }
            if start.elapsed() > READY_DEADLINE {
                bail!(
                    "the agent was not ready after {READY_DEADLINE:?}; see {}/agent.err",
                    directory.display()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let path = PathBuf::from(format!("/proc/{}/{name}", self.child.id()));
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: has the agent ended?", path.display()))
    }

    /// User and system time so far, in ticks.
    fn cpu_ticks(&self) -> Result<f64> {
        let stat = self.proc_file("stat")?;
        // Fields 14 and 15; the second is a name in brackets that may hold spaces.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).context("unexpected /proc/PID/stat")?;
        fields.split_whitespace().skip(11).take(2).map(|field| Ok(field.parse::<f64>()?)).sum()
    }

    /// A line of /proc/PID/status, which counts in units of 1024 bytes, in MB (10^6 bytes).
    fn memory_mb(&self, name: &str) -> Result<f64> {
        let status = self.proc_file("status")?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB"))
            .with_context(|| format!("no {name} in /proc/PID/status"))?
            .parse()?;
        Ok(kib * 1024.0 / 1_000_000.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // SIGTERM, so that it detaches as in real life.
        let stopped = Command::new("kill").arg(self.child.id().to_string()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn write_config(config: &Path, directory: &Path) -> Result<()> {
    let state = directory.join("state");
    fs::write(config, format!("[host]\nstate_directory = {:?}\n", state.display().to_string()))
        .with_context(|| format!("cannot write {}", config.display()))
}
