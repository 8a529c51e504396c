//! One file per family of hooks.

mod connect;
mod dns;
mod exec;
mod process;
mod unix;
