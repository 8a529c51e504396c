//! The spool's bounds: what still fits, and what is given up so that more fits.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use buildtrail_evidence::records::{RecordIndex, RecordsError};
use buildtrail_proto::{
    unix_nanos,
    v1::{AuditEvent, audit_event::Body},
};

use super::{given_up, journal::Level, loss::Reason, worker::Worker};
use crate::clock::BootTime;

/// Header, signature and framing of a batch, at most.
const BATCH_OVERHEAD: u64 = 2048;
/// Pause after giving up failed, and between two looks at the disk's free space.
const RETRY: Duration = Duration::from_secs(1);
/// Smallest part of the file being written that is closed so that something of it can be given up.
const MIN_ACTIVE_BYTES: u64 = 64 * 1024;

/// What still fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    Everything,
    /// No connections, lookups and program starts.
    NoBulk,
    /// Loss reports alone.
    LossOnly,
}

/// The bounds, and what is known about meeting them.
pub(super) struct Bounds {
    max_bytes: u64,
    max_age: Duration,
    /// What the file system allows now, as bytes of the spool.
    ceiling: u64,
    looked_at_disk: Instant,
    /// Told, and not over.
    gave_up: bool,
    room: Room,
    /// The worst that the operator was told and that is not over.
    told: Room,
    /// Where nothing of a level was left to give up: the floor, and the records' state, at that time.
    nothing_left: [Option<(u64, u64, bool)>; 2],
    retry_at: Option<Instant>,
    age_checked: Option<Instant>,
    /// What was given up and is not known to be reported on disk; the first `sealed` of them are in a batch.
    pub(super) unreported: Vec<AuditEvent>,
    pub(super) sealed: usize,
}

impl Bounds {
    pub(super) fn new(max_bytes: u64, max_age: Duration, unreported: Vec<AuditEvent>) -> Self {
        Self {
            max_bytes,
            max_age,
            ceiling: max_bytes,
            looked_at_disk: Instant::now(),
            gave_up: false,
            room: Room::Everything,
            told: Room::Everything,
            nothing_left: [None; 2],
            retry_at: None,
            age_checked: None,
            unreported,
            sealed: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.room == Room::LossOnly
    }

    pub(super) fn has_unreported(&self) -> bool {
        self.sealed < self.unreported.len()
    }

    /// Often enough that nothing stays much longer than it may.
    fn age_interval(&self) -> Duration {
        (self.max_age / 32).min(Duration::from_mins(10))
    }

    fn room_for(&self, planned: u64) -> Room {
        if planned <= self.ceiling / 8 * 7 {
            Room::Everything
        } else if planned <= self.ceiling / 32 * 31 {
            Room::NoBulk
        } else {
            Room::LossOnly
        }
    }
}

fn is_bulk(event: &AuditEvent) -> bool {
    matches!(
        event.body,
        Some(
            Body::ConnectionOpened(_) | Body::ConnectionClosed(_) | Body::DnsLookup(_) | Body::ProcessExec(_)
        ) | None
    )
}

fn is_loss(event: &AuditEvent) -> bool {
    matches!(event.body, Some(Body::Loss(_)))
}

impl Worker {
    /// Whether an event of this size may be kept; older ones are given up for it if need be.
    pub(super) fn fits(&mut self, event: &AuditEvent, bytes: u64) -> bool {
        loop {
            let planned = self.planned_bytes() + bytes;
            let room = self.bounds.room_for(planned);
            let fits = match room {
                Room::Everything => true,
                Room::NoBulk => !is_bulk(event),
                Room::LossOnly => is_loss(event) && planned <= self.bounds.max_bytes,
            };
            if fits {
                self.note_room(Room::Everything);
                return true;
            }
            if is_loss(event) {
                return false;
            }
            let made_room = self.handle_acknowledgements(Duration::ZERO)
                || self.give_up(Level::Bulk)
                || (!is_bulk(event) && self.give_up(Level::Everything));
            if !made_room {
                self.note_room(room);
                return false;
            }
        }
    }

    /// Gives up something so that what waits in memory can be written. False when there is nothing.
    pub(super) fn make_room_on_full_disk(&mut self) -> bool {
        self.handle_acknowledgements(Duration::ZERO)
            || self.give_up(Level::Bulk)
            || self.give_up(Level::Everything)
    }

    /// Bytes on disk once everything that is known here is written.
    pub(super) fn planned_bytes(&self) -> u64 {
        self.journal.planned_bytes() + self.pending_bytes + BATCH_OVERHEAD
    }

    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        self.planned_bytes() + bytes <= self.bounds.max_bytes
    }

    pub(super) fn is_short_of_room(&self) -> bool {
        self.bounds.room_for(self.planned_bytes()) != Room::Everything
    }

    /// Looks how much of the disk may be used now.
    pub(super) fn look_at_disk(&mut self) {
        self.bounds.looked_at_disk = Instant::now();
        self.reserve.restore();
        let usable = self.journal.bytes() + self.reserve.usable_bytes();
        self.bounds.ceiling = self.bounds.max_bytes.min(usable);
    }

    /// Looks again now and then: others may have made room, or taken it.
    pub(super) fn look_at_disk_sometimes(&mut self) {
        if self.bounds.looked_at_disk.elapsed() >= RETRY {
            self.look_at_disk();
        }
    }

    /// Says once that it becomes worse, and once that half of the room is free again.
    fn note_room(&mut self, room: Room) {
        self.bounds.room = room;
        let is_over = self.planned_bytes() <= self.bounds.ceiling / 2;
        self.bounds.gave_up &= !is_over;
        let told = self.bounds.told;
        if room <= told && !(is_over && told > Room::Everything) {
            return;
        }
        self.bounds.told = room;
        let bound = self.bounds.ceiling;
        match room {
            Room::Everything => tracing::info!("the spool has room again"),
            Room::NoBulk => tracing::warn!(
                "the spool is nearly full ({bound} bytes, see spool.max_bytes and spool.min_free_bytes) and holds no \
                 more connections, lookups and program starts to give up: new ones are dropped and counted until the \
                 collector takes events again"
            ),
            Room::LossOnly => tracing::error!(
                "the spool is full ({bound} bytes, see spool.max_bytes and spool.min_free_bytes) and holds nothing to \
                 give up: events are dropped and counted until the collector takes events again"
            ),
        }
    }

    /// Gives up the oldest events of a level that wait on disk, a file's worth. False when there are none.
    fn give_up(&mut self, level: Level) -> bool {
        let shared = self.shared.clone();
        let mut handing = shared.handing_out.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = handing.end.max(shared.acknowledged.load(Ordering::Acquire));
        let least = MIN_ACTIVE_BYTES.max(self.bounds.ceiling / 32);
        let with_active = self.journal.active_bytes() >= least;
        let state = (floor, self.journal.active_first(), with_active);
        let known = &mut self.bounds.nothing_left[usize::from(level == Level::Everything)];
        if *known == Some(state) || self.bounds.retry_at.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let gives_up = |event: &AuditEvent| match level {
            Level::Bulk => is_bulk(event),
            Level::Everything => !is_loss(event),
        };
        let planned = self.journal.plan(RecordIndex(floor), with_active, Some(level), &gives_up);
        let outcome = planned.and_then(|planned| match planned {
            Some((first, plan)) => self.carry_out(first, &plan, Some(level), Reason::SpoolFull),
            None => Ok(false),
        });
        match outcome {
            Ok(true) => {
                handing.generation += 1;
                self.bounds.retry_at = None;
                drop(handing);
                self.look_at_disk();
                true
            }
            Ok(false) => {
                self.bounds.nothing_left[usize::from(level == Level::Everything)] = Some(state);
                false
            }
            Err(error) => {
                if self.bounds.retry_at.is_none() {
                    tracing::error!("old events cannot be given up for new ones: {error}; it is tried again");
                }
                self.bounds.retry_at = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    /// When to look for events that are too old: only while something waits.
    pub(super) fn age_due(&self) -> Option<Instant> {
        let waits = self.shared.acknowledged.load(Ordering::Acquire) < self.journal.end();
        let due = |checked: Instant| checked + self.bounds.age_interval();
        waits.then(|| self.bounds.age_checked.map_or_else(Instant::now, due))
    }

    /// Gives up what waits longer than it may, a file's worth at a time.
    pub(super) fn give_up_old(&mut self) {
        if self.age_due().is_none_or(|due| Instant::now() < due) {
            return;
        }
        let shared = self.shared.clone();
        let mut handing = shared.handing_out.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = RecordIndex(handing.end.max(shared.acknowledged.load(Ordering::Acquire)));
        let (now, max_age) = (BootTime::now(), self.bounds.max_age);
        let boot_id = self.shared.boot_id.clone();
        let gives_up = |event: &AuditEvent| {
            !is_loss(event) && age(event, boot_id.as_str() == event.boot_id, now) > max_age
        };
        let planned = self.journal.plan(floor, true, None, &gives_up);
        let outcome = planned.and_then(|planned| match planned {
            Some((first, plan)) => self.carry_out(first, &plan, None, Reason::TooOld),
            None => Ok(false),
        });
        match outcome {
            // There may be more: look again with the next turn.
            Ok(true) => {
                handing.generation += 1;
                self.bounds.age_checked = None;
            }
            Ok(false) => self.bounds.age_checked = Some(Instant::now()),
            Err(error) => {
                tracing::error!("events that waited too long cannot be given up: {error}; it is tried again");
                self.bounds.age_checked = Some(Instant::now());
            }
        }
    }

    /// Notes, replaces, and leaves the loss to be reported. Whether it was done.
    fn carry_out(
        &mut self,
        first: RecordIndex,
        plan: &given_up::Plan,
        level: Option<Level>,
        reason: Reason,
    ) -> Result<bool, RecordsError> {
        let losses = plan.losses(reason);
        let (known, count) = (self.bounds.unreported.len(), given_up::count(&losses));
        self.bounds.unreported.extend(losses);
        let mut done = self.note_and_replace(first, plan, level);
        if done.is_err() && self.reserve.release() {
            done = self.note_and_replace(first, plan, level);
        }
        if matches!(done, Ok(true)) {
            self.shared.given_up_events.fetch_add(count, Ordering::Relaxed);
            self.shared.bytes.store(self.journal.bytes(), Ordering::Relaxed);
            tracing::debug!(events = count, reason = reason.as_str(), "events were given up");
            if !std::mem::replace(&mut self.bounds.gave_up, true) {
                tracing::warn!(
                    "the collector does not take events and the oldest that wait are given up ({}): what went is \
                     reported as a loss event",
                    reason.as_str()
                );
            }
        } else {
            self.bounds.unreported.truncate(known);
        }
        done
    }

    fn note_and_replace(
        &mut self,
        first: RecordIndex,
        plan: &given_up::Plan,
        level: Option<Level>,
    ) -> Result<bool, RecordsError> {
        let noted = given_up::write_note(&self.directory, &self.bounds.unreported);
        noted.map_err(|source| RecordsError::Io {
            action: "write the note about giving up in",
            path: self.directory.clone(),
            source,
        })?;
        self.journal.replace(first, plan, level)
    }

    /// What an earlier start noted and did not do is no news.
    pub(super) fn drop_stale_note(&mut self) {
        if self.bounds.unreported.is_empty()
            && let Err(error) = given_up::remove_note(&self.directory)
        {
            self.note_bookkeeping_failure(&format!("cannot delete an old note about giving up: {error}"));
        }
    }

    /// Everything sealed is on disk: losses that stand there need no note any more.
    pub(super) fn settle_note(&mut self) {
        if self.bounds.sealed == 0 {
            return;
        }
        self.bounds.unreported.drain(..self.bounds.sealed);
        self.bounds.sealed = 0;
        let settled = if self.bounds.unreported.is_empty() {
            given_up::remove_note(&self.directory)
        } else {
            given_up::write_note(&self.directory, &self.bounds.unreported)
        };
        if let Err(error) = settled {
            self.note_bookkeeping_failure(&format!(
                "cannot delete the note about what was given up: {error}"
            ));
        }
    }
}

/// How long ago an event of this boot happened by the boot clock, which nobody sets; one of an earlier boot by the
/// wall clock, but not before this boot began.
fn age(event: &AuditEvent, is_of_this_boot: bool, now: BootTime) -> Duration {
    if is_of_this_boot {
        return Duration::from_nanos(now.since(BootTime(event.boot_time_ns)));
    }
    let on_the_wall = event.time.as_ref().map_or(0, |time| now.to_unix_nanos() - unix_nanos(time));
    Duration::from_nanos(u64::try_from(on_the_wall).unwrap_or_default().max(now.0))
}
