//! Witnesses: somebody else who remembers how far the log has come (C2SP tlog-witness).
//!
//! Two sides. [`server`] is a witness for other collectors' logs: it signs a checkpoint only when that begins with the one
//! it signed before, and remembers it on disk before it answers. [`submit`] sends this collector's checkpoints to the
//! witnesses of its policy. Must never sign two trees that do not agree, nor hold up batches because a witness is away.

mod cosigner;
pub mod server;
pub(crate) mod submit;

pub use cosigner::WitnessError;
