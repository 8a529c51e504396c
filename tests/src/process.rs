//! The one place that starts child processes, waits for them and stops them.
//!
//! In: a program and its surroundings. Out: its exit status and the files that hold what it wrote. A child never
//! outlives the thread that started it, unless it is left running ([`Running::leave`]); it leads a process group of its
//! own, so that what it started itself can be ended with it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
    },
    unistd::Pid,
};

/// How long a child may take to stop when asked before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(20);
/// Time between two looks at a child.
const POLL: Duration = Duration::from_millis(5);

/// A program about to be started.
#[derive(Debug)]
pub struct Launch {
    name: String,
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    clean_environment: bool,
    directory: Option<PathBuf>,
    namespaces_of: Option<u32>,
    logs: PathBuf,
    stays: bool,
}

impl Launch {
    /// A launch of `program` whose output goes to `logs/NAME.out` and `logs/NAME.err`.
    pub fn new(name: &str, program: impl AsRef<OsStr>, logs: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            clean_environment: false,
            directory: None,
            namespaces_of: None,
            logs: logs.to_owned(),
            stays: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an environment that holds nothing but the system's usual search path.
    #[must_use]
    pub fn clean_environment(mut self) -> Self {
        self.clean_environment = true;
        self.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }

    /// Sets the working directory.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Runs in the network and mount namespaces of process `pid`.
    #[must_use]
    pub fn in_namespaces_of(mut self, pid: u32) -> Self {
        self.namespaces_of = Some(pid);
        self
    }

    /// Lets the child live on after whoever started it; see [`Running::leave`].
    #[must_use]
    pub fn stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// When its log files cannot be made or it cannot be started.
    pub fn spawn(self) -> Result<Running> {
        fs::create_dir_all(&self.logs)
            .with_context(|| format!("cannot make the log directory {}", self.logs.display()))?;
        let stdout = self.logs.join(format!("{}.out", self.name));
        let stderr = self.logs.join(format!("{}.err", self.name));
        let create =
            |path: &Path| File::create(path).with_context(|| format!("cannot write {}", path.display()));
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?);
        let child = command.spawn().with_context(|| {
            format!("cannot start {} ({})", self.name, Path::new(&self.program).display())
        })?;
        Ok(Running { name: self.name, child, stdout, stderr, left: false })
    }

    /// Starts the program and waits until it ends, at most `deadline`.
    ///
    /// # Errors
    /// When it cannot be started or is still there at the deadline (then it is stopped).
    pub fn run(self, deadline: Duration) -> Result<Finished> {
        let mut running = self.spawn()?;
        let status = running.wait(deadline)?;
        running.finished(status)
    }

    /// Like [`Launch::run`], and an exit status other than zero is an error that shows the end of what it wrote.
    ///
    /// # Errors
    /// As for [`Launch::run`], and when the program fails.
    pub fn run_successfully(self, deadline: Duration) -> Result<Finished> {
        let mut running = self.spawn()?;
        let status = running.wait(deadline)?;
        if !status.success() {
            bail!("{} ended with {status}\n{}", running.name, running.tail(40));
        }
        running.finished(status)
    }

    fn command(&self) -> Command {
        let mut command = match self.namespaces_of {
            // nsenter executes the program in its own place: same process, same parent.
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/proc/{pid}/ns/net")).arg(format!("--mount=/proc/{pid}/ns/mnt"));
                if let Some(directory) = &self.directory {
                    let mut option = OsString::from("--wdns=");
                    option.push(directory);
                    command.arg(option);
                }
                command.arg("--").arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.arguments);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if self.clean_environment {
            command.env_clear();
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.process_group(0);
        if !self.stays {
            // SAFETY: between fork and exec the closure makes one system call and neither allocates nor locks.
            unsafe {
                command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGTERM)?));
            }
        }
        command
    }
}

/// A child process. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    left: bool,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that gets its standard output.
    #[must_use]
    pub fn stdout(&self) -> &Path {
        &self.stdout
    }

    /// The file that gets its standard error.
    #[must_use]
    pub fn stderr(&self) -> &Path {
        &self.stderr
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// When the kernel does not know the child.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot ask for the state of {}", self.name))
    }

    /// Waits until it ends, at most `deadline`.
    ///
    /// # Errors
    /// When it is still there at the deadline; the end of what it wrote is part of the error.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                bail!("{} is still running after {deadline:?}\n{}", self.name, self.tail(40));
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until `ready` says so, at most `deadline`.
    ///
    /// # Errors
    /// When the program ends or the deadline passes first; the end of what it wrote is part of the error.
    pub fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.ended()? {
                bail!("{} ended with {status} before {what}\n{}", self.name, self.tail(40));
            }
            if start.elapsed() > deadline {
                bail!("{}: waited {deadline:?} for {what} in vain\n{}", self.name, self.tail(40));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Asks it to stop with SIGTERM, waits, and kills its process group if that does not help.
    ///
    /// # Errors
    /// When it had to be killed, or cannot be waited for.
    pub fn stop(mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let status = self.wait(STOP_GRACE);
        self.kill_group();
        status
    }

    /// Ends it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} had ended with {status} before it was killed\n{}", self.name, self.tail(40));
        }
        self.signal(Signal::SIGKILL)?;
        self.wait(STOP_GRACE)?;
        Ok(())
    }

    /// Leaves it running. It must have been started with [`Launch::stays`], or it ends with whoever started it.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.process_id()?, signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// The last `lines` lines of its standard output and standard error, for a person to read.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        format!(
            "--- end of what {name} wrote to standard output\n{}--- and to standard error\n{}",
            tail_of(&self.stdout, lines),
            tail_of(&self.stderr, lines),
            name = self.name,
        )
    }

    fn finished(&self, status: ExitStatus) -> Result<Finished> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        Ok(Finished { status, stdout: read(&self.stdout)?, stderr: read(&self.stderr)? })
    }

    fn process_id(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("a process id beyond 2^31")?))
    }

    /// Ends whatever is left in its process group; "no such group" is what one hopes for.
    fn kill_group(&self) {
        if let Ok(group) = self.process_id() {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if let Ok(None) = self.child.try_wait() {
            let _ = self.signal(Signal::SIGTERM);
            if self.wait(STOP_GRACE).is_err() {
                self.kill_group();
                let _ = self.child.wait();
            }
        }
        self.kill_group();
    }
}

/// A child that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// Standard output as text, without white space at its ends.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Standard error as text, without white space at its ends.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}

fn tail_of(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_of_a_child_are_kept() {
        let logs = tempfile::tempdir().unwrap();
        let done = Launch::new("child", "sh", logs.path())
            .args(["-c", "echo out; echo err >&2; exit 3"])
            .run(Duration::from_secs(10))
            .unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!((done.text().as_str(), done.errors().as_str()), ("out", "err"));
    }

    #[test]
    fn a_child_beyond_its_deadline_is_an_error_and_is_stopped() {
        let logs = tempfile::tempdir().unwrap();
        let error = Launch::new("child", "sh", logs.path())
            .args(["-c", "echo started; exec sleep 60"])
            .run(Duration::from_millis(200))
            .unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
        assert!(error.to_string().contains("started"), "{error}");
    }

    #[test]
    fn dropping_a_child_ends_what_it_started() {
        let logs = tempfile::tempdir().unwrap();
        let mut child =
            Launch::new("child", "sh", logs.path()).args(["-c", "sleep 60 & echo $!; wait"]).spawn().unwrap();
        let out = child.stdout().to_owned();
        child
            .wait_until("its line", Duration::from_secs(10), || {
                fs::read_to_string(&out).is_ok_and(|text| text.ends_with('\n'))
            })
            .unwrap();
        let grandchild: u32 = fs::read_to_string(&out).unwrap().trim().parse().unwrap();
        drop(child);
        let start = Instant::now();
        while !is_gone(grandchild) {
            assert!(start.elapsed() < Duration::from_secs(10), "process {grandchild} still runs");
            thread::sleep(POLL);
        }
    }

    /// No such process, or a zombie that waits for its new parent.
    fn is_gone(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
    }
}
