//! The least of `io_uring` that a request needs (`io_uring`(7)).

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, ensure};
use nix::libc;

use crate::call::{absent, checked, own};

/// `IORING_SETUP_SQPOLL`
pub(crate) const SQPOLL: u32 = 2;
/// `IORING_OP_OPENAT`, `_READ`, `_SENDMSG`, `_CONNECT`
pub(crate) const OPENAT: u8 = 18;
pub(crate) const READ: u8 = 22;
pub(crate) const SENDMSG: u8 = 9;
pub(crate) const CONNECT: u8 = 16;
/// `IOSQE_FIXED_FILE`
pub(crate) const FIXED_FILE: u8 = 1;
/// `IOSQE_ASYNC`
pub(crate) const ASYNC: u8 = 16;

/// `struct io_uring_sqe`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Request {
    pub(crate) operation: u8,
    pub(crate) flags: u8,
    pub(crate) priority: u16,
    pub(crate) descriptor: i32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) operation_flags: u32,
    pub(crate) user_data: u64,
    pub(crate) buffer: u16,
    pub(crate) personality: u16,
    pub(crate) file_index: u32,
    pub(crate) rest: [u64; 2],
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Parameters {
    entries: u32,
    completions: u32,
    flags: u32,
    thread_cpu: u32,
    thread_idle: u32,
    features: u32,
    other: u32,
    reserved: [u32; 3],
    submission: [u32; 10],
    completion: [u32; 10],
}

/// A ring of four requests.
#[derive(Debug)]
pub(crate) struct Ring {
    descriptor: OwnedFd,
    parameters: Parameters,
    submissions: *mut u32,
    completions: *mut u32,
    requests: *mut Request,
}

impl Ring {
    /// Sets one up.
    pub(crate) fn new(flags: u32) -> Result<Self> {
        let mut parameters = Parameters { flags, thread_idle: 1000, ..Parameters::default() };
        let made = call!(SYS_io_uring_setup, 4, &raw mut parameters);
        let descriptor = own(made.map_err(|error| absent(format!("io_uring: {error}")))?)?;
        let ring = descriptor.as_raw_fd();
        Ok(Self {
            submissions: map(ring, 0)?,
            completions: map(ring, 0x0800_0000)?,
            requests: map(ring, 0x1000_0000)?.cast(),
            descriptor,
            parameters,
        })
    }

    /// Has room for `count` descriptors of its own.
    pub(crate) fn register_files(&self, count: usize) -> Result<()> {
        let files = vec![-1_i32; count];
        call!(SYS_io_uring_register, self.descriptor.as_raw_fd(), 2, files.as_ptr(), count)?;
        Ok(())
    }

    /// Does one request and waits for its result.
    pub(crate) fn request(&mut self, request: Request) -> Result<i32> {
        let tail = number(self.submissions, self.parameters.submission[1]);
        let index = tail.load(Ordering::Acquire) & 3;
        // SAFETY: the mapping has four requests and as many places in its array; no request is under way.
        unsafe {
            self.requests.add(index as usize).write(request);
            self.submissions
                .byte_add(self.parameters.submission[6] as usize)
                .add(index as usize)
                .write(index);
        }
        tail.fetch_add(1, Ordering::Release);
        // Wakes the kernel's thread where there is one (`IORING_ENTER_SQ_WAKEUP`), and waits (`IORING_ENTER_GETEVENTS`).
        let flags = if self.parameters.flags & SQPOLL == 0 { 1 } else { 3 };
        call!(SYS_io_uring_enter, self.descriptor.as_raw_fd(), 1, 1, flags, 0, 0)?;
        let head = number(self.completions, self.parameters.completion[0]);
        let at = head.load(Ordering::Acquire);
        let newest = number(self.completions, self.parameters.completion[1]).load(Ordering::Acquire);
        ensure!(at != newest, "io_uring has no result");
        let entry = self.parameters.completion[5] as usize + 16 * (at as usize & 7);
        // SAFETY: the entry lies in the mapping; its second half begins with the result.
        let result = unsafe { self.completions.byte_add(entry + 8).cast::<i32>().read() };
        head.fetch_add(1, Ordering::Release);
        if result < 0 {
            return Err(std::io::Error::from_raw_os_error(-result).into());
        }
        Ok(result)
    }
}

/// The kernel's number at this place of a mapping, which lasts as long as the process.
fn number(mapping: *mut u32, offset: u32) -> &'static AtomicU32 {
    // SAFETY: the kernel keeps a 32-bit number there, and this program changes it as an atomic one.
    unsafe { &*mapping.byte_add(offset as usize).cast::<AtomicU32>() }
}

fn map(ring: i32, offset: i64) -> Result<*mut u32> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
    // SAFETY: a new mapping, which lasts as long as the process. Four entries fit a page.
    let address = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, ring, offset) };
    checked(if address == libc::MAP_FAILED { -1 } else { 0 })?;
    Ok(address.cast())
}
