//! What runners' hooks tell the agent over its control socket.
//!
//! In: connections from processes of this host, each with one question. Out: [`Asked`], in order, for the pipeline, which
//! knows the caller's lineage and answers. Anybody may connect; the kernel says who it is (`SO_PEERCRED`), and only what
//! the runner started is listened to. Must never make the sensors wait, hold more than a few small questions, or show a
//! token to anyone but the collector.

pub mod client;

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use nix::sys::eventfd::EventFd;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tracing::{debug, warn};

/// Longest question, in bytes: more than any provider's token.
pub const MAX_QUESTION: usize = 16 * 1024;
/// Connections at once; others wait.
const MAX_CONNECTIONS: usize = 32;
/// Questions that wait for the pipeline.
const MAX_WAITING: usize = 32;
/// Most time that a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;

/// What a hook says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// The job is about to begin.
    Started,
    /// The job has ended, apart from the runner's own tidying.
    Completed,
}

/// A token that proves a job's identity: a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityToken(String);

impl IdentityToken {
    /// Takes a token as a CI system makes it; `None` when it is none: three parts of unpadded base64url (RFC 7515).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let whole = text.len() <= MAX_QUESTION / 2
            && text.bytes().all(allowed)
            && text.split('.').count() == 3
            && text.split('.').all(|part| !part.is_empty());
        whole.then(|| Self(text.to_owned()))
    }

    /// The token itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdentityToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("IdentityToken(…)")
    }
}

/// What comes over the socket: one such document, then the end of the stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    hook: Moment,
    #[serde(default)]
    token: Option<IdentityToken>,
}

/// What goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Understood. The job's id; empty when the job is not known yet.
    Job(String),
    /// Not done, and why.
    Refused(String),
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// Who connected, as the kernel has it.
    pub pid: u32,
    /// With whose rights.
    pub user: u32,
    /// What it says.
    pub moment: Moment,
    /// The proof of who the job is, where the hook has one.
    pub token: Option<IdentityToken>,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    /// Answers. Whoever asked may be gone.
    pub fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// The socket. Dropping it takes it away.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    made_directory: bool,
    task: JoinHandle<()>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A job could put another socket in its place.
    #[error("others than root can write to {0}: choose another place for hooks.socket")]
    Directory(PathBuf),
    /// Another agent runs.
    #[error("something listens at {0} already")]
    InUse(PathBuf),
    /// The system refuses.
    #[error("cannot listen at {path}: {source}")]
    System {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Listens at `path`; call it within a tokio runtime. `wake` is written to when there is a question.
    ///
    /// # Errors
    /// When the place is not safe, or in use.
    pub fn listen(path: &Path, wake: Arc<EventFd>) -> Result<(Self, mpsc::Receiver<Asked>), ControlError> {
        let system = |source| ControlError::System { path: path.to_owned(), source };
        let made_directory = prepare(path)?;
        let listener = UnixListener::bind(path).map_err(system)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(system)?;
        let (sender, receiver) = mpsc::sync_channel(MAX_WAITING);
        let task = tokio::spawn(serve(listener, sender, wake));
        Ok((Self { path: path.to_owned(), made_directory, task }, receiver))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
        if self.made_directory
            && let Some(directory) = self.path.parent()
        {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Makes room for the socket; whether its directory had to be made.
fn prepare(path: &Path) -> Result<bool, ControlError> {
    let system = |source| ControlError::System { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let made = !directory.exists();
    if made {
        fs::DirBuilder::new().mode(0o755).create(directory).map_err(system)?;
    }
    let metadata = fs::metadata(directory).map_err(system)?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & OTHERS_WRITE != 0 {
        return Err(ControlError::Directory(directory.to_owned()));
    }
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(ControlError::InUse(path.to_owned()));
        }
        // Of an agent that was killed.
        fs::remove_file(path).map_err(system)?;
    }
    Ok(made)
}

async fn serve(listener: UnixListener, questions: mpsc::SyncSender<Asked>, wake: Arc<EventFd>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a hook's connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (questions, wake) = (questions.clone(), Arc::clone(&wake));
        tokio::spawn(async move {
            if timeout(PATIENCE, attend(stream, questions, &wake)).await.is_err() {
                debug!("a hook's connection took too long");
            }
            drop(place);
        });
    }
}

/// One connection: a question, its answer.
async fn attend(mut stream: UnixStream, questions: mpsc::SyncSender<Asked>, wake: &EventFd) {
    let answer = match ask(&mut stream, &questions, wake).await {
        Ok(answer) => answer,
        Err(why) => Answer::Refused(why.to_owned()),
    };
    if let Ok(bytes) = serde_json::to_vec(&answer) {
        // Whoever asked may be gone.
        let _ = stream.write_all(&bytes).await;
    }
}

async fn ask(
    stream: &mut UnixStream,
    questions: &mpsc::SyncSender<Asked>,
    wake: &EventFd,
) -> Result<Answer, &'static str> {
    let peer = stream.peer_cred().map_err(|_| "the kernel does not say who asks")?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).ok_or("the kernel does not say who asks")?;
    let Question { hook, token } = read(stream).await?;
    let token = match token {
        Some(token) => Some(IdentityToken::parse(token.reveal()).ok_or("the token is none")?),
        None => None,
    };
    let (answer, answered) = oneshot::channel();
    let asked = Asked { pid, user: peer.uid(), moment: hook, token, answer };
    questions.try_send(asked).map_err(|_| "the agent is busy")?;
    wake.write(1).map_err(|_| "the agent is busy")?;
    answered.await.map_err(|_| "the agent is stopping")
}

async fn read(stream: &mut UnixStream) -> Result<Question, &'static str> {
    let mut bytes = Vec::new();
    let most = MAX_QUESTION as u64 + 1;
    stream.take(most).read_to_end(&mut bytes).await.map_err(|_| "the question broke off")?;
    if bytes.len() > MAX_QUESTION {
        return Err("the question is too long");
    }
    serde_json::from_slice(&bytes).map_err(|_| "the question is not understood")
}

#[cfg(test)]
mod tests;
