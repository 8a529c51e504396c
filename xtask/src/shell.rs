//! The one place that runs commands and tells a person about it.
//!
//! A part that takes long is announced, shows that it is alive, and says how long it took. What a chatty tool writes
//! goes to a file; its end is shown when the tool fails.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// Time between two signs of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// Time between two looks at a child.
const POLL: Duration = Duration::from_millis(50);
/// Lines shown of a failed tool's output.
const TAIL_LINES: usize = 40;

/// Writes a line to standard output.
pub(crate) fn say(line: &str) {
    // A closed pipe is no reason to stop half-way.
    let _ = writeln!(io::stdout(), "{line}");
}

/// Writes an error to standard error.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "xtask: {line}");
}

/// Runs `command`, which talks to the person by itself; announces it as `what`.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<()> {
    say(&format!("▸ {what}"));
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).spawn().with_context(|| cannot_run(command))?;
    let status = wait(child, start)?;
    finish(what, status, start)
}

/// Runs `command`, whose output goes to `directory/NAME.log`; announces it as `what`.
pub(crate) fn run_quietly(what: &str, command: &mut Command, directory: &Path, name: &str) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(format!("{name}.log"));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    say(&format!("▸ {what}"));
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log file")?)
        .stderr(log)
        .spawn()
        .with_context(|| cannot_run(command))?;
    let status = wait(child, start)?;
    if !status.success() {
        complain(&format!("end of {}:\n{}", path.display(), tail(&path)));
    }
    finish(what, status, start)
}

/// What `command` writes to standard output when it succeeds; nothing when it fails or is not there.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Arguments that keep cargo's progress to a person at a terminal, and off a log.
pub(crate) fn cargo_verbosity() -> &'static [&'static str] {
    if io::stderr().is_terminal() { &[] } else { &["--quiet"] }
}

fn wait(mut child: Child, start: Instant) -> Result<ExitStatus> {
    let mut next_sign = SIGN_OF_LIFE;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a command")? {
            return Ok(status);
        }
        if start.elapsed() >= next_sign {
            say(&format!("  … {} s", start.elapsed().as_secs()));
            next_sign += SIGN_OF_LIFE;
        }
        thread::sleep(POLL);
    }
}

fn finish(what: &str, status: ExitStatus, start: Instant) -> Result<()> {
    if !status.success() {
        bail!("{what}: failed ({status})");
    }
    say(&format!("  done in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run {}", Path::new(command.get_program()).display())
}

fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
