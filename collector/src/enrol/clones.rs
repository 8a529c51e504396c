//! One identity on two machines: when a stream begins, is this the host that had it before?
//!
//! A boot id that is new is a reboot, unless the boot before it still lives. That is asked, not guessed: whoever answers
//! a challenge that was made after the newcomer came is alive at the same time. A connection that the old boot left
//! half-open answers nothing and is ended. A boot id that comes back after another one proves two machines by itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use buildtrail_evidence::id::{BootId, HostId};
use tonic::Status;

use super::{
    Enrolment, Machine, Reason,
    control::BootOrder,
    control::State,
    ensure_active, now, refuse,
    sessions::{Ended, Live, Replies, Session},
};
use crate::{health::Refusal, peer::Host};

/// How long the earlier stream has to answer. Longer than a connection takes to notice that its peer is gone would only
/// delay a host that was switched off hard.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// What a host says at the beginning of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) boot: BootId,
    pub(crate) machine: Machine,
}

/// One queue of newcomers for each host that has any.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<HostId, Arc<tokio::sync::Mutex<()>>>>);

impl Queues {
    fn of(&self, host: &HostId) -> Arc<tokio::sync::Mutex<()>> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        queues.entry(host.clone()).or_default().clone()
    }
}

impl Enrolment {
    /// Lets a host's stream in, or says why not.
    pub(crate) async fn admit(
        &self,
        host: &Arc<Host>,
        hello: Hello,
        address: String,
        replies: Replies,
    ) -> Result<Session, Status> {
        let queue = self.0.newcomers.of(&host.id);
        let _turn = queue.lock().await;
        let (who, boot) = (host.clone(), hello.boot.clone());
        let (state, order) = self
            .with_control(move |control| Ok((control.meet(&who, now())?, control.order_of(&who.id, &boot)?)))
            .await?;
        ensure_active(state, host, &self.0.health)?;
        if order == BootOrder::Past {
            let what = format!("boot {} came back after another one", hello.boot);
            return Err(self.cloned(host, what, &hello, &address, &[]).await);
        }
        for earlier in self.0.sessions.of_host(&host.id) {
            if earlier.boot != hello.boot && self.is_alive(&earlier).await {
                let what = format!("two boots at once: {} and {}", earlier.boot, hello.boot);
                return Err(self.cloned(host, what, &hello, &address, &[earlier]).await);
            }
            earlier.end(Ended::Superseded);
        }
        let (id, boot, machine) = (host.id.clone(), hello.boot.clone(), hello.machine.clone());
        self.with_control(move |control| control.admit(&id, &boot, &machine)).await?;
        let session = self.0.sessions.add(&host.id, &hello.boot, &hello.machine, address, replies);
        self.look_for_twins(host.clone(), hello);
        Ok(session)
    }

    /// What a host says to a challenge.
    pub(super) fn answered(&self, host: &Host, challenge: &[u8]) -> Result<(), Status> {
        if self.0.sessions.answer(&host.id, challenge) {
            return Ok(());
        }
        Err(Status::not_found("nobody asked that, or the answer came too late"))
    }

    async fn is_alive(&self, live: &Live) -> bool {
        let Some(mut challenge) = self.0.sessions.challenge(live) else { return false };
        tokio::select! {
            () = challenge.answered() => true,
            () = live.gone() => false,
            () = tokio::time::sleep(ANSWER_TIME) => false,
        }
    }

    async fn cloned(
        &self,
        host: &Host,
        what: String,
        hello: &Hello,
        address: &str,
        earlier: &[Live],
    ) -> Status {
        self.0.health.refuse(Refusal::Cloned, &host.id, &what);
        tracing::error!(host = %host.id, name = host.name, what, "one host identity on two machines");
        let boots = earlier.iter().map(|live| live.boot.to_string()).chain([hello.boot.to_string()]);
        let peers = earlier.iter().map(|live| live.address.clone()).chain([address.to_owned()]);
        self.record_clone(host, &what, boots.collect(), peers.collect());
        match self.end_identity(&host.id, State::Cloned, Ended::Cloned).await {
            Ok(()) => {
                self.record_must_enrol(host);
                refuse(Reason::Cloned)
            }
            Err(status) => status,
        }
    }

    /// Machines with the same machine id and identities of their own: told, and not refused, as no new enrolment would
    /// change their machine id.
    fn look_for_twins(&self, host: Arc<Host>, hello: Hello) {
        let twins = self.0.sessions.on_machine(&hello.machine, &host.id, &hello.boot);
        if twins.is_empty() {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            for twin in twins {
                if this.is_alive(&twin).await && this.0.sessions.are_new_twins(&host.id, &twin.host) {
                    let what = format!("its machine id is also that of host {}", twin.host);
                    tracing::warn!(host = %host.id, name = host.name, what, "two machines with one machine id");
                    let boots = vec![twin.boot.to_string(), hello.boot.to_string()];
                    this.record_clone(&host, &what, boots, vec![twin.address.clone()]);
                }
            }
        });
    }
}
