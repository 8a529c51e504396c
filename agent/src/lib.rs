//! The privileged daemon on a runner host.

pub mod config;
pub mod sensor;
pub mod spool;
pub mod uplink;
