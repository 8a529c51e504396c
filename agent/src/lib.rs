//! The privileged daemon on a runner host: sees what build jobs do with secrets and ties it to job and step.
//!
//! In: the kernel's word. Out: signed batches for a collector, or JSON lines. One direction: `sensor` → `process` → `job`
//! → `event` (driven by `pipeline`) → `output` → `spool` → `uplink`. Must never break or block a build, trust a job's
//! word about itself, or lose anything without saying so.

pub mod build;
pub mod catalog;
pub mod check;
pub mod clock;
pub mod config;
pub mod container;
pub mod control;
pub mod enrol;
pub mod error;
pub mod event;
pub mod host;
pub mod job;
pub mod link;
pub mod output;
pub mod pipeline;
pub mod process;
pub mod run;
pub mod sensor;
pub mod spool;
pub mod uplink;
