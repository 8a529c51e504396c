//! The eBPF programs of the Buildtrail agent.
//!
//! In: kernel hooks. Out: records (`buildtrail-agent-abi`) in two ring buffers, and a counter for each record that found
//! no room. Must never copy a secret's value: of the environment only names leave, and the values of a fixed list of CI
//! identity variables; of files and connections never the content, except DNS messages, the TLS `ClientHello` and the
//! request line of HTTP's CONNECT.
//!
//! One file per hook family in `hooks`; a program there is a thin shell around a body that any tier can call. Structure
//! members are read through `kread` only.
#![no_std]
#![no_main]
#![allow(internal_features, reason = "atomic.rs: the only atomics there are for this target")]
#![feature(core_intrinsics)]

mod atomic;
mod emit;
mod hooks;
mod kread;
mod maps;
mod slots;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could come here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
