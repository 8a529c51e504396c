//! Who descends from a runner's child: kept in the kernel, so that an agent that starts again finds it as it was.

/// Descendants of runners that can be alive, or ended and not yet noted, at the same time.
pub const MEMBERS: usize = 16_384;

/// Longest name of a runner's executable that is compared.
pub const RUNNER_NAME_BYTES: usize = 48;

/// The name of a runner's executable, padded with zeros, cut so that its last byte is zero.
pub type RunnerName = [u8; RUNNER_NAME_BYTES];

/// Pads a name to the map's key.
#[must_use]
pub fn runner_name(name: &[u8]) -> RunnerName {
    let mut key = [0; RUNNER_NAME_BYTES];
    let used = name.len().min(RUNNER_NAME_BYTES - 1);
    key[..used].copy_from_slice(&name[..used]);
    key
}

/// A process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ProcessKey {
    /// When it started, boot-time nanoseconds.
    pub start_boot_time_ns: u64,
    /// Its number.
    pub tgid: u32,
    /// Zero.
    pub padding: u32,
}

/// Start times of runners are taken in hundredths of a second, as /proc tells them.
const COARSE_START_NS: u64 = 10_000_000;

impl ProcessKey {
    /// The key of a runner.
    #[must_use]
    pub const fn runner(tgid: u32, start_boot_time_ns: u64) -> Self {
        Self::new(tgid, start_boot_time_ns / COARSE_START_NS)
    }

    /// The process with this number that started then.
    #[must_use]
    pub const fn new(tgid: u32, start_boot_time_ns: u64) -> Self {
        Self { start_boot_time_ns, tgid, padding: 0 }
    }
}

const _: () = assert!(size_of::<ProcessKey>() == 16);
