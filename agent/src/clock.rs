//! The one clock: kernel boot time, and what it is on the wall.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of kernel boot time, as the eBPF programs stamp them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Now. Zero if the kernel refuses the clock, which none does.
    #[must_use]
    pub fn now() -> Self {
        Self(u64::try_from(nanos(ClockId::CLOCK_BOOTTIME)).unwrap_or_default())
    }

    /// Nanoseconds since `earlier`; zero when it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment on the wall clock as it is set now, in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn to_unix_nanos(self) -> i128 {
        nanos(ClockId::CLOCK_REALTIME) - nanos(ClockId::CLOCK_BOOTTIME) + i128::from(self.0)
    }
}

fn nanos(clock: ClockId) -> i128 {
    clock_gettime(clock)
        .map(|time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
        .unwrap_or_default()
}
