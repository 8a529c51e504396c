//! The registers with which the current thread entered the kernel. The only place that knows x86-64.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use crate::kread::Object;

/// The registers of the current thread.
#[inline(always)]
pub fn current() -> Object {
    // SAFETY: helpers whose results the verifier knows.
    unsafe { Object::at(bpf_task_pt_regs(bpf_get_current_task_btf().cast()) as u64) }
}
