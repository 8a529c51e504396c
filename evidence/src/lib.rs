//! Evidence: what makes the audit trail provable.
//!
//! In: events and a host's key (agent), signed batches (collector), a log directory (auditor).
//! Out: signed, hash-chained batches; append-only record files that survive crashes; a verdict on a log.
//!
//! [`batch`] seals and opens batches, [`chain`] checks their order, [`records`] keeps bytes on disk, [`log`] says what
//! the collector's records mean, [`verify`] walks such a log. Formats: `docs/formats/batch.md`, `docs/formats/log.md`.
//! Must never trust a length, a count or a name before it was checked, panic on input, or pass damage over in silence.

pub mod batch;
pub mod bundle;
pub mod chain;
pub mod digest;
pub mod dsse;
pub mod id;
pub mod in_toto;
pub mod key;
pub mod log;
pub mod merkle;
pub mod records;
pub mod tlog;
pub mod verify;

#[cfg(test)]
mod testing;
