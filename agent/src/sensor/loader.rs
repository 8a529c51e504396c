//! Loads and attaches the eBPF programs, hook by hook, at the best tier that this kernel allows.
//!
//! In: the embedded object, offsets for this kernel. Out: attached programs and an honest account of what each hook got.
//! A tier is chosen by loading the real program, never by the kernel's version. Dropping [`Loaded`] detaches everything,
//! unless it is pinned.

use std::{collections::HashMap, os::fd::AsFd as _};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap as BpfHashMap, Map, PerCpuArray},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSock, CgroupSockAddr, FEntry, Program, ProgramError, TracePoint,
        links::{FdLink, LinkError},
        tp_btf::BtfTracePoint,
    },
};
use aya_log::EbpfLogger;
use buildtrail_agent_abi::{Counters, Hook, Offsets, RunnerName, VariableName};
use tracing::{debug, warn};

use super::{
    SensorError,
    cgroup::CgroupRoot,
    coverage::{HookReport, Tier},
    files::KernelWatch,
    members::{self, KernelMembers},
    object,
    pins::{Adopted, Generation, LinkName, Pins, PinsError, Predecessor, Unfinished},
    plan::{Attach, Candidate, PLAN},
    prototypes::Differing,
    rings::Rings,
};
use crate::error::with_causes;

/// Sizes of the ring buffers in bytes; powers of two, at least one page.
#[derive(Clone, Copy, Debug)]
pub struct RingSizes {
    /// Processes and credentials.
    pub critical: u32,
    /// Connections and DNS.
    pub bulk: u32,
}

/// What the programs look up.
#[derive(Clone, Copy, Debug)]
pub struct Lookups<'a> {
    /// Variables whose values may leave the kernel.
    pub variables: &'a [VariableName],
    /// What the executables of runners are called.
    pub runner_names: &'a [RunnerName],
}

/// What is tried at all.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// No better tier.
    pub highest: Tier,
    /// Hooks whose prototype is another one in this kernel, and what it is.
    pub refused: &'a Differing,
}

/// Attached programs. Dropping it detaches them, unless they are pinned.
pub struct Loaded {
    /// Absent when the programs of an earlier agent were taken over.
    ebpf: Option<Ebpf>,
    maps: HashMap<String, Map>,
    /// What each hook got.
    pub hooks: Vec<HookReport>,
    /// The programs are those that an earlier agent loaded.
    pub adopted: bool,
    /// Why the programs cannot be kept attached although the operator wants it.
    pub not_pinned: Option<PinsError>,
}

/// The maps that the agent uses; the others live as long as the programs.
const MAPS: [&str; 13] = [
    "CRITICAL",
    "BULK",
    "READER",
    "COUNTERS",
    "REPORTED",
    "IDENTITY_VARIABLES",
    "WATCH_FILTER",
    "WATCHED_FILES",
    "WATCHED_NAMES",
    "AGENT",
    "RUNNER_NAMES",
    "RUNNERS",
    "MEMBERS",
];

/// Loads and attaches what this kernel allows.
///
/// # Errors
///
/// [`SensorError::NotPermitted`] when the kernel refuses eBPF to this process, [`SensorError::Load`] when the object as a
/// whole cannot be loaded. A hook that cannot be served is not an error but a [`HookReport`].
pub fn load(
    offsets: &Offsets,
    rings: RingSizes,
    lookups: &Lookups<'_>,
    allowed: Allowed<'_>,
    cgroup: Result<&CgroupRoot, &String>,
    pins: Option<&Pins>,
    predecessors: &[Predecessor],
) -> Result<Loaded, SensorError> {
    if let Some(adopted) = pins.and_then(Pins::adopt) {
        let mut loaded = take_over(adopted);
        loaded.prepare(lookups)?;
        return Ok(loaded);
    }
    let (mut ebpf, btf, mut loaded) = open(offsets, rings)?;
    loaded.prepare(lookups)?;
    // Before the first program runs: the children of those who are known already inherit from the first moment on.
    loaded.inherit_lineage(predecessors);
    loaded.attach_all(&mut ebpf, allowed, &btf, cgroup, pins);
    loaded.ebpf = Some(ebpf);
    Ok(loaded)
}

/// What the programs, their maps and their records depend on.
#[must_use]
pub fn generation(offsets: &Offsets, rings: RingSizes, highest: Tier) -> Generation {
    let sizes = [rings.critical.to_le_bytes(), rings.bulk.to_le_bytes()].concat();
    Generation::new(
        &[buildtrail_agent_abi::LAYOUT.as_bytes()],
        &[object::choose(), &sizes, &offset_bytes(offsets), &[highest as u8]],
    )
}

/// Programs that are attached and pinned already.
fn take_over(adopted: Adopted) -> Loaded {
    let serves = |hook: Hook| adopted.links.iter().find(|link| link.hook == hook as u16);
    let hooks = PLAN.iter().map(|(hook, candidates)| {
        let candidate = serves(*hook).and_then(|link| candidates.get(link.candidate));
        match candidate {
            Some(candidate) => HookReport::served(hook.name(), candidate.tier, candidate.served_by),
            None => HookReport::uncovered(
                hook.name(),
                "the agent that loaded the programs could not attach it".to_owned(),
            ),
        }
    });
    Loaded { hooks: hooks.collect(), ebpf: None, maps: adopted.maps, adopted: true, not_pinned: None }
}

/// The programs, not yet loaded, and their maps.
fn open(offsets: &Offsets, rings: RingSizes) -> Result<(Ebpf, Btf, Loaded), SensorError> {
    let btf = Btf::from_sys_fs().map_err(|error| SensorError::Load(error.to_string()))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("OFFSETS", offset_bytes(offsets).as_slice(), true)
        .map_max_entries("CRITICAL", rings.critical)
        .map_max_entries("BULK", rings.bulk)
        .load(object::choose())
        .map_err(|error| SensorError::from_load(&error))?;
    let mut maps = HashMap::new();
    for name in MAPS {
        let map = ebpf.take_map(name).ok_or_else(|| missing(name))?;
        maps.insert(name.to_owned(), map);
    }
    let loaded = Loaded { ebpf: None, maps, hooks: Vec::new(), adopted: false, not_pinned: None };
    Ok((ebpf, btf, loaded))
}

/// Who descends from runners, as earlier agents' programs know it.
fn inherit_lineage(maps: &mut HashMap<String, Map>, predecessors: &[Predecessor]) {
    let (Some(mut runners), Some(mut members)) = (maps.remove("RUNNERS"), maps.remove("MEMBERS")) else {
        return;
    };
    for predecessor in predecessors {
        if let Err(error) = members::inherit(predecessor, &mut runners, &mut members) {
            warn!(error, "running jobs of an earlier build cannot all be taken over");
        }
    }
    maps.insert("RUNNERS".to_owned(), runners);
    maps.insert("MEMBERS".to_owned(), members);
}

fn missing(map: &str) -> SensorError {
    SensorError::Load(format!("map {map} is missing"))
}

/// An error of the library as one of the sensor.
#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn refused(error: aya::maps::MapError) -> SensorError {
    SensorError::Load(error.to_string())
}

impl Loaded {
    /// Serves every hook as well as this kernel lets it.
    fn attach_all(
        &mut self,
        ebpf: &mut Ebpf,
        allowed: Allowed<'_>,
        btf: &Btf,
        cgroup: Result<&CgroupRoot, &String>,
        pins: Option<&Pins>,
    ) {
        let mut unfinished = match pins.map(Pins::begin).transpose() {
            Ok(unfinished) => unfinished,
            Err(error) => {
                self.not_pinned = Some(error);
                None
            }
        };
        self.hooks = PLAN
            .iter()
            .map(|(hook, candidates)| serve(ebpf, *hook, candidates, allowed, btf, cgroup, &mut unfinished))
            .collect();
        if let Some(unfinished) = unfinished {
            self.not_pinned = unfinished.finish(&self.maps).err();
        }
    }

    /// Fills the maps that the programs look things up in.
    fn prepare(&mut self, lookups: &Lookups<'_>) -> Result<(), SensorError> {
        self.fill("IDENTITY_VARIABLES", lookups.variables)?;
        self.fill("RUNNER_NAMES", lookups.runner_names)?;
        self.declare_agent()
    }

    /// The rings, of these sizes. Can be taken once.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when one is gone or not a ring buffer.
    pub fn take_rings(&mut self, sizes: RingSizes) -> Result<Rings, SensorError> {
        Rings::new(self.take_map("CRITICAL")?, self.take_map("BULK")?, self.take_map("READER")?, sizes)
    }

    /// What the programs themselves say, for the agent's log. `None` when that cannot be read, which loses no event;
    /// programs that were taken over say nothing.
    pub(super) fn kernel_log(&mut self) -> Option<EbpfLogger<&'static dyn log::Log>> {
        EbpfLogger::init(self.ebpf.as_mut()?)
            .inspect_err(|error| warn!(%error, "messages of the eBPF programs cannot be read"))
            .ok()
    }

    /// Takes over who descends from runners. Call it again when the earlier programs are detached.
    pub fn inherit_lineage(&mut self, predecessors: &[Predecessor]) {
        inherit_lineage(&mut self.maps, predecessors);
    }

    /// The maps that say which files to report. Can be taken once.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when one is gone or not what it should be.
    pub fn take_watch(&mut self) -> Result<KernelWatch, SensorError> {
        let (filter, files, names) = (
            self.take_map("WATCH_FILTER")?,
            self.take_map("WATCHED_FILES")?,
            self.take_map("WATCHED_NAMES")?,
        );
        KernelWatch::new(filter, files, names).map_err(refused)
    }

    /// Who descends from runners. Can be taken once.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when a map is gone or not what it should be.
    pub fn take_members(&mut self) -> Result<KernelMembers, SensorError> {
        let (runners, members) = (self.take_map("RUNNERS")?, self.take_map("MEMBERS")?);
        KernelMembers::new(runners, members).map_err(refused)
    }

    fn take_map(&mut self, name: &str) -> Result<Map, SensorError> {
        self.maps.remove(name).ok_or_else(|| missing(name))
    }

    fn fill<K: aya::Pod>(&mut self, name: &str, keys: &[K]) -> Result<(), SensorError> {
        let map = self.maps.get_mut(name).ok_or_else(|| missing(name))?;
        let mut map: BpfHashMap<_, K, u8> = BpfHashMap::try_from(map).map_err(refused)?;
        for key in keys {
            map.insert(key, 1, 0).map_err(refused)?;
        }
        Ok(())
    }

    /// The programs leave this process out.
    fn declare_agent(&mut self) -> Result<(), SensorError> {
        let map = self.maps.get_mut("AGENT").ok_or_else(|| missing("AGENT"))?;
        let mut map: Array<_, u32> = Array::try_from(map).map_err(refused)?;
        map.set(0, std::process::id(), 0).map_err(refused)
    }

    /// What an earlier agent has reported of the losses that the counters hold.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when the kernel refuses the look-up.
    pub fn reported(&self) -> Result<Vec<Counters>, SensorError> {
        let map = self.maps.get("REPORTED").ok_or_else(|| missing("REPORTED"))?;
        let map: Array<_, PodCounters> = Array::try_from(map).map_err(refused)?;
        let of = |hook: Hook| map.get(&u32::from(hook as u16), 0).map(|PodCounters(counters)| counters);
        Hook::ALL.into_iter().map(|hook| of(hook).map_err(refused)).collect()
    }

    /// Notes for the agent that comes after this one what has been reported.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when the kernel refuses.
    pub fn set_reported(&mut self, counters: &[(Hook, Counters)]) -> Result<(), SensorError> {
        let map = self.maps.get_mut("REPORTED").ok_or_else(|| missing("REPORTED"))?;
        let mut map: Array<_, PodCounters> = Array::try_from(map).map_err(refused)?;
        for (hook, counters) in counters {
            map.set(u32::from(*hook as u16), PodCounters(*counters), 0).map_err(refused)?;
        }
        Ok(())
    }

    /// Counters of each hook since load, summed over CPUs.
    ///
    /// # Errors
    ///
    /// [`SensorError::Load`] when the kernel refuses the look-up.
    pub fn counters(&self) -> Result<Vec<(Hook, Counters)>, SensorError> {
        let map = self.maps.get("COUNTERS").ok_or_else(|| missing("COUNTERS"))?;
        let map: PerCpuArray<_, PodCounters> = PerCpuArray::try_from(map).map_err(refused)?;
        Hook::ALL
            .into_iter()
            .map(|hook| {
                let values = map.get(&u32::from(hook as u16), 0).map_err(refused)?;
                Ok((hook, values.iter().fold(Counters::default(), |sum, PodCounters(one)| add(sum, *one))))
            })
            .collect()
    }
}

fn add(left: Counters, right: Counters) -> Counters {
    Counters {
        happened: left.happened + right.happened,
        emitted: left.emitted + right.emitted,
        lost_ring_full: left.lost_ring_full + right.lost_ring_full,
        lost_no_slot: left.lost_no_slot + right.lost_no_slot,
        lost_unreadable: left.lost_unreadable + right.lost_unreadable,
    }
}

/// What was counted after `base`.
pub(super) fn subtract(now: Counters, base: Counters) -> Counters {
    Counters {
        happened: now.happened.saturating_sub(base.happened),
        emitted: now.emitted.saturating_sub(base.emitted),
        lost_ring_full: now.lost_ring_full.saturating_sub(base.lost_ring_full),
        lost_no_slot: now.lost_no_slot.saturating_sub(base.lost_no_slot),
        lost_unreadable: now.lost_unreadable.saturating_sub(base.lost_unreadable),
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodCounters(Counters);

// SAFETY: repr(C) of u64 only, without padding; any bytes are a valid value.
unsafe impl aya::Pod for PodCounters {}

/// The offsets as the programs' read-only data has them.
fn offset_bytes(offsets: &Offsets) -> [u8; size_of::<Offsets>()] {
    // SAFETY: repr(C) of u32 members only, so there is no padding.
    unsafe { std::mem::transmute(*offsets) }
}

fn serve(
    ebpf: &mut Ebpf,
    hook: Hook,
    candidates: &[Candidate],
    allowed: Allowed<'_>,
    btf: &Btf,
    cgroup: Result<&CgroupRoot, &String>,
    pins: &mut Option<Unfinished>,
) -> HookReport {
    let mut reasons = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let mut keep = Keep { pins: pins.as_mut(), name: LinkName { hook: hook as u16, candidate: index } };
        let tried =
            allowed.check(candidate).and_then(|()| try_candidate(ebpf, candidate, btf, cgroup, &mut keep));
        match tried {
            Ok(()) => return HookReport::served(hook.name(), candidate.tier, candidate.served_by),
            Err(reason) => {
                debug!(hook = hook.name(), candidate = candidate.served_by, %reason, "a way to serve a hook is refused");
                reasons.push(format!("{}: {reason}", candidate.served_by));
            }
        }
    }
    HookReport::uncovered(hook.name(), reasons.join("; "))
}

impl Allowed<'_> {
    fn check(&self, candidate: &Candidate) -> Result<(), String> {
        if candidate.tier == Tier::A && self.highest != Tier::A {
            return Err("left out by sensor.highest_tier in the settings".to_owned());
        }
        let (Attach::Function(target) | Attach::BtfTracepoint(target)) = candidate.attach else {
            return Ok(());
        };
        self.refused
            .get(target)
            .map_or(Ok(()), |found| Err(format!("its prototype is another one here: {found}")))
    }
}

/// Where links go: to the pins, or nowhere, so that they stay with their programs.
struct Keep<'a> {
    pins: Option<&'a mut Unfinished>,
    name: LinkName,
}

impl Keep<'_> {
    fn link(&mut self, take: impl FnOnce() -> Result<FdLink, String>) -> Result<(), String> {
        let Some(pins) = &mut self.pins else { return Ok(()) };
        pins.keep(self.name, take()?).map_err(|error| error.to_string())
    }
}

fn try_candidate(
    ebpf: &mut Ebpf,
    candidate: &Candidate,
    btf: &Btf,
    cgroup: Result<&CgroupRoot, &String>,
    keep: &mut Keep<'_>,
) -> Result<(), String> {
    let program = ebpf.program_mut(candidate.program).ok_or("the object has no such program")?;
    attach(program, candidate.attach, btf, cgroup, keep)?;
    let instructions = program.info().ok().and_then(|info| info.verified_instruction_count());
    debug!(program = candidate.program, instructions, "program verified");
    Ok(())
}

fn attach(
    program: &mut Program,
    how: Attach,
    btf: &Btf,
    cgroup: Result<&CgroupRoot, &String>,
    keep: &mut Keep<'_>,
) -> Result<(), String> {
    match how {
        Attach::BtfTracepoint(name) => {
            let program: &mut BtfTracePoint = program.try_into().map_err(brief)?;
            program.load(name, btf).map_err(brief)?;
            let link = program.attach().map_err(brief)?;
            keep.link(|| program.take_link(link).map(FdLink::from).map_err(brief))
        }
        Attach::Function(name) => {
            let program: &mut FEntry = program.try_into().map_err(brief)?;
            program.load(name, btf).map_err(brief)?;
            let link = program.attach().map_err(brief)?;
            keep.link(|| program.take_link(link).map(FdLink::from).map_err(brief))
        }
        Attach::SystemCalls(names) => {
            let program: &mut TracePoint = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            for name in names {
                let link = program.attach("syscalls", &format!("sys_exit_{name}")).map_err(brief)?;
                keep.link(|| into_fd(program.take_link(link).map_err(brief)?))?;
            }
            Ok(())
        }
        Attach::CgroupAddress => {
            let program: &mut CgroupSockAddr = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            let root = cgroup.map_err(Clone::clone)?;
            // A link's programs always run beside those of others (kernel/bpf/cgroup.c, `cgroup_bpf_link_attach`).
            let link = program.attach(root.as_fd(), CgroupAttachMode::Single).map_err(brief)?;
            keep.link(|| into_fd(program.take_link(link).map_err(brief)?))
        }
        Attach::CgroupSocket => {
            let program: &mut CgroupSock = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            let root = cgroup.map_err(Clone::clone)?;
            let link = program.attach(root.as_fd(), CgroupAttachMode::Single).map_err(brief)?;
            keep.link(|| into_fd(program.take_link(link).map_err(brief)?))
        }
        Attach::CgroupPackets(direction) => {
            let program: &mut CgroupSkb = program.try_into().map_err(brief)?;
            program.load().map_err(brief)?;
            let root = cgroup.map_err(Clone::clone)?;
            let link = program.attach(root.as_fd(), direction, CgroupAttachMode::Single).map_err(brief)?;
            keep.link(|| into_fd(program.take_link(link).map_err(brief)?))
        }
    }
}

/// Kernels before 5.15 have no links for tracepoints.
fn into_fd<L: TryInto<FdLink, Error = LinkError>>(link: L) -> Result<FdLink, String> {
    link.try_into().map_err(|error| error.to_string())
}

/// An error in one line: the verifier's log goes to debug output.
#[expect(clippy::needless_pass_by_value, reason = "used as map_err's function")]
fn brief(error: ProgramError) -> String {
    debug!(%error, "program refused");
    match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let statistics = ["processed ", "verification time ", "stack depth ", "subprog "];
            let says_why = |line: &&str| {
                !line.trim().is_empty() && !statistics.iter().any(|start| line.starts_with(start))
            };
            let last = log.lines().rev().find(says_why);
            last.map_or_else(|| io_error.to_string(), |line| format!("{io_error} ({})", line.trim()))
        }
        other => with_causes(other),
    }
}
