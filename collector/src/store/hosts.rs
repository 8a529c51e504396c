//! What is known of hosts.

use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{AuditEvent, HostSummary, Tier, audit_event::Body},
};
use buildtrail_query::{Field, Scope};
use prost::Message as _;
use rusqlite::{OptionalExtension as _, params};

use super::{
    Asked, StoreError,
    dictionary::{self, number},
};

/// Identities of a host, newest first, among which its latest word is looked for.
const LATEST: i64 = 50;
/// Newest identities of a host, one of which has its last event.
const NEWEST: i64 = 8;

impl Asked {
    /// Ids and names of all hosts. Names are in no event, so they tell nobody more than he may see.
    pub(crate) fn host_names(&self, _: &Scope) -> Result<Vec<(String, String)>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT host_id, name FROM hosts ORDER BY id")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Every host as the log knows it; what only the running collector knows is left out.
    pub(crate) fn hosts(&self, scope: &Scope) -> Result<Vec<HostSummary>, StoreError> {
        if !scope.is_everything() {
            return Ok(Vec::new());
        }
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, host_id, name, number FROM hosts ORDER BY name, id")?;
        let mut rows = statement.query([])?;
        let mut hosts = Vec::new();
        while let Some(row) = rows.next()? {
            let mut host = HostSummary {
                host_id: row.get(1)?,
                name: row.get(2)?,
                batches: row.get::<_, i64>(3)?.cast_unsigned(),
                ..HostSummary::default()
            };
            let id: i64 = row.get(0)?;
            if let Some(event) = self.latest(id, "coverage")? {
                describe_coverage(&event, &mut host);
            }
            if let Some(event) = self.latest(id, "heartbeat")? {
                describe_heartbeat(&event, &mut host);
            }
            host.last_event = self.last_time(id)?.map(|time| timestamp_from_unix_nanos(time.into()));
            hosts.push(host);
        }
        Ok(hosts)
    }

    /// The latest event of a kind of those that happened outside of jobs.
    fn latest(&self, host: i64, kind: &str) -> Result<Option<AuditEvent>, StoreError> {
        let kinds = dictionary::exact(&self.connection, Field::Kind, &[kind])?;
        let Some(kind) = kinds.first() else { return Ok(None) };
        let mut identities = self.connection.prepare_cached(
            "SELECT id FROM identities WHERE host = ?1 AND job IS NULL ORDER BY id DESC LIMIT ?2",
        )?;
        let mut newest = self.connection.prepare_cached(
            "SELECT body FROM events WHERE identity = ?1 AND kind = ?2 ORDER BY time DESC, id DESC LIMIT 1",
        )?;
        let mut rows = identities.query([host, LATEST])?;
        while let Some(row) = rows.next()? {
            let identity: i64 = row.get(0)?;
            let body: Option<Vec<u8>> =
                newest.query_row(params![identity, kind], |row| row.get(0)).optional()?;
            if let Some(body) = body {
                return AuditEvent::decode(&body[..]).map(Some).map_err(|_| StoreError::Damaged("an event"));
            }
        }
        Ok(None)
    }

    /// The latest time among the newest jobs and what happens outside of jobs.
    fn last_time(&self, host: i64) -> Result<Option<i64>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT max((SELECT max(time) FROM events WHERE identity = newest.id AND kind = kinds.id))
             FROM (SELECT id FROM (SELECT id FROM identities WHERE host = ?1 ORDER BY id DESC LIMIT ?2)
                   UNION SELECT max(id) FROM identities WHERE host = ?1 AND job IS NULL) AS newest,
                  (SELECT id FROM dictionary WHERE field = ?3) AS kinds",
        )?;
        Ok(statement.query_row(params![host, NEWEST, number(Field::Kind)], |row| row.get(0))?)
    }
}

fn describe_coverage(event: &AuditEvent, host: &mut HostSummary) {
    let Some(Body::Coverage(coverage)) = &event.body else { return };
    host.agent_version.clone_from(&coverage.agent_version);
    host.kernel_release.clone_from(&coverage.kernel_release);
    host.gaps.clone_from(&coverage.gaps);
    let of = |tier: Tier| coverage.hooks.iter().filter(|hook| hook.tier() == tier).count();
    host.hooks_missing = u32::try_from(of(Tier::None)).unwrap_or(u32::MAX);
    let served = [Tier::A, Tier::B, Tier::C].into_iter().max_by_key(|tier| of(*tier));
    host.set_tier(served.filter(|tier| of(*tier) > 0).unwrap_or(Tier::Unspecified));
}

fn describe_heartbeat(event: &AuditEvent, host: &mut HostSummary) {
    let Some(Body::Heartbeat(heartbeat)) = &event.body else { return };
    host.last_heartbeat = event.time;
    host.events_captured = heartbeat.events_captured;
    host.events_lost = heartbeat.events_lost;
    host.spool_bytes = heartbeat.spool_bytes;
    host.running_jobs = heartbeat.running_jobs;
}
