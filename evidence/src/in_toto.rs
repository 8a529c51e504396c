//! A job's trace as an in-toto statement: Statement v1 with the runtime-trace predicate.
//!
//! In: a verified bundle. Out: JSON. Must never say more than the bundle proves, and says with it how complete it is.

use std::fmt::Write as _;

use buildtrail_proto::{
    Timestamp, unix_nanos,
    v1::{AuditEvent, BatchHeader, Job, Protocol, audit_event::Body},
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    merkle::{Frontier, leaf_hash},
    verify::BundleReport,
};

/// The statement's type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate's type.
pub const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/runtime-trace/v0.1";
/// Which monitor it was.
const MONITOR: &str = "buildtrail://agent/v1";

/// The statement about the bundle's job.
#[must_use]
pub fn statement(found: &BundleReport) -> Value {
    let events = &found.events;
    let job = events.iter().find_map(|event| event.job.clone()).unwrap_or_default();
    let job_uri = format!("buildtrail://job/{}", found.header.job_id);
    json!({
        "_type": STATEMENT_TYPE,
        "subject": subjects(events, &job, &job_uri),
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "monitor": monitor(found.last_batch.as_ref()),
            "monitoredProcess": {
                "hostID": format!("buildtrail://host/{}", found.header.host_id),
                "type": format!("buildtrail://platform/{}", job.platform),
                "event": run_of(&job).unwrap_or(job_uri),
            },
            "monitorLog": {
                "process": events.iter().filter_map(process).collect::<Vec<_>>(),
                "network": events.iter().filter_map(network).collect::<Vec<_>>(),
                "fileAccess": events.iter().filter_map(file_access).collect::<Vec<_>>(),
            },
            "metadata": {
                "buildStartedOn": events.first().and_then(|event| rfc3339(event.time.as_ref())),
                "buildFinishedOn": events.last().and_then(|event| rfc3339(event.time.as_ref())),
            },
            "buildtrail_completeness": found.report.hosts.iter().map(|host| json!({
                "complete": host.complete,
                "lost": host.lost,
                "statement": host.statement,
            })).collect::<Vec<_>>(),
        },
    })
}

/// The commit that was built, where it is known, and the trace itself.
fn subjects(events: &[AuditEvent], job: &Job, job_uri: &str) -> Vec<Value> {
    let mut root = Frontier::default();
    for event in events {
        root.push(leaf_hash(&event.encode_to_vec()));
    }
    let mut subjects = vec![json!({ "name": job_uri, "digest": { "sha256": root.root().to_string() } })];
    let is_commit = matches!(job.sha.len(), 40 | 64) && job.sha.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_commit {
        let name = format!("git+{}/{}@{}", job.server, job.repository, job.r#ref);
        subjects.push(json!({ "name": name, "digest": { "gitCommit": job.sha } }));
    }
    subjects
}

fn monitor(batch: Option<&BatchHeader>) -> Value {
    let Some(batch) = batch else { return json!({ "type": MONITOR }) };
    json!({
        "type": MONITOR,
        "configSource": { "digest": { "sha256": hex::encode(&batch.policy_digest) } },
        "tracePolicy": {
            "agentBuild": batch.agent_build,
            "ebpfDigest": hex::encode(&batch.ebpf_digest),
            "policyDigest": hex::encode(&batch.policy_digest),
        },
    })
}

/// Where the platform shows this run.
fn run_of(job: &Job) -> Option<String> {
    let known = job.platform == "github-actions" && !job.run_id.is_empty();
    let attempt = if job.run_attempt.is_empty() { "1" } else { &job.run_attempt };
    known.then(|| format!("{}/{}/actions/runs/{}/attempts/{attempt}", job.server, job.repository, job.run_id))
}

fn process(event: &AuditEvent) -> Option<Value> {
    let mut entry = match &event.body {
        Some(Body::ProcessExec(exec)) => json!({
            "processBinary": exec.filename,
            "arguments": exec.argv,
            "workingDirectory": exec.working_directory,
            "credentialVariables": exec.credential_variables,
        }),
        Some(Body::CredentialUse(used)) => json!({
            "credential": used.name,
            "family": used.family,
            "target": used.target,
            "variables": used.variables,
        }),
        _ => return None,
    };
    entry["eventType"] = event.kind().into();
    add_common(&mut entry, event);
    Some(entry)
}

fn network(event: &AuditEvent) -> Option<Value> {
    let mut entry = match &event.body {
        Some(Body::ConnectionOpened(opened)) => {
            let protocol = match Protocol::try_from(opened.protocol) {
                Ok(Protocol::Tcp) => "tcp".to_owned(),
                Ok(Protocol::Udp) => "udp".to_owned(),
                _ => opened.ip_protocol.to_string(),
            };
            json!({
                "ip": opened.remote_address,
                "port": opened.remote_port,
                "protocol": protocol,
                "hostname": opened.dns_names.first(),
            })
        }
        Some(Body::DnsLookup(lookup)) => json!({
            "hostname": lookup.name,
            "queryType": lookup.r#type,
            "answers": lookup.answers,
            "responseCode": lookup.response_code,
        }),
        _ => return None,
    };
    entry["eventType"] = event.kind().into();
    add_common(&mut entry, event);
    Some(entry)
}

/// As in-toto resource descriptors.
fn file_access(event: &AuditEvent) -> Option<Value> {
    let Some(Body::SecretAccess(access)) = &event.body else { return None };
    let operations = access.operations().map(|operation| operation.as_str_name());
    let mut annotations = json!({
        "secret": access.secret,
        "family": access.family,
        "operations": operations.collect::<Vec<_>>(),
    });
    add_common(&mut annotations, event);
    Some(json!({ "name": access.path, "uri": file_uri(&access.path), "annotations": annotations }))
}

fn add_common(entry: &mut Value, event: &AuditEvent) {
    entry["time"] = rfc3339(event.time.as_ref()).into();
    entry["sequence"] = event.sequence.into();
    if let Some(step) = &event.step {
        entry["step"] = step.name.as_str().into();
    }
    if let Some(process) = &event.process {
        entry["invokingProcess"] = json!({ "pid": process.pid, "executable": process.executable });
    }
}

fn rfc3339(time: Option<&Timestamp>) -> Option<String> {
    let nanos = unix_nanos(time?);
    jiff::Timestamp::from_nanosecond(nanos).ok().map(|time| time.to_string())
}

/// `file://` and the path, with everything but plain characters in percent encoding.
fn file_uri(path: &str) -> String {
    let mut uri = String::from("file://");
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::{BundleHeader, ConnectionOpened, JobStarted, ProcessExec, SecretAccess};

    use super::*;

    fn event(sequence: u64, body: Body) -> AuditEvent {
        let job = Job {
            job_id: "0aaa".into(),
            platform: "github-actions".into(),
            server: "https://github.com".into(),
            repository: "acme/widgets".into(),
            run_id: "7".into(),
            r#ref: "refs/heads/main".into(),
            sha: "a".repeat(40),
            ..Default::default()
        };
        let time = Some(Timestamp { seconds: 1_795_338_000, nanos: 0 });
        AuditEvent { sequence, time, job: Some(job), body: Some(body), ..Default::default() }
    }

    #[test]
    fn a_statement_names_job_commit_and_what_was_done() {
        let found = BundleReport {
            report: crate::verify::Report::default(),
            header: BundleHeader { job_id: "0aaa".into(), host_id: "host-1".into(), ..Default::default() },
            events: vec![
                event(1, Body::JobStarted(JobStarted::default())),
                event(2, Body::ProcessExec(ProcessExec { filename: "/bin/sh".into(), ..Default::default() })),
                event(
                    3,
                    Body::SecretAccess(SecretAccess {
                        path: "/home/a b/.npmrc".into(),
                        ..Default::default()
                    }),
                ),
                event(
                    4,
                    Body::ConnectionOpened(ConnectionOpened {
                        protocol: Protocol::Tcp.into(),
                        remote_address: "192.0.2.7".into(),
                        remote_port: 443,
                        dns_names: vec!["example.org".into()],
                        ..Default::default()
                    }),
                ),
            ],
            last_batch: Some(BatchHeader { agent_build: "0.1.0".into(), ..Default::default() }),
        };
        let statement = statement(&found);
        assert_eq!(statement["predicateType"], PREDICATE_TYPE);
        assert_eq!(statement["subject"][1]["digest"]["gitCommit"], "a".repeat(40));
        let predicate = &statement["predicate"];
        let run = "https://github.com/acme/widgets/actions/runs/7/attempts/1";
        assert_eq!(predicate["monitoredProcess"]["event"], run);
        assert_eq!(predicate["monitorLog"]["process"][0]["processBinary"], "/bin/sh");
        assert_eq!(predicate["monitorLog"]["network"][0]["hostname"], "example.org");
        assert_eq!(predicate["monitorLog"]["fileAccess"][0]["uri"], "file:///home/a%20b/.npmrc");
        assert_eq!(predicate["metadata"]["buildStartedOn"], "2026-11-22T09:00:00Z");
    }
}
