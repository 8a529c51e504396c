//! Jobs' identity tokens on their way to the collector, and its answers.
//!
//! A token lives in memory only, goes over the uplink's own connection, and is dropped when it is answered, when there are
//! too many, or when no collector is reached in time: it expires within minutes anyway.

use std::{sync::mpsc::Sender, time::Duration};

use buildtrail_proto::v1::{
    CheckIdentityRequest, CheckIdentityResponse, Job, identity_client::IdentityClient,
};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::control::IdentityToken;

/// Tokens that wait for a connection.
const MOST: usize = 64;
/// Most time that the collector may take: it may have to fetch the issuer's keys.
const TIME: Duration = Duration::from_secs(30);

/// A job that a hook handed a token for.
#[derive(Debug)]
pub struct Claimed {
    /// As the agent sees it.
    pub job: Job,
    /// The proof.
    pub token: IdentityToken,
}

/// What the collector says about it.
#[derive(Debug)]
pub struct Checked {
    /// Which job.
    pub job_id: String,
    /// Its answer.
    pub answer: CheckIdentityResponse,
}

/// Both ends of the way: tokens go in at the first, the uplink holds the second.
#[must_use]
pub fn way(answers: Sender<Checked>) -> (mpsc::Sender<Claimed>, Proofs) {
    let (sender, waiting) = mpsc::channel(MOST);
    (sender, Proofs { waiting: Some(waiting), answers })
}

/// The uplink's end.
#[derive(Debug)]
pub struct Proofs {
    /// Absent when nobody hands in any more.
    waiting: Option<mpsc::Receiver<Claimed>>,
    answers: Sender<Checked>,
}

impl Proofs {
    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Claimed {
        if let Some(waiting) = &mut self.waiting {
            if let Some(claimed) = waiting.recv().await {
                return claimed;
            }
            self.waiting = None;
        }
        std::future::pending().await
    }

    /// Asks the collector. A failure is told and not tried again.
    pub(super) fn send(&self, channel: Channel, Claimed { job, token }: Claimed) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let job_id = job.job_id.clone();
            let request = CheckIdentityRequest { job: Some(job), token: token.reveal().to_owned() };
            let mut client = IdentityClient::new(channel);
            match tokio::time::timeout(TIME, client.check(request)).await {
                Ok(Ok(answer)) => {
                    // The pipeline may have ended.
                    let _ = answers.send(Checked { job_id, answer: answer.into_inner() });
                }
                Ok(Err(status)) => {
                    let why = crate::error::printable(status.message());
                    tracing::warn!(job_id, why, "the job's identity was not checked");
                }
                Err(_) => tracing::warn!(job_id, "the collector did not check the job's identity in time"),
            }
        });
    }
}
