//! What a provider's token says about a job, compared with what the agent saw.

use buildtrail_proto::v1::{IdentityClaim, Job};
use serde_json::{Map, Value};

/// A field of the job, and the claim that says the same.
struct Pair {
    field: &'static str,
    claims: &'static [&'static str],
    of: fn(&Job) -> &str,
}

/// `GitHub` (docs.github.com, "`OpenID` Connect reference") and `GitLab` (docs.gitlab.com, "`OpenID` Connect (OIDC) authentication
/// using ID tokens") between them; the first claim that is there counts.
const PAIRS: [Pair; 6] = [
    Pair { field: "repository", claims: &["repository", "project_path"], of: |job| &job.repository },
    Pair { field: "run_id", claims: &["run_id", "pipeline_id"], of: |job| &job.run_id },
    Pair { field: "run_attempt", claims: &["run_attempt"], of: |job| &job.run_attempt },
    Pair { field: "sha", claims: &["sha"], of: |job| &job.sha },
    Pair { field: "actor", claims: &["actor", "user_login"], of: |job| &job.actor },
    Pair { field: "ref", claims: &["ref_path", "ref"], of: |job| &job.r#ref },
];
/// Without these two a token is no proof of a run.
const NEEDED: [&str; 2] = ["repository", "run_id"];
/// How a branch's or tag's full name begins.
const FULL: [&str; 2] = ["refs/heads/", "refs/tags/"];

/// What agrees and what differs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    pub(crate) agreed: Vec<String>,
    pub(crate) differing: Vec<IdentityClaim>,
}

impl Comparison {
    /// Repository and run are proven, and nothing speaks against it.
    pub(crate) fn verifies(&self) -> bool {
        self.differing.is_empty()
            && NEEDED.iter().all(|field| self.agreed.iter().any(|agreed| agreed == field))
    }
}

/// Compares what both say; what either does not say is left out.
pub(crate) fn compare(claims: &Map<String, Value>, job: &Job) -> Comparison {
    let mut result = Comparison::default();
    for pair in &PAIRS {
        let said = pair.claims.iter().find_map(|name| claims.get(*name)).map(plain).unwrap_or_default();
        let seen = (pair.of)(job);
        if said.is_empty() || seen.is_empty() {
            continue;
        }
        if same(pair.field, &said, seen) {
            result.agreed.push(pair.field.to_owned());
        } else {
            result.differing.push(IdentityClaim {
                name: pair.field.to_owned(),
                claimed: crate::acts::printable(&said),
                known: crate::acts::printable(&seen),
            });
        }
    }
    result
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// `GitLab`'s variables have short names of branches, its tokens long ones too; repositories ignore case.
fn same(field: &str, said: &str, seen: &str) -> bool {
    let short =
        |name: &str| FULL.iter().find_map(|start| name.strip_prefix(start)).unwrap_or(name).to_owned();
    match field {
        "ref" => {
            said == seen
                || (!seen.starts_with("refs/") || !said.starts_with("refs/")) && short(said) == short(seen)
        }
        "repository" | "actor" => said.eq_ignore_ascii_case(seen),
        _ => said == seen,
    }
}
