//! Who asks, and what they may do and see.

use std::fmt;

use buildtrail_query::Scope;
use serde::Deserialize;

use super::session::{Csrf, SessionId};

/// Somebody who has proven who they are, for the length of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// As the log names them: `ann` by certificate, `sso:ann` by single sign-on, `local:ann` for a local administrator.
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) scope: Scope,
    pub(crate) via: Via,
    /// What forms of this person must carry; only where a browser's session is the proof.
    pub(crate) csrf: Option<Csrf>,
}

/// How somebody has proven who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Via {
    Certificate,
    /// An API token, by its id.
    Token(String),
    /// Signed in with a browser.
    Session(SessionId),
}

/// What kind of work somebody does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Counts, hunts, follows live, exports evidence.
    Analyst,
    /// Also ends hosts' identities.
    Responder,
    /// Reads all there is, verifies, changes nothing.
    Auditor,
    /// Everything.
    Admin,
}

/// What can be done here. Whatever it is, it reaches only as far as the person's scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Look at jobs and events.
    Read,
    /// Count and group, follow live, hunt.
    Analyse,
    /// Take evidence away.
    Export,
    /// Read hosts and what happens outside of jobs.
    ReadHosts,
    /// Read what the collector and its people did.
    ReadActs,
    /// Check the log, and read all of it for that.
    Verify,
    /// End a host's identity.
    RevokeHost,
    /// Decide which hosts and people there are.
    Administer,
}

/// All actions, in the order of the table in docs/access.md.
pub(crate) const ACTIONS: [Action; 8] = [
    Action::Read,
    Action::Analyse,
    Action::Export,
    Action::ReadHosts,
    Action::ReadActs,
    Action::Verify,
    Action::RevokeHost,
    Action::Administer,
];

/// All roles.
pub(crate) const ROLES: [Role; 5] =
    [Role::Viewer, Role::Analyst, Role::Responder, Role::Auditor, Role::Admin];

impl Person {
    /// Whether this person may do this at all. What concerns more than single jobs needs a scope of everything, too.
    pub(crate) fn may(&self, action: Action) -> bool {
        self.role.may(action) && (self.scope.is_everything() || !action.needs_everything())
    }

    /// Whether this is a local administrator: for emergencies only, and loud.
    pub(crate) fn is_break_glass(&self) -> bool {
        self.name.starts_with(LOCAL)
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// Prefix of local administrators' names.
pub(crate) const LOCAL: &str = "local:";
/// Prefix of names that came from the identity provider.
pub(crate) const SSO: &str = "sso:";

impl Action {
    /// Whether it shows, or touches, what belongs to no single repository.
    pub(crate) fn needs_everything(self) -> bool {
        match self {
            Self::Read | Self::Analyse | Self::Export => false,
            Self::ReadHosts | Self::ReadActs | Self::Verify | Self::RevokeHost | Self::Administer => true,
        }
    }

    /// For people: "only … may …".
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Read => "read jobs and events",
            Self::Analyse => "count, hunt and follow live",
            Self::Export => "export evidence",
            Self::ReadHosts => "read about hosts",
            Self::ReadActs => "read the collector's acts",
            Self::Verify => "verify and read the whole log",
            Self::RevokeHost => "revoke hosts",
            Self::Administer => "administer people, tokens and enrolment",
        }
    }
}

impl Role {
    /// Whether this role allows this, whatever the scope.
    pub(crate) fn may(self, action: Action) -> bool {
        match action {
            Action::Read | Action::ReadHosts => true,
            Action::Analyse | Action::Export => self != Self::Viewer,
            Action::ReadActs | Action::Verify => matches!(self, Self::Auditor | Self::Admin),
            Action::RevokeHost => matches!(self, Self::Responder | Self::Admin),
            Action::Administer => self == Self::Admin,
        }
    }

    /// Whether this role allows all that the other one does.
    pub(crate) fn includes(self, other: Self) -> bool {
        ACTIONS.into_iter().all(|action| self.may(action) || !other.may(action))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Analyst => "analyst",
            Self::Responder => "responder",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        ROLES.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_the_documented_table_says() {
        let table = include_str!("../../../docs/access.md");
        let rows: Vec<Vec<&str>> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|row| row.split('|').map(str::trim).collect())
            .collect();
        for action in ACTIONS {
            let name = format!("{action:?}`");
            let row = rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name} is not there"));
            for (role, cell) in ROLES.into_iter().zip(&row[2..]) {
                assert_eq!(*cell == "yes", role.may(action), "{role} {action:?}");
            }
            assert_eq!(row[7] == "yes", action.needs_everything(), "{action:?}");
        }
    }

    #[test]
    fn a_role_includes_those_that_allow_less() {
        assert!(ROLES.into_iter().all(|role| Role::Admin.includes(role) && role.includes(Role::Viewer)));
        assert!(!Role::Auditor.includes(Role::Responder) && !Role::Responder.includes(Role::Auditor));
        assert!(!Role::Viewer.includes(Role::Analyst));
    }

    #[test]
    fn what_belongs_to_no_repository_needs_a_scope_of_everything() {
        let person = |scope| Person {
            name: "ann".into(),
            role: Role::Admin,
            scope,
            via: Via::Certificate,
            csrf: None,
        };
        let (all, some) =
            (person(Scope::Everything), person(Scope::Repositories(vec!["acme/*".parse().unwrap()])));
        for action in ACTIONS {
            assert!(all.may(action));
            assert_eq!(some.may(action), !action.needs_everything());
        }
    }
}
