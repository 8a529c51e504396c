//! Retention: events go after a time or when the log grows too large; hashes, headers and signatures stay.
//!
//! In: the settings and the log's files. Out: a statement in the log about what is removed and why, *before* it is removed;
//! then thinned segments; then an index without these events. After a crash at any point the next pass goes on: what was
//! stated is done, and is not stated twice. Must never touch the segment that is being written, nor an entry or a host.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use buildtrail_evidence::records::RecordIndex;
use buildtrail_proto::v1::{BodiesRemoved, collector_entry::Act};
use buildtrail_query::Scope;
use tokio::sync::watch;

use crate::{
    acts::Acts,
    config,
    ledger::{Ledger, LedgerError},
    store::{Reader, StoreError},
};

/// Between two passes.
const PAUSE: Duration = Duration::from_mins(10);
/// A segment is closed after this part of the maximal age, so that it can go as a whole in time.
const SEGMENTS_PER_AGE: u32 = 8;
const DAY: Duration = Duration::from_hours(24);

/// What could not be done; the next pass tries again.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error("cannot look at the log's files: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) struct Retention {
    pub(crate) settings: config::Retention,
    pub(crate) log_directory: PathBuf,
    pub(crate) ledger: Ledger,
    pub(crate) acts: Acts,
    pub(crate) reader: Reader,
    pub(crate) limit: Duration,
}

/// A file of the log that gets no further records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closed {
    first: RecordIndex,
    end: RecordIndex,
    bytes: u64,
    /// When its last record came. Rewriting it makes it younger, but then there is nothing left to remove.
    written: SystemTime,
}

impl Retention {
    /// Passes over the log now and then, until the collector stops.
    pub(crate) async fn run(self, mut stopping: watch::Receiver<bool>) {
        if self.settings.max_age_days == 0 && self.settings.max_bytes == 0 {
            return;
        }
        loop {
            if let Err(error) = self.pass(SystemTime::now()).await {
                tracing::error!(%error, "retention did not come to its end; it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    async fn pass(&self, now: SystemTime) -> Result<(), RetentionError> {
        self.close_old_segment(now).await?;
        let (closed, mut total) = self.segments()?;
        for segment in closed {
            let Some(why) = self.why(&segment, total, now) else { continue };
            if self.remove(&segment, why).await? {
                let bytes = fs::metadata(segment_path(&self.log_directory, segment.first))?.len();
                total = total.saturating_sub(segment.bytes.saturating_sub(bytes));
            }
        }
        Ok(())
    }

    /// Why a segment's events must go; `None`: they may stay.
    fn why(&self, segment: &Closed, total: u64, now: SystemTime) -> Option<String> {
        let config::Retention { max_age_days, max_bytes } = self.settings;
        let age = now.duration_since(segment.written).unwrap_or_default();
        if max_age_days > 0 && age >= self.settings.max_age() {
            return Some(format!("older than {max_age_days} days"));
        }
        (max_bytes > 0 && total > max_bytes).then(|| format!("the log is larger than {max_bytes} bytes"))
    }

    /// States and removes; says whether there was something to remove.
    async fn remove(&self, segment: &Closed, why: String) -> Result<bool, RetentionError> {
        let (first, end) = (segment.first, segment.end);
        let asked = self.reader.ask(self.limit, move |asked| {
            Ok::<_, StoreError>((
                asked.bodies(&Scope::Everything, first, end)?,
                asked.is_stated(&Scope::Everything, first, end)?,
            ))
        });
        let (bodies, stated) = asked.await?;
        if bodies.batches == 0 {
            return Ok(false);
        }
        if !stated {
            let statement = BodiesRemoved {
                first_record: first.0,
                end_record: end.0,
                why,
                batches: bodies.batches,
                events: bodies.counts.values().sum(),
                counts: bodies.counts,
            };
            self.acts.record_durably(Act::BodiesRemoved(statement)).await?;
        }
        self.ledger.thin(first).await?;
        tracing::info!(%first, %end, "events were removed; their hashes stay");
        Ok(true)
    }

    /// Begins a new segment when the present one holds records of a large part of the maximal age.
    async fn close_old_segment(&self, now: SystemTime) -> Result<(), RetentionError> {
        if self.settings.max_age_days == 0 {
            return Ok(());
        }
        let Some(active) = list(&self.log_directory)?.last().copied() else { return Ok(()) };
        let created = fs::metadata(segment_path(&self.log_directory, active))?.created();
        let age = created.ok().and_then(|created| now.duration_since(created).ok()).unwrap_or_default();
        if age >= (self.settings.max_age() / SEGMENTS_PER_AGE).min(DAY) {
            self.ledger.rotate().await?;
        }
        Ok(())
    }

    /// Closed segments, oldest first, and the bytes of all.
    fn segments(&self) -> io::Result<(Vec<Closed>, u64)> {
        let firsts = list(&self.log_directory)?;
        let (mut closed, mut total) = (Vec::new(), 0);
        for (place, first) in firsts.iter().enumerate() {
            let metadata = fs::metadata(segment_path(&self.log_directory, *first))?;
            total += metadata.len();
            if let Some(end) = firsts.get(place + 1) {
                let (bytes, written) = (metadata.len(), metadata.modified()?);
                closed.push(Closed { first: *first, end: *end, bytes, written });
            }
        }
        Ok((closed, total))
    }
}

fn segment_path(directory: &Path, first: RecordIndex) -> PathBuf {
    directory.join(format!("{:020}.seg", first.0))
}

/// First records of the log's segments, ascending.
fn list(directory: &Path) -> io::Result<Vec<RecordIndex>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".seg")).filter(|name| name.len() == 20);
        firsts.extend(digits.and_then(|digits| digits.parse().ok()).map(RecordIndex));
    }
    firsts.sort_unstable();
    Ok(firsts)
}
