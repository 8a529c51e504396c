//! Judges what one guest said.

use serde_json::Value;

use buildtrail_evasion::{
    Technique, Tier,
    judge::{self, judge, outcomes},
    techniques,
};

use super::{
    Mode,
    boot::{Console, Section},
    degraded,
    facts::FACTS,
    guest::{EVASION, REPOSITORY, VALUE_OF_SECRETS},
    kernels::Kernel,
};

/// Half of what the verifier follows before it refuses a program: the next kernel may count more.
const MOST_INSTRUCTIONS: u64 = 500_000;
/// What every hook is served at today.
const EXPECTED_TIERS: [&str; 2] = ["A", "B"];

/// One kernel's column of the matrix.
#[derive(Debug)]
pub(super) struct Verdict {
    pub kernel: Kernel,
    /// As the kernel calls itself.
    pub release: String,
    /// Tier of each hook.
    pub hooks: Vec<(String, Cell)>,
    /// What holds and what does not.
    pub facts: Vec<(&'static str, Cell)>,
    /// What was seen of each technique.
    pub techniques: Vec<(&'static Technique, judge::Verdict)>,
    /// How many instructions the verifier followed in each program.
    pub programs: Vec<(String, u64)>,
    /// Functions and tracepoints, and how their prototypes compare.
    pub prototypes: Vec<(String, Cell)>,
    /// Sentences about what is wrong.
    pub troubles: Vec<String>,
}

/// One cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    /// As it has to be; what to show.
    Good(String),
    /// Not as it has to be; what to show.
    Bad(String),
    /// Not run.
    Skipped,
}

impl Cell {
    fn yes_or_no(holds: bool) -> Self {
        if holds { Self::Good("yes".to_owned()) } else { Self::Bad("NO".to_owned()) }
    }
}

impl Verdict {
    /// On a kernel that cannot be had.
    pub(super) fn skipped(kernel: Kernel) -> Self {
        let facts = expected().into_iter().map(|name| (name, Cell::Skipped)).collect();
        Self { facts, ..Self::empty(kernel) }
    }

    fn empty(kernel: Kernel) -> Self {
        Self {
            kernel,
            release: String::new(),
            hooks: Vec::new(),
            facts: Vec::new(),
            techniques: Vec::new(),
            programs: Vec::new(),
            prototypes: Vec::new(),
            troubles: Vec::new(),
        }
    }

    /// On what the guest said; on silence, nothing holds.
    pub(super) fn of(kernel: Kernel, mode: Mode, console: &Console) -> Self {
        let release = console.section("release").map(|section| section.text.trim().to_owned());
        let release = release.unwrap_or_else(|| "that did not come up".to_owned());
        let mut verdict = Self { release, ..Self::empty(kernel) };
        verdict.judge_prototypes(console);
        if mode.hooks_only {
            // Nothing else was asked.
        } else {
            verdict.judge_hooks(console, mode);
            verdict.judge_programs(console);
            verdict.judge_events(console);
            let tier = if mode.lsm_off { Tier::B } else { Tier::A };
            verdict.judge_techniques(console, tier);
            degraded::judge(&mut verdict, tier);
        }
        if !console.complete {
            verdict.troubles.push("the guest did not get to its end".to_owned());
        }
        verdict
    }

    fn judge_prototypes(&mut self, console: &Console) {
        let Some(section) = console.section("prototypes") else {
            self.troubles.push("the guest did not compare prototypes".to_owned());
            return;
        };
        for line in section.text.lines() {
            let Some((name, verdict)) = line.split_once(' ') else { continue };
            let cell = match verdict {
                "same" | "missing" => Cell::Good(verdict.to_owned()),
                _ => {
                    self.troubles.push(line.to_owned());
                    Cell::Bad("DIFFERS".to_owned())
                }
            };
            self.prototypes.push((name.to_owned(), cell));
        }
    }

    fn judge_techniques(&mut self, console: &Console, tier: Tier) {
        let text = |name: &str| console.section(name).map_or("", |section| section.text.as_str());
        let outcomes = outcomes(text("results"));
        let events = events_in(text("events"));
        for technique in techniques() {
            let verdict = judge(technique, tier, &outcomes, &events, EVASION);
            if let judge::Verdict::Wrong(why) = &verdict {
                self.troubles.push(format!("{}: {why}", technique.name));
            }
            self.techniques.push((technique, verdict));
        }
    }

    fn judge_hooks(&mut self, console: &Console, mode: Mode) {
        let Some(check) = console.section("check") else { return };
        self.hooks = hooks_in(&check.text, mode.lsm_off);
        if check.status != 0 {
            self.troubles.push(format!("`buildtrail-agent check` ended with {}", check.status));
        }
        if let Some(log) = console.section("check-log").filter(|_| !self.all_hooks_good()) {
            let refusals = log.text.lines().filter(|line| line.contains("refused") || line.contains("ERROR"));
            self.troubles.extend(refusals.map(str::to_owned));
        }
    }

    fn all_hooks_good(&self) -> bool {
        !self.hooks.is_empty() && self.hooks.iter().all(|(_, cell)| matches!(cell, Cell::Good(_)))
    }

    /// The program that the verifier followed longest.
    fn judge_programs(&mut self, console: &Console) {
        let counts = console.section("verifier").map_or("", |section| section.text.as_str());
        self.programs = programs_in(counts);
        let most = self.programs.iter().map(|(_, count)| *count).max();
        let cell = match most {
            None if !self.kernel.counts_instructions() => Cell::Skipped,
            Some(most) if most <= MOST_INSTRUCTIONS => Cell::Good(most.to_string()),
            Some(most) => Cell::Bad(format!("{most}!")),
            None => Cell::Bad("NO".to_owned()),
        };
        self.facts.push((INSTRUCTIONS, cell));
    }

    fn judge_events(&mut self, console: &Console) {
        let empty = Section { status: -1, text: String::new() };
        let section = console.section("events").unwrap_or(&empty);
        let mut events = events_in(&section.text);
        // The other job has its own table.
        events.retain(|event| event["job"]["repository"] != EVASION);
        for fact in &FACTS {
            self.facts.push((fact.name, Cell::yes_or_no(fact.holds(&events))));
        }
        let job = console.section("job").unwrap_or(&empty);
        if job.status != 0 {
            self.troubles.push(format!("the job ended with {}: {}", job.status, job.text.trim()));
        }
        for (name, holds) in [
            (WHOLE_RUN[0], job.status == 0 && has_one_whole_job(&events)),
            (WHOLE_RUN[1], !events.is_empty() && events.iter().all(|event| event["loss"].is_null())),
            (WHOLE_RUN[2], !events.is_empty() && !console.contains(VALUE_OF_SECRETS)),
            (WHOLE_RUN[3], section.status == 0),
        ] {
            self.facts.push((name, Cell::yes_or_no(holds)));
        }
    }
}

/// How long the verifier follows a program, at most.
const INSTRUCTIONS: &str = "most instructions verified of a program";
/// Facts about the run as a whole.
const WHOLE_RUN: [&str; 4] =
    ["one job, from start to end", "nothing lost", "no secret's value in any output", "clean stop"];

/// Names of what is judged.
fn expected() -> Vec<&'static str> {
    std::iter::once(INSTRUCTIONS).chain(FACTS.iter().map(|fact| fact.name)).chain(WHOLE_RUN).collect()
}

fn events_in(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Program and instructions in the agent's log: `… program verified program="x" instructions=1`.
fn programs_in(log: &str) -> Vec<(String, u64)> {
    let value = |line: &str, key: &str| -> Option<String> {
        let rest = &line[line.find(key)? + key.len()..];
        Some(rest.split_whitespace().next()?.trim_matches('"').to_owned())
    };
    log.lines()
        .filter_map(|line| Some((value(line, "program=")?, value(line, "instructions=")?.parse().ok()?)))
        .collect()
}

fn has_one_whole_job(events: &[Value]) -> bool {
    let count = |body: &str| {
        events
            .iter()
            .filter(|event| !event[body].is_null() && event["job"]["repository"] == REPOSITORY)
            .count()
    };
    count("job_started") == 1 && count("job_finished") == 1
}

/// Hook and tier in the table that `buildtrail-agent check` prints.
fn hooks_in(report: &str, without_functions: bool) -> Vec<(String, Cell)> {
    let table = report.lines().skip(1).take_while(|line| !line.is_empty());
    let row = |line: &str| {
        let mut words = line.split_whitespace();
        let (hook, tier) = (words.next()?, words.next()?);
        let expected = EXPECTED_TIERS.contains(&tier) || (without_functions && tier == "-");
        let cell = if expected { Cell::Good } else { Cell::Bad };
        Some((hook.to_owned(), cell(tier.to_owned())))
    };
    table.filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_below_the_expected_tier_is_bad() {
        let report = "hook  tier  served by\nprocess.fork  B  tp_btf/x\nconnect.unix  -  no tracefs\n\nNot seen:\n- a b\n";
        let good = ("process.fork".to_owned(), Cell::Good("B".to_owned()));
        let bad = ("connect.unix".to_owned(), Cell::Bad("-".to_owned()));
        assert_eq!(hooks_in(report, false), [good, bad]);
    }

    #[test]
    fn silence_is_failure() {
        let verdict = Verdict::of(Kernel::V6_1, Mode::default(), &Console::default());
        assert!(verdict.techniques.iter().all(|(_, verdict)| !verdict.is_right()));
        assert_eq!(verdict.facts.len(), expected().len());
        assert!(verdict.facts.iter().all(|(_, cell)| matches!(cell, Cell::Bad(_))), "{:?}", verdict.facts);
    }

    #[test]
    fn instructions_are_read_from_the_agents_log() {
        let log =
            "2026 DEBUG program verified program=\"file_open\" instructions=1234\nDEBUG program refused\n";
        assert_eq!(programs_in(log), [("file_open".to_owned(), 1234)]);
    }
}
