//! Reaches of one process for another's memory or descriptors.

use std::collections::{HashMap, HashSet};

use buildtrail_agent_abi::MemoryMethod;
use buildtrail_proto::v1;
use v1::audit_event::Body;

use super::Pipeline;
use crate::{
    clock::BootTime,
    event::{self, text::Notes},
    process::{Process, ProcessId, Role},
    sensor::{records::Memory, runners::Look},
};

/// Reaches remembered for one process.
const MAX_REACHES: usize = 4096;
/// `PTRACE_MODE_ATTACH` (include/linux/ptrace.h)
const ATTACH: u32 = 2;

/// What each process has reached for: a debugger's thousandth look is no news.
#[derive(Debug, Default)]
pub(super) struct Reached(HashMap<ProcessId, HashSet<(u32, v1::MemoryMethod, bool)>>);

impl Reached {
    fn is_new(&mut self, process: ProcessId, target: u32, method: v1::MemoryMethod, denied: bool) -> bool {
        let known = self.0.entry(process).or_default();
        if known.len() >= MAX_REACHES {
            known.clear();
        }
        known.insert((target, method, denied))
    }

    pub(super) fn forget(&mut self, process: ProcessId) {
        self.0.remove(&process);
    }
}

impl Pipeline {
    /// Reported when a job reaches out, or when anyone reaches for a runner.
    pub(super) fn take_memory(&mut self, id: ProcessId, time: BootTime, memory: Memory) {
        let Some(process) = self.processes.get(id).cloned() else { return };
        let target = if memory.target.start == BootTime(0) {
            self.processes.live(memory.target.pid)
        } else {
            self.processes.get(memory.target)
        };
        let target = target.cloned();
        let target_is_runner = target.as_ref().is_some_and(|target| target.role == Role::Runner);
        let runner_itself = process.role == Role::Runner;
        if runner_itself || (process.membership.is_none() && !target_is_runner) {
            return;
        }
        let Some(method) = method(memory) else { return };
        if !self.reached.is_new(id, memory.target.pid, method, memory.denied) {
            return;
        }
        let mut notes = Notes::default();
        let body = v1::MemoryAccess {
            method: method.into(),
            target_is_runner,
            target_job_id: job_id_of(target.as_ref())
                .filter(|job| job_id_of(Some(&process)).as_ref() != Some(job))
                .unwrap_or_default(),
            target: Some(describe(target.as_ref(), memory.target, &mut notes)),
            denied: memory.denied,
        };
        self.emit(time, process.membership.as_ref(), Some(&process), notes, Body::MemoryAccess(body));
    }

    /// Somebody opened what /proc shows of a runner.
    pub(super) fn take_look(&mut self, look: Look) {
        let memory = Memory {
            target: ProcessId { pid: look.runner, start: BootTime(0) },
            method: MemoryMethod::Proc as u32,
            mode: if look.memory { ATTACH } else { 0 },
            denied: false,
        };
        self.take_memory(self.find(look.process), look.time, memory);
    }

    /// The kernel writes the memory of a dying process to a file or to a program.
    pub(super) fn take_core_dump(&mut self, id: ProcessId, time: BootTime) {
        let Some(process) = self.processes.get(id).cloned() else { return };
        let target_is_runner = process.role == Role::Runner;
        if process.membership.is_none() && !target_is_runner {
            return;
        }
        let mut notes = Notes::default();
        let body = v1::MemoryAccess {
            method: v1::MemoryMethod::CoreDump.into(),
            target_is_runner,
            target: Some(describe(Some(&process), id, &mut notes)),
            ..v1::MemoryAccess::default()
        };
        self.emit(time, process.membership.as_ref(), Some(&process), notes, Body::MemoryAccess(body));
    }
}

fn job_id_of(process: Option<&Process>) -> Option<String> {
    Some(process?.membership.as_ref()?.job.job_id.clone())
}

fn describe(process: Option<&Process>, id: ProcessId, notes: &mut Notes) -> v1::Process {
    match process {
        Some(process) => event::process(process, notes),
        None => v1::Process { pid: id.pid, start_boot_time_ns: id.start.0, ..v1::Process::default() },
    }
}

/// `None` for a method that this build does not know.
fn method(memory: Memory) -> Option<v1::MemoryMethod> {
    const METHODS: [(MemoryMethod, v1::MemoryMethod); 4] = [
        (MemoryMethod::Ptrace, v1::MemoryMethod::Ptrace),
        (MemoryMethod::ReadVector, v1::MemoryMethod::ProcessVmRead),
        (MemoryMethod::WriteVector, v1::MemoryMethod::ProcessVmWrite),
        (MemoryMethod::DescriptorOfProcess, v1::MemoryMethod::PidfdGetfd),
    ];
    if memory.method == MemoryMethod::Proc as u32 {
        let attach = memory.mode & ATTACH != 0;
        return Some(if attach { v1::MemoryMethod::ProcMem } else { v1::MemoryMethod::ProcInspect });
    }
    METHODS.iter().find(|(known, _)| *known as u32 == memory.method).map(|(_, method)| *method)
}
