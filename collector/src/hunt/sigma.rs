//! Sigma rules over audit events.
//!
//! Rules are written for logs of many kinds. The log source says which of our events a rule is about; the usual names of
//! fields (`Image`, `CommandLine`, `DestinationIp`, …) and our own (`repo`, `secret`, …) can be used.

use std::borrow::Cow;

use buildtrail_proto::v1::{AuditEvent, ProcessExec, audit_event::Body};
use buildtrail_query::{Field, values};
use rsigma_eval::{CompiledRule, Event, EventValue, RuleFieldSet, compile_rule, evaluate_rule};
use rsigma_parser::{LogSource, SigmaCollection, SigmaRule, parse_sigma_yaml};

use super::{Indicator, Indicators};

const MAX_BYTES: usize = 1 << 20;
const MAX_RULES: usize = 500;

/// Fields of the Sigma taxonomy that events have, and in which kinds of events.
const TAXONOMY: [(&str, &[&str]); 17] = [
    ("EventType", &[]),
    ("Computer", &[]),
    ("Image", &[]),
    ("ProcessId", &[]),
    ("ParentProcessId", &[]),
    ("User", &[]),
    ("CommandLine", &["process.exec"]),
    ("CurrentDirectory", &["process.exec"]),
    ("OriginalFileName", &["process.exec"]),
    ("TargetFilename", &["secret.access"]),
    ("DestinationIp", &["connection.opened", "connection.closed"]),
    ("DestinationPort", &["connection.opened", "connection.closed"]),
    ("DestinationHostname", &["connection.opened", "connection.closed"]),
    ("Initiated", &["connection.opened", "connection.closed"]),
    ("QueryName", &["dns.lookup"]),
    ("QueryResults", &["dns.lookup"]),
    ("QueryStatus", &["dns.lookup"]),
];

/// A rule, and the kinds of events it is about (none: all).
#[derive(Debug, Clone)]
pub(super) struct Rule {
    compiled: CompiledRule,
    kinds: &'static [&'static str],
}

impl Rule {
    /// The kinds of events it is about; none: all.
    pub(super) fn kinds(&self) -> &'static [&'static str] {
        self.kinds
    }

    pub(super) fn matches(&self, event: &AuditEvent) -> bool {
        let wanted = self.kinds.is_empty() || self.kinds.contains(&event.kind());
        wanted && evaluate_rule(&self.compiled, &Seen(event)).is_some()
    }
}

/// Reads the rules of a YAML text; what is not understood becomes a remark. `number` is the first rule's.
pub(super) fn read(text: &str, number: u32, found: &mut Indicators) {
    if text.len() > MAX_BYTES {
        return found.remark(number, "Sigma rules", &format!("they are longer than {MAX_BYTES} bytes"));
    }
    let rules = match parse_sigma_yaml(text) {
        Ok(rules) => rules,
        Err(error) => return found.remark(number, "Sigma rules", &error.to_string()),
    };
    for error in &rules.errors {
        found.remark(0, "Sigma rule", error);
    }
    for correlation in &rules.correlations {
        found.remark(0, &correlation.title, "correlation rules are not understood; single rules are");
    }
    for filter in &rules.filters {
        found.remark(0, &filter.title, "filter rules are not understood; write the filter into the rule");
    }
    for (number, rule) in (number..).zip(rules.rules) {
        match usable(&rule) {
            Ok(kinds) => add(rule, kinds, number, found),
            Err(reason) => found.remark(number, &rule.title, &reason),
        }
    }
}

fn add(rule: SigmaRule, kinds: &'static [&'static str], number: u32, found: &mut Indicators) {
    if found.all.iter().filter(|indicator| indicator.rule().is_some()).count() == MAX_RULES {
        return found.remark(
            number,
            &rule.title,
            &format!("more than {MAX_RULES} Sigma rules; split the file"),
        );
    }
    match compile_rule(&rule) {
        Ok(compiled) => {
            let title = rule.title.clone();
            let unknown = unknown_fields(rule, kinds);
            if !unknown.is_empty() {
                let unknown = unknown.join(", ");
                let reason = format!(
                    "events of this kind have no field {unknown}: the rule was run as if it were absent"
                );
                found.remark(number, &title, &reason);
            }
            found.add(Indicator::sigma(&title, number, Rule { compiled, kinds }));
        }
        Err(error) => found.remark(number, &rule.title, &error.to_string()),
    }
}

fn usable(rule: &SigmaRule) -> Result<&'static [&'static str], String> {
    let LogSource { category, product, service, .. } = &rule.logsource;
    if let Some(product) = product
        && !matches!(product.as_str(), "linux" | "buildtrail")
    {
        return Err(format!("it is about the product {product}; linux and buildtrail are understood"));
    }
    if let Some(service) = service {
        return Err(format!("it is about the log of {service}, which agents do not read"));
    }
    match category.as_deref() {
        None => Ok(&[]),
        Some("process_creation") => Ok(&["process.exec"]),
        Some("network_connection" | "firewall") => Ok(&["connection.opened", "connection.closed"]),
        Some("dns_query" | "dns") => Ok(&["dns.lookup"]),
        Some("file_access" | "file_event" | "file_change" | "file_delete" | "file_rename") => {
            Ok(&["secret.access"])
        }
        Some("process_access") => Ok(&["memory.access"]),
        Some(other) => Err(format!(
            "it is about {other}; process_creation, network_connection, dns_query, file_access and process_access are \
             understood"
        )),
    }
}

fn unknown_fields(rule: SigmaRule, kinds: &[&str]) -> Vec<String> {
    let mut collection = SigmaCollection::new();
    collection.rules.push(rule);
    let fields = RuleFieldSet::collect(&collection, &[], false);
    let of_these_kinds = |field: &str| {
        TAXONOMY.iter().any(|(name, of)| {
            *name == field
                && (of.is_empty() || kinds.is_empty() || kinds.iter().any(|kind| of.contains(kind)))
        })
    };
    let known = |field: &&str| of_these_kinds(field) || Field::parse(field).is_some();
    fields.names().filter(|field| !known(field)).map(str::to_owned).collect()
}

/// An event as Sigma sees it.
struct Seen<'a>(&'a AuditEvent);

impl Seen<'_> {
    fn taxonomy(&self, field: &str) -> Option<EventValue<'_>> {
        let text = |text| Some(EventValue::Str(Cow::Borrowed(text)));
        let number = |number: u32| Some(EventValue::Int(number.into()));
        let process = self.0.process.as_ref();
        match (field, &self.0.body) {
            ("EventType", _) => text(self.0.kind()),
            ("Computer", _) => text(&self.0.host_id),
            ("Image", _) => text(&process?.executable),
            ("ProcessId", _) => number(process?.pid),
            ("ParentProcessId", _) => number(process?.parent_pid),
            ("User", _) => number(process?.uid),
            ("CommandLine", Some(Body::ProcessExec(exec))) => {
                Some(EventValue::Str(Cow::Owned(command_line(exec))))
            }
            ("CurrentDirectory", Some(Body::ProcessExec(exec))) => text(&exec.working_directory),
            ("OriginalFileName", Some(Body::ProcessExec(exec))) => text(&exec.filename),
            ("TargetFilename", Some(Body::SecretAccess(access))) => text(&access.path),
            ("QueryName", Some(Body::DnsLookup(lookup))) => text(&lookup.name),
            ("QueryResults", Some(Body::DnsLookup(lookup))) => Some(list(&lookup.answers)),
            ("QueryStatus", Some(Body::DnsLookup(lookup))) => text(&lookup.response_code),
            ("Initiated", Some(Body::ConnectionOpened(_) | Body::ConnectionClosed(_))) => text("true"),
            ("DestinationIp", Some(Body::ConnectionOpened(to))) => text(&to.remote_address),
            ("DestinationIp", Some(Body::ConnectionClosed(to))) => text(&to.remote_address),
            ("DestinationPort", Some(Body::ConnectionOpened(to))) => number(to.remote_port),
            ("DestinationPort", Some(Body::ConnectionClosed(to))) => number(to.remote_port),
            ("DestinationHostname", Some(Body::ConnectionOpened(to))) => Some(list(&to.dns_names)),
            ("DestinationHostname", Some(Body::ConnectionClosed(to))) => {
                let asked_for = [&to.tls_server_name].into_iter().filter(|name| !name.is_empty());
                let names = to.dns_names.iter().chain(asked_for);
                Some(EventValue::Array(names.map(|name| EventValue::Str(Cow::Borrowed(name))).collect()))
            }
            _ => None,
        }
    }
}

fn list(texts: &[String]) -> EventValue<'_> {
    EventValue::Array(texts.iter().map(|text| EventValue::Str(Cow::Borrowed(text))).collect())
}

/// A command line as people write it; arguments that hold spaces cannot be told from several.
pub(super) fn command_line(exec: &ProcessExec) -> String {
    exec.argv.join(" ")
}

impl Event for Seen<'_> {
    fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
        self.taxonomy(path).or_else(|| {
            let mut all = Vec::new();
            values(self.0, Field::parse(path)?, &mut |value| all.push(EventValue::Str(value)));
            if all.len() > 1 { Some(EventValue::Array(all)) } else { all.pop() }
        })
    }

    fn any_string_value(&self, pred: &dyn Fn(&str) -> bool) -> bool {
        let mut any = false;
        values(self.0, Field::Text, &mut |value| any = any || pred(&value));
        any
    }

    fn all_string_values(&self) -> Vec<Cow<'_, str>> {
        let mut all = Vec::new();
        values(self.0, Field::Text, &mut |value| all.push(value));
        all
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self.0).unwrap_or_default()
    }
}
