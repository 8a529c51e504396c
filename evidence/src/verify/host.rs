//! One host's batches, in the order of the log.

use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{AuditEvent, BatchHeader, HostVerification, SignedBatch},
};

use super::text::{printable, time_span, utc};
use crate::{
    batch::{self, OpenedBatch},
    chain::{Accepted, Chain, ChainError},
    id::HostId,
    key::{HostPublicKey, KeyError},
    log::HostRecord,
};

/// Most gaps that are spelled out; further ones are counted.
const MAX_GAPS: usize = 100;

/// What the log proves about one host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostReport {
    /// The host.
    pub host_id: HostId,
    /// Its name, safe to print.
    pub name: String,
    /// Time of the earliest event.
    pub first_event: Option<Timestamp>,
    /// Time of the latest event.
    pub last_event: Option<Timestamp>,
    /// Intact batches.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Events that the host signed as lost before they could be logged.
    pub lost: u64,
    /// What is missing, each in words. Empty: nothing.
    pub gaps: Vec<String>,
    /// Every batch from the first and every sequence number of every boot is there.
    pub complete: bool,
    /// All of it in one sentence.
    pub statement: String,
}

impl From<&HostReport> for HostVerification {
    fn from(host: &HostReport) -> Self {
        Self {
            host_id: host.host_id.to_string(),
            first_event: host.first_event,
            last_event: host.last_event,
            batches: host.batches,
            events: host.events,
            lost: host.lost,
            complete: host.complete,
            statement: host.statement.clone(),
        }
    }
}

pub(super) struct HostWalk {
    key: HostPublicKey,
    name: String,
    chain: Chain,
    first_event: Option<Timestamp>,
    last_event: Option<Timestamp>,
    batches: u64,
    events: u64,
    lost: LostCounter,
    gaps: Vec<String>,
    unsaid_gaps: u64,
    refused: u64,
}

impl HostWalk {
    pub(super) fn new(record: &HostRecord) -> Result<Self, KeyError> {
        Ok(Self {
            key: HostPublicKey::try_from(&record.public_key[..])?,
            name: if record.name.is_empty() { printable(&record.host_id) } else { printable(&record.name) },
            chain: Chain::default(),
            first_event: None,
            last_event: None,
            batches: 0,
            events: 0,
            lost: LostCounter::default(),
            gaps: Vec::new(),
            unsaid_gaps: 0,
            refused: 0,
        })
    }

    /// Takes the next batch in; says why not. What is refused counts as missing.
    pub(super) fn batch(&mut self, signed: &SignedBatch) -> Result<(), String> {
        let taken = self.take(signed);
        self.refused += u64::from(taken.is_err());
        taken
    }

    fn take(&mut self, signed: &SignedBatch) -> Result<(), String> {
        let opened = batch::open(signed, &self.key).map_err(|error| error.to_string())?;
        match self.chain.check(&opened) {
            Ok(Accepted::New) => {}
            Ok(Accepted::Duplicate) => return Err("it stands in the log twice".into()),
            Err(ChainError::Gap { expected, number }) => self.gap(expected, number, &opened),
            Err(ChainError::Old { .. }) => return Err("it stands behind later ones".into()),
            Err(error @ (ChainError::Fork { .. } | ChainError::Sequence { .. })) => {
                return Err(error.to_string());
            }
        }
        self.chain.advance(&opened);
        self.count(&opened);
        Ok(())
    }

    fn gap(&mut self, expected: u64, number: u64, next: &OpenedBatch) {
        if self.gaps.len() >= MAX_GAPS {
            self.unsaid_gaps += 1;
            return;
        }
        let batches = range("batch", "batches", expected, number - 1);
        let events = self.missing_events(&next.header);
        let end = next.events.first().and_then(|event| event.time.as_ref()).map(utc).unwrap_or_default();
        let when = match &self.last_event {
            Some(time) => format!("between {} and {end} UTC", utc(time)),
            None => format!("before {end} UTC"),
        };
        self.gaps.push(format!("{batches} ({events}) {when}"));
    }

    fn missing_events(&self, next: &BatchHeader) -> String {
        let (head, boot) = (self.chain.head(), &next.boot_id);
        let ahead = next.first_sequence - 1;
        let same_boot = head.boot_id == *boot;
        let known = if same_boot { head.last_sequence } else { 0 };
        let here = if ahead > known { range("event", "events", known + 1, ahead) } else { "no event".into() };
        if same_boot || head.boot_id.is_empty() {
            format!("{here} of boot {boot}")
        } else {
            format!("events after {} of boot {} and {here} of boot {boot}", head.last_sequence, head.boot_id)
        }
    }

    fn count(&mut self, opened: &OpenedBatch) {
        self.batches += 1;
        self.events += opened.events.len() as u64;
        self.lost.add(&opened.header);
        for time in opened.events.iter().filter_map(|event: &AuditEvent| event.time) {
            if self.first_event.is_none_or(|first| unix_nanos(&time) < unix_nanos(&first)) {
                self.first_event = Some(time);
            }
            if self.last_event.is_none_or(|last| unix_nanos(&time) > unix_nanos(&last)) {
                self.last_event = Some(time);
            }
        }
    }

    pub(super) fn report(mut self, host_id: &HostId) -> HostReport {
        let lost = self.lost.total();
        if self.unsaid_gaps > 0 {
            self.gaps.push(format!("{} more gaps", self.unsaid_gaps));
        }
        if self.refused > 0 {
            self.gaps.push(format!("batches that did not verify: {}", self.refused));
        }
        let complete = self.gaps.is_empty() && self.batches > 0;
        let span = match (&self.first_event, &self.last_event) {
            (Some(from), Some(to)) => time_span(from, to),
            _ => "no events".into(),
        };
        let verdict = if complete { "complete" } else { "INCOMPLETE" };
        let mut statement = format!("{}: {span}: {verdict}, {} events, {lost} lost", self.name, self.events);
        if !self.gaps.is_empty() {
            statement.push_str("; missing: ");
            statement.push_str(&self.gaps.join("; "));
        }
        HostReport {
            host_id: host_id.clone(),
            name: self.name,
            first_event: self.first_event,
            last_event: self.last_event,
            batches: self.batches,
            events: self.events,
            lost,
            gaps: self.gaps,
            complete,
            statement,
        }
    }
}

fn range(one: &str, many: &str, first: u64, last: u64) -> String {
    if first == last { format!("{one} {first}") } else { format!("{many} {first}–{last}") }
}

/// Adds up the losses that headers state as totals since boot. A total that shrinks within a boot was begun anew by
/// a restarted agent, so what it had reached before is kept.
#[derive(Default)]
struct LostCounter {
    before: u64,
    boot_id: String,
    in_kernel: u64,
    in_agent: u64,
}

impl LostCounter {
    fn add(&mut self, header: &BatchHeader) {
        let new_boot = self.boot_id != header.boot_id;
        for (total, now) in
            [(&mut self.in_kernel, header.lost_in_kernel), (&mut self.in_agent, header.lost_in_agent)]
        {
            if new_boot || now < *total {
                self.before = self.before.saturating_add(*total);
            }
            *total = now;
        }
        if new_boot {
            self.boot_id.clone_from(&header.boot_id);
        }
    }

    fn total(&self) -> u64 {
        self.before.saturating_add(self.in_kernel).saturating_add(self.in_agent)
    }
}
