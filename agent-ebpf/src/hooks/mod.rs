//! One file per family of hooks.

mod closed;
mod connect;
mod dns;
mod exec;
mod file;
mod memory;
mod packets;
mod payload;
mod process;
mod registers;
mod send;
mod socket;
mod unix;
