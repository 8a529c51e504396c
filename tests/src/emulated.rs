//! Runners that cannot be installed for a test, emulated process by process by the scripts in `tests/runners/`.
//!
//! In: a script, and the name of the program that it stands for. Out: that program, running two jobs of two steps each.
//! Each step reads a secret of its own, as itself, under another job's name, and through a daemon that it leaves behind.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use buildtrail_proto::v1::AuditEvent;
use serde_json::json;

use crate::{
    events,
    process::{Launch, Running},
};

/// Debian's Python: a copy of it finds its library wherever it lies.
const PYTHON: &str = "/usr/bin/python3";
/// Two jobs take a second or two; a busy machine takes more.
const DEADLINE: Duration = Duration::from_mins(2);

/// Jobs of a plan, numbered from 1.
pub const JOBS: usize = 2;
/// Steps of a job, numbered from 1.
pub const STEPS: usize = 2;

/// A runner to be emulated.
#[derive(Debug, Clone, Copy)]
pub struct Emulated {
    /// The script in `tests/runners/`.
    pub script: &'static str,
    /// What the runner's program is called.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: &'static [&'static str],
}

/// The repository of a job.
#[must_use]
pub fn repository(job: usize) -> String {
    format!("acme/widgets-{job}")
}

/// Where the secrets of a test lie.
#[must_use]
pub fn secrets(directory: &Path) -> PathBuf {
    directory.join("secrets")
}

/// Settings that make the secrets known.
#[must_use]
pub fn settings(directory: &Path) -> String {
    format!(
        "[[catalog.files]]\nname = \"test secret\"\nfamily = \"test\"\npath = \"{}/*\"\n",
        secrets(directory).display()
    )
}

/// The secret that a step reads itself (and under another name), and the one that its daemon reads.
#[must_use]
pub fn secrets_of(directory: &Path, job: usize, step: usize) -> [PathBuf; 2] {
    ["", "-daemon"].map(|suffix| secrets(directory).join(format!("job{job}-step{step}{suffix}")))
}

/// All of them.
pub fn all_secrets(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let steps = (1..=JOBS).flat_map(|job| (1..=STEPS).map(move |step| (job, step)));
    steps.flat_map(move |(job, step)| secrets_of(directory, job, step))
}

/// Makes the secrets. Call it before the agent starts.
///
/// # Errors
/// When a file cannot be written.
pub fn make_secrets(directory: &Path) -> Result<()> {
    fs::create_dir_all(secrets(directory))?;
    for path in all_secrets(directory) {
        fs::write(&path, "fake\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

impl Emulated {
    /// Installs the program in `directory` and starts it on its two jobs.
    ///
    /// # Errors
    /// When a file cannot be written or the program cannot be started.
    pub fn start(self, directory: &Path) -> Result<Running> {
        let program = directory.join("runner").join(self.program);
        fs::create_dir_all(directory.join("runner"))?;
        fs::copy(PYTHON, &program).with_context(|| format!("cannot write {}", program.display()))?;
        let plan = directory.join("plan.json");
        let jobs: Vec<_> =
            (1..=JOBS).map(|job| json!({ "number": job, "repository": repository(job) })).collect();
        let scratch = directory.join("scratch");
        let text = json!({ "scratch": scratch, "secrets": secrets(directory), "jobs": jobs });
        fs::write(&plan, serde_json::to_vec(&text)?)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("runners").join(self.script);
        Launch::new("runner", &program, &directory.join("logs"))
            .clean_environment()
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(script)
            .args(self.arguments)
            .arg(plan)
            .directory(directory)
            .spawn()
    }
}

/// Waits until the runner has done its jobs, while it goes on itself.
///
/// # Errors
/// When it ends with an error, or takes too long.
pub fn wait_for_jobs(runner: &mut Running) -> Result<()> {
    let output = runner.stdout().to_owned();
    let done = || fs::read_to_string(&output).is_ok_and(|text| text.contains("idle"));
    runner.wait_until("the end of its jobs", DEADLINE, done)
}

/// Accesses to the secret at `path`.
#[must_use]
pub fn accesses<'a>(events: &'a [AuditEvent], path: &Path) -> Vec<&'a AuditEvent> {
    let path = path.display().to_string();
    events.iter().filter(|event| events::is_access_to(event, &path)).collect()
}
