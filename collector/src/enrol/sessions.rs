//! Which hosts have a stream open now, and how such a stream is asked for a sign of life or ended.
//!
//! In: admitted streams. Out: words to them. Must never hold its lock while waiting.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use buildtrail_evidence::id::{BootId, HostId};
use buildtrail_proto::v1::Acknowledgement;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;
use uuid::Uuid;

use super::{Machine, now};

/// Pairs of hosts with one machine id that are told.
const MAX_TWINS: usize = 10_000;

/// Why a stream is ended by the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The same boot of the same host has a newer one, or this end no longer answers.
    Superseded,
    Cloned,
    Revoked,
}

/// Where a stream's acknowledgements go.
pub(crate) type Replies = mpsc::Sender<Result<Acknowledgement, Status>>;

/// A host's open stream.
#[derive(Clone)]
pub(super) struct Live {
    number: u64,
    pub(super) host: HostId,
    pub(super) boot: BootId,
    pub(super) machine: Machine,
    pub(super) address: String,
    replies: Replies,
    end: Arc<watch::Sender<Option<Ended>>>,
}

impl Live {
    pub(super) fn end(&self, why: Ended) {
        self.end.send_if_modified(|ended| ended.is_none() && ended.replace(why).is_none());
    }

    /// Waits until the stream is gone. Cancel safe.
    pub(super) async fn gone(&self) {
        self.end.closed().await;
    }
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {} from {} (boot {})", self.host, self.address, self.boot)
    }
}

#[derive(Default)]
struct Inner {
    live: Vec<Live>,
    challenges: HashMap<Uuid, (HostId, oneshot::Sender<()>)>,
    twins: HashSet<(HostId, HostId)>,
    /// When each host's last stream ended, in seconds since the epoch.
    left: HashMap<HostId, i64>,
}

/// All open streams.
#[derive(Default)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    numbers: AtomicU64,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream; it is gone when the returned [`Session`] is dropped.
    pub(super) fn add(
        self: &Arc<Self>,
        host: &HostId,
        boot: &BootId,
        machine: &Machine,
        address: String,
        replies: Replies,
    ) -> Session {
        let (end, ended) = watch::channel(None);
        let live = Live {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            host: host.clone(),
            boot: boot.clone(),
            machine: machine.clone(),
            address,
            replies,
            end: Arc::new(end),
        };
        self.lock().live.push(live.clone());
        Session { sessions: self.clone(), number: live.number, ended }
    }

    pub(super) fn of_host(&self, host: &HostId) -> Vec<Live> {
        self.lock().live.iter().filter(|live| live.host == *host).cloned().collect()
    }

    /// Other hosts' streams from another boot of a machine of the same id.
    pub(super) fn on_machine(&self, machine: &Machine, not: &HostId, boot: &BootId) -> Vec<Live> {
        let twin = |live: &&Live| live.machine == *machine && live.host != *not && live.boot != *boot;
        self.lock().live.iter().filter(twin).cloned().collect()
    }

    /// Whether it is news that these two are on machines of the same id.
    pub(super) fn are_new_twins(&self, one: &HostId, other: &HostId) -> bool {
        let pair = (one.min(other).clone(), one.max(other).clone());
        let mut inner = self.lock();
        inner.twins.len() < MAX_TWINS && inner.twins.insert(pair)
    }

    /// Whether a host is there, and when it was for the last time, as far as is known since start.
    pub(super) fn presence(&self, host: &str) -> (bool, i64) {
        let inner = self.lock();
        if inner.live.iter().any(|live| live.host.as_str() == host) {
            return (true, now());
        }
        let left = inner.left.iter().find(|(id, _)| id.as_str() == host);
        (false, left.map_or(0, |(_, time)| *time))
    }

    pub(super) fn end(&self, host: &HostId, why: Ended) {
        for live in self.of_host(host) {
            live.end(why);
        }
    }

    /// Asks the other end whether it is still there. `None` when it cannot even be asked.
    pub(super) fn challenge(&self, live: &Live) -> Option<Challenge<'_>> {
        let (answered, answer) = oneshot::channel();
        let word = Uuid::new_v4();
        self.lock().challenges.insert(word, (live.host.clone(), answered));
        let challenge = Challenge { sessions: self, word, answer };
        let question = Acknowledgement { number: 0, challenge: word.as_bytes().to_vec() };
        live.replies.try_send(Ok(question)).ok().map(|()| challenge)
    }

    /// What a host says to a challenge; whether it was asked that.
    pub(super) fn answer(&self, host: &HostId, word: &[u8]) -> bool {
        let Ok(word) = Uuid::from_slice(word) else { return false };
        let mut inner = self.lock();
        if inner.challenges.get(&word).is_none_or(|(asked, _)| asked != host) {
            return false;
        }
        inner.challenges.remove(&word).is_some_and(|(_, answered)| answered.send(()).is_ok())
    }
}

/// A question that waits for its answer.
pub(super) struct Challenge<'a> {
    sessions: &'a Sessions,
    word: Uuid,
    answer: oneshot::Receiver<()>,
}

impl Challenge<'_> {
    /// Waits for the answer. Cancel safe.
    pub(super) async fn answered(&mut self) {
        if (&mut self.answer).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Challenge<'_> {
    fn drop(&mut self) {
        self.sessions.lock().challenges.remove(&self.word);
    }
}

/// The place of one stream among the open ones.
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    number: u64,
    ended: watch::Receiver<Option<Ended>>,
}

impl Session {
    /// Waits until the collector ends the stream. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Ended {
        match self.ended.wait_for(Option::is_some).await.map(|ended| *ended) {
            Ok(Some(why)) => why,
            // Whoever could end it is gone.
            _ => std::future::pending().await,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.sessions.lock();
        if let Some(at) = inner.live.iter().position(|live| live.number == self.number) {
            let live = inner.live.swap_remove(at);
            inner.left.insert(live.host, now());
        }
    }
}
