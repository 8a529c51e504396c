//! The two ring buffers, and when they are looked at.
//!
//! In: the programs' rings. Out: records, as bytes. A record wakes the agent after a pause, or when much waits; in between
//! the agent looks by itself, so that what comes together is taken together: waking costs more than a record. Must never
//! let a record wait longer than [`LONGEST`].

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    time::Duration,
};

use aya::maps::{Array, Map, MapData, MapError, RingBuf};
use buildtrail_agent_abi::{Reader, wake_mark};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use tracing::warn;

use super::{SensorError, loader::RingSizes};

/// How long records wait for others while the agent is busy.
const TOGETHER: Duration = Duration::from_millis(20);
/// A record that comes in the moment in which the agent falls asleep may not wake it. It is found by then.
const LONGEST: Duration = Duration::from_millis(500);
/// Records taken from one ring in one go, so that a flood cannot keep the rest waiting.
const MAX_RECORDS: usize = 65_536;

/// The rings.
pub struct Rings {
    critical: RingBuf<MapData>,
    bulk: RingBuf<MapData>,
    reader: Array<MapData, PodReader>,
    mark: u64,
    /// Tells each waking once, unlike the rings themselves, which are readable as long as anything waits.
    woken: Epoll,
    /// Looks in a row at which nothing was there.
    quiet: u32,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodReader(Reader);

// SAFETY: repr(C) of u64 only, without padding; any bytes are a valid value.
unsafe impl aya::Pod for PodReader {}

impl std::fmt::Debug for Rings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rings").field("quiet", &self.quiet).finish_non_exhaustive()
    }
}

impl Rings {
    /// Takes over the programs' rings, and how they wake.
    ///
    /// # Errors
    ///
    /// When a map is not what the programs declare, or the kernel refuses to wait.
    pub fn new(critical: Map, bulk: Map, reader: Map, sizes: RingSizes) -> Result<Self, SensorError> {
        let not_declared = |error: MapError| SensorError::Load(error.to_string());
        let refused =
            |error: nix::Error| SensorError::System { what: "cannot wait for rings", source: error.into() };
        let critical = RingBuf::try_from(critical).map_err(not_declared)?;
        let bulk = RingBuf::try_from(bulk).map_err(not_declared)?;
        let woken = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(refused)?;
        for ring in [critical.as_raw_fd(), bulk.as_raw_fd()] {
            // SAFETY: the rings outlive this borrow.
            let ring = unsafe { BorrowedFd::borrow_raw(ring) };
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
            woken.add(ring, event).map_err(refused)?;
        }
        let reader = Array::try_from(reader).map_err(not_declared)?;
        let mark = wake_mark(sizes.critical.min(sizes.bulk));
        let mut rings = Self { critical, bulk, reader, mark, woken, quiet: 0 };
        rings.say(Reader { sleeping: 0, mark });
        Ok(rings)
    }

    /// Waits until records should be taken, one of `others` becomes readable, or the time is over.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to wait.
    pub fn wait(&mut self, others: Vec<BorrowedFd<'_>>, timeout: Duration) -> nix::Result<()> {
        let longest = if self.quiet == 0 {
            TOGETHER
        } else {
            self.say(Reader { sleeping: 1, mark: self.mark });
            // The first time only for a moment, for a record that was made before the programs knew.
            if self.quiet == 1 { TOGETHER } else { LONGEST }
        };
        let timeout = PollTimeout::try_from(timeout.min(longest)).unwrap_or(PollTimeout::MAX);
        let descriptors = others.into_iter().chain([self.woken.0.as_fd()]);
        let mut polled: Vec<PollFd<'_>> =
            descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        let mut taken = [EpollEvent::empty(); 2];
        match self.woken.wait(&mut taken, EpollTimeout::ZERO) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands over what waits: first of the ring whose records depend on the other's.
    pub fn take(&mut self, mut each: impl FnMut(&[u8])) {
        let mut any = false;
        for ring in [&mut self.bulk, &mut self.critical] {
            for _ in 0..MAX_RECORDS {
                let Some(record) = ring.next() else { break };
                each(&record);
                any = true;
            }
        }
        self.quiet = if any { 0 } else { self.quiet.saturating_add(1) };
    }

    fn say(&mut self, reader: Reader) {
        if let Err(error) = self.reader.set(0, PodReader(reader), 0) {
            warn!(%error, "the programs cannot be told when to wake the agent");
        }
    }
}
