//! Which logs are believed, and who must have cosigned their checkpoints (C2SP tlog-policy).

use std::collections::{HashMap, HashSet};

use super::note::{CheckpointError, KeyKind, NoteKey, NoteKeyError, SignedCheckpoint, claimed_origin};

/// Longest policy, in bytes.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// A line of a policy is wrong, or one is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the policy: {problem}")]
pub struct PolicyError {
    /// From 1; the number behind the last one for what is missing at the end.
    pub line: usize,
    /// What is wrong.
    pub problem: PolicyProblem,
}

/// What can be wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// A keyword or its operands.
    #[error(
        "it is none of `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME all|any|K NAME…`, `quorum NAME|none`"
    )]
    Syntax,
    /// A key that does not parse.
    #[error(transparent)]
    Key(#[from] NoteKeyError),
    /// A log's key where a witness's belongs, or the other way round.
    #[error("the key is of the other kind: a log's is 01, a witness's 04")]
    Kind,
    /// A name, key or membership for the second time.
    #[error("{0:?} is used a second time")]
    Twice(String),
    /// A name that no line before has defined.
    #[error("{0:?} is not defined on a line before")]
    Unknown(String),
    /// A group's number of members that must agree.
    #[error("a group's number is from 1 to the number of its members")]
    Threshold,
    /// No quorum line.
    #[error("a line `quorum NAME` or `quorum none` is missing")]
    NoQuorum,
    /// Control characters, or too long.
    #[error("a policy holds text and at most {MAX_POLICY_BYTES} bytes of it")]
    Text,
}

/// A witness as the policy knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Its name within the policy.
    pub name: String,
    /// Its key.
    pub key: NoteKey,
    /// Where checkpoints are submitted: its submission prefix.
    pub url: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<String>,
}

/// Known logs, known witnesses, and the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    logs: Vec<NoteKey>,
    witnesses: Vec<Witness>,
    /// In the order of definition: members come before their groups.
    groups: Vec<Group>,
    /// `None`: nobody needs to cosign.
    quorum: Option<String>,
}

/// A checkpoint that a policy's log has signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The checkpoint.
    pub checkpoint: SignedCheckpoint,
    /// Names of the policy's witnesses that have cosigned it, and when (seconds since 1970).
    pub cosigned: Vec<(String, u64)>,
    /// Enough of them have.
    pub quorum: bool,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let printable = |c: char| !c.is_control() || c == '\t' || c == '\n';
        if text.len() > MAX_POLICY_BYTES || !text.chars().all(printable) {
            return Err(PolicyError { line: 1, problem: PolicyProblem::Text });
        }
        let mut reading = Reading::default();
        for (line, content) in (1..).zip(text.lines()) {
            let words: Vec<&str> = content.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            if words.first().is_some_and(|word| !word.starts_with('#')) {
                reading.line(&words).map_err(|problem| PolicyError { line, problem })?;
            }
        }
        if !reading.has_quorum {
            let line = text.lines().count() + 1;
            return Err(PolicyError { line, problem: PolicyProblem::NoQuorum });
        }
        Ok(reading.policy)
    }

    /// The known logs.
    #[must_use]
    pub fn logs(&self) -> &[NoteKey] {
        &self.logs
    }

    /// The known witnesses.
    #[must_use]
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Opens a note with the key of the log that it claims to be of, and counts cosignatures.
    ///
    /// # Errors
    /// It is malformed, of a log that the policy does not know, or not signed by that log.
    pub fn judge(&self, note: &[u8]) -> Result<Judged, CheckpointError> {
        let origin = claimed_origin(note)?;
        let keys: Vec<&NoteKey> = self.logs.iter().filter(|log| log.name() == origin).collect();
        let mut refused = CheckpointError::Signature(origin);
        for key in keys {
            match SignedCheckpoint::open(note, key) {
                Ok(checkpoint) => return Ok(self.count(checkpoint)),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Counts the cosignatures of a checkpoint that was opened with a key known otherwise.
    #[must_use]
    pub fn count(&self, checkpoint: SignedCheckpoint) -> Judged {
        let by = |witness: &Witness| Some((witness.name.clone(), checkpoint.cosigned_by(&witness.key)?));
        let cosigned: Vec<(String, u64)> = self.witnesses.iter().filter_map(by).collect();
        let quorum = self.is_quorum(cosigned.iter().map(|(name, _)| name.as_str()));
        Judged { checkpoint, cosigned, quorum }
    }

    /// Whether cosignatures of these witnesses are enough.
    #[must_use]
    pub fn is_quorum<'a>(&'a self, cosigned: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(quorum) = &self.quorum else { return true };
        let mut holds: HashSet<&str> = cosigned.into_iter().collect();
        for group in &self.groups {
            let agreeing = group.members.iter().filter(|member| holds.contains(member.as_str())).count();
            if agreeing >= group.threshold {
                holds.insert(&group.name);
            }
        }
        holds.contains(quorum.as_str())
    }
}

#[derive(Default)]
struct Reading {
    policy: Policy,
    has_quorum: bool,
    /// Every defined name, and whether it is a member of a group already.
    names: HashMap<String, bool>,
}

impl Reading {
    fn line(&mut self, words: &[&str]) -> Result<(), PolicyProblem> {
        match *words {
            ["log", vkey] | ["log", vkey, _] => {
                let key = self.key(vkey, KeyKind::Log)?;
                self.policy.logs.push(key);
            }
            ["witness", name, vkey] => self.witness(name, vkey, None)?,
            ["witness", name, vkey, url] => self.witness(name, vkey, Some(url.to_owned()))?,
            ["group", name, threshold, ref members @ ..] => self.group(name, threshold, members)?,
            ["quorum", name] => self.quorum(name)?,
            _ => return Err(PolicyProblem::Syntax),
        }
        Ok(())
    }

    fn key(&self, vkey: &str, kind: KeyKind) -> Result<NoteKey, PolicyProblem> {
        let key: NoteKey = vkey.parse()?;
        let known = self.policy.logs.iter().chain(self.policy.witnesses.iter().map(|witness| &witness.key));
        if key.kind() != kind {
            return Err(PolicyProblem::Kind);
        }
        if known.into_iter().any(|known| known.kind() == kind && known.public_key() == key.public_key()) {
            return Err(PolicyProblem::Twice(vkey.to_owned()));
        }
        Ok(key)
    }

    fn define(&mut self, name: &str) -> Result<(), PolicyProblem> {
        if name == "none" || self.names.insert(name.to_owned(), false).is_some() {
            return Err(PolicyProblem::Twice(name.to_owned()));
        }
        Ok(())
    }

    fn witness(&mut self, name: &str, vkey: &str, url: Option<String>) -> Result<(), PolicyProblem> {
        let key = self.key(vkey, KeyKind::Witness)?;
        self.define(name)?;
        self.policy.witnesses.push(Witness { name: name.to_owned(), key, url });
        Ok(())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str]) -> Result<(), PolicyProblem> {
        for member in members {
            match self.names.get_mut(*member) {
                Some(taken) if *taken => return Err(PolicyProblem::Twice((*member).to_owned())),
                Some(taken) => *taken = true,
                None => return Err(PolicyProblem::Unknown((*member).to_owned())),
            }
        }
        let threshold = match threshold {
            "all" => members.len(),
            "any" => 1,
            number => number.parse().map_err(|_| PolicyProblem::Threshold)?,
        };
        if threshold == 0 || threshold > members.len() {
            return Err(PolicyProblem::Threshold);
        }
        self.define(name)?;
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.policy.groups.push(Group { name: name.to_owned(), threshold, members });
        Ok(())
    }

    fn quorum(&mut self, name: &str) -> Result<(), PolicyProblem> {
        if std::mem::replace(&mut self.has_quorum, true) {
            return Err(PolicyProblem::Twice("quorum".into()));
        }
        if name != "none" {
            if !self.names.contains_key(name) {
                return Err(PolicyProblem::Unknown(name.to_owned()));
            }
            self.policy.quorum = Some(name.to_owned());
        }
        Ok(())
    }
}
