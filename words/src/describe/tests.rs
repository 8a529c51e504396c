use buildtrail_proto::v1::{
    Contamination, ContaminationUse, CredentialLeftBehind, Delegation, DelegationWay, Escape, EscapeKind,
    HookCoverage, IdentityClaim, IdentitySpoof, IdentityVerified, JobStarted, SpoofKind,
};

use super::*;

const ESC: &str = "\u{1b}[2J\u{1b}]0;x\u{7}";

fn event(body: Body) -> AuditEvent {
    AuditEvent { body: Some(body), ..Default::default() }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[test]
fn a_loss_says_of_which_kinds_and_which_numbers() {
    for (body, told) in [
        (
            Body::Loss(Loss { stage: "ring".into(), reason: "full".into(), count: 7, ..Default::default() }),
            "7 events lost in ring: full",
        ),
        (
            Body::Loss(Loss {
                stage: "spool".into(),
                reason: "queue full".into(),
                count: 7,
                kinds: [("dns.lookup".into(), 6), ("loss".into(), 1)].into(),
                ..Default::default()
            }),
            "7 events lost in spool: queue full (6 dns.lookup, 1 loss)",
        ),
        (
            Body::Loss(Loss {
                stage: "spool".into(),
                reason: "spool full".into(),
                count: 2,
                kinds: [("dns.lookup".into(), 2)].into(),
                boot_id: "b1".into(),
                first_sequence: 5,
                last_sequence: 9,
                ..Default::default()
            }),
            "2 events lost in spool: spool full (2 dns.lookup), from number 5 to 9 of boot b1",
        ),
    ] {
        assert_eq!(what(&event(body)), told);
    }
}

#[test]
fn each_kind_is_told_in_one_line() {
    let table = [
        (Body::JobStarted(JobStarted::default()), "job started"),
        (
            Body::JobFinished(JobFinished {
                duration_ns: 65_000_000_000,
                processes: 3,
                ..Default::default()
            }),
            "job finished after 1m05s: 3 processes, 0 secret accesses, 0 credential uses, 0 connections, 0 lookups",
        ),
        (
            Body::ProcessExec(ProcessExec {
                argv: strings(&["bash", "-c", "echo \"hi\" there", ""]),
                credential_variables: strings(&["NPM_TOKEN"]),
                ..Default::default()
            }),
            "bash -c \"echo \\\"hi\\\" there\" \"\" [with NPM_TOKEN in its environment]",
        ),
        (
            Body::ProcessExec(ProcessExec { filename: "/x".into(), deleted: true, ..Default::default() }),
            "/x [file had no name]",
        ),
        (
            Body::SecretAccess(SecretAccess {
                secret: "AWS shared credentials".into(),
                path: "/root/.aws/credentials".into(),
                operations: vec![Operation::Open.into(), Operation::Read.into()],
                ..Default::default()
            }),
            "opened+read AWS shared credentials (/root/.aws/credentials)",
        ),
        (
            Body::CredentialUse(CredentialUse {
                kind: CredentialKind::AgentSocket.into(),
                name: "ssh-agent".into(),
                target: "/tmp/agent.1".into(),
                ..Default::default()
            }),
            "talked to ssh-agent at /tmp/agent.1",
        ),
        (
            Body::CredentialUse(CredentialUse {
                kind: CredentialKind::Environment.into(),
                name: "AWS keys".into(),
                variables: strings(&["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]),
                ..Default::default()
            }),
            "started with AWS keys in its environment: AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
        ),
        (
            Body::Coverage(Coverage {
                kernel_release: "6.18".into(),
                agent_version: "0.1.0".into(),
                hooks: vec![
                    HookCoverage { tier: Tier::B.into(), ..Default::default() },
                    HookCoverage { tier: Tier::None.into(), ..Default::default() },
                ],
                gaps: strings(&["Raw sockets are not seen."]),
            }),
            "agent 0.1.0 on kernel 6.18: 1 of 2 hooks; not seen: Raw sockets are not seen.",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(what(&event(body)), expected);
    }
}

#[test]
fn each_kind_of_the_network_is_told_in_one_line() {
    let table = [
        (
            Body::ConnectionOpened(ConnectionOpened {
                protocol: Protocol::Tcp.into(),
                remote_address: "::1".into(),
                remote_port: 443,
                dns_names: strings(&["registry.test"]),
                ..Default::default()
            }),
            "tcp to [::1]:443 (registry.test)",
        ),
        (
            Body::ConnectionOpened(ConnectionOpened {
                protocol: Protocol::Icmp.into(),
                remote_address: "127.0.0.1".into(),
                unconnected: true,
                taken_over: true,
                ..Default::default()
            }),
            "icmp to 127.0.0.1, datagrams, opened by another process",
        ),
        (
            Body::ConnectionClosed(ConnectionClosed {
                protocol: Protocol::Tcp.into(),
                remote_address: "127.0.0.1".into(),
                remote_port: 443,
                result: ConnectionResult::Closed.into(),
                bytes_out: 517,
                bytes_in: 70,
                duration_ns: 2_000_000_000,
                tls_server_name: "api.test".into(),
                proxied_to: "b.test:443".into(),
                ..Default::default()
            }),
            "tcp to 127.0.0.1:443 closed after 2.0s: 517 bytes out, 70 in, TLS for api.test, by proxy to b.test:443",
        ),
        (
            Body::SocketOpened(SocketOpened {
                access: SocketAccess::RawIp.into(),
                family: 2,
                r#type: 3,
                protocol: 1,
            }),
            "opened a raw IP socket (protocol 1)",
        ),
        (
            Body::DnsLookup(DnsLookup {
                name: "registry.test".into(),
                r#type: "A".into(),
                answers: strings(&["127.0.0.1"]),
                resolver: "127.0.0.53".into(),
                ..Default::default()
            }),
            "A registry.test → 127.0.0.1 (from 127.0.0.53)",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(what(&event(body)), expected);
    }
}

#[test]
fn each_kind_of_identity_is_told_in_one_line() {
    let claim = |name: &str| IdentityClaim { name: name.into(), claimed: "b".into(), known: "a".into() };
    let writer = Job {
        job_id: "0123456789abcdef".into(),
        repository: "acme/widgets".into(),
        name: "build".into(),
        ..Default::default()
    };
    let table = [
        (
            Body::IdentitySpoof(IdentitySpoof {
                kind: SpoofKind::IdentityVariables.into(),
                claims: vec![claim("GITHUB_REPOSITORY")],
                ..Default::default()
            }),
            "claimed to be another job: GITHUB_REPOSITORY=b instead of a",
        ),
        (
            Body::IdentitySpoof(IdentitySpoof {
                kind: SpoofKind::RunnerProgram.into(),
                path: "/tmp/Runner.Worker".into(),
                platform: "github-actions".into(),
                last: true,
                ..Default::default()
            }),
            "started what looks like a runner of github-actions: /tmp/Runner.Worker (further ones of this job are not told)",
        ),
        (
            Body::Contamination(Contamination {
                r#use: ContaminationUse::Configuration.into(),
                path: "/home/ci/.npmrc".into(),
                writer: Some(writer),
                ..Default::default()
            }),
            "was configured by /home/ci/.npmrc, which job 0123456789ab (acme/widgets build) wrote",
        ),
        (
            Body::CredentialLeftBehind(CredentialLeftBehind {
                secret: "Docker registry logins".into(),
                path: "/root/.docker/config.json".into(),
                mode: 0o100_600,
                ..Default::default()
            }),
            "left Docker registry logins behind (/root/.docker/config.json, mode 0600, user 0)",
        ),
        (
            Body::Escape(Escape {
                kind: EscapeKind::Container.into(),
                way: "docker".into(),
                container_name: "helper".into(),
                image: "alpine:3".into(),
                privileged: true,
                host_paths: strings(&["/", "/run/docker.sock"]),
                ..Default::default()
            }),
            "had docker start the privileged container helper of alpine:3 with the host's /, /run/docker.sock",
        ),
        (
            Body::Escape(Escape {
                kind: EscapeKind::User.into(),
                way: "sudo".into(),
                target: "root".into(),
                ..Default::default()
            }),
            "took another user's rights by sudo: root",
        ),
        (
            Body::Delegation(Delegation {
                way: DelegationWay::Socket.into(),
                service: "Gradle daemon".into(),
                target: "127.0.0.1:40000".into(),
                daemon_job_id: "0123".into(),
                ..Default::default()
            }),
            "handed work to Gradle daemon at 127.0.0.1:40000 (which another job started)",
        ),
        (
            Body::IdentityVerified(IdentityVerified {
                issuer: "https://ci.test".into(),
                differing: vec![claim("sha")],
                ..Default::default()
            }),
            "https://ci.test contradicts: sha=b instead of a",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(what(&event(body)), expected);
    }
}

#[test]
fn hostile_text_in_any_field_stays_text() {
    let hostile = format!("a{ESC}\nb\u{202e}");
    let list = vec![hostile.clone()];
    let bodies = [
        Body::ProcessExec(ProcessExec {
            filename: hostile.clone(),
            argv: list.clone(),
            credential_variables: list.clone(),
            ..Default::default()
        }),
        Body::SecretAccess(SecretAccess {
            secret: hostile.clone(),
            path: hostile.clone(),
            ..Default::default()
        }),
        Body::CredentialUse(CredentialUse {
            name: hostile.clone(),
            target: hostile.clone(),
            variables: list.clone(),
            ..Default::default()
        }),
        Body::ConnectionOpened(ConnectionOpened {
            remote_address: hostile.clone(),
            dns_names: list.clone(),
            ..Default::default()
        }),
        Body::ConnectionClosed(ConnectionClosed {
            remote_address: hostile.clone(),
            dns_names: list.clone(),
            tls_server_name: hostile.clone(),
            proxied_to: hostile.clone(),
            ..Default::default()
        }),
        Body::DnsLookup(DnsLookup {
            name: hostile.clone(),
            r#type: hostile.clone(),
            answers: list.clone(),
            resolver: hostile.clone(),
            response_code: hostile.clone(),
        }),
        Body::Loss(Loss {
            stage: hostile.clone(),
            reason: hostile.clone(),
            count: 1,
            kinds: [(hostile.clone(), 1)].into(),
            boot_id: hostile.clone(),
            first_sequence: 1,
            ..Default::default()
        }),
        Body::Coverage(Coverage {
            kernel_release: hostile.clone(),
            agent_version: hostile.clone(),
            gaps: list.clone(),
            ..Default::default()
        }),
    ];
    for body in bodies.into_iter().chain(hostile_identities(&hostile)) {
        let event = AuditEvent {
            process: Some(Process { pid: 1, executable: hostile.clone(), ..Default::default() }),
            step: Some(Step { name: hostile.clone(), path: list.clone(), ..Default::default() }),
            job: Some(Job { job_id: hostile.clone(), ..Default::default() }),
            ..event(body)
        };
        let shown = [
            what(&event),
            process(&event, true),
            process(&event, false),
            step(event.step.as_ref(), false),
            short_job(event.job.as_ref()),
        ];
        for text in shown {
            assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
    }
}

#[test]
fn escapes_made_by_the_agent_are_not_escaped_again() {
    let access = SecretAccess { secret: "key".into(), path: "/tmp/\\xff\\\\".into(), ..Default::default() };
    let escaped = AuditEvent { text_escaped: true, ..event(Body::SecretAccess(access.clone())) };
    assert_eq!(what(&escaped), "touched key (/tmp/\\xff\\\\)");
    assert_eq!(what(&event(Body::SecretAccess(access))), "touched key (/tmp/\\\\xff\\\\\\\\)");
}

fn hostile_identities(hostile: &str) -> Vec<Body> {
    let text = || hostile.to_owned();
    let claims = vec![IdentityClaim { name: text(), claimed: text(), known: text() }];
    vec![
        Body::IdentitySpoof(IdentitySpoof {
            kind: SpoofKind::IdentityVariables.into(),
            claims: claims.clone(),
            ..Default::default()
        }),
        Body::IdentitySpoof(IdentitySpoof {
            kind: SpoofKind::RunnerFiles.into(),
            path: text(),
            platform: text(),
            ..Default::default()
        }),
        Body::Contamination(Contamination {
            path: text(),
            writer: Some(Job { job_id: text(), repository: text(), name: text(), ..Default::default() }),
            ..Default::default()
        }),
        Body::CredentialLeftBehind(CredentialLeftBehind {
            secret: text(),
            path: text(),
            ..Default::default()
        }),
        Body::Escape(Escape {
            kind: EscapeKind::Container.into(),
            way: text(),
            container_name: text(),
            image: text(),
            host_paths: vec![text()],
            target: text(),
            ..Default::default()
        }),
        Body::Delegation(Delegation {
            service: text(),
            target: text(),
            request: text(),
            ..Default::default()
        }),
        Body::IdentityVerified(IdentityVerified { issuer: text(), differing: claims, ..Default::default() }),
        Body::IdentityVerified(IdentityVerified { refused: text(), ..Default::default() }),
    ]
}
