//! What the guest's job must leave in the audit trail: a table, and the judge.

use serde_json::Value;

use super::guest::REPOSITORY;

/// Something that happened in the guest.
pub(super) struct Fact {
    /// What, for people.
    pub name: &'static str,
    /// The step that did it; `None`: outside any job.
    step: Option<&'static str>,
    /// Whether an event tells it.
    tells: fn(&Value) -> bool,
}

const fn fact(name: &'static str, step: &'static str, tells: fn(&Value) -> bool) -> Fact {
    Fact { name, step: Some(step), tells }
}

/// In the order of the matrix.
pub(super) const FACTS: [Fact; 26] = [
    fact("secret read through a symbolic link", "link", |event| is_read(event, "/root/.npmrc")),
    fact("secret read by a daemon", "daemon", |event| is_read(event, "/root/.docker/config.json")),
    Fact { name: "secret read outside any job", step: None, tells: |event| is_read(event, "/root/.netrc") },
    fact("program with its arguments", "link", |event| {
        event["process_exec"]["argv"] == serde_json::json!(["cat", "/srv/link-to-npmrc"])
    }),
    fact("credential in an argument", "argument", |event| is_use(event, "ARGUMENT")),
    fact("credential in the environment", "variable", |event| {
        is_use(event, "ENVIRONMENT") && has(&event["credential_use"]["variables"], "NPM_TOKEN")
    }),
    fact("unix socket of an ssh-agent", "ssh-agent", |event| {
        is_use(event, "AGENT_SOCKET") && event["credential_use"]["target"] == "/run/ssh-job/agent.1"
    }),
    fact("TCP over IPv4", "tcp4", |event| is_connection(event, "TCP", "127.0.0.10", 8443)),
    fact("TCP over IPv6", "tcp6", |event| is_connection(event, "TCP", "::1", 8444)),
    fact("UDP, connected", "udp4", |event| {
        is_connection(event, "UDP", "127.0.0.1", 8125) && !is_unconnected(event)
    }),
    fact("UDP over IPv4, not connected", "datagram4", |event| {
        is_connection(event, "UDP", "127.0.0.1", 6969) && is_unconnected(event)
    }),
    fact("UDP over IPv6, not connected", "datagram6", |event| {
        is_connection(event, "UDP", "::1", 6969) && is_unconnected(event)
    }),
    fact("DNS question and answer", "name", |event| {
        let lookup = &event["dns_lookup"];
        lookup["name"] == "registry.example.test" && has(&lookup["answers"], "127.0.0.10")
    }),
    fact("connection with the name looked up", "name", |event| {
        is_connection(event, "TCP", "127.0.0.10", 8445)
            && has(&event["connection_opened"]["dns_names"], "registry.example.test")
    }),
    fact("cloud metadata service", "metadata", |event| is_use(event, "METADATA_SERVICE")),
    fact("connection closed, with its bytes", "closed", |event| {
        is_closed(event, "CLOSED", 8446) && event["connection_closed"]["bytes_out"] == "5"
    }),
    fact("datagrams closed, with their bytes", "udp4", |event| {
        is_closed(event, "CLOSED", 8125) && event["connection_closed"]["bytes_out"] == "2"
    }),
    fact("connection refused", "refused", |event| is_closed(event, "REFUSED", 9)),
    fact("connection of a parent used by its child", "inherited", |event| {
        event["connection_opened"]["taken_over"] == true
    }),
    fact("TLS server name", "tls", |event| {
        event["connection_closed"]["tls_server_name"] == "sni.example.test"
    }),
    fact("connection by a proxy", "proxy", |event| {
        event["connection_closed"]["proxied_to"] == "api.example.test:443"
    }),
    fact("DNS over TCP", "dns-tcp", |event| {
        let lookup = &event["dns_lookup"];
        lookup["name"] == "example.test" && has(&lookup["answers"], "127.0.0.10")
    }),
    fact("ICMP by a raw socket", "ping", |event| is_connection(event, "ICMP", "127.0.0.1", 0)),
    fact("raw socket", "ping", |event| event["socket_opened"]["access"] == "SOCKET_ACCESS_RAW_IP"),
    fact("packet socket", "packet", |event| event["socket_opened"]["access"] == "SOCKET_ACCESS_PACKET"),
    Fact { name: "coverage of the host", step: None, tells: |event| event["coverage"]["hooks"].is_array() },
];

impl Fact {
    /// Whether an event tells it with the right job and step, and none with other ones.
    pub(super) fn holds(&self, events: &[Value]) -> bool {
        let mut telling = events.iter().filter(|event| (self.tells)(event)).peekable();
        telling.peek().is_some() && telling.all(|event| self.is_where_it_belongs(event))
    }

    fn is_where_it_belongs(&self, event: &Value) -> bool {
        match self.step {
            None => event["job"].is_null() && event["step"].is_null(),
            Some(step) => event["job"]["repository"] == REPOSITORY && event["step"]["id"] == step,
        }
    }
}

fn is_read(event: &Value, path: &str) -> bool {
    let access = &event["secret_access"];
    access["path"] == path && has(&access["operations"], "OPERATION_READ")
}

fn is_use(event: &Value, kind: &str) -> bool {
    event["credential_use"]["kind"].as_str().and_then(|name| name.strip_prefix("CREDENTIAL_KIND_"))
        == Some(kind)
}

fn is_connection(event: &Value, protocol: &str, address: &str, port: u64) -> bool {
    let connection = &event["connection_opened"];
    connection["protocol"].as_str().and_then(|name| name.strip_prefix("PROTOCOL_")) == Some(protocol)
        && connection["remote_address"] == address
        // Zero is left out.
        && connection["remote_port"].as_u64().unwrap_or(0) == port
}

fn is_closed(event: &Value, result: &str, port: u64) -> bool {
    let connection = &event["connection_closed"];
    connection["result"].as_str().and_then(|name| name.strip_prefix("CONNECTION_RESULT_")) == Some(result)
        && connection["remote_port"] == port
}

fn is_unconnected(event: &Value) -> bool {
    event["connection_opened"]["unconnected"] == true
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(|entry| entry == word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tcp4() -> &'static Fact {
        FACTS.iter().find(|fact| fact.name == "TCP over IPv4").unwrap()
    }

    fn connection(step: &str) -> Value {
        json!({
            "job": {"repository": REPOSITORY},
            "step": {"id": step},
            "connection_opened":
                {"protocol": "PROTOCOL_TCP", "remote_address": "127.0.0.10", "remote_port": 8443},
        })
    }

    #[test]
    fn a_fact_needs_an_event_and_no_event_in_another_step() {
        assert!(!tcp4().holds(&[]));
        assert!(tcp4().holds(&[connection("tcp4")]));
        assert!(!tcp4().holds(&[connection("tcp4"), connection("tcp6")]));
    }
}
