//! The values of an event by field.

use std::borrow::Cow;

use buildtrail_proto::v1::{
    AuditEvent, ConnectionResult, CredentialKind, FileWay, Job, MemoryMethod, Protocol, SocketAccess,
    audit_event::Body,
};

use crate::Field;

/// One value of one field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fact {
    /// The field.
    pub field: Field,
    /// Its value.
    pub value: String,
}

/// Takes one value after another.
type Take<'a, 'e> = &'a mut dyn FnMut(Cow<'e, str>);

/// The facts by which an index finds the event: its values of all fields that are indexed, each once.
#[must_use]
pub fn facts(event: &AuditEvent) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    for field in Field::ALL.into_iter().filter(|field| field.is_indexed()) {
        let first = facts.len();
        values(event, field, &mut |value| {
            if !facts[first..].iter().any(|known| known.value == *value) {
                facts.push(Fact { field, value: value.into_owned() });
            }
        });
    }
    facts
}

/// Payload out and in of a connection that ended.
#[must_use]
pub fn bytes(event: &AuditEvent) -> (u64, u64) {
    match &event.body {
        Some(Body::ConnectionClosed(closed)) => (closed.bytes_out, closed.bytes_in),
        _ => (0, 0),
    }
}

/// Hands each value that an event has of a field to `take`. None of them is empty; one can come twice.
pub fn values<'e>(event: &'e AuditEvent, field: Field, take: Take<'_, 'e>) {
    let take: Take<'_, 'e> = &mut |value: Cow<'e, str>| {
        if !value.is_empty() {
            take(value);
        }
    };
    match field {
        Field::Host => text(take, &event.host_id),
        Field::Kind => take(event.kind().into()),
        Field::Text => every_text(event, take),
        Field::Exe => texts(take, event.process.iter().map(|process| &*process.executable)),
        Field::Uid => {
            if let Some(process) = &event.process {
                take(process.uid.to_string().into());
            }
        }
        Field::Step => {
            texts(take, event.step.iter().flat_map(|step| [&*step.id, &*step.name]));
        }
        _ if field.is_of_identity() => {
            if let Some(job) = &event.job {
                of_job(job, field, take);
            }
        }
        _ => {
            if let Some(body) = &event.body {
                of_body(body, field, take);
            }
        }
    }
}

fn text<'e>(take: Take<'_, 'e>, value: &'e str) {
    take(value.into());
}

fn texts<'e>(take: Take<'_, 'e>, values: impl IntoIterator<Item = &'e str>) {
    for value in values {
        take(value.into());
    }
}

fn of_job<'e>(job: &'e Job, field: Field, take: Take<'_, 'e>) {
    match field {
        Field::Platform => text(take, &job.platform),
        Field::Server => text(take, &job.server),
        Field::Repo => text(take, &job.repository),
        Field::Workflow => text(take, &job.workflow),
        Field::Run => text(take, &job.run_id),
        Field::Job => texts(take, [&*job.job_id, &*job.name]),
        Field::Actor => text(take, &job.actor),
        Field::Ref => text(take, &job.r#ref),
        Field::Sha => text(take, &job.sha),
        Field::Trigger => text(take, &job.trigger),
        Field::Runner => text(take, &job.runner_name),
        _ => {}
    }
}

fn of_body<'e>(body: &'e Body, field: Field, take: Take<'_, 'e>) {
    match body {
        Body::SecretAccess(access) => match field {
            Field::Secret => text(take, &access.secret),
            Field::Family => text(take, &access.family),
            Field::Path => texts(take, [&*access.path, &*access.job_path]),
            Field::Way => text(take, file_way(access.way())),
            _ => {}
        },
        Body::CredentialUse(used) => match field {
            Field::Credential => text(take, &used.name),
            Field::Family => text(take, &used.family),
            Field::Way => text(take, credential_kind(used.kind())),
            Field::Path if used.target.starts_with('/') => text(take, &used.target),
            Field::Address if used.target.parse::<std::net::IpAddr>().is_ok() => text(take, &used.target),
            _ => {}
        },
        Body::MemoryAccess(access) => match field {
            Field::Way => text(take, memory_method(access.method())),
            Field::Outcome if access.denied => text(take, "denied"),
            _ => {}
        },
        Body::ProcessExec(exec) => match field {
            Field::Path => text(take, &exec.filename),
            Field::Argument => texts(take, exec.argv.iter().map(String::as_str)),
            _ => {}
        },
        Body::DnsLookup(lookup) => match field {
            Field::Name => take(lower(&lookup.name)),
            Field::Outcome => text(take, &lookup.response_code),
            _ => {}
        },
        Body::SocketOpened(opened) if field == Field::Way => text(take, socket_access(opened.access())),
        Body::CredentialLeftBehind(left) => match field {
            Field::Secret => text(take, &left.secret),
            Field::Family => text(take, &left.family),
            Field::Path => text(take, &left.path),
            _ => {}
        },
        Body::IdentitySpoof(spoof) if field == Field::Path => text(take, &spoof.path),
        Body::Contamination(it) if field == Field::Path => text(take, &it.path),
        Body::Escape(escape) if field == Field::Way => text(take, &escape.way),
        Body::Delegation(it) => match field {
            Field::Way => text(take, &it.service),
            Field::Path if it.target.starts_with('/') => text(take, &it.target),
            _ => {}
        },
        Body::IdentityVerified(it) if field == Field::Outcome => {
            let agreed = it.refused.is_empty() && it.differing.is_empty();
            text(take, if agreed { "verified" } else { "not-verified" });
        }
        _ => of_connection(body, field, take),
    }
}

fn of_connection<'e>(body: &'e Body, field: Field, take: Take<'_, 'e>) {
    let (protocol, address, port, names, (server, proxied), result) = match body {
        Body::ConnectionOpened(it) => {
            (it.protocol(), &it.remote_address, it.remote_port, &it.dns_names, ("", ""), None)
        }
        Body::ConnectionClosed(it) => {
            let clear = (&*it.tls_server_name, &*it.proxied_to);
            (it.protocol(), &it.remote_address, it.remote_port, &it.dns_names, clear, Some(it.result()))
        }
        _ => return,
    };
    match field {
        Field::Name | Field::Dest => {
            let proxied = proxied.rsplit_once(':').map_or(proxied, |(host, _)| host);
            let mut is_known = false;
            for name in
                names.iter().map(String::as_str).chain([server, proxied]).filter(|name| !name.is_empty())
            {
                is_known = true;
                take(lower(name));
            }
            if field == Field::Dest && !is_known {
                text(take, address);
            }
        }
        Field::Address => text(take, address),
        Field::Port if port != 0 => take(port.to_string().into()),
        Field::Protocol => text(take, protocol_word(protocol)),
        Field::Outcome => text(take, result.map_or("", result_word)),
        Field::Bytes => {
            if let Body::ConnectionClosed(closed) = body {
                take(closed.bytes_out.saturating_add(closed.bytes_in).to_string().into());
            }
        }
        _ => {}
    }
}

/// Names of hosts are the same in any case of their letters.
fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

/// Every text as it stands in the event, and no word that only stands for a number.
fn every_text<'e>(event: &'e AuditEvent, take: Take<'_, 'e>) {
    text(take, &event.host_id);
    if let Some(job) = &event.job {
        texts(take, [&*job.job_id, &job.platform, &job.server, &job.repository, &job.workflow, &job.run_id]);
        texts(
            take,
            [
                &*job.name,
                &job.actor,
                &job.r#ref,
                &job.sha,
                &job.trigger,
                &job.runner_name,
                &job.url,
                &job.container,
            ],
        );
    }
    if let Some(step) = &event.step {
        texts(take, [&*step.id, &*step.name].into_iter().chain(step.path.iter().map(String::as_str)));
    }
    texts(take, event.process.iter().map(|process| &*process.executable));
    match &event.body {
        Some(Body::SecretAccess(it)) => texts(take, [&*it.secret, &it.family, &it.path, &it.job_path]),
        Some(Body::CredentialUse(it)) => {
            texts(take, [&*it.name, &it.family, &it.target]);
            texts(take, it.variables.iter().map(String::as_str));
        }
        Some(Body::MemoryAccess(it)) => {
            texts(take, it.target.iter().map(|target| &*target.executable));
            text(take, &it.target_job_id);
        }
        Some(Body::ProcessExec(it)) => {
            texts(take, [&*it.filename, &it.working_directory]);
            let lists = [&it.argv, &it.credential_variables, &it.loader_variables];
            texts(take, lists.into_iter().flatten().map(String::as_str));
        }
        Some(Body::ConnectionOpened(it)) => {
            text(take, &it.remote_address);
            texts(take, it.dns_names.iter().map(String::as_str));
        }
        Some(Body::ConnectionClosed(it)) => {
            texts(take, [&*it.remote_address, &it.local_address, &it.tls_server_name, &it.proxied_to]);
            texts(take, it.dns_names.iter().map(String::as_str));
        }
        Some(Body::DnsLookup(it)) => {
            texts(take, [&*it.name, &it.r#type, &it.resolver, &it.response_code]);
            texts(take, it.answers.iter().map(String::as_str));
        }
        Some(body) => every_further_text(body, take),
        None => {}
    }
}

fn every_further_text<'e>(body: &'e Body, take: Take<'_, 'e>) {
    match body {
        Body::CredentialLeftBehind(it) => texts(take, [&*it.secret, &it.family, &it.path]),
        Body::IdentitySpoof(it) => {
            texts(take, [&*it.path, &it.platform]);
            texts(take, it.claims.iter().flat_map(|claim| [&*claim.name, &claim.claimed, &claim.known]));
        }
        // The writer may be a job that the asker may not see.
        Body::Contamination(it) => text(take, &it.path),
        Body::Escape(it) => {
            texts(take, [&*it.way, &it.container_id, &it.container_name, &it.image, &it.target]);
            texts(take, it.host_paths.iter().map(String::as_str));
        }
        Body::Delegation(it) => texts(take, [&*it.service, &it.target, &it.request]),
        Body::IdentityVerified(it) => texts(take, [&*it.issuer, &it.subject, &it.audience, &it.refused]),
        Body::Loss(it) => texts(take, [&*it.stage, &it.reason]),
        Body::Coverage(it) => {
            texts(take, [&*it.kernel_release, &it.agent_version]);
            texts(take, it.gaps.iter().map(String::as_str));
            texts(take, it.hooks.iter().flat_map(|hook| [&*hook.hook, &*hook.detail]));
        }
        _ => {}
    }
}

fn file_way(way: FileWay) -> &'static str {
    match way {
        FileWay::Unspecified => "",
        FileWay::Open => "open",
        FileWay::IoUring => "io_uring",
        FileWay::Handle => "handle",
        FileWay::Socket => "socket",
        FileWay::ProcessDescriptor => "process-descriptor",
    }
}

fn credential_kind(kind: CredentialKind) -> &'static str {
    match kind {
        CredentialKind::Unspecified => "",
        CredentialKind::Environment => "environment",
        CredentialKind::Command => "command",
        CredentialKind::AgentSocket => "agent-socket",
        CredentialKind::MetadataService => "metadata-service",
        CredentialKind::Argument => "argument",
    }
}

fn memory_method(method: MemoryMethod) -> &'static str {
    match method {
        MemoryMethod::Unspecified => "",
        MemoryMethod::ProcMem => "proc-mem",
        MemoryMethod::ProcInspect => "proc-inspect",
        MemoryMethod::Ptrace => "ptrace",
        MemoryMethod::ProcessVmRead => "process_vm_readv",
        MemoryMethod::ProcessVmWrite => "process_vm_writev",
        MemoryMethod::PidfdGetfd => "pidfd_getfd",
        MemoryMethod::CoreDump => "core-dump",
    }
}

fn socket_access(access: SocketAccess) -> &'static str {
    match access {
        SocketAccess::Unspecified => "",
        SocketAccess::RawIp => "raw",
        SocketAccess::Packet => "packet",
        SocketAccess::Xdp => "xdp",
        SocketAccess::Vsock => "vsock",
        SocketAccess::Other => "other",
    }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Unspecified => "",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Other => "other",
        Protocol::Icmp => "icmp",
        Protocol::Sctp => "sctp",
    }
}

fn result_word(result: ConnectionResult) -> &'static str {
    match result {
        ConnectionResult::Unspecified => "",
        ConnectionResult::Closed => "closed",
        ConnectionResult::Refused => "refused",
        ConnectionResult::TimedOut => "timed-out",
        ConnectionResult::Reset => "reset",
        ConnectionResult::Unreachable => "unreachable",
        ConnectionResult::Abandoned => "abandoned",
        ConnectionResult::NotStarted => "not-started",
        ConnectionResult::Failed => "failed",
    }
}
