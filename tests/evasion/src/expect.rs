//! How the expected event of a technique is recognised.

use anyhow::Result;
use serde_json::Value;

use crate::place::Place;

/// What a technique is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Secret files.
    Files,
    /// Memory and descriptors of other processes.
    Memory,
    /// Connections and packets.
    Network,
    /// Processes.
    Process,
    /// Credentials in other places than usual.
    Credentials,
}

impl Family {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Memory => "memory",
            Self::Network => "network",
            Self::Process => "process",
            Self::Credentials => "credentials",
        }
    }
}

/// Which hooks the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Security functions too.
    A,
    /// Tracepoints, cgroup hooks and fanotify only.
    B,
}

/// One way to do something that has to be seen.
#[derive(Debug)]
pub struct Technique {
    /// Its name: the step's id, the program's argument.
    pub name: &'static str,
    /// What it is about.
    pub family: Family,
    /// What happens, for people.
    pub what: &'static str,
    /// Does it.
    pub run: fn(&Place) -> Result<()>,
    /// What is seen of it at tier A.
    pub a: Seen,
    /// What is seen of it at tier B.
    pub b: Seen,
    /// What must not be reported.
    pub never: &'static [Event],
}

impl Technique {
    /// What is seen of it at `tier`.
    #[must_use]
    pub fn at(&self, tier: Tier) -> &Seen {
        match tier {
            Tier::A => &self.a,
            Tier::B => &self.b,
        }
    }
}

/// What is seen of a technique.
#[derive(Debug)]
pub enum Seen {
    /// All of these, in the step that did it.
    Told(&'static [Event]),
    /// Nothing, for this reason.
    Gap(&'static str),
    /// These, or not, for this reason.
    Race(&'static [Event], &'static str),
}

/// An event: its body and what is in it.
#[derive(Debug)]
pub struct Event {
    /// The body's field name: `secret_access`.
    pub body: &'static str,
    /// Fields of the body, or of the event when they begin with a slash (RFC 6901).
    pub fields: &'static [(&'static str, Match)],
}

/// What a field must be.
#[derive(Clone, Copy, Debug)]
pub enum Match {
    /// This text.
    Is(&'static str),
    /// A list with this text in it.
    Has(&'static str),
    /// Text with this end.
    Ends(&'static str),
    /// This number, which may be written as text (64 bits).
    Number(u64),
    /// More than zero.
    Some,
    /// True.
    True,
}

impl Event {
    /// Whether `event` (protobuf JSON) is such an event.
    #[must_use]
    pub fn is_told_by(&self, event: &Value) -> bool {
        let body = &event[self.body];
        !body.is_null()
            && self.fields.iter().all(|(field, expected)| {
                let value = if field.starts_with('/') { event.pointer(field) } else { body.get(*field) };
                value.is_some_and(|value| expected.holds(value))
            })
    }
}

impl Match {
    fn holds(self, value: &Value) -> bool {
        let number = || value.as_u64().or_else(|| value.as_str()?.parse().ok());
        match self {
            Self::Is(text) => value == text,
            Self::Has(text) => value.as_array().is_some_and(|list| list.iter().any(|entry| entry == text)),
            Self::Ends(text) => value.as_str().is_some_and(|value| value.ends_with(text)),
            Self::Number(expected) => number() == Some(expected),
            Self::Some => number().is_some_and(|number| number > 0),
            Self::True => value == true,
        }
    }
}

/// An access to the step's own secret, with these fields.
#[must_use]
pub const fn secret(fields: &'static [(&'static str, Match)]) -> Event {
    Event { body: "secret_access", fields }
}
