//! One file per family of hooks.

mod connect;
mod dns;
mod exec;
mod file;
mod memory;
mod process;
mod registers;
mod unix;
