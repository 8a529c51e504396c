//! What single operations cost: the rows of the table that `cargo xtask bench micro` prints.
//!
//! In: a directory that [`prepare`] filled. Out: for each row how often it was done and the processor time that it took, this
//! process's with its children's and, if asked for, another process's (the agent's). Time is what the kernel's scheduler
//! counts; in a guest whose clock counts instructions, those.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    libc,
    sys::resource::{UsageWho, getrusage},
};

use crate::place::SECRET;

/// Secrets in one directory: the agent watches at most 1,024 by one pattern.
const SECRETS_IN_ONE: u32 = 1000;
/// Part of a row that is done first, and not counted.
const WARM_UP: u32 = 10;
/// In which the agent takes what was left of a row.
const SETTLE: Duration = Duration::from_millis(1500);

/// One row.
#[derive(Debug)]
pub struct Row {
    /// The program's argument.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// How often it is done.
    pub count: u32,
    /// In a step of a build job.
    pub in_job: bool,
    run: fn(&Path, u32) -> Result<()>,
    /// What security functions may add, counted in instructions.
    guest: Goal,
    /// What the agent may use in turn, in instructions.
    guest_agent: Option<u32>,
    /// What tracepoints, cgroup hooks and fanotify may add, in nanoseconds.
    native: Goal,
}

/// What the hooks may add to an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    /// So much.
    Most(u32),
    /// So many tenths of a percent of the operation.
    PerMille(u32),
    /// Shown only.
    None,
}

/// Where costs were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// In a guest whose clock counts them, with security functions.
    Instructions,
    /// Of processor time, without security functions.
    Nanoseconds,
}

/// All rows.
pub const ROWS: [Row; 7] = [
    Row {
        guest: Goal::Most(0),
        native: Goal::Most(45),
        ..row("syscall", "any system call", 400_000, false, syscalls)
    },
    Row {
        guest: Goal::Most(350),
        native: Goal::Most(50),
        ..row("open-outside", "ordinary open, outside a job", 40_000, false, opens)
    },
    Row {
        guest: Goal::Most(650),
        native: Goal::Most(100),
        ..row("open-inside", "ordinary open, inside a job", 40_000, true, opens)
    },
    Row {
        guest: Goal::Most(2500),
        guest_agent: Some(6000),
        native: Goal::Most(1300),
        ..row("watched", "watched open, event delivered", 4_000, true, secrets)
    },
    Row {
        guest: Goal::Most(1500),
        guest_agent: Some(8000),
        native: Goal::PerMille(50),
        ..row("connect", "connect cycle, event delivered", 4_000, true, connections)
    },
    row("request", "connection with question and answer", 2_000, true, requests),
    Row {
        guest: Goal::PerMille(15),
        guest_agent: Some(20_000),
        native: Goal::PerMille(20),
        ..row("exec", "fork and exec, event delivered", 400, true, executions)
    },
];

const fn row(
    name: &'static str,
    what: &'static str,
    count: u32,
    in_job: bool,
    run: fn(&Path, u32) -> Result<()>,
) -> Row {
    Row { name, what, count, in_job, run, guest: Goal::None, guest_agent: None, native: Goal::None }
}

/// Names of the rows that are done inside a job, or outside, in one line.
#[must_use]
pub fn names(in_job: bool) -> String {
    let rows = ROWS.iter().filter(|row| row.in_job == in_job);
    rows.map(|row| row.name).collect::<Vec<_>>().join(" ")
}

/// Processor time, in nanoseconds, of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How often it was done.
    pub count: u32,
    /// In the process itself, hooks included.
    pub inline: u64,
    /// In the agent; 0 when there was none.
    pub agent: u64,
}

/// Makes what the rows need.
///
/// # Errors
/// When it cannot be written.
pub fn prepare(directory: &Path) -> Result<()> {
    let watched = ROWS.iter().find(|row| row.name == "watched").map_or(0, |row| row.count);
    for index in 0..watched + watched / WARM_UP {
        let secret = secret(directory, index);
        fs::create_dir_all(secret.parent().context("no directory")?)?;
        fs::write(&secret, SECRET).with_context(|| format!("cannot write {}", secret.display()))?;
    }
    fs::write(plain(directory), "nothing of interest\n").context("cannot write a file")
}

/// Settings that make the secrets known to the agent.
#[must_use]
pub fn settings(directory: &Path) -> String {
    let group = |number: u32| {
        let at = directory.join(format!("secrets-{number}")).display().to_string();
        format!("[[catalog.files]]\nname = \"measured\"\nfamily = \"measured\"\npath = \"{at}/*.key\"\n")
    };
    (0..5).map(group).collect()
}

/// `micro prepare DIRECTORY`, `micro DIRECTORY AGENT ROW…` (agent 0: none), `micro nothing`.
///
/// # Errors
/// When the words say nothing, or it fails.
pub fn act(words: &[&str]) -> Result<()> {
    match words {
        ["nothing"] => Ok(()),
        ["prepare", directory] => prepare(Path::new(directory)),
        [directory, agent, rows @ ..] => {
            let agent = agent.parse().context("expected the number of a process")?;
            for name in rows {
                let row = ROWS.iter().find(|row| row.name == *name);
                let cost =
                    measure(row.with_context(|| format!("no row {name}"))?, Path::new(directory), agent)?;
                writeln!(std::io::stdout(), "{name} {} {} {}", cost.count, cost.inline, cost.agent)?;
            }
            Ok(())
        }
        _ => bail!("usage: micro DIRECTORY AGENT ROW… | micro prepare DIRECTORY"),
    }
}

/// Reads what [`act`] wrote.
#[must_use]
pub fn parse(text: &str) -> Vec<(&'static Row, Cost)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let row = ROWS.iter().find(|row| row.name == name)?;
        let count = words.next()?.parse().ok()?;
        let (inline, agent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((row, Cost { count, inline, agent }))
    };
    text.lines().filter_map(line).collect()
}

/// The table: what was measured without the agent and with it, and the goals. False when one is missed.
#[must_use]
pub fn table(unit: Unit, without: &[(&Row, Cost)], with: &[(&Row, Cost)]) -> (Vec<String>, bool) {
    let mut lines = vec![format!(
        "{:<36} {:>10} {:>9} {:>8} {:>9} {:>9}  goal",
        match unit {
            Unit::Instructions => "instructions for each",
            Unit::Nanoseconds => "ns of processor time for each",
        },
        "base",
        "added",
        "added",
        "agent",
        "measured"
    )];
    let mut reached = true;
    for row in &ROWS {
        let of = |costs: &[(&Row, Cost)]| {
            costs.iter().find(|(known, _)| known.name == row.name).map(|(_, cost)| *cost)
        };
        let (Some(base), Some(agent)) = (of(without), of(with)) else {
            lines.push(format!("{:<36} not measured", row.what));
            reached = false;
            continue;
        };
        let (before, after) = (base.each(base.inline), agent.each(agent.inline));
        let (added, of_agent) = (after - before, agent.each(agent.agent));
        let (goal, agents_goal) = match unit {
            Unit::Instructions => (row.guest, row.guest_agent),
            Unit::Nanoseconds => (row.native, None),
        };
        // The guest's clock ticks now and then; a tenth of a percent is what remains of it.
        let tolerance = before / 1000.0 + 1.0;
        let (goal_text, within) = match goal {
            Goal::Most(most) => (format!("≤ {most}"), added <= f64::from(most) + tolerance),
            Goal::PerMille(most) => {
                let text = format!("≤ {} %", f64::from(most) / 10.0);
                (text, added <= before * f64::from(most) / 1000.0 + tolerance)
            }
            Goal::None => (String::new(), true),
        };
        let agent_within = agents_goal.is_none_or(|most| of_agent <= f64::from(most));
        let agents_text = agents_goal.map(|most| format!(" + {most} in the agent")).unwrap_or_default();
        let verdict = match (goal, within && agent_within) {
            (Goal::None, _) => "",
            (_, true) => "within",
            (_, false) => "MISSES",
        };
        reached &= within && agent_within;
        lines.push(format!(
            "{:<36} {before:>10.0} {added:>+9.0} {:>+7.1}% {of_agent:>9.0} {verdict:>9}  {goal_text}{agents_text}",
            row.what,
            added / before * 100.0
        ));
    }
    (lines, reached)
}

/// The least of each row in several rounds: what else a machine does only adds to it.
#[must_use]
pub fn least(rounds: &[(&'static Row, Cost)]) -> Vec<(&'static Row, Cost)> {
    let of = |row: &'static Row| {
        let costs = rounds.iter().filter(|(known, _)| known.name == row.name).map(|(_, cost)| *cost);
        costs
            .reduce(|a, b| Cost { inline: a.inline.min(b.inline), agent: a.agent.min(b.agent), ..a })
            .map(|cost| (row, cost))
    };
    ROWS.iter().filter_map(of).collect()
}

impl Cost {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn each(&self, time: u64) -> f64 {
        time as f64 / f64::from(self.count)
    }
}

fn measure(row: &Row, directory: &Path, agent: i32) -> Result<Cost> {
    (row.run)(directory, row.count / WARM_UP)?;
    thread::sleep(SETTLE);
    let agents_before = if agent == 0 { 0 } else { time_of(agent)? };
    let before = own_time()?;
    (row.run)(directory, row.count)?;
    let inline = own_time()? - before;
    thread::sleep(SETTLE);
    let agents = if agent == 0 { 0 } else { time_of(agent)? - agents_before };
    Ok(Cost { count: row.count, inline, agent: agents })
}

/// Of this process and the children that it has waited for.
fn own_time() -> Result<u64> {
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let nanoseconds = |time: nix::sys::time::TimeVal| -> Result<u64> {
        Ok(u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_usec() * 1000)?)
    };
    Ok(time_of(0)? + nanoseconds(children.user_time())? + nanoseconds(children.system_time())?)
}

/// What a process has used: a clock of its own (include/linux/posix-timers.h, `make_process_cpuclock`, `CPUCLOCK_SCHED`).
fn time_of(process: i32) -> Result<u64> {
    let clock = if process == 0 { libc::CLOCK_PROCESS_CPUTIME_ID } else { (!process << 3) | 2 };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one such structure.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(result == 0, "process {process} has no clock: {}", std::io::Error::last_os_error());
    Ok(u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec)?)
}

fn plain(directory: &Path) -> PathBuf {
    directory.join("plain")
}

fn secret(directory: &Path, index: u32) -> PathBuf {
    directory.join(format!("secrets-{}/{index}.key", index / SECRETS_IN_ONE))
}

fn syscalls(_directory: &Path, count: u32) -> Result<()> {
    for _ in 0..count {
        call!(SYS_getppid)?;
    }
    Ok(())
}

fn opens(directory: &Path, count: u32) -> Result<()> {
    let path = plain(directory);
    for _ in 0..count {
        File::open(&path)?;
    }
    Ok(())
}

/// Each file once: the agent merges what one process does with one file. The warm-up has files of its own, the last ones.
fn secrets(directory: &Path, count: u32) -> Result<()> {
    let all = ROWS.iter().find(|row| row.name == "watched").map_or(0, |row| row.count);
    let first = if count == all { 0 } else { all };
    for index in first..first + count {
        File::open(secret(directory, index))?;
    }
    Ok(())
}

fn connections(_directory: &Path, count: u32) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    for _ in 0..count {
        let client = TcpStream::connect(address)?;
        let server = listener.accept()?;
        drop((client, server));
    }
    Ok(())
}

fn requests(_directory: &Path, count: u32) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (question, answer) = ([b'?'; 512], [b'!'; 4096]);
    for _ in 0..count {
        let mut client = TcpStream::connect(address)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(&question)?;
        std::io::Read::read_exact(&mut server, &mut [0; 512])?;
        server.write_all(&answer)?;
        std::io::Read::read_exact(&mut client, &mut [0; 4096])?;
    }
    Ok(())
}

fn executions(_directory: &Path, count: u32) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    for _ in 0..count {
        let status = Command::new(&program).args(["micro", "nothing"]).status()?;
        ensure!(status.success(), "a program that does nothing ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_read_again() {
        let found = parse("open-inside 10 20 30\nno such row 1 2 3\nexec 1 2\n");
        let cost = Cost { count: 10, inline: 20, agent: 30 };
        assert_eq!(
            found.iter().map(|(row, cost)| (row.name, *cost)).collect::<Vec<_>>(),
            [("open-inside", cost)]
        );
    }

    #[test]
    fn the_table_says_what_misses_its_goal() {
        let cost = |inline| Cost { count: 10, inline, agent: 0 };
        let all = |inline| ROWS.iter().map(|row| (row, cost(inline))).collect::<Vec<_>>();
        assert!(table(Unit::Nanoseconds, &all(100_000), &all(100_010)).1);
        assert!(!table(Unit::Nanoseconds, &all(100_000), &all(200_000)).1);
        assert!(!table(Unit::Nanoseconds, &all(100_000), &[]).1, "what was not measured reaches nothing");
        let rounds = [all(7), all(5), all(9)].concat();
        assert!(least(&rounds).iter().all(|(_, least)| *least == cost(5)));
    }

    #[test]
    fn processor_time_only_grows() {
        let before = own_time().unwrap();
        syscalls(Path::new("/"), 1000).unwrap();
        assert!(own_time().unwrap() > before);
    }
}
