//! The process tree of GitHub's actions/runner, without GitHub.
//!
//! In: a [`Plan`]. Out: `Runner.Listener`, under it one `Runner.Worker` for each job, under that one
//! `bash -e …/_temp/UUID.sh` or, for a JavaScript action, `node …/_actions/…/index.js` for each step, with the variables
//! that the real runner gives it (docs.github.com, "Variables reference"). One program plays all parts but bash, by
//! the name it is started under, because an agent knows runners by the name of their executable. It is no JavaScript
//! engine: as `node` it only reads a file.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    paths,
    process::{Launch, Running},
};

const LISTENER: &str = "Runner.Listener";
const WORKER: &str = "Runner.Worker";
const NODE: &str = "node";

/// Jobs, and how many of them run at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// At least 1.
    pub at_once: usize,
    /// In the order in which they begin.
    pub jobs: Vec<Job>,
}

/// One job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// `owner/name`.
    pub repository: String,
    /// Unique among the runs.
    pub run_id: String,
    /// In the order in which they run.
    pub steps: Vec<Step>,
    /// Where the steps run, when that is not the host.
    #[serde(default)]
    pub container: Option<Container>,
}

/// The container of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// The engine, as `DOCKER_HOST` has it.
    pub engine: String,
    /// The image.
    pub image: String,
    /// Directories and files of the host in it, as `--volume` has them.
    pub volumes: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// The id in the workflow file.
    pub id: String,
    /// What it does.
    #[serde(flatten)]
    pub work: Work,
}

/// What a step does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Runs a script with bash.
    Script(String),
    /// Runs a JavaScript action that reads this file.
    ActionReads(PathBuf),
}

impl Job {
    /// A job with one step.
    #[must_use]
    pub fn new(repository: &str, run_id: &str, step: &str, script: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            run_id: run_id.to_owned(),
            steps: vec![Step { id: step.to_owned(), work: Work::Script(script.to_owned()) }],
            container: None,
        }
    }
}

/// Installs the runner in `directory` and starts it on the plan.
///
/// # Errors
/// When a file cannot be written or the program cannot be started.
pub fn start(directory: &Path, home: &Path, plan: &Plan) -> Result<Running> {
    let programs = directory.join("runner/bin");
    fs::create_dir_all(&programs).with_context(|| format!("cannot make {}", programs.display()))?;
    for name in [LISTENER, WORKER, NODE] {
        fs::copy(paths::binary("fakerunner")?, programs.join(name))
            .with_context(|| format!("cannot write {name} to {}", programs.display()))?;
    }
    let file = directory.join("plan.json");
    fs::write(&file, serde_json::to_vec(plan)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Launch::new("runner", programs.join(LISTENER), &directory.join("logs"))
        .clean_environment()
        .env("HOME", home)
        .arg("run")
        .arg(file)
        .directory(directory)
        .spawn()
}

/// Plays the part that the program's name asks for.
///
/// # Errors
/// When the plan cannot be read, or a worker or step fails.
pub fn play() -> Result<()> {
    let mut arguments = env::args_os();
    let program = PathBuf::from(arguments.next().unwrap_or_default());
    let file = PathBuf::from(arguments.nth(1).context("usage: Runner.Listener run PLAN")?);
    match program.file_name().and_then(|name| name.to_str()) {
        Some(LISTENER) => listen(&program.with_file_name(WORKER), &file),
        Some(WORKER) => work(&program.with_file_name(NODE), &read(&file)?),
        Some(NODE) => fs::read(&file).map(drop).with_context(|| format!("cannot read {}", file.display())),
        _ => bail!("this program is started under the names {LISTENER}, {WORKER} and {NODE} only"),
    }
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("cannot understand {}", file.display()))
}

/// Gives each job to a worker of its own.
fn listen(worker: &Path, plan: &Path) -> Result<()> {
    let Plan { at_once, jobs } = read(plan)?;
    let mut workers: Vec<Child> = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        if workers.len() >= at_once {
            succeed(workers.remove(0), WORKER)?;
        }
        let file = plan.with_file_name(format!("job-{index}.json"));
        fs::write(&file, serde_json::to_vec(job)?)?;
        let child =
            Command::new(worker).arg("spawnclient").arg(&file).spawn().context("cannot start a worker")?;
        workers.push(child);
    }
    workers.into_iter().try_for_each(|worker| succeed(worker, WORKER))
}

/// Runs a job's steps.
fn work(node: &Path, job: &Job) -> Result<()> {
    let root = env::current_dir()?.join("_work").join(&job.run_id);
    let (temporary, workspace) = (root.join("_temp"), root.join("checkout"));
    fs::create_dir_all(&temporary)?;
    fs::create_dir_all(&workspace)?;
    let container = job.container.as_ref().map(|container| container.start(job, &root)).transpose()?;
    for (index, step) in job.steps.iter().enumerate() {
        let mut command = match &step.work {
            Work::Script(text) => {
                let name = format!("{:08x}-0000-4000-8000-{:012x}.sh", std::process::id(), index);
                let script = temporary.join(name);
                fs::write(&script, text)?;
                if let Some(container) = &container {
                    container.execute(&["sh", "-e"], &script)
                } else {
                    let mut command = Command::new("bash");
                    command.arg("-e").arg(script);
                    command
                }
            }
            Work::ActionReads(file) => {
                let mut command = Command::new(node);
                command.arg(root.join("_actions/acme/read/v1/dist/index.js")).arg(file);
                command
            }
        };
        command.current_dir(&workspace);
        for (name, value) in variables(job, step) {
            command.env(name, value);
        }
        command.env("GITHUB_WORKSPACE", &workspace).env("RUNNER_TEMP", &temporary);
        succeed(command.spawn().context("cannot start a step")?, &step.id)?;
    }
    container.map_or(Ok(()), Started::remove)
}

/// The container of a job, started.
struct Started {
    engine: String,
    id: String,
}

impl Container {
    fn start(&self, job: &Job, root: &Path) -> Result<Started> {
        let started = Started { engine: self.engine.clone(), id: String::new() };
        let mut create = started.client("create");
        create.args([
            "--name",
            &format!("job_{}", job.run_id),
            "--network",
            "none",
            "-e",
            "GITHUB_ACTIONS=true",
        ]);
        create.arg("-v").arg(format!("{0}:{0}", root.display()));
        for volume in &self.volumes {
            create.args(["-v", volume]);
        }
        create.args(["--entrypoint", "tail", &self.image, "-f", "/dev/null"]);
        let output = create.output().context("cannot run docker create")?;
        ensure!(output.status.success(), "docker create: {}", String::from_utf8_lossy(&output.stderr));
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let started = Started { id, ..started };
        succeed(started.client("start").arg(&started.id).spawn()?, "docker start")?;
        Ok(started)
    }
}

impl Started {
    fn client(&self, verb: &str) -> Command {
        let mut command = Command::new(crate::engine::CLIENT);
        command.arg(verb).env("DOCKER_HOST", &self.engine);
        command
    }

    fn execute(&self, shell: &[&str], script: &Path) -> Command {
        let mut command = self.client("exec");
        command.args(["-i", "--workdir", "/work"]);
        for name in ["GITHUB_ACTIONS", "GITHUB_ACTION", "GITHUB_JOB", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"] {
            command.args(["-e", name]);
        }
        command.arg(&self.id).args(shell).arg(script);
        command
    }

    fn remove(self) -> Result<()> {
        succeed(self.client("rm").arg("--force").arg(&self.id).spawn()?, "docker rm")
    }
}

fn variables<'a>(job: &'a Job, step: &'a Step) -> [(&'static str, &'a str); 15] {
    [
        ("CI", "true"),
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_ACTION", &step.id),
        ("GITHUB_ACTOR", "octavia"),
        ("GITHUB_EVENT_NAME", "push"),
        ("GITHUB_JOB", "build"),
        ("GITHUB_REF", "refs/heads/main"),
        ("GITHUB_REPOSITORY", &job.repository),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_RUN_ID", &job.run_id),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_SHA", "0000000000000000000000000000000000000000"),
        ("GITHUB_WORKFLOW", "short"),
        ("RUNNER_NAME", "runner-1"),
        ("RUNNER_OS", "Linux"),
    ]
}

fn succeed(mut child: Child, name: &str) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
