//! One host's batches, in the order of the log.

use std::collections::BTreeMap;

use buildtrail_proto::{
    Timestamp,
    v1::{BatchHeader, HostVerification},
};

use super::{
    examine::Facts,
    span::{Extent, Span},
    text::{counted, printable, range, time_span, utc},
};
use crate::{
    batch::ChainHead,
    chain::{Accepted, Chain, ChainError},
    digest::Digest,
    id::HostId,
    key::{HostPublicKey, KeyError},
    log::HostRecord,
    records::RecordIndex,
};

/// Most gaps that are spelled out; further ones are counted.
const MAX_GAPS: usize = 100;

/// What the log proves about one host, within the span that was asked about.
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
    /// Events of which only the hash is there.
    pub withheld: u64,
    /// What is missing, each in words. Empty: nothing.
    pub gaps: Vec<String>,
    /// Every batch and every sequence number of every boot is there.
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
            withheld: host.withheld,
            complete: host.complete,
            statement: host.statement.clone(),
        }
    }
}

/// Where a chain may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// With the host's first batch.
    First,
    /// With any: an excerpt.
    Anywhere,
}

/// Batches of one host, one after the other, with events withheld.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: RecordIndex,
    last: RecordIndex,
    events: u64,
}

/// A retention statement: what it covers, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement {
    pub(super) first: RecordIndex,
    pub(super) end: RecordIndex,
    pub(super) stands_at: RecordIndex,
}

pub(super) struct HostWalk {
    pub(super) name: String,
    pub(super) key: HostPublicKey,
    span: Span,
    excerpt: bool,
    /// `None` until the first batch of an excerpt.
    chain: Option<Chain>,
    /// Of all events.
    extent: Extent,
    /// Of the events within the span.
    extent_in_span: Extent,
    batches: u64,
    events: u64,
    lost: LostCounter,
    lost_in_span: u64,
    gaps: Vec<Gap>,
    unsaid_gaps: u64,
    refused: u64,
    withheld: Vec<Run>,
    withheld_counts: BTreeMap<String, u64>,
    /// The batch before had events withheld.
    in_run: bool,
}

/// Batches that are not there.
struct Gap {
    /// Record behind it.
    before: RecordIndex,
    words: String,
}

impl HostWalk {
    pub(super) fn new(record: &HostRecord, span: Span, beginning: Beginning) -> Result<Self, KeyError> {
        Ok(Self {
            key: HostPublicKey::try_from(&record.public_key[..])?,
            name: if record.name.is_empty() { printable(&record.host_id) } else { printable(&record.name) },
            span,
            excerpt: beginning == Beginning::Anywhere,
            chain: (beginning == Beginning::First).then(Chain::default),
            extent: Extent::default(),
            extent_in_span: Extent::default(),
            batches: 0,
            events: 0,
            lost: LostCounter::default(),
            lost_in_span: 0,
            gaps: Vec::new(),
            unsaid_gaps: 0,
            refused: 0,
            withheld: Vec::new(),
            withheld_counts: BTreeMap::new(),
            in_run: false,
        })
    }

    /// A batch that did not verify counts as missing.
    pub(super) fn refuse(&mut self) {
        self.refused += 1;
    }

    /// Takes the next batch in; says why not. What is refused counts as missing.
    pub(super) fn batch(&mut self, index: RecordIndex, facts: &Facts) -> Result<(), String> {
        let taken = self.take(index, facts);
        self.refused += u64::from(taken.is_err());
        taken
    }

    fn take(&mut self, index: RecordIndex, facts: &Facts) -> Result<(), String> {
        let opened = &facts.opened;
        let chain = self.chain.get_or_insert_with(|| just_before(&opened.header));
        let expected = chain.head().number + 1;
        match chain.check(opened) {
            Ok(Accepted::New) => {}
            Ok(Accepted::NewBehindLoss) => {
                let head = chain.head().clone();
                let batches = range("batch", "batches", expected, opened.header.number - 1);
                self.gap(index, &head, &format!("{batches}, which the host says it lost"), facts);
            }
            Ok(Accepted::Duplicate) => return Err("it stands in the log twice".into()),
            Err(ChainError::Gap { expected, number }) => {
                let head = chain.head().clone();
                self.gap(index, &head, &range("batch", "batches", expected, number - 1), facts);
            }
            Err(ChainError::Old { .. }) => return Err("it stands behind later ones".into()),
            Err(error @ (ChainError::Fork { .. } | ChainError::Sequence { .. })) => {
                return Err(error.to_string());
            }
        }
        if let Some(chain) = &mut self.chain {
            chain.advance(opened);
        }
        self.count(index, facts);
        Ok(())
    }

    fn gap(&mut self, index: RecordIndex, head: &ChainHead, batches: &str, next: &Facts) {
        let (from, to) = (self.extent.last, next.extent.first);
        if !self.span.touches(from.as_ref(), to.as_ref()) {
            return;
        }
        if self.gaps.len() >= MAX_GAPS {
            self.unsaid_gaps += 1;
            return;
        }
        let events = missing_events(head, &next.opened.header);
        let end = to.as_ref().map_or_else(|| "an unknown time".into(), |to| format!("{} UTC", utc(to)));
        let when = match &from {
            Some(time) => format!("between {} and {end}", utc(time)),
            None => format!("before {end}"),
        };
        self.gaps.push(Gap { before: index, words: format!("{batches} ({events}) {when}") });
    }

    fn count(&mut self, index: RecordIndex, facts: &Facts) {
        let before = self.lost.is_new() && self.excerpt;
        let lost = self.lost.add(&facts.opened.header);
        // An excerpt's first batch states what was lost before it, too.
        let lost = if before { 0 } else { lost };
        let from = facts.extent.first.or(self.extent.last);
        if self.span.touches(from.as_ref(), facts.extent.last.as_ref()) {
            self.batches += 1;
            self.lost_in_span = self.lost_in_span.saturating_add(lost);
            self.note_withheld(index, facts);
        }
        self.events += facts.events;
        self.extent.join(&facts.extent);
        self.extent_in_span.join(&facts.extent_in_span);
    }

    fn note_withheld(&mut self, index: RecordIndex, facts: &Facts) {
        let events = facts.withheld.values().sum();
        let in_run = std::mem::replace(&mut self.in_run, events > 0);
        if events == 0 {
            return;
        }
        for (kind, count) in &facts.withheld {
            *self.withheld_counts.entry(kind.clone()).or_default() += count;
        }
        match self.withheld.last_mut() {
            Some(run) if in_run => {
                run.last = index;
                run.events += events;
            }
            _ => self.withheld.push(Run { first: index, last: index, events }),
        }
    }

    /// Gaps that a tree, verified up to `proven`, does not show to be the host's or the collector's own: somebody may
    /// have taken the batches out.
    pub(super) fn unexplained_gaps(&self, proven: RecordIndex) -> Vec<String> {
        let unexplained = self.gaps.iter().filter(|gap| gap.before >= proven);
        unexplained.map(|gap| gap.words.clone()).collect()
    }

    /// Events of which only the hash is there.
    pub(super) fn withheld(&self) -> u64 {
        self.withheld.iter().map(|run| run.events).sum()
    }

    /// As [`Self::report`], of an excerpt: what it withholds is nobody's loss.
    pub(super) fn excerpt_report(mut self, host_id: &HostId) -> HostReport {
        self.withheld.clear();
        self.report(host_id, &[])
    }

    pub(super) fn report(mut self, host_id: &HostId, statements: &[Statement]) -> HostReport {
        let withheld = self.withheld();
        let mut missing: Vec<String> = self.gaps.iter().map(|gap| gap.words.clone()).collect();
        if self.unsaid_gaps > 0 {
            missing.push(format!("{} more gaps", self.unsaid_gaps));
        }
        if self.refused > 0 {
            missing.push(format!("batches that did not verify: {}", self.refused));
        }
        missing.extend(self.withheld_in_words(statements));
        if let Some(words) = self.silence() {
            missing.push(words);
        }
        let complete = missing.is_empty() && self.batches > 0;
        let extent = std::mem::take(&mut self.extent_in_span);
        let span = match (&extent.first, &extent.last) {
            (Some(from), Some(to)) => time_span(from, to),
            _ => "no events".into(),
        };
        let verdict = if complete { "complete" } else { "INCOMPLETE" };
        let mut statement =
            format!("{}: {span}: {verdict}, {} events, {} lost", self.name, self.events, self.lost_in_span);
        if !missing.is_empty() {
            statement.push_str("; missing: ");
            statement.push_str(&missing.join("; "));
        }
        HostReport {
            host_id: host_id.clone(),
            name: self.name,
            first_event: extent.first,
            last_event: extent.last,
            batches: self.batches,
            events: self.events,
            lost: self.lost_in_span,
            withheld,
            gaps: missing,
            complete,
            statement,
        }
    }

    fn withheld_in_words(&self, statements: &[Statement]) -> Vec<String> {
        let (mut removed, mut others) = (BTreeMap::new(), 0);
        for run in &self.withheld {
            let covers = |statement: &&Statement| statement.first <= run.first && run.last < statement.end;
            match statements.iter().find(covers) {
                Some(statement) => *removed.entry(statement.stands_at).or_insert(0) += run.events,
                None => others += run.events,
            }
        }
        let mut words: Vec<String> = removed
            .iter()
            .map(|(at, events)| {
                format!("{} removed by retention, as record {at} states", counted(*events, "event"))
            })
            .collect();
        if others > 0 {
            let all = self.withheld_counts.iter().map(|(kind, count)| format!("{count} {kind}"));
            let kinds = all.collect::<Vec<_>>().join(", ");
            let events = counted(others, "event");
            words.push(format!("{events} of which only the hashes are here (withheld in all: {kinds})"));
        }
        words
    }

    /// A span in which nothing came says nothing unless something came after it.
    fn silence(&self) -> Option<String> {
        let since = self.span.since.as_ref()?;
        let last = self.extent.last.as_ref()?;
        let ended = !Span { since: Some(*since), until: None }.holds(last);
        ended.then(|| format!("everything after {} UTC, the host's last event", utc(last)))
    }
}

fn missing_events(head: &ChainHead, next: &BatchHeader) -> String {
    let boot = &next.boot_id;
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

/// The chain as it must have been before this batch.
fn just_before(header: &BatchHeader) -> Chain {
    Chain::resume(ChainHead {
        number: header.number - 1,
        digest: Digest::try_from(&header.previous[..]).unwrap_or_default(),
        boot_id: header.boot_id.clone(),
        last_sequence: header.first_sequence - 1,
    })
}

/// Adds up the losses that headers state as totals since boot. A total that shrinks within a boot was begun anew by
/// a restarted agent, so what it had reached before is kept.
#[derive(Default)]
struct LostCounter {
    boot_id: Option<String>,
    in_kernel: u64,
    in_agent: u64,
}

impl LostCounter {
    fn is_new(&self) -> bool {
        self.boot_id.is_none()
    }

    /// How many were lost since the batch before.
    fn add(&mut self, header: &BatchHeader) -> u64 {
        let new_boot = self.boot_id.as_ref() != Some(&header.boot_id);
        let mut lost: u64 = 0;
        for (total, now) in
            [(&mut self.in_kernel, header.lost_in_kernel), (&mut self.in_agent, header.lost_in_agent)]
        {
            let anew = new_boot || now < *total;
            lost = lost.saturating_add(if anew { now } else { now - *total });
            *total = now;
        }
        if new_boot {
            self.boot_id = Some(header.boot_id.clone());
        }
        lost
    }
}
