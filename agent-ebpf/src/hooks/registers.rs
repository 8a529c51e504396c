//! The registers with which the current thread entered the kernel. The only place that knows x86-64.
//!
//! They are the kernel's copy, which the thread's process cannot change meanwhile.

use buildtrail_agent_abi::Offsets;

use crate::kread::Object;

/// The registers of the current thread, as the verifier knows them.
#[cfg(not(feature = "before-5-12"))]
#[inline(always)]
fn current() -> Object {
    use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
    // SAFETY: helpers whose results the verifier knows.
    unsafe { Object::at(bpf_task_pt_regs(bpf_get_current_task_btf().cast()) as u64) }
}

/// The registers of the current thread, which lie at the end of its kernel stack (arch/x86/include/asm/processor.h,
/// `task_pt_regs`): the helpers that know the place came with 5.11 and 5.15. Where the segment found there is not one of
/// user space's, the stack has another size (KASAN), and every read of the result fails.
#[cfg(feature = "before-5-12")]
#[inline(always)]
fn current() -> Object {
    const STACK_BYTES: u64 = 16 << 10;
    const REGISTERS_BYTES: u64 = 168;
    const USER_SEGMENTS: [u64; 2] = [0x33, 0x23];
    let nowhere = Object::at(0);
    let Some(stack) = crate::emit::current().read::<u64>(|o| &o.task_stack) else { return nowhere };
    let registers = Object::at(stack.wrapping_add(STACK_BYTES - REGISTERS_BYTES));
    match registers.read::<u64>(|o| &o.regs_segment) {
        Some(segment) if USER_SEGMENTS.contains(&segment) => registers,
        _ => nowhere,
    }
}

#[inline(always)]
fn register(member: impl Fn(&Offsets) -> &u32) -> Option<u64> {
    // SAFETY: the verifier knows the registers.
    unsafe { current().load(member) }
}

/// Number of the system call.
#[inline(always)]
pub fn call() -> Option<u64> {
    register(|o| &o.regs_number)
}

#[inline(always)]
pub fn first_argument() -> Option<u64> {
    register(|o| &o.regs_first_argument)
}

#[inline(always)]
pub fn second_argument() -> Option<u64> {
    register(|o| &o.regs_second_argument)
}

#[inline(always)]
pub fn third_argument() -> Option<u64> {
    register(|o| &o.regs_third_argument)
}
