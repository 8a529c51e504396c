//! From kernel hooks to typed records.
//!
//! In: nothing but the running kernel. Out: [`records::Record`]s and [`files::FileEvent`]s in the order in which they
//! happened, and a coverage report. Must never decide which job something belongs to, never block a job, and never hide
//! a loss: what the kernel side could not deliver is counted there and read here.

pub mod btf;
pub mod cgroup;
pub mod coverage;
pub mod files;
pub mod loader;
pub mod offsets;
pub mod privilege;
pub mod records;
pub mod runners;
pub mod sequence;
pub mod tracefs;

use std::{
    error::Error,
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use buildtrail_agent_abi::{Counters, Hook, VariableName};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

use crate::{
    catalog::files::{Anywhere, Target},
    clock::BootTime,
    error::with_causes,
    pipeline::Wishes,
};
use btf::{Btf, VMLINUX};
use coverage::{CoverageReport, HookReport, Tier};
use files::{FileEvent, FileSensor};
use loader::{Loaded, RingSizes};
use records::{Record, What};
use runners::{Look, RunnerSensor};
use sequence::{Gap, Sequences};

/// Records taken from one ring in one go, so that a flood cannot keep the rest waiting.
const MAX_RECORDS: usize = 65_536;
/// The hook that fanotify serves.
const FILE_HOOK: &str = "secret.file";

/// What the kernel reported since the last time.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which they happened.
    pub records: Vec<Record>,
    /// Later than every record that they depend on.
    pub files: Vec<FileEvent>,
    /// Looks into runners, where security functions cannot tell them.
    pub looks: Vec<Look>,
    /// Numbers that records should have had and that never came.
    pub gaps: Vec<Gap>,
    /// Records that could not be decoded.
    pub malformed: u64,
    /// Times that fanotify had no room.
    pub file_overflows: u64,
}

/// All kernel sensors, attached. Dropping it detaches them.
pub struct Sensor {
    loaded: Loaded,
    critical: RingBuf<MapData>,
    bulk: RingBuf<MapData>,
    kernel_log: Option<EbpfLogger<&'static dyn log::Log>>,
    files: Option<FileSensor>,
    runners: Option<RunnerSensor>,
    sequences: Sequences,
    /// What is seen and what is not.
    pub coverage: CoverageReport,
}

impl Sensor {
    /// Attaches everything that this kernel allows. From then on nothing that happens is missed; what was there before
    /// has to be looked up afterwards.
    ///
    /// # Errors
    ///
    /// When the kernel refuses eBPF to this process, exposes no type information, or offers no way to see processes.
    /// Nothing stays attached then.
    pub fn start(
        rings: RingSizes,
        variables: &[VariableName],
        targets: Vec<Target>,
        anywhere: Vec<Anywhere>,
    ) -> Result<Self, SensorError> {
        let resolved = {
            let data = fs::read(VMLINUX).map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied => SensorError::NotPermitted(source.to_string()),
                _ => SensorError::NoBtf { path: VMLINUX, source },
            })?;
            offsets::resolve(&Btf::parse(&data)?)
        };
        let root = cgroup::find();
        let mut loaded = loader::load(&resolved.offsets, rings, variables, root.as_ref())?;
        let watch = loaded.take_watch()?;
        let (files, report) = match FileSensor::start(targets, anywhere, Some(watch)) {
            Ok(files) => {
                let detail = format!("fanotify inode marks on {} files", files.watched());
                (Some(files), HookReport::served(FILE_HOOK, Tier::B, &detail))
            }
            Err(error) => (None, HookReport::uncovered(FILE_HOOK, format!("fanotify: {error}"))),
        };
        let mut hooks = loaded.hooks.clone();
        hooks.push(report);
        let coverage = CoverageReport::new(hooks, &resolved.missing);
        for hook in [Hook::Fork, Hook::Exec, Hook::Exit] {
            if !coverage.serves(hook.name()) {
                return Err(SensorError::NoProcessHooks(coverage.detail(hook.name())));
            }
        }
        let runners = (!coverage.serves_at_tier_a(Hook::Memory.name())).then(RunnerSensor::new);
        let runners = runners.and_then(|runners| {
            runners.inspect_err(|error| warn!(%error, "looks into runners cannot be seen")).ok()
        });
        return_unused_memory();
        let kernel_log = loaded.kernel_log();
        Ok(Self {
            critical: loaded.take_critical()?,
            bulk: loaded.take_bulk()?,
            loaded,
            kernel_log,
            files,
            runners,
            sequences: Sequences::default(),
            coverage,
        })
    }

    /// Waits until the kernel has something to report, `wake` becomes readable, or the time is over.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to wait.
    pub fn wait(&self, wake: BorrowedFd<'_>, timeout: Duration) -> Result<(), SensorError> {
        // SAFETY: the rings outlive the borrowed descriptors.
        let rings = unsafe {
            [BorrowedFd::borrow_raw(self.critical.as_raw_fd()), BorrowedFd::borrow_raw(self.bulk.as_raw_fd())]
        };
        let mut descriptors = vec![wake, rings[0], rings[1]];
        if let Some(files) = &self.files {
            descriptors.extend([files.events_fd(), files.changes_fd()]);
            descriptors.extend(files.changed_fd());
        }
        descriptors.extend(self.runners.as_ref().map(RunnerSensor::descriptor));
        let mut polled: Vec<PollFd<'_>> =
            descriptors.into_iter().map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => {
                Err(SensorError::System { what: "cannot wait for the kernel", source: error.into() })
            }
        }
    }

    /// Takes what waits. Sources are read in the order that lets a record find its process: files, then connections,
    /// then processes; the records of both rings are then put in the order of their times.
    pub fn drain(&mut self) -> Batch {
        let mut batch = Batch::default();
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
        if let Some(files) = &mut self.files {
            match files.read() {
                Ok(read) => {
                    batch.files = read.events;
                    batch.file_overflows = read.overflows;
                }
                Err(error) => warn!(%error, "events about secret files cannot be read"),
            }
        }
        if let Some(runners) = &mut self.runners {
            batch.looks = runners.read();
        }
        for ring in [&mut self.bulk, &mut self.critical] {
            for _ in 0..MAX_RECORDS {
                let Some(item) = ring.next() else { break };
                match records::decode(&item) {
                    Ok((record, place)) => {
                        self.sequences.take(place, record.time);
                        batch.records.push(record);
                    }
                    Err(error) => {
                        batch.malformed += 1;
                        warn!(%error, "a record from the kernel cannot be read");
                    }
                }
            }
        }
        batch.records.sort_by_key(|record| record.time);
        self.identify_files(&mut batch);
        batch.gaps = self.sequences.gaps(BootTime::now());
        batch
    }

    /// Turns what the programs reported of files into events, in front of what fanotify reported: the programs see an
    /// access before fanotify does.
    fn identify_files(&mut self, batch: &mut Batch) {
        let (touches, records): (Vec<_>, Vec<_>) = std::mem::take(&mut batch.records)
            .into_iter()
            .partition(|record| matches!(record.what, What::File(_)));
        batch.records = records;
        let Some(files) = &mut self.files else { return };
        let mut events = Vec::new();
        for record in touches {
            if let What::File(touch) = record.what {
                events.extend(files.identify(record.process, record.time, *touch));
            }
        }
        events.append(&mut batch.files);
        batch.files = events;
    }

    /// Watches what the pipeline asks for.
    pub fn follow(&mut self, wishes: Wishes) {
        if let Some(runners) = &mut self.runners {
            wishes.runners.into_iter().for_each(|pid| runners.watch(pid));
            wishes.ended_runners.into_iter().for_each(|pid| runners.forget(pid));
        }
        if let Some(files) = &mut self.files {
            files.watch_relocated(&wishes.relocated);
            wishes.ended_jobs.iter().for_each(|job| files.forget_job(job));
        }
    }

    /// What each hook emitted and lost since load.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the look-up.
    pub fn counters(&self) -> Result<Vec<(Hook, Counters)>, SensorError> {
        self.loaded.counters()
    }
}

/// Loading needs some 30 MB for the kernel's type information; the allocator would keep them.
fn return_unused_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free pages back, touches nothing that is in use (malloc_trim(3)).
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Why the sensor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Not root, or the kernel refuses eBPF.
    #[error(
        "not permitted to load eBPF programs: run the agent as root, with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN ({0})"
    )]
    NotPermitted(String),
    /// The kernel exposes no type information.
    #[error(
        "this kernel exposes no type information at {path}: a kernel built with CONFIG_DEBUG_INFO_BTF is needed ({source})"
    )]
    NoBtf {
        /// Where it should be.
        path: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The type information is unreadable.
    #[error("the kernel's type information is unreadable: {0}")]
    Btf(#[from] btf::BtfError),
    /// The eBPF object was refused as a whole.
    #[error("the eBPF object cannot be loaded: {0}")]
    Load(String),
    /// Without process hooks nothing can be tied to a job.
    #[error("no way to see processes on this kernel, so nothing can be tied to a job: {0}")]
    NoProcessHooks(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl SensorError {
    fn from_load(error: &aya::EbpfError) -> Self {
        let refused = |cause: &(dyn Error + 'static)| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
        };
        let permission = std::iter::successors(error.source(), |&cause| cause.source()).any(refused);
        let text = with_causes(error);
        if permission { Self::NotPermitted(text) } else { Self::Load(text) }
    }
}
