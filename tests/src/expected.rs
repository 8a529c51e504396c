//! What the audit trail of the job in `scenario/widgets` must hold, written by hand from its workflow file.

use std::net::Ipv4Addr;

use buildtrail_proto::v1::{AuditEvent, CredentialKind, Protocol, audit_event::Body};

use crate::{
    events::step_of,
    scene::Scene,
    standins::{METADATA, REGISTRY, RESOLVER},
};

/// The steps that start processes, in order. (`checkout` is done by the runner itself.)
pub const STEPS: [&str; 8] = [
    "aws-credentials",
    "npmrc",
    "git-credential",
    "environment",
    "ssh-agent",
    "metadata",
    "network",
    "compile",
];

/// One thing that a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// The step's id.
    pub step: &'static str,
    /// What it does.
    pub what: What,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Opens a secret of this family at this path.
    Secret(&'static str, String),
    /// Uses a credential in this way: kind, family, target (a path or address, or empty).
    Credential(CredentialKind, &'static str, String),
    /// Starts a process that holds these variables.
    Environment(&'static [&'static str]),
    /// Looks up a name: type, answer.
    Lookup(&'static str, &'static str, String),
    /// Connects: protocol, address, port, whether to an address that a lookup of [`NAME`] led to.
    Connection(Protocol, String, u32, bool),
    /// Runs the program with this file name.
    Program(&'static str),
}

/// The name that the job looks up.
pub const NAME: &str = "registry.example.test";

/// Everything that the job does with secrets, credentials and the network, and some of the programs it runs.
#[must_use]
pub fn facts(scene: &Scene) -> Vec<Fact> {
    let secret = |family, name: &str| What::Secret(family, scene.home().join(name).display().to_string());
    let tcp = |address: &str, port, named| What::Connection(Protocol::Tcp, address.to_owned(), port, named);
    let udp = |address: Ipv4Addr, port| What::Connection(Protocol::Udp, address.to_string(), port, false);
    let socket = scene.ssh_agent().display().to_string();
    let metadata = METADATA.to_string();
    [
        ("aws-credentials", secret("aws", ".aws/credentials")),
        ("aws-credentials", What::Program("cat")),
        ("npmrc", secret("npm", ".npmrc")),
        ("git-credential", What::Credential(CredentialKind::Command, "git", String::new())),
        ("git-credential", secret("git", ".git-credentials")),
        ("environment", What::Environment(&["AWS_SECRET_ACCESS_KEY", "NPM_TOKEN"])),
        ("ssh-agent", What::Credential(CredentialKind::AgentSocket, "ssh", socket)),
        ("metadata", What::Credential(CredentialKind::MetadataService, "cloud", metadata.clone())),
        ("metadata", tcp(&metadata, 80, false)),
        // The session token, in a header on curl's command line.
        ("metadata", What::Credential(CredentialKind::Argument, "argument", String::new())),
        ("network", What::Lookup("A", NAME, REGISTRY.to_string())),
        ("network", What::Lookup("AAAA", NAME, "::1".to_owned())),
        ("network", udp(RESOLVER, 53)),
        ("network", tcp(&REGISTRY.to_string(), 8443, true)),
        ("network", tcp("::1", 8444, true)),
        ("network", udp(Ipv4Addr::LOCALHOST, 8125)),
        ("compile", What::Program("make")),
        ("compile", What::Program("cc1")),
        ("compile", What::Program("check-stock")),
    ]
    .into_iter()
    .map(|(step, what)| Fact { step, what })
    .collect()
}

impl Fact {
    /// Whether `event` tells this fact.
    #[must_use]
    pub fn is_told_by(&self, event: &AuditEvent) -> bool {
        step_of(event) == self.step && self.what.is_told_by(event)
    }
}

impl What {
    fn is_told_by(&self, event: &AuditEvent) -> bool {
        match (self, &event.body) {
            (Self::Secret(family, path), Some(Body::SecretAccess(access))) => {
                access.family == *family && access.path == *path && !access.operations.is_empty()
            }
            (Self::Credential(kind, family, target), Some(Body::CredentialUse(usage))) => {
                usage.kind() == *kind && usage.family == *family && usage.target.starts_with(target)
            }
            (Self::Environment(variables), Some(Body::CredentialUse(usage))) => {
                usage.kind() == CredentialKind::Environment
                    && variables.iter().all(|variable| usage.variables.iter().any(|name| name == variable))
            }
            (Self::Lookup(kind, name, answer), Some(Body::DnsLookup(lookup))) => {
                lookup.r#type == *kind && lookup.name == *name && lookup.answers.contains(answer)
            }
            (Self::Connection(protocol, address, port, named), Some(Body::ConnectionOpened(connection))) => {
                connection.protocol() == *protocol
                    && connection.remote_address == *address
                    && connection.remote_port == *port
                    && (!named || connection.dns_names == [NAME])
            }
            (Self::Program(program), Some(Body::ProcessExec(_))) => event
                .process
                .as_ref()
                .is_some_and(|process| process.executable.rsplit('/').next() == Some(program)),
            _ => false,
        }
    }
}
