//! From kernel hooks to typed records.
//!
//! In: nothing but the running kernel. Out: [`records::Record`]s and [`files::FileEvent`]s in the order in which they
//! happened, and a coverage report. Must never decide which job something belongs to, never block a job, and never hide
//! a loss: what the kernel side could not deliver is counted there and read here.

pub mod btf;
pub mod cgroup;
pub mod coverage;
pub mod files;
pub mod handover;
pub mod loader;
pub mod members;
pub mod object;
pub mod offsets;
pub mod pins;
mod plan;
pub mod privilege;
pub mod prototypes;
pub mod records;
pub mod rings;
pub mod runners;
pub mod sequence;
pub mod tracefs;
pub mod wishes;
pub mod written;

use std::{error::Error, fs, io, os::fd::BorrowedFd, path::PathBuf, time::Duration};

use aya_log::EbpfLogger;
use buildtrail_agent_abi::{Counters, Hook, RunnerName, VariableName};
use tracing::warn;

use crate::{
    catalog::files::{Anywhere, Target},
    clock::BootTime,
    error::with_causes,
};
use btf::{Btf, VMLINUX};
use coverage::{CoverageReport, HookReport, Tier};
use files::{FileEvent, FileSensor};
use handover::{Inheritance, Overlap};
use loader::{Allowed, Loaded, Lookups, RingSizes};
use members::{KernelMembers, Member};
use pins::{Pins, Predecessor};
use records::{Record, What};
use rings::Rings;
use runners::{Look, RunnerSensor};
use sequence::{Gap, Sequences};
pub use wishes::Wishes;
use written::{Act, WriteSensor};

/// The hook that fanotify serves.
const FILE_HOOK: &str = "secret.file";
/// As well.
const WRITE_HOOK: &str = "file.written";

/// What the kernel reported since the last time.
#[derive(Debug, Default)]
pub struct Batch {
    /// In the order in which they happened.
    pub records: Vec<Record>,
    /// Later than every record that they depend on.
    pub files: Vec<FileEvent>,
    /// Looks into runners, where security functions cannot tell them.
    pub looks: Vec<Look>,
    /// Files that processes wrote, and reads of those that jobs left.
    pub acts: Vec<Act>,
    /// Numbers that records should have had and that never came.
    pub gaps: Vec<Gap>,
    /// Records that could not be decoded.
    pub malformed: u64,
    /// Times that fanotify had no room.
    pub file_overflows: u64,
    /// Times that it had none for files that were written.
    pub act_overflows: u64,
    /// Records of an earlier build that nobody can read any more.
    pub unreadable: u64,
}

/// What is asked of the sensors.
#[derive(Debug)]
pub struct Wanted {
    /// Sizes of the ring buffers.
    pub rings: RingSizes,
    /// Variables whose values may leave the kernel.
    pub variables: Vec<VariableName>,
    /// What the executables of runners are called.
    pub runner_names: Vec<RunnerName>,
    /// Secret files.
    pub targets: Vec<Target>,
    /// Secrets that are known by the end of their path.
    pub anywhere: Vec<Anywhere>,
    /// No hook of a better tier is tried.
    pub highest: Tier,
    /// Whether to watch which files are written.
    pub writes: bool,
    /// Where programs stay attached while no agent runs.
    pub pin_directory: Option<PathBuf>,
}

/// All kernel sensors, attached. Dropping it detaches them.
pub struct Sensor {
    loaded: Loaded,
    rings: Rings,
    kernel_log: Option<EbpfLogger<&'static dyn log::Log>>,
    files: Option<FileSensor>,
    writes: Option<WriteSensor>,
    runners: Option<RunnerSensor>,
    sequences: Sequences,
    members: KernelMembers,
    inheritance: Inheritance,
    overlap: Overlap,
    /// Losses that were reported before this agent, by hook.
    base: Vec<Counters>,
    /// Locked while this agent runs.
    _pins: Option<Pins>,
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
    pub fn start(wanted: Wanted) -> Result<Self, SensorError> {
        let Wanted { rings, variables, runner_names, targets, anywhere, highest, writes, pin_directory } =
            wanted;
        let (resolved, prototypes) = {
            let data = fs::read(VMLINUX).map_err(|source| match source.kind() {
                io::ErrorKind::PermissionDenied => SensorError::NotPermitted(source.to_string()),
                _ => SensorError::NoBtf { path: VMLINUX, source },
            })?;
            let btf = Btf::parse(&data)?;
            (offsets::resolve(&btf), prototypes::differing(&btf))
        };
        let root = cgroup::find();
        let generation = loader::generation(&resolved.offsets, rings, highest);
        let (pins, not_pinned) = match pin_directory.map(|directory| Pins::open(&directory, generation)) {
            Some(Ok(pins)) => (Some(pins), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        let lookups = Lookups { variables: &variables, runner_names: &runner_names };
        let allowed = Allowed { highest, refused: &prototypes };
        let predecessors = pins.as_ref().map(Pins::predecessors).unwrap_or_default();
        let both_from = BootTime::now();
        let mut loaded = loader::load(
            &resolved.offsets,
            rings,
            &lookups,
            allowed,
            root.as_ref(),
            pins.as_ref(),
            &predecessors,
        )?;
        predecessors.iter().for_each(Predecessor::detach);
        loaded.inherit_lineage(&predecessors);
        let mut inheritance = Inheritance::default();
        for predecessor in predecessors {
            inheritance.take_from(predecessor);
        }
        let overlap = Overlap::new(&inheritance.records, both_from, BootTime::now());
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
        let (writes, report) = start_writes(writes);
        hooks.push(report);
        let mut coverage = CoverageReport::new(hooks, &resolved.missing);
        if object::is_degraded() {
            coverage.gaps.push(object::GAP.to_owned());
        }
        if let Some(error) = not_pinned.or_else(|| loaded.not_pinned.take()) {
            warn!(%error, "programs are not kept attached while no agent runs");
            coverage.gaps.push(format!("What happens while the agent is restarted is not seen: {error}"));
        }
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
        let base = if loaded.adopted { loaded.reported()? } else { Vec::new() };
        let sequences = Sequences::new(loaded.adopted);
        Ok(Self {
            members: loaded.take_members()?,
            inheritance,
            overlap,
            base,
            _pins: pins,
            rings: loaded.take_rings(rings)?,
            loaded,
            kernel_log,
            files,
            writes,
            runners,
            sequences,
            coverage,
        })
    }

    /// Waits until the kernel has something to report, `wake` becomes readable, or the time is over.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to wait.
    pub fn wait(&mut self, wake: BorrowedFd<'_>, timeout: Duration) -> Result<(), SensorError> {
        let mut others = vec![wake];
        if let Some(files) = &self.files {
            others.extend([files.events_fd(), files.changes_fd()]);
            others.extend(files.changed_fd());
        }
        others.extend(self.runners.as_ref().map(RunnerSensor::descriptor));
        let refused = |error: nix::Error| SensorError::System {
            what: "cannot wait for the kernel",
            source: error.into(),
        };
        self.rings.wait(others, timeout).map_err(refused)
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
        if let Some(writes) = &mut self.writes {
            match writes.read() {
                Ok(read) => {
                    batch.acts = read.acts;
                    batch.act_overflows = read.overflows;
                }
                Err(error) => warn!(%error, "events about written files cannot be read"),
            }
        }
        if let Some(runners) = &mut self.runners {
            batch.looks = runners.read();
        }
        let inheritance = std::mem::take(&mut self.inheritance);
        batch.unreadable = inheritance.unreadable;
        batch.records = inheritance.records;
        let mut malformed = 0;
        let (sequences, overlap) = (&mut self.sequences, &mut self.overlap);
        self.rings.take(|bytes| match records::decode(bytes) {
            Ok((record, place)) => {
                if !sequences.take(place, record.time) {
                    malformed += 1;
                    warn!(?place, "a record from the kernel has a number that came before");
                }
                if !overlap.is_known(&record) {
                    batch.records.push(record);
                }
            }
            Err(error) => {
                malformed += 1;
                warn!(%error, "a record from the kernel cannot be read");
            }
        });
        batch.malformed = malformed;
        batch.records.sort_by_key(|record| record.time);
        self.identify_files(&mut batch);
        batch.gaps = self.sequences.gaps(BootTime::now());
        batch
    }

    /// Takes what waits for the last time: a number that has not come now never will.
    pub fn drain_at_the_end(&mut self) -> Batch {
        let mut batch = self.drain();
        batch.gaps.extend(self.sequences.gaps(BootTime(u64::MAX)));
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

    /// Watches what the pipeline asks for, and tells the kernel side who is a runner and who has ended.
    pub fn follow(&mut self, wishes: Wishes) {
        for runner in wishes.runners {
            self.members.add_runner(runner);
            if let Some(runners) = &mut self.runners {
                runners.watch(runner.pid);
            }
        }
        for ended in wishes.ended {
            self.members.remove(ended);
            if let Some(runners) = &mut self.runners {
                runners.forget(ended.pid);
            }
        }
        if let Some(files) = &mut self.files {
            files.watch_relocated(&wishes.relocated);
            wishes.ended_jobs.iter().for_each(|job| files.forget_job(job));
        }
        if let Some(writes) = &mut self.writes {
            for place in wishes.places {
                if let Err(error) = writes.watch_system_of(&place) {
                    warn!(%error, place = %place.display(), "what jobs write on this file system is not seen");
                }
            }
            wishes.follow.iter().for_each(|(path, version)| writes.follow(path, version));
            wishes.leave.iter().for_each(|path| writes.leave(path));
        }
    }

    /// What each hook emitted and lost since load, but for what an earlier agent has reported.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the look-up.
    pub fn counters(&self) -> Result<Vec<(Hook, Counters)>, SensorError> {
        let counters = self.loaded.counters()?;
        let none = Counters::default();
        let minus = |(index, (hook, now)): (usize, (Hook, Counters))| {
            let base = self.base.get(index).unwrap_or(&none);
            (hook, loader::subtract(now, *base))
        };
        Ok(counters.into_iter().enumerate().map(minus).collect())
    }

    /// Everything that the counters say now has been reported: the agent that comes after this one begins there.
    pub fn note_reported(&mut self) {
        let noted = self.loaded.counters().and_then(|counters| self.loaded.set_reported(&counters));
        if let Err(error) = noted {
            warn!(%error, "the kernel side cannot note which losses were reported");
        }
    }

    /// Descendants of runners, as an earlier agent's programs know them.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.members.all()
    }
}

fn start_writes(wanted: bool) -> (Option<WriteSensor>, HookReport) {
    if !wanted {
        return (None, HookReport::uncovered(WRITE_HOOK, "settings: sensor.watch_writes is off".to_owned()));
    }
    match WriteSensor::start() {
        Ok(writes) => {
            let detail = format!("fanotify marks on {} file systems", writes.watched());
            (Some(writes), HookReport::served(WRITE_HOOK, Tier::B, &detail))
        }
        Err(error) => (None, HookReport::uncovered(WRITE_HOOK, format!("fanotify: {error}"))),
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
    /// A platform's rule cannot be understood.
    #[error(transparent)]
    Platform(#[from] Box<buildtrail_settings::SettingsError>),
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
