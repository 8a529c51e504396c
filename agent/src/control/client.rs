//! `buildtrail-agent hook`: what a runner's hook script calls.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    time::Duration,
};

use super::{Answer, IdentityToken, MAX_QUESTION, Moment, Question};

/// Most time that the agent may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 4096;

/// Why a hook was not heard.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// No agent.
    #[error("no agent listens at {path}: {source}")]
    NoAgent {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else's socket: no token is shown to it.
    #[error("the socket {0} is not root's")]
    NotRoots(String),
    /// The agent does not answer.
    #[error("the agent does not answer: {0}")]
    Silent(io::Error),
    /// The agent's answer is none.
    #[error("the agent's answer is not understood")]
    Answer,
    /// The agent says no.
    #[error("the agent refuses: {0}")]
    Refused(String),
}

/// Tells the agent. The job's id, empty when the agent does not know the job.
///
/// # Errors
/// No agent, or it refuses; nothing is tried twice.
pub fn tell(socket: &Path, moment: Moment, token: Option<IdentityToken>) -> Result<String, HookError> {
    let name = socket.display().to_string();
    let no_agent = |source| HookError::NoAgent { path: name.clone(), source };
    let metadata = fs::metadata(socket).map_err(no_agent)?;
    let me = nix::unistd::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != me {
        return Err(HookError::NotRoots(name));
    }
    let mut stream = UnixStream::connect(socket).map_err(no_agent)?;
    let question = serde_json::to_vec(&Question { hook: moment, token }).map_err(io::Error::from);
    let answer = question.and_then(|question| converse(&mut stream, &question)).map_err(HookError::Silent)?;
    match serde_json::from_slice(&answer).map_err(|_| HookError::Answer)? {
        Answer::Job(id) => Ok(id),
        Answer::Refused(why) => Err(HookError::Refused(crate::error::printable(&why))),
    }
}

fn converse(stream: &mut UnixStream, question: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(question)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// The token that standard input holds: alone, or as `{"value": "…"}`, which is how GitHub hands it out.
///
/// # Errors
/// Standard input cannot be read, or holds no token.
pub fn read_token(input: impl io::Read) -> io::Result<IdentityToken> {
    #[derive(serde::Deserialize)]
    struct Wrapped {
        value: String,
    }
    let mut text = String::new();
    input.take(MAX_QUESTION as u64).read_to_string(&mut text)?;
    let token = match serde_json::from_str::<Wrapped>(&text) {
        Ok(wrapped) => IdentityToken::parse(&wrapped.value),
        Err(_) => IdentityToken::parse(&text),
    };
    token.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "standard input holds no token"))
}
