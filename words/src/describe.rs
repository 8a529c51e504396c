//! Events in words: what happened, in one safe line.

use buildtrail_proto::v1::{
    Assurance, AuditEvent, ConnectionClosed, ConnectionOpened, ConnectionResult, Coverage, CredentialKind,
    CredentialUse, DnsLookup, Heartbeat, Job, JobFinished, Loss, MemoryAccess, MemoryMethod, Operation,
    Process, ProcessExec, Protocol, SecretAccess, SocketAccess, SocketOpened, Step, Tier, audit_event::Body,
};

use crate::{display, time};

mod identity;

/// Digits of a job id that are shown.
const SHORT_ID: usize = 12;

/// What happened, safe to print.
#[must_use]
pub fn what(event: &AuditEvent) -> String {
    let text = Text { escaped: event.text_escaped };
    let mut words = match &event.body {
        Some(Body::JobStarted(started)) if started.already_running => "job was already running".into(),
        Some(Body::JobStarted(_)) => "job started".into(),
        Some(Body::JobFinished(finished)) => job_finished(finished),
        Some(Body::ProcessExec(exec)) => text.exec(exec),
        Some(Body::SecretAccess(access)) => text.secret(access),
        Some(Body::CredentialUse(used)) => text.credential(used),
        Some(Body::ConnectionOpened(connection)) => text.connection(connection),
        Some(Body::ConnectionClosed(connection)) => text.connection_closed(connection),
        Some(Body::SocketOpened(socket)) => socket_opened(socket),
        Some(Body::DnsLookup(lookup)) => text.lookup(lookup),
        Some(Body::MemoryAccess(access)) => text.memory(access),
        Some(Body::Loss(loss)) => text.loss(loss),
        Some(Body::Heartbeat(beat)) => heartbeat(beat),
        Some(Body::Coverage(coverage)) => text.coverage(coverage),
        Some(Body::IdentitySpoof(spoof)) => text.spoof(spoof),
        Some(Body::Contamination(contamination)) => text.contamination(contamination),
        Some(Body::CredentialLeftBehind(left)) => text.credential_left(left),
        Some(Body::Escape(escape)) => text.escape(escape),
        Some(Body::Delegation(delegation)) => text.delegation(delegation),
        Some(Body::IdentityVerified(verified)) => text.verified(verified),
        None => "of a kind this version does not know: use a newer one".into(),
    };
    if event.truncated {
        words.push_str(" [cut by the agent]");
    }
    if event.after_job {
        words.push_str(" [after its job]");
    }
    words
}

/// `3f9a0c11d2e4`; a dash outside jobs.
#[must_use]
pub fn short_job(job: Option<&Job>) -> String {
    job.map_or_else(|| "-".into(), |job| display::safe(&job.job_id, true).chars().take(SHORT_ID).collect())
}

/// `2 Build the crate`; a dash outside steps.
#[must_use]
pub fn step(step: Option<&Step>, escaped: bool) -> String {
    step.map_or_else(
        || "-".into(),
        |step| {
            let name = if step.name.is_empty() { &step.id } else { &step.name };
            let path = step.path.iter().chain([name]).map(|part| display::safe(part, escaped));
            format!("{} {}", step.index, path.collect::<Vec<_>>().join(" › "))
        },
    )
}

/// `cat[4711]`, or with the whole path `/usr/bin/cat[4711]`.
#[must_use]
pub fn process(event: &AuditEvent, whole_path: bool) -> String {
    let Some(Process { pid, executable, .. }) = &event.process else { return "-".into() };
    let executable =
        if whole_path { executable } else { executable.rsplit('/').next().unwrap_or(executable) };
    format!("{}[{pid}]", display::safe(executable, event.text_escaped))
}

/// How the job's identity is known, in words.
#[must_use]
pub fn assurance(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Verified => "verified: confirmed with the CI provider",
        Assurance::Observed => "observed: given by the runner to a process it started itself",
        Assurance::Asserted => "asserted: from the environment alone, which the job could have chosen",
        Assurance::Unspecified => "not stated",
    }
}

fn job_finished(finished: &JobFinished) -> String {
    let mut words = format!(
        "job finished after {}: {} processes, {} secret accesses, {} credential uses, {} connections, {} lookups",
        time::duration(finished.duration_ns.into()),
        finished.processes,
        finished.secret_accesses,
        finished.credential_uses,
        finished.connections,
        finished.dns_lookups
    );
    for (left, what) in
        [(finished.processes_left, "processes"), (finished.credentials_left, "credential files")]
    {
        if left > 0 {
            words = format!("{words}; left {left} {what} behind");
        }
    }
    words
}

fn heartbeat(beat: &Heartbeat) -> String {
    format!(
        "agent alive: {} events captured, {} lost, {} bytes in the spool, {} jobs running",
        beat.events_captured, beat.events_lost, beat.spool_bytes, beat.running_jobs
    )
}

fn socket_opened(socket: &SocketOpened) -> String {
    match socket.access() {
        SocketAccess::RawIp => format!("opened a raw IP socket (protocol {})", socket.protocol),
        SocketAccess::Packet => "opened a packet socket: whole frames of the network".to_owned(),
        SocketAccess::Xdp => "opened an AF_XDP socket: whole frames of the network".to_owned(),
        SocketAccess::Vsock => "opened a socket to the hypervisor (AF_VSOCK)".to_owned(),
        SocketAccess::Other | SocketAccess::Unspecified => {
            format!("opened a socket of address family {} (type {})", socket.family, socket.r#type)
        }
    }
}

/// Text fields of one event.
#[derive(Clone, Copy)]
struct Text {
    /// `AuditEvent.text_escaped`.
    escaped: bool,
}

impl Text {
    fn safe(self, text: &str) -> String {
        display::safe(text, self.escaped)
    }

    fn list(self, items: &[String], separator: &str) -> String {
        items.iter().map(|item| self.safe(item)).collect::<Vec<_>>().join(separator)
    }

    fn exec(self, exec: &ProcessExec) -> String {
        let quoted = |argument: &String| {
            let safe = self.safe(argument);
            if safe.is_empty() || safe.contains([' ', '"', '\'']) {
                format!("\"{}\"", safe.replace('"', "\\\""))
            } else {
                safe
            }
        };
        let mut words: String = exec.argv.iter().map(quoted).collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            words = self.safe(&exec.filename);
        }
        if exec.deleted {
            words.push_str(" [file had no name]");
        }
        if !exec.credential_variables.is_empty() {
            let names = self.list(&exec.credential_variables, ", ");
            words = format!("{words} [with {names} in its environment]");
        }
        words
    }

    fn secret(self, access: &SecretAccess) -> String {
        let did: Vec<_> = access
            .operations()
            .map(|operation| match operation {
                Operation::Open => "opened",
                Operation::Read => "read",
                Operation::Write => "wrote",
                Operation::Map => "mapped",
                Operation::Receive => "was given",
                Operation::ChangeAttributes => "changed the attributes of",
                Operation::Link => "linked",
                Operation::Unlink => "removed",
                Operation::Rename => "renamed",
                Operation::Replace => "replaced",
                Operation::Unspecified => "touched",
            })
            .collect();
        let did = if did.is_empty() { "touched".to_owned() } else { did.join("+") };
        format!("{did} {} ({})", self.safe(&access.secret), self.safe(&access.path))
    }

    fn memory(self, access: &MemoryAccess) -> String {
        let target = access.target.as_ref().map_or_else(
            || "an unknown process".to_owned(),
            |target| format!("{}[{}]", self.safe(&target.executable), target.pid),
        );
        let mut words = match access.method() {
            MemoryMethod::CoreDump => "its memory was written to a core dump".to_owned(),
            MemoryMethod::ProcMem => format!("opened the memory of {target}"),
            MemoryMethod::ProcInspect => format!("looked into {target} by way of /proc"),
            MemoryMethod::Ptrace => format!("traced {target}"),
            MemoryMethod::ProcessVmRead => format!("read the memory of {target}"),
            MemoryMethod::ProcessVmWrite => format!("wrote the memory of {target}"),
            MemoryMethod::PidfdGetfd => format!("took a descriptor of {target}"),
            MemoryMethod::Unspecified => format!("reached for {target}"),
        };
        if access.target_is_runner {
            words.push_str(", the CI runner");
        }
        if !access.target_job_id.is_empty() {
            words.push_str(", which works for another job");
        }
        if access.denied {
            words.push_str(": denied");
        }
        words
    }

    fn credential(self, used: &CredentialUse) -> String {
        let name = self.safe(&used.name);
        let mut words = match used.kind() {
            CredentialKind::Environment => format!("started with {name} in its environment"),
            CredentialKind::Command => format!("ran {name}"),
            CredentialKind::AgentSocket => format!("talked to {name}"),
            CredentialKind::MetadataService => format!("asked {name}"),
            CredentialKind::Argument => format!("ran with a {name}"),
            CredentialKind::Unspecified => format!("used {name}"),
        };
        if !used.variables.is_empty() {
            words = format!("{words}: {}", self.list(&used.variables, ", "));
        }
        if !used.target.is_empty() {
            words = format!("{words} at {}", self.safe(&used.target));
        }
        words
    }

    fn connection(self, connection: &ConnectionOpened) -> String {
        let mut words = self.remote(
            connection.protocol(),
            connection.ip_protocol,
            (&connection.remote_address, connection.remote_port),
            &connection.dns_names,
        );
        if connection.unconnected {
            words.push_str(", datagrams");
        }
        if connection.taken_over {
            words.push_str(", opened by another process");
        }
        words
    }

    fn connection_closed(self, connection: &ConnectionClosed) -> String {
        let remote = self.remote(
            connection.protocol(),
            connection.ip_protocol,
            (&connection.remote_address, connection.remote_port),
            &connection.dns_names,
        );
        let result = match connection.result() {
            ConnectionResult::Closed | ConnectionResult::Unspecified => "closed".to_owned(),
            ConnectionResult::Refused => "refused".to_owned(),
            ConnectionResult::TimedOut => "timed out".to_owned(),
            ConnectionResult::Reset => "reset by the other end".to_owned(),
            ConnectionResult::Unreachable => "unreachable".to_owned(),
            ConnectionResult::Abandoned => "given up".to_owned(),
            ConnectionResult::NotStarted => "not started".to_owned(),
            ConnectionResult::Failed => format!("failed with error {}", connection.error),
        };
        let mut words = format!(
            "{remote} {result} after {}: {} bytes out, {} in",
            time::duration(connection.duration_ns.into()),
            connection.bytes_out,
            connection.bytes_in
        );
        if !connection.tls_server_name.is_empty() {
            words = format!("{words}, TLS for {}", self.safe(&connection.tls_server_name));
        }
        if !connection.proxied_to.is_empty() {
            words = format!("{words}, by proxy to {}", self.safe(&connection.proxied_to));
        }
        words
    }

    /// `tcp to 192.0.2.1:443 (api.example.test)`
    fn remote(
        self,
        protocol: Protocol,
        number: u32,
        (address, port): (&str, u32),
        names: &[String],
    ) -> String {
        let has_ports = protocol != Protocol::Icmp && (protocol != Protocol::Other || port != 0);
        let protocol = match protocol {
            Protocol::Tcp => "tcp".to_owned(),
            Protocol::Udp => "udp".to_owned(),
            Protocol::Icmp => "icmp".to_owned(),
            Protocol::Sctp => "sctp".to_owned(),
            Protocol::Other | Protocol::Unspecified => format!("ip protocol {number}"),
        };
        let address = self.safe(address);
        let mut words = match (has_ports, address.contains(':')) {
            (true, true) => format!("{protocol} to [{address}]:{port}"),
            (true, false) => format!("{protocol} to {address}:{port}"),
            (false, _) => format!("{protocol} to {address}"),
        };
        if !names.is_empty() {
            words = format!("{words} ({})", self.list(names, ", "));
        }
        words
    }

    fn lookup(self, lookup: &DnsLookup) -> String {
        let mut words = format!("{} {}", self.safe(&lookup.r#type), self.safe(&lookup.name));
        if !lookup.answers.is_empty() {
            words = format!("{words} → {}", self.list(&lookup.answers, ", "));
        } else if !lookup.response_code.is_empty() {
            words = format!("{words} → {}", self.safe(&lookup.response_code));
        }
        if !lookup.resolver.is_empty() {
            words = format!("{words} (from {})", self.safe(&lookup.resolver));
        }
        words
    }

    fn loss(self, loss: &Loss) -> String {
        let mut words =
            format!("{} events lost in {}: {}", loss.count, self.safe(&loss.stage), self.safe(&loss.reason));
        if !loss.kinds.is_empty() {
            let kinds = loss.kinds.iter().map(|(kind, count)| format!("{count} {}", self.safe(kind)));
            words = format!("{words} ({})", kinds.collect::<Vec<_>>().join(", "));
        }
        if loss.first_sequence > 0 {
            let (first, last) = (loss.first_sequence, loss.last_sequence);
            words = format!("{words}, from number {first} to {last} of boot {}", self.safe(&loss.boot_id));
        }
        words
    }

    fn coverage(self, coverage: &Coverage) -> String {
        let served = coverage.hooks.iter().filter(|hook| hook.tier() != Tier::None).count();
        let mut words = format!(
            "agent {} on kernel {}: {served} of {} hooks",
            self.safe(&coverage.agent_version),
            self.safe(&coverage.kernel_release),
            coverage.hooks.len()
        );
        if !coverage.gaps.is_empty() {
            words = format!("{words}; not seen: {}", self.list(&coverage.gaps, " "));
        }
        words
    }
}

#[cfg(test)]
mod tests;
