//! Reads what the agent says, and picks out what a test looks at.

use anyhow::{Context as _, Result};
use buildtrail_proto::v1::{AuditEvent, CredentialKind, Job, Operation, Protocol, audit_event::Body};

/// Parses protobuf JSON, one event on each line; the last line may still be in the making.
///
/// # Errors
/// When a whole line is not an event; the error names the line.
pub fn parse(output: &[u8]) -> Result<Vec<AuditEvent>> {
    let whole = output.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    output[..whole]
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            serde_json::from_slice(line)
                .with_context(|| format!("line {} is no event: {}", index + 1, String::from_utf8_lossy(line)))
        })
        .collect()
}

/// Events of the jobs of one repository.
#[must_use]
pub fn of_repository<'a>(events: &'a [AuditEvent], repository: &str) -> Vec<&'a AuditEvent> {
    events.iter().filter(|event| repository_of(event) == Some(repository)).collect()
}

/// Events that belong to no job.
#[must_use]
pub fn outside_jobs(events: &[AuditEvent]) -> Vec<&AuditEvent> {
    events.iter().filter(|event| event.job.is_none()).collect()
}

/// The job's repository.
#[must_use]
pub fn repository_of(event: &AuditEvent) -> Option<&str> {
    event.job.as_ref().map(|job| job.repository.as_str())
}

/// The step's id; empty outside any step.
#[must_use]
pub fn step_of(event: &AuditEvent) -> &str {
    event.step.as_ref().map_or("", |step| &step.id)
}

/// The jobs that have ended.
pub fn finished_jobs(events: &[AuditEvent]) -> impl Iterator<Item = &Job> {
    events
        .iter()
        .filter(|event| matches!(event.body, Some(Body::JobFinished(_))))
        .filter_map(|event| event.job.as_ref())
}

/// Events lost on the way, as the agent counted them.
#[must_use]
pub fn lost(events: &[AuditEvent]) -> u64 {
    let count = |event: &AuditEvent| match &event.body {
        Some(Body::Loss(loss)) => loss.count,
        _ => 0,
    };
    events.iter().map(count).sum()
}

/// Whether this is a use of the secret at `path`.
#[must_use]
pub fn is_access_to(event: &AuditEvent, path: &str) -> bool {
    matches!(&event.body, Some(Body::SecretAccess(access)) if access.path == path)
}

/// Whether this is a connection to `port`.
#[must_use]
pub fn is_connection_to(event: &AuditEvent, port: u32) -> bool {
    matches!(&event.body, Some(Body::ConnectionOpened(connection)) if connection.remote_port == port)
}

/// One line for a person.
#[must_use]
pub fn describe(event: &AuditEvent) -> String {
    let job = repository_of(event).unwrap_or("no job");
    let program = event.process.as_ref().map_or("", |process| &process.executable);
    format!("{} {job} step {:?} {program:?}: {}", event.sequence, step_of(event), describe_body(event))
}

fn describe_body(event: &AuditEvent) -> String {
    match &event.body {
        Some(Body::ProcessExec(exec)) => format!("exec {:?} {:?}", exec.filename, exec.argv),
        Some(Body::SecretAccess(access)) => {
            let operations: Vec<&str> =
                access.operations().map(|operation: Operation| operation.as_str_name()).collect();
            format!("secret {:?} {:?} {operations:?}", access.secret, access.path)
        }
        Some(Body::CredentialUse(usage)) => format!(
            "credential {} {:?} at {:?} in {:?}",
            CredentialKind::as_str_name(&usage.kind()),
            usage.name,
            usage.target,
            usage.variables
        ),
        Some(Body::ConnectionOpened(connection)) => format!(
            "connection {} {} port {} names {:?}",
            Protocol::as_str_name(&connection.protocol()),
            connection.remote_address,
            connection.remote_port,
            connection.dns_names
        ),
        Some(Body::DnsLookup(lookup)) => {
            format!(
                "lookup {} {:?} {:?} {}",
                lookup.r#type, lookup.name, lookup.answers, lookup.response_code
            )
        }
        body => format!("{body:?}"),
    }
}

/// One line for each event.
pub fn describe_all<'a>(events: impl IntoIterator<Item = &'a AuditEvent>) -> String {
    events.into_iter().map(describe).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_the_making_is_left_for_later_and_a_broken_one_is_named() {
        let events = parse(b"{\"sequence\":\"1\"}\n{\"sequ").unwrap();
        assert_eq!(events.len(), 1);
        let error = parse(b"{\"sequence\":\"1\"}\n{\"sequ\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
