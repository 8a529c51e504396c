//! Hosts that have gone dark: a silent agent is news.
//!
//! In: signs of life. Out: `host.dark` with the jobs that ran then, and `host.back`. Time is measured by a clock that does
//! not step, and begins anew when the collector starts: its own absence is nobody's silence. Must never call a host dark
//! twice in a row.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use buildtrail_evidence::id::HostId;
use buildtrail_proto::{
    Timestamp, now,
    v1::{HostBack, HostDark, collector_entry::Act},
};
use buildtrail_query::Scope;
use tokio::sync::watch;

use crate::{
    acts::Acts,
    store::{Reader, StoreError},
};

/// Most jobs in one entry.
const MAX_JOBS: usize = 100;

/// When each host was last heard of.
#[derive(Debug)]
pub(crate) struct Watch {
    patience: Duration,
    hosts: Mutex<HashMap<HostId, Seen>>,
}

#[derive(Debug)]
struct Seen {
    name: String,
    /// Or since when the collector listens.
    at: Instant,
    /// `None`: not since the collector started.
    wall: Option<Timestamp>,
    dark: bool,
}

/// A host of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: HostId,
    pub(crate) name: String,
    /// The log's last word is that it has gone dark.
    pub(crate) dark: bool,
}

/// What is known of a host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastSeen {
    /// `None`: not since the collector started.
    pub(crate) heard: Option<Timestamp>,
    pub(crate) dark: bool,
}

impl Watch {
    pub(crate) fn new(patience: Duration, hosts: Vec<Known>) -> Self {
        let at = Instant::now();
        let seen = |host: Known| (host.id, Seen { name: host.name, at, wall: None, dark: host.dark });
        Self { patience, hosts: Mutex::new(hosts.into_iter().map(seen).collect()) }
    }

    /// A sign of life. Says so if the host had gone dark.
    pub(crate) fn heard(&self, host: &HostId, name: &str) -> Option<Act> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let seen = Seen { name: name.to_owned(), at, wall: Some(now()), dark: false };
        let before = hosts.insert(host.clone(), seen).filter(|before| before.dark)?;
        let silent = before.wall.map_or(0, |_| at.duration_since(before.at).as_secs());
        let name = name.to_owned();
        Some(Act::HostBack(HostBack { host_id: host.to_string(), name, silent_seconds: silent }))
    }

    /// What is known of a host.
    pub(crate) fn seen(&self, host: &str) -> Option<LastSeen> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = hosts.get(&HostId::parse(host).ok()?)?;
        Some(LastSeen { heard: seen.wall, dark: seen.dark })
    }

    /// Hosts that have been silent for too long since the last look, without their jobs.
    fn newly_dark(&self, at: Instant) -> Vec<HostDark> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dark = Vec::new();
        for (id, seen) in hosts.iter_mut().filter(|(_, seen)| !seen.dark) {
            let silence = at.saturating_duration_since(seen.at);
            if silence >= self.patience {
                seen.dark = true;
                dark.push(HostDark {
                    host_id: id.to_string(),
                    name: seen.name.clone(),
                    last_heard: seen.wall,
                    silent_seconds: silence.as_secs(),
                    ..HostDark::default()
                });
            }
        }
        dark
    }
}

/// Looks again and again until the collector stops.
pub(crate) async fn run(
    watch: Arc<Watch>,
    acts: Acts,
    reader: Reader,
    limit: Duration,
    mut stopping: watch::Receiver<bool>,
) {
    let pause = (watch.patience / 4).max(Duration::from_millis(100));
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        for mut dark in watch.newly_dark(Instant::now()) {
            tracing::error!(host = dark.host_id, name = dark.name, "has gone dark");
            let host = dark.host_id.clone();
            match reader.ask(limit, move |asked| asked.unfinished_jobs(&Scope::Everything, &host)).await {
                Ok(jobs) => {
                    dark.more_jobs = u32::try_from(jobs.len().saturating_sub(MAX_JOBS)).unwrap_or(u32::MAX);
                    dark.jobs = jobs.into_iter().take(MAX_JOBS).collect();
                }
                Err::<_, StoreError>(error) => tracing::error!(%error, "which jobs ran then is not known"),
            }
            acts.record(Act::HostDark(dark));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostId {
        HostId::parse(name).unwrap()
    }

    #[test]
    fn a_host_is_dark_once_and_back_once() {
        let patience = Duration::from_mins(3);
        let watch = Watch::new(patience, Vec::new());
        assert_eq!(watch.heard(&host("h"), "n"), None);
        let start = Instant::now();
        assert!(watch.newly_dark(start + patience / 2).is_empty());
        let dark = watch.newly_dark(start + patience);
        assert!(dark.len() == 1 && dark[0].host_id == "h" && dark[0].last_heard.is_some());
        assert!(watch.newly_dark(start + patience * 9).is_empty(), "it is news once");
        assert!(matches!(watch.heard(&host("h"), "n"), Some(Act::HostBack(_))));
        assert_eq!(watch.heard(&host("h"), "n"), None);
    }

    #[test]
    fn the_collectors_own_absence_is_nobodys_silence_and_old_news_stays_old() {
        let patience = Duration::from_mins(3);
        let known = |id: &str, dark| Known { id: host(id), name: id.into(), dark };
        let watch = Watch::new(patience, vec![known("lit", false), known("dark", true)]);
        let start = Instant::now();
        assert!(watch.newly_dark(start).is_empty());
        let dark = watch.newly_dark(start + patience);
        assert_eq!(dark.iter().map(|dark| dark.host_id.as_str()).collect::<Vec<_>>(), ["lit"]);
        let Some(Act::HostBack(back)) = watch.heard(&host("dark"), "dark") else { panic!("not back") };
        assert_eq!(back.silent_seconds, 0, "how long is not known over a restart");
    }
}
