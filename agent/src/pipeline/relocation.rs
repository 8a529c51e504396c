//! Files that a job's environment variables call credentials.

use std::collections::HashMap;

use super::Pipeline;
use crate::{
    catalog::relocations,
    clock::BootTime,
    sensor::{files::Relocated, records::Exec},
};

/// How soon the same variable's files are looked for again, in nanoseconds: they may appear later.
const PATIENCE: u64 = 1_000_000_000;
/// Values remembered for one job.
const MAX_VALUES: usize = 1024;

/// A variable's name and its value.
type Setting = (Vec<u8>, Vec<u8>);

/// When the files of each value were last looked for, by job.
#[derive(Debug, Default)]
pub(super) struct Relocations(HashMap<String, HashMap<Setting, BootTime>>);

impl Relocations {
    fn is_due(&mut self, job: &str, variable: &[u8], value: &[u8], now: BootTime) -> bool {
        let known = self.0.entry(job.to_owned()).or_default();
        if known.len() >= MAX_VALUES {
            known.clear();
        }
        let last = known.insert((variable.to_vec(), value.to_vec()), now);
        last.is_none_or(|last| now.since(last) >= PATIENCE)
    }

    pub(super) fn forget(&mut self, job: &str) {
        self.0.remove(job);
    }
}

impl Pipeline {
    /// Has the files watched that the variables of this execution name.
    pub(super) fn take_relocations(&mut self, job: &str, time: BootTime, exec: &Exec, directory: &[u8]) {
        for variable in &exec.variables {
            let Some(value) = &variable.value else { continue };
            let files = relocations::files_of(&variable.name, value, directory);
            if !files.is_empty() && self.relocations.is_due(job, &variable.name, value, time) {
                let relocated = files.into_iter().map(|(path, entry)| Relocated {
                    path,
                    entry: entry.into(),
                    job: job.to_owned(),
                });
                self.wishes.relocated.extend(relocated);
            }
        }
    }
}
