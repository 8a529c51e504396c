//! What stands on disk, opened in the right order: log, tree, index.
//!
//! In: settings. Out: a log that may be written, a tree that is signed up to its end, an index that has all of it. The
//! tree is looked at before anything is written, so that a log that was rolled back stays as it was found.

use std::os::unix::fs::DirBuilderExt as _;

use buildtrail_evidence::{
    log::LogEntry,
    records::{Limits, RecordIndex, RecordLog, Recovery},
};
use buildtrail_proto::v1::{CollectorStarted, LogDamaged, collector_entry::Act};

use crate::{
    acts,
    config::Config,
    server::ServeError,
    store::Store,
    tree::{Keeper, Published, TreeError},
};

/// What to do about a log that is shorter than what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Do not start.
    Refuse,
    /// Note it in the log and go on behind what is lost.
    Accept,
}

pub(crate) struct Data {
    pub(crate) log: RecordLog,
    pub(crate) store: Store,
    pub(crate) keeper: Keeper,
    pub(crate) published: Published,
}

/// Opens, repairs and brings everything up to the end of the log. Blocks.
pub(crate) fn open(config: &Config, on_loss: OnLoss) -> Result<Data, ServeError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_directory);
    made.map_err(|source| ServeError::DataDirectory { path: config.data_directory.clone(), source })?;
    let limits = Limits { segment_bytes: config.log.segment_bytes, ..Limits::default() };
    let (mut log, recovery) = RecordLog::open(&config.log_directory(), limits)?;
    let mut damage = report(&recovery);
    let mut keeper = match Keeper::open(config, &log) {
        Err(TreeError::RolledBack { log: end, signed }) if on_loss == OnLoss::Accept => {
            damage.push(skip(&mut log, end, signed)?);
            Keeper::open(config, &log)?
        }
        opened => opened?,
    };
    tracing::info!(key = %keeper.public_key(), leaves = keeper.signed_size(), "the tree over the log");

    let started = CollectorStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        checkpoint_size: keeper.signed_size(),
    };
    let lost = !damage.is_empty() || !recovery.is_clean();
    for act in damage.into_iter().map(Act::LogDamaged).chain([Act::CollectorStarted(started)]) {
        log.append(&LogEntry::Collector(acts::entry(act)).encode())?;
    }
    log.sync()?;

    let mut store = Store::open(&config.index_file())?;
    let indexed = store.catch_up(&log, lost)?;
    store.end_rebuilding()?;
    let published = keeper.catch_up(&log)?;
    tracing::info!(records = log.end().0, newly_indexed = indexed, "log opened");
    Ok(Data { log, store, keeper, published })
}

/// Makes the index anew from the log; the collector must be stopped. Returns how many records the log has. Blocks. When it
/// is ended before its end, the next call, or the next start, goes on there.
///
/// # Errors
/// The log is in use or cannot be read, or the disk refuses.
pub fn reindex(config: &Config) -> Result<u64, ServeError> {
    let limits = Limits { segment_bytes: config.log.segment_bytes, ..Limits::default() };
    let (log, recovery) = RecordLog::open(&config.log_directory(), limits)?;
    report(&recovery);
    let mut store = Store::open(&config.index_file())?;
    store.begin_rebuilding()?;
    store.catch_up(&log, !recovery.is_clean())?;
    store.end_rebuilding()?;
    Ok(log.end().0)
}

fn skip(log: &mut RecordLog, end: RecordIndex, signed: RecordIndex) -> Result<LogDamaged, ServeError> {
    tracing::error!(
        first = end.0,
        end = signed.0,
        "signed records are lost; going on behind them, as ordered"
    );
    log.skip_to(signed)?;
    let what = "the log was shorter than its signed checkpoint; started with --accept-loss".to_owned();
    Ok(LogDamaged { first_record: end.0, end_record: signed.0, what })
}

fn report(recovery: &Recovery) -> Vec<LogDamaged> {
    if let Some(torn) = &recovery.torn_tail {
        let (file, offset, bytes) = (torn.segment.display(), torn.offset, torn.bytes);
        tracing::warn!(%file, offset, bytes, "the log ended in an unfinished record, which was cut off");
    }
    let mut damage = Vec::new();
    for range in &recovery.quarantined {
        tracing::error!(%range, "the log is damaged");
        damage.push(LogDamaged {
            first_record: range.first.0,
            end_record: range.end.0,
            what: range.to_string(),
        });
    }
    damage
}
