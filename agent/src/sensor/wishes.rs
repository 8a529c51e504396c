//! What the sensors should watch from now on, and what no more.

use std::path::PathBuf;

use super::{files::Relocated, written::Version};
use crate::process::ProcessId;

/// News for the sensors and for the kernel side.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Runners: their children are jobs' processes, and who looks into them is told.
    pub runners: Vec<ProcessId>,
    /// Runners and descendants of runners that ended, with everything reported.
    pub ended: Vec<ProcessId>,
    /// Files that jobs call credentials.
    pub relocated: Vec<Relocated>,
    /// Jobs that ended.
    pub ended_jobs: Vec<String>,
    /// Where jobs work.
    pub places: Vec<PathBuf>,
    /// Files of which every read is to be told.
    pub follow: Vec<(PathBuf, Version)>,
    /// And no more.
    pub leave: Vec<PathBuf>,
}
