//! Whether a process that looks like a runner is one.
//!
//! In: what the kernel says about a process whose program a platform takes for its runner. Out: how far it is believed.
//! Must never believe what a job can make: a process inside a job is no runner, and a unit counts only as the system's own.
//!
//! A runner usually runs as the user of its jobs, and its files are that user's. Then a job can put another program in the
//! runner's place, or have cron start one that looks like it. Neither makes the agent look away, which would be worse: a
//! program that a job wrote is a runner whose word is doubted ([`Standing::Doubtful`]). What remains is a genuine runner
//! program that something outside any job starts for a job; only [`TrustMode::Declared`] with a unit rules that out.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use globset::{Glob, GlobMatcher};

use crate::{
    config::{Runners, TrustMode, TrustedRunner},
    sensor::{files::FileId, records::Users},
};

/// Write permission of everybody.
const WRITABLE_BY_ALL: u32 = 0o002;
/// Write permission of group and everybody.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// How far a process is believed to be a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The operator declared it.
    Declared,
    /// It has the name of a runner, comes from no job, and nothing speaks against it.
    Found,
    /// As [`Self::Found`], but a job could have made or changed its program: what it says is no more than asserted.
    Doubtful,
    /// It is none.
    Refused,
}

/// The program that a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Which file.
    pub file: FileId,
    /// Whose.
    pub owner: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Program {
    fn of(metadata: &Metadata) -> Self {
        Self { file: FileId::of(metadata), owner: metadata.uid(), mode: metadata.mode() }
    }
}

/// A process that may be a runner, as the kernel describes it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its lineage leads to a job.
    pub inside_job: bool,
    /// Whose rights it has.
    pub users: Users,
    /// `None`: it has ended.
    pub program: Option<Program>,
    /// `/proc/PID/cgroup`.
    pub control_groups: Vec<u8>,
    /// A job is known to have written its program.
    pub written_by_job: bool,
}

impl Candidate {
    /// Looks at a process that runs.
    #[must_use]
    pub fn look(pid: u32, users: Users, inside_job: bool) -> Self {
        let program = fs::metadata(format!("/proc/{pid}/exe")).ok();
        Self {
            inside_job,
            users,
            program: program.as_ref().map(Program::of),
            control_groups: fs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default(),
            written_by_job: false,
        }
    }
}

/// What counts as a runner on this host.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    declared_only: bool,
    declared: Vec<Declared>,
}

/// One `[[runners.trusted]]`: everything that it names must be so.
#[derive(Clone, Debug)]
struct Declared {
    unit: Option<GlobMatcher>,
    settings: TrustedRunner,
}

impl Trust {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &Runners) -> Self {
        let declared = settings.trusted.iter().map(|trusted| Declared {
            unit: trusted
                .unit
                .as_deref()
                .and_then(|unit| Glob::new(unit).ok())
                .map(|unit| unit.compile_matcher()),
            settings: trusted.clone(),
        });
        Self { declared_only: settings.trust == TrustMode::Declared, declared: declared.collect() }
    }

    /// How far a process is believed that has the looks of a runner.
    #[must_use]
    pub fn standing(&self, candidate: &Candidate) -> Standing {
        if candidate.inside_job {
            return Standing::Refused;
        }
        if self.declared.iter().any(|declared| declared.matches(candidate)) {
            return if candidate.written_by_job { Standing::Doubtful } else { Standing::Declared };
        }
        let all_may_change = candidate.program.is_some_and(|program| program.mode & WRITABLE_BY_ALL != 0);
        match (self.declared_only, candidate.written_by_job || all_may_change) {
            (true, _) => Standing::Refused,
            (false, true) => Standing::Doubtful,
            (false, false) => Standing::Found,
        }
    }

    /// Whether it is a runner at all.
    #[must_use]
    pub fn is_runner(&self, candidate: &Candidate) -> bool {
        self.standing(candidate) != Standing::Refused
    }
}

impl Declared {
    fn matches(&self, candidate: &Candidate) -> bool {
        let settings = &self.settings;
        let user = settings
            .user
            .is_none_or(|user| candidate.users.real == user && candidate.users.effective == user);
        let unit = match (&settings.unit, &self.unit) {
            (None, _) => true,
            (Some(_), Some(unit)) => {
                system_unit(&candidate.control_groups).is_some_and(|name| unit.is_match(name))
            }
            (Some(_), None) => false,
        };
        user && unit && settings.executable.as_deref().is_none_or(|path| self.runs(path, candidate.program))
    }

    /// Whether the declared file is what runs, and only its owner can change it.
    fn runs(&self, path: &Path, program: Option<Program>) -> bool {
        let (Some(program), Ok(declared)) = (program, fs::metadata(path)) else { return false };
        program.file == FileId::of(&declared)
            && program.owner == self.settings.owner
            && program.mode & WRITABLE_BY_OTHERS == 0
    }
}

/// The unit that systemd, as the system's manager, put a process into. What lies deeper is the unit's own to name: every
/// user's manager is one such unit, and can have units of any name below it.
pub(crate) fn system_unit(control_groups: &[u8]) -> Option<&str> {
    let of_hierarchy = |prefix: &[u8]| {
        control_groups.split(|byte| *byte == b'\n').find_map(|line| {
            let at = line.windows(prefix.len()).position(|window| window == prefix)?;
            let number = line.get(..at)?;
            number.iter().all(u8::is_ascii_digit).then(|| &line[at + prefix.len()..])
        })
    };
    let path = of_hierarchy(b":name=systemd:").or_else(|| of_hierarchy(b"::"))?;
    let unit =
        path.split(|byte| *byte == b'/').find(|part| !part.is_empty() && !part.ends_with(b".slice"))?;
    std::str::from_utf8(unit).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const RUNNER_USER: u32 = 1001;

    fn candidate() -> Candidate {
        Candidate {
            inside_job: false,
            users: Users { real: RUNNER_USER, effective: RUNNER_USER },
            program: None,
            control_groups: b"0::/system.slice/actions.runner.acme.one.service\n".to_vec(),
            written_by_job: false,
        }
    }

    fn declared(trusted: TrustedRunner) -> Trust {
        Trust::new(&Runners { trust: TrustMode::Declared, trusted: vec![trusted], ..Runners::default() })
    }

    #[test]
    fn nothing_inside_a_job_is_a_runner_whatever_is_declared() {
        let inside = Candidate { inside_job: true, ..candidate() };
        let by_user = TrustedRunner { user: Some(RUNNER_USER), ..TrustedRunner::default() };
        for trust in [Trust::default(), declared(by_user)] {
            assert_eq!(trust.standing(&inside), Standing::Refused);
            assert!(trust.is_runner(&candidate()));
        }
    }

    #[test]
    fn a_program_that_a_job_wrote_or_that_all_may_write_is_doubted() {
        let trust = Trust::default();
        assert_eq!(trust.standing(&candidate()), Standing::Found);
        let written = Candidate { written_by_job: true, ..candidate() };
        assert_eq!(trust.standing(&written), Standing::Doubtful);
        let program = Program { file: FileId { device: 1, inode: 1 }, owner: 0, mode: 0o777 };
        let open = Candidate { program: Some(program), ..candidate() };
        assert_eq!(trust.standing(&open), Standing::Doubtful);
    }

    #[test]
    fn a_unit_is_what_the_system_manager_made_of_it() {
        let table: [(&[u8], Option<&str>); 6] = [
            (b"0::/system.slice/actions.runner.a.service\n", Some("actions.runner.a.service")),
            (b"0::/system.slice/a.service/sub\n", Some("a.service")),
            (
                b"0::/user.slice/user-1001.slice/user@1001.service/app.slice/actions.runner.a.service",
                Some("user@1001.service"),
            ),
            (b"5:cpu:/x\n1:name=systemd:/system.slice/b.service\n0::/\n", Some("b.service")),
            (b"0::/\n", None),
            (b"", None),
        ];
        for (text, unit) in table {
            assert_eq!(system_unit(text), unit, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn where_only_declared_runners_count_all_that_is_declared_must_be_so() {
        let unit =
            TrustedRunner { unit: Some("actions.runner.*.service".into()), ..TrustedRunner::default() };
        let trust = declared(unit.clone());
        assert_eq!(trust.standing(&candidate()), Standing::Declared);
        let other_unit =
            Candidate { control_groups: b"0::/system.slice/cron.service".to_vec(), ..candidate() };
        assert_eq!(trust.standing(&other_unit), Standing::Refused);
        let other_user = declared(TrustedRunner { user: Some(0), ..unit });
        assert_eq!(other_user.standing(&candidate()), Standing::Refused);
    }

    #[test]
    fn a_declared_executable_is_the_very_file_and_only_its_owners_to_change() {
        let directory = tempfile::tempdir().unwrap();
        let [path, copy] = ["Runner.Worker", "copy"].map(|name| directory.path().join(name));
        for file in [&path, &copy] {
            fs::write(file, "").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let owner = fs::metadata(&path).unwrap().uid();
        let of = |path: &Path| Candidate {
            program: fs::metadata(path).ok().as_ref().map(Program::of),
            ..candidate()
        };
        let trusted = TrustedRunner { executable: Some(path.clone()), owner, ..TrustedRunner::default() };
        let trust = declared(trusted.clone());
        assert_eq!(trust.standing(&of(&path)), Standing::Declared);
        assert_eq!(trust.standing(&of(&copy)), Standing::Refused);
        assert_eq!(trust.standing(&candidate()), Standing::Refused, "what has ended proves nothing");
        let other_owner = declared(TrustedRunner { owner: owner + 1, ..trusted });
        assert_eq!(other_owner.standing(&of(&path)), Standing::Refused);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o775)).unwrap();
        assert_eq!(trust.standing(&of(&path)), Standing::Refused);
    }
}
