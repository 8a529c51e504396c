//! The collector: receives signed batches, keeps them, answers questions about them.
//!
//! In: batches from hosts and questions from readers, both over mTLS. Out: acknowledgements of what is on disk, answers,
//! and a log that anyone can verify.
//!
//! The way of a batch: [`tls`] (who is it?) → [`ingest`] (is it whole, signed, theirs?) → [`ledger`] (does it follow?
//! append, fsync, acknowledge) → [`store`] (index it) → [`query`] (answer, tail), over gRPC and [`api`]. The log is the truth; the index is
//! derived from it and can be deleted at any time. [`enrol`] decides which hosts there are.
//! Must never acknowledge what is not on disk, let one peer disturb another, or speak without TLS.

pub mod access;
pub mod ca;
pub mod config;
pub mod enrol;
pub mod health;
pub mod server;
pub mod witness;

mod acts;
mod api;
mod dark;
mod data;
mod export;
mod hunt;
mod ingest;
mod ledger;
mod oidc_identity;
mod peer;
mod query;
mod retention;
mod store;
mod tls;
mod tree;
mod web;
