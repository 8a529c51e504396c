//! Judges what the agent said of the techniques that ran.

use std::collections::HashMap;

use serde_json::Value;

use crate::{Event, Seen, Technique, Tier, place::ABSENT};

/// What became of one technique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Told, with the right job and step.
    Seen,
    /// Not told, as the table says.
    Gap(&'static str),
    /// Told or not, as the table says.
    Race(bool, &'static str),
    /// This machine has no way to do it.
    Absent(String),
    /// Not as the table says.
    Wrong(String),
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        !matches!(self, Self::Wrong(_))
    }

    /// One word for a matrix.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Seen | Self::Race(true, _) => "yes",
            Self::Gap(_) | Self::Race(false, _) => "gap",
            Self::Absent(_) => "n/a",
            Self::Wrong(_) => "NO",
        }
    }
}

/// How the techniques ended: exit status and words, by name.
pub type Outcomes<'a> = HashMap<&'a str, (i32, &'a str)>;

/// Reads the file `results` (see [`crate::place`]).
#[must_use]
pub fn outcomes(results: &str) -> Outcomes<'_> {
    results
        .lines()
        .filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let (name, status) = (words.next()?, words.next()?.parse().ok()?);
            Some((name, (status, words.next().unwrap_or_default())))
        })
        .collect()
}

/// Judges one technique by everything that the agent said about the job of `repository`, in which each technique was a
/// step of its name.
#[must_use]
pub fn judge(
    technique: &Technique,
    tier: Tier,
    outcomes: &Outcomes<'_>,
    events: &[Value],
    repository: &str,
) -> Verdict {
    match outcomes.get(technique.name) {
        None => return Verdict::Wrong("did not run".to_owned()),
        Some((ABSENT, why)) => return Verdict::Absent((*why).to_owned()),
        Some((0, _)) => {}
        Some((status, why)) => return Verdict::Wrong(format!("failed with {status}: {why}")),
    }
    let own: Vec<&Value> = events
        .iter()
        .filter(|event| event["job"]["repository"] == repository && event["step"]["id"] == technique.name)
        .collect();
    if let Some(event) = own.iter().find(|event| technique.never.iter().any(|never| never.is_told_by(event)))
    {
        return Verdict::Wrong(format!("told what did not happen: {event}"));
    }
    if let Some(event) = misattributed(technique, events, &own) {
        return Verdict::Wrong(format!("told of another step or job: {event}"));
    }
    let missing = |expected: &'static [Event]| {
        expected.iter().find(|expected| !own.iter().any(|event| expected.is_told_by(event)))
    };
    match technique.at(tier) {
        Seen::Told(expected) => match missing(expected) {
            None => Verdict::Seen,
            Some(event) => Verdict::Wrong(format!("missing: {event:?}; told: {}", told(&own))),
        },
        Seen::Race(expected, why) => Verdict::Race(missing(expected).is_none(), why),
        Seen::Gap(why) => {
            let other = match technique.at(if tier == Tier::A { Tier::B } else { Tier::A }) {
                Seen::Told(expected) => expected,
                Seen::Gap(_) | Seen::Race(..) => return Verdict::Gap(why),
            };
            if other.is_empty() || missing(other).is_some() {
                Verdict::Gap(why)
            } else {
                Verdict::Wrong("seen, although the table calls it a gap".to_owned())
            }
        }
    }
}

/// An event about this technique's own secret in another step, or in no job.
fn misattributed<'a>(technique: &Technique, events: &'a [Value], own: &[&Value]) -> Option<&'a Value> {
    let end = format!("/secrets/{}.key", technique.name);
    events.iter().find(|event| {
        event["secret_access"]["path"].as_str().is_some_and(|path| path.ends_with(&end))
            && !own.iter().any(|known| std::ptr::eq(*known, *event))
    })
}

/// What there is instead, without programs and their arguments.
fn told(own: &[&Value]) -> String {
    let bodies =
        ["secret_access", "memory_access", "connection_opened", "connection_closed", "credential_use"];
    let texts = own.iter().flat_map(|event| {
        bodies.iter().filter(|body| !event[**body].is_null()).map(|body| format!("{body} {}", event[*body]))
    });
    texts.collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const REPOSITORY: &str = "acme/evasion";

    fn technique(name: &str) -> &'static Technique {
        crate::techniques().into_iter().find(|technique| technique.name == name).unwrap()
    }

    fn access(step: &str) -> Value {
        json!({
            "job": {"repository": REPOSITORY},
            "step": {"id": step},
            "secret_access": {
                "path": "/x/secrets/open.key",
                "operations": ["OPERATION_OPEN", "OPERATION_READ"],
                "way": "FILE_WAY_OPEN",
            },
        })
    }

    fn verdict(results: &str, events: &[Value]) -> Verdict {
        judge(technique("open"), Tier::A, &outcomes(results), events, REPOSITORY)
    }

    #[test]
    fn what_is_told_in_its_step_is_seen() {
        assert_eq!(verdict("open 0 \n", &[access("open")]), Verdict::Seen);
    }

    #[test]
    fn silence_failure_and_a_wrong_step_are_wrong() {
        for (results, events) in [
            ("", vec![access("open")]),
            ("open 1 no such file\n", vec![access("open")]),
            ("open 0 \n", vec![]),
            ("open 0 \n", vec![access("open"), access("openat")]),
        ] {
            assert!(!verdict(results, &events).is_right(), "{results:?}");
        }
    }

    #[test]
    fn what_a_machine_cannot_do_is_not_judged() {
        assert_eq!(verdict("open 77 no such call\n", &[]), Verdict::Absent("no such call".to_owned()));
    }

    #[test]
    fn a_gap_that_is_none_is_wrong() {
        let told = json!({
            "job": {"repository": REPOSITORY},
            "step": {"id": "proc-mem"},
            "memory_access": {"method": "MEMORY_METHOD_PROC_MEM"},
        });
        let judged = |events: &[Value]| {
            judge(technique("proc-mem"), Tier::B, &outcomes("proc-mem 0 \n"), events, REPOSITORY)
        };
        assert!(matches!(judged(&[]), Verdict::Gap(_)));
        assert!(!judged(&[told]).is_right());
    }
}
