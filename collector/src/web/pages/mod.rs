//! One file for each page: what it shows, from what it is given. Nothing here asks for anything.

pub(super) mod errors;
pub(super) mod event;
pub(super) mod events;
pub(super) mod help;
pub(super) mod hosts;
pub(super) mod integrity;
pub(super) mod job;
pub(super) mod jobs;
pub(super) mod overview;
pub(super) mod processes;
pub(super) mod search;
pub(super) mod subjects;
pub(super) mod tail;
pub(super) mod verdict;
