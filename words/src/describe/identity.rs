//! Events about whose a job's doings are: attempts to be another, what jobs leave to each other, and hand-overs.

use buildtrail_proto::v1::{
    Contamination, ContaminationUse, CredentialLeftBehind, Delegation, DelegationWay, Escape, EscapeKind,
    IdentityClaim, IdentitySpoof, IdentityVerified, SpoofKind,
};

use super::{Text, short_job};

impl Text {
    pub(super) fn spoof(self, spoof: &IdentitySpoof) -> String {
        let path = self.safe(&spoof.path);
        let runner = match spoof.platform.as_str() {
            "" => "a runner".to_owned(),
            platform => format!("a runner of {}", self.safe(platform)),
        };
        let mut words = match spoof.kind() {
            SpoofKind::IdentityVariables => {
                format!("claimed to be another job: {}", self.claims(&spoof.claims))
            }
            SpoofKind::RunnerProgram => format!("started what looks like {runner}: {path}"),
            SpoofKind::RunnerRegistration => format!("wrote the registration of {runner}: {path}"),
            SpoofKind::RunnerCommand => format!("registered or removed {runner}: {path}"),
            SpoofKind::RunnerFiles => format!("changed a file of {runner}: {path}"),
            SpoofKind::Unspecified => "tried to be another".to_owned(),
        };
        if spoof.last {
            words.push_str(" (further ones of this job are not told)");
        }
        words
    }

    pub(super) fn contamination(self, contamination: &Contamination) -> String {
        let used = match contamination.r#use() {
            ContaminationUse::Executed => "executed",
            ContaminationUse::Sourced => "ran as a script",
            ContaminationUse::Loaded => "loaded",
            ContaminationUse::Configuration => "was configured by",
            ContaminationUse::Unspecified => "used",
        };
        let writer = contamination.writer.clone().unwrap_or_default();
        let whose = format!("{} {}", writer.repository, writer.name);
        format!(
            "{used} {}, which job {} ({}) wrote",
            self.safe(&contamination.path),
            short_job(Some(&writer)),
            self.safe(whose.trim())
        )
    }

    pub(super) fn credential_left(self, left: &CredentialLeftBehind) -> String {
        format!(
            "left {} behind ({}, mode {:04o}, user {})",
            self.safe(&left.secret),
            self.safe(&left.path),
            left.mode & 0o7777,
            left.uid
        )
    }

    pub(super) fn escape(self, escape: &Escape) -> String {
        let mut words = match escape.kind() {
            EscapeKind::Container => self.container(escape),
            EscapeKind::Namespace => "joined namespaces that are not its job's".to_owned(),
            EscapeKind::Cgroup => "left its job's control group".to_owned(),
            EscapeKind::User => "took another user's rights".to_owned(),
            EscapeKind::OutlivedJob => "still ran when its job had ended".to_owned(),
            EscapeKind::Unspecified => "got out of what holds its job".to_owned(),
        };
        if escape.kind() != EscapeKind::Container && !escape.way.is_empty() {
            words = format!("{words} by {}", self.safe(&escape.way));
        }
        if !escape.target.is_empty() {
            words = format!("{words}: {}", self.safe(&escape.target));
        }
        words
    }

    fn container(self, escape: &Escape) -> String {
        let kind = if escape.privileged { "privileged container" } else { "container" };
        let name =
            if escape.container_name.is_empty() { &escape.container_id } else { &escape.container_name };
        let mut words = format!("had {} start the {kind} {}", self.safe(&escape.way), self.safe(name));
        if !escape.image.is_empty() {
            words = format!("{words} of {}", self.safe(&escape.image));
        }
        if !escape.host_paths.is_empty() {
            words = format!("{words} with the host's {}", self.list(&escape.host_paths, ", "));
        }
        words
    }

    pub(super) fn delegation(self, delegation: &Delegation) -> String {
        let service = self.safe(&delegation.service);
        let mut words = match delegation.way() {
            DelegationWay::Command => format!("handed work to {service} by command"),
            DelegationWay::Socket | DelegationWay::Unspecified => format!("handed work to {service}"),
        };
        if !delegation.target.is_empty() {
            words = format!("{words} at {}", self.safe(&delegation.target));
        }
        if !delegation.request.is_empty() {
            words = format!("{words}: {}", self.safe(&delegation.request));
        }
        if !delegation.daemon_job_id.is_empty() {
            words.push_str(" (which another job started)");
        }
        words
    }

    pub(super) fn verified(self, verified: &IdentityVerified) -> String {
        let issuer = self.safe(&verified.issuer);
        if !verified.refused.is_empty() {
            format!("the token of {issuer} proves nothing: {}", self.safe(&verified.refused))
        } else if verified.differing.is_empty() {
            format!("{issuer} confirms {}", self.list(&verified.agreed, ", "))
        } else {
            format!("{issuer} contradicts: {}", self.claims(&verified.differing))
        }
    }

    fn claims(self, claims: &[IdentityClaim]) -> String {
        let told = |claim: &IdentityClaim| {
            let [name, claimed, known] =
                [&claim.name, &claim.claimed, &claim.known].map(|text| self.safe(text));
            format!("{name}={claimed} instead of {known}")
        };
        claims.iter().map(told).collect::<Vec<_>>().join(", ")
    }
}
