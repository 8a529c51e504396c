//! The fields that can be asked for.

use std::fmt;

/// Names nearer than this (0 to 1) are suggested.
const ALIKE: f64 = 0.7;

/// A field of the query model. Its values of an event are those of [`crate::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "described in one place, by `description`")]
pub enum Field {
    Host,
    Platform,
    Server,
    Repo,
    Workflow,
    Run,
    Job,
    Step,
    Actor,
    Ref,
    Sha,
    Trigger,
    Runner,
    Secret,
    Family,
    Credential,
    Way,
    Dest,
    Address,
    Name,
    Port,
    Protocol,
    Bytes,
    Exe,
    Path,
    Argument,
    Kind,
    Outcome,
    Uid,
    Text,
}

impl Field {
    /// Every field, in the order of the manual.
    pub const ALL: [Self; 30] = [
        Self::Host,
        Self::Platform,
        Self::Server,
        Self::Repo,
        Self::Workflow,
        Self::Run,
        Self::Job,
        Self::Step,
        Self::Actor,
        Self::Ref,
        Self::Sha,
        Self::Trigger,
        Self::Runner,
        Self::Secret,
        Self::Family,
        Self::Credential,
        Self::Way,
        Self::Dest,
        Self::Address,
        Self::Name,
        Self::Port,
        Self::Protocol,
        Self::Bytes,
        Self::Exe,
        Self::Path,
        Self::Argument,
        Self::Kind,
        Self::Outcome,
        Self::Uid,
        Self::Text,
    ];

    /// The field's word in searches.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.words().0
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn description(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Host => ("host", "id or name of the build host"),
            Self::Platform => ("platform", "the CI system: github-actions, act, ..."),
            Self::Server => ("server", "URL of the CI server"),
            Self::Repo => ("repo", "repository, with its owner"),
            Self::Workflow => ("workflow", "workflow or pipeline"),
            Self::Run => ("run", "id of the run"),
            Self::Job => ("job", "job id, the first 4 or more digits of it, or the job's name"),
            Self::Step => ("step", "id or name of the step"),
            Self::Actor => ("actor", "who triggered the run"),
            Self::Ref => ("ref", "branch or tag: refs/heads/main"),
            Self::Sha => ("sha", "commit"),
            Self::Trigger => ("trigger", "push, pull_request, ..."),
            Self::Runner => ("runner", "the runner's name as the CI knows it"),
            Self::Secret => ("secret", "catalogue entry of a secret file that was touched"),
            Self::Family => ("family", "family of a secret or credential: aws, npm, ssh, ..."),
            Self::Credential => ("credential", "catalogue entry of a credential that was used"),
            Self::Way => ("way", "how a secret, a credential or memory was reached"),
            Self::Dest => ("dest", "destination of a connection: name, address or network (10.0.0.0/8)"),
            Self::Address => ("address", "remote address, or network"),
            Self::Name => ("name", "host name: looked up, asked for in TLS or of a proxy"),
            Self::Port => ("port", "remote port"),
            Self::Protocol => ("protocol", "tcp, udp, icmp, sctp, other"),
            Self::Bytes => ("bytes", "payload of a connection, both ways"),
            Self::Exe => ("exe", "running program, as the host sees it"),
            Self::Path => ("path", "file or socket: of a secret, a credential, an executed program"),
            Self::Argument => ("argument", "one argument of an executed program"),
            Self::Kind => ("kind", "kind of event: secret.access, connection.opened, ..."),
            Self::Outcome => ("outcome", "how it ended: closed, refused, denied, NXDOMAIN, ..."),
            Self::Uid => ("uid", "user number"),
            Self::Text => ("text", "any text of the event"),
        }
    }

    /// The field of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == word)
    }

    /// Its values are numbers, which can be compared.
    #[must_use]
    pub fn is_number(self) -> bool {
        matches!(self, Self::Port | Self::Bytes | Self::Uid)
    }

    /// All events of one identity (host, boot and job) have the same value.
    #[must_use]
    pub fn is_of_identity(self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::Platform
                | Self::Server
                | Self::Repo
                | Self::Workflow
                | Self::Run
                | Self::Job
                | Self::Actor
                | Self::Ref
                | Self::Sha
                | Self::Trigger
                | Self::Runner
        )
    }

    /// An event has at most one value of it.
    #[must_use]
    pub fn is_single(self) -> bool {
        !matches!(
            self,
            Self::Job | Self::Step | Self::Dest | Self::Name | Self::Path | Self::Argument | Self::Text
        )
    }

    /// The index finds events by it without looking at all of them.
    #[must_use]
    pub fn is_indexed(self) -> bool {
        !matches!(self, Self::Bytes | Self::Argument | Self::Text | Self::Step | Self::Uid)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The word that was perhaps meant.
#[must_use]
pub fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = words.map(|known| (strsim::jaro_winkler(word, known), known));
    rated
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|it| it.1)
}
