//! What the end-to-end tests and the demo share: a build job that is real, in surroundings that are stand-ins.
//!
//! In: the release binaries of this workspace, `act`, the repositories under `scenario/`. Out: processes that were
//! really run, and what agent and collector said about them. Must never touch anything of the machine that outlives a
//! test: every file is in a temporary directory, every address in a network namespace made for the purpose, every
//! process is stopped by its id.

pub mod agent;
pub mod bench;
pub mod bpffs;
pub mod browser;
pub mod collector;
pub mod demo;
pub mod emulated;
pub mod engine;
pub mod events;
pub mod expected;
pub mod fakerunner;
pub mod feed;
pub mod history;
pub mod lab;
pub mod load;
pub mod paths;
pub mod process;
pub mod proxy;
pub mod random;
pub mod scene;
pub mod source;
pub mod standins;
