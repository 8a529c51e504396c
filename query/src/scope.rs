//! What a person may see.

use std::{fmt, str::FromStr};

use buildtrail_proto::v1::AuditEvent;

use crate::{MAX_VALUE_BYTES, pattern::Pattern};

/// What a person may see. Nothing is seen through any door without one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All jobs, what happens outside of jobs, hosts, and what the collector does.
    Everything,
    /// The jobs of some repositories, and nothing else. Of none: nothing.
    Repositories(Vec<RepositoryGlob>),
}

impl Scope {
    /// Whether an event may be seen.
    #[must_use]
    pub fn allows(&self, event: &AuditEvent) -> bool {
        match &event.job {
            Some(job) => self.allows_repository(&job.repository),
            None => *self == Self::Everything,
        }
    }

    /// Whether jobs of this repository may be seen.
    #[must_use]
    pub fn allows_repository(&self, repository: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Repositories(globs) => {
                !repository.is_empty() && globs.iter().any(|glob| glob.pattern.matches(repository))
            }
        }
    }

    /// Whether all that the other scope shows is in this one, too. Of scopes that overlap in odd ways it may say no.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) => true,
            (Self::Repositories(_), Self::Everything) => false,
            (Self::Repositories(ours), Self::Repositories(theirs)) => {
                theirs.iter().all(|theirs| ours.iter().any(|ours| ours.includes(theirs)))
            }
        }
    }

    /// Whether hosts, events outside of jobs and the collector's acts may be seen.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::Everything
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Repositories(globs) if globs.is_empty() => f.write_str("nothing"),
            Self::Repositories(globs) => {
                let globs: Vec<&str> = globs.iter().map(|glob| &*glob.text).collect();
                write!(f, "{}", globs.join(", "))
            }
        }
    }
}

/// Repositories by pattern: `acme/*`, `acme/widgets`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryGlob {
    text: String,
    pattern: Pattern,
}

/// The text is no pattern of repositories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no repositories; write OWNER/NAME, in which * stands for any text: acme/*, acme/widgets"
)]
pub struct RepositoryGlobError(String);

impl RepositoryGlob {
    /// A * takes in whatever stands in its place, wildcards as well; a ? must not take a * for one character.
    fn includes(&self, other: &Self) -> bool {
        let literal = !other.text.contains(['*', '?']);
        self.text == other.text || (literal || !self.text.contains('?')) && self.pattern.matches(&other.text)
    }
}

impl FromStr for RepositoryGlob {
    type Err = RepositoryGlobError;

    fn from_str(text: &str) -> Result<Self, RepositoryGlobError> {
        if text.is_empty() || text.len() > MAX_VALUE_BYTES || text.chars().any(char::is_control) {
            return Err(RepositoryGlobError(text.chars().take(100).collect()));
        }
        Ok(Self { text: text.to_owned(), pattern: Pattern::new(text) })
    }
}

impl fmt::Display for RepositoryGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::Job;

    use super::*;

    fn of(repository: &str) -> AuditEvent {
        AuditEvent {
            job: Some(Job { repository: repository.into(), ..Job::default() }),
            ..AuditEvent::default()
        }
    }

    #[test]
    fn a_scope_includes_another_only_if_it_shows_all_of_it() {
        let of =
            |globs: &[&str]| Scope::Repositories(globs.iter().map(|glob| glob.parse().unwrap()).collect());
        for (ours, theirs) in [
            (&["acme/*"][..], &["acme/x"][..]),
            (&["acme/*"], &["acme/*"]),
            (&["acme/*"], &["acme/web-?", "acme/*-test"]),
            (&["acme/?"], &["acme/x", "acme/?"]),
            (&["*"], &["*/x", "a/b"]),
            (&["a/b"], &[]),
        ] {
            assert!(
                of(ours).includes(&of(theirs)) && Scope::Everything.includes(&of(theirs)),
                "{ours:?} {theirs:?}"
            );
        }
        for (ours, theirs) in [
            (&["acme/?"][..], &["acme/*"][..]),
            (&["acme/x"], &["acme/*"]),
            (&["acme/*"], &["acme/x", "other/x"]),
            (&["acme/*"], &["*"]),
            (&[], &["acme/x"]),
        ] {
            assert!(!of(ours).includes(&of(theirs)), "{ours:?} {theirs:?}");
        }
        assert!(!of(&["*"]).includes(&Scope::Everything));
    }

    #[test]
    fn a_scope_of_repositories_hides_all_else() {
        let acme = Scope::Repositories(vec!["acme/*".parse().unwrap(), "*x".parse().unwrap()]);
        assert!(acme.allows(&of("acme/widgets")) && acme.allows(&of("other/x")));
        for hidden in [of("acme"), of("ACME/widgets"), of("evil/acme/y"), of(""), AuditEvent::default()] {
            assert!(!acme.allows(&hidden), "{hidden:?}");
            assert!(Scope::Everything.allows(&hidden));
        }
        let nothing = Scope::Repositories(Vec::new());
        assert!(!nothing.allows(&of("acme/widgets")) && !nothing.allows(&of("")));
        let all = Scope::Repositories(vec!["*".parse().unwrap()]);
        assert!(!all.allows(&of("")) && !all.allows(&AuditEvent::default()));
    }
}
