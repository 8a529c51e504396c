//! The HTTP API of a real collector: what it answers is what its `OpenAPI` document says, in every form, whatever the
//! events hold.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use buildtrail_proto::{
    unix_nanos,
    v1::{
        AuditEvent, ConnectionClosed, ConnectionOpened, CredentialUse, SearchEventsRequest,
        audit_event::Body as Of,
    },
};
use buildtrail_query::testing::{hostile_events, hostile_texts};
use http_body_util::BodyExt as _;
use hyper::{Method, Request, StatusCode, body::Bytes};
use serde_json::Value;
use support::{Site, TestHost, at, exec, in_job, secret};
use tonic::{body::Body, client::GrpcService, transport::Channel};

const JOB: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "ffff456789abcdef0123456789abcdef";

/// Somebody who asks over HTTP.
struct Asker {
    channel: Channel,
    address: std::net::SocketAddr,
}

struct Answer {
    status: StatusCode,
    kind: String,
    cursor: String,
    text: String,
}

impl Asker {
    async fn reader(site: &Site, address: std::net::SocketAddr) -> Self {
        site.reader("alice", address).await;
        Self { channel: support::connect(address, &site.path("alice")).await.unwrap(), address }
    }

    async fn ask(&mut self, method: Method, path: &str, accept: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}/api/v1{path}", self.address))
            .header("accept", accept)
            .body(Body::new(http_body_util::Full::new(Bytes::from(body.to_owned()))))
            .unwrap();
        std::future::poll_fn(|cx| self.channel.poll_ready(cx)).await.unwrap();
        let response = self.channel.call(request).await.unwrap();
        let header = |name: &str| {
            response.headers().get(name).map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let (status, kind, cursor) =
            (response.status(), header("content-type"), header("buildtrail-next-cursor"));
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, kind, cursor, text: String::from_utf8(bytes.into()).unwrap() }
    }

    async fn get(&mut self, path: &str, accept: &str) -> Answer {
        self.ask(Method::GET, path, accept, "").await
    }

    async fn json(&mut self, path: &str) -> Value {
        let answer = self.get(path, "application/json").await;
        assert_eq!((answer.status, &*answer.kind), (StatusCode::OK, "application/json"), "{}", answer.text);
        serde_json::from_str(&answer.text).unwrap()
    }
}

/// What of `value` is not as `schema` says. Knows the words that the document uses, and no others.
fn differs(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let wrong = |what: &str| Some(format!("{at}: {what}: {value}"));
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.strip_prefix("#/components/schemas/").unwrap();
        return differs(document, &document["components"]["schemas"][name], value, at);
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        return wrong("is none of the values");
    }
    match schema["type"].as_str().unwrap() {
        "string" => {
            let Some(text) = value.as_str() else { return wrong("is no string") };
            let digits = text.strip_prefix('-').unwrap_or(text);
            if schema.get("pattern").is_some() && !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return wrong("is no number");
            }
            let is_time = schema.get("format").and_then(Value::as_str) == Some("date-time");
            (is_time && buildtrail_words::time::parse(text).is_err()).then(|| wrong("is no time"))?
        }
        "integer" => (!value.is_i64() && !value.is_u64()).then(|| wrong("is no integer"))?,
        "number" => (!value.is_number()).then(|| wrong("is no number"))?,
        "boolean" => (!value.is_boolean()).then(|| wrong("is no boolean"))?,
        "array" => {
            let Some(items) = value.as_array() else { return wrong("is no array") };
            let mut items = items.iter().enumerate();
            items.find_map(|(number, item)| {
                differs(document, &schema["items"], item, &format!("{at}[{number}]"))
            })
        }
        "object" => {
            let Some(members) = value.as_object() else { return wrong("is no object") };
            for required in schema["required"].as_array().into_iter().flatten() {
                if !members.contains_key(required.as_str().unwrap()) {
                    return wrong(&format!("lacks {required}"));
                }
            }
            members.iter().find_map(|(name, member)| {
                let at = format!("{at}.{name}");
                match (schema["properties"].get(name), &schema["additionalProperties"]) {
                    (None, Value::Bool(false)) => Some(format!("{at} is not in the document")),
                    (Some(schema), _) | (None, schema @ Value::Object(_)) => {
                        differs(document, schema, member, &at)
                    }
                    (None, _) => None,
                }
            })
        }
        other => panic!("{at}: the document has a type {other} that this test does not know"),
    }
}

fn assert_as_documented(document: &Value, path: &str, method: &str, kind: &str, value: &Value) {
    let operation = &document["paths"][path][method];
    let kind = kind.split(';').next().unwrap();
    let response = if kind == "application/problem+json" { "default" } else { "200" };
    let schema = &operation["responses"][response]["content"][kind]["schema"];
    assert!(schema.is_object(), "{path} {kind} is not documented");
    let difference = differs(document, schema, value, path);
    assert!(difference.is_none(), "{}", difference.unwrap());
}

fn assert_does_nothing_when_shown(text: &str, about: &str) {
    let allowed = |char: char| matches!(char, '\n' | '\r');
    let bad = text.chars().find(|char| {
        (char.is_control() && !allowed(*char))
            || matches!(
                char,
                '\u{202e}' | '\u{2066}' | '\u{2069}' | '\u{200b}' | '\u{feff}' | '\u{e0041}' | '\u{301}'
            )
    });
    assert_eq!(bad, None, "{about}");
}

/// The cells of a record of CSV.
fn cells(record: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = record.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => cell.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            other => cell.push(other),
        }
    }
    assert!(!quoted, "a quote is open: {record:.80}");
    cells.push(cell);
    cells
}

async fn store(site: &Site, host: &mut TestHost, address: std::net::SocketAddr, events: Vec<AuditEvent>) {
    let newest_time = events.iter().filter_map(|event| event.time).max_by_key(unix_nanos);
    let mut batches = Vec::new();
    for some in events.chunks(10) {
        batches.push(host.seal(some.to_vec()).batch);
    }
    host.send(address, batches).await.1.unwrap();
    let mut reader = site.reader("alice", address).await;
    for _ in 0..1000 {
        let newest = SearchEventsRequest { limit: 1, ..SearchEventsRequest::default() };
        let found = reader.search_events(newest).await.unwrap().into_inner().events;
        if found.first().is_some_and(|event| event.time == newest_time) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the newest event was not indexed in time");
}

fn ordinary() -> Vec<AuditEvent> {
    let to = |second, name: &str, address: &str| {
        let opened = ConnectionOpened {
            remote_address: address.into(),
            remote_port: 443,
            protocol: 1,
            dns_names: vec![name.into()],
            ..ConnectionOpened::default()
        };
        at(second, Of::ConnectionOpened(opened))
    };
    let closed = ConnectionClosed {
        remote_address: "192.0.2.7".into(),
        bytes_out: 14_000,
        ..ConnectionClosed::default()
    };
    let used = CredentialUse { name: "ssh-agent".into(), ..CredentialUse::default() };
    vec![
        in_job(JOB, "widgets", 1, secret(1)),
        in_job(JOB, "widgets", 1, exec(2)),
        in_job(JOB, "widgets", 1, to(3, "a.evil.example", "192.0.2.7")),
        in_job(JOB, "widgets", 1, at(4, Of::ConnectionClosed(closed))),
        in_job(JOB, "widgets", 2, at(9, Of::CredentialUse(used))),
        in_job(OTHER, "gadgets", 1, secret(5)),
        in_job(OTHER, "gadgets", 1, to(6, "good.example", "198.51.100.9")),
        support::heartbeat(7),
    ]
}

/// Every path that answers with a list, its path in the document, and the member that is the list.
fn lists() -> Vec<(String, &'static str, &'static str)> {
    vec![
        ("/jobs".into(), "/jobs", "jobs"),
        ("/events?limit=10000".into(), "/events", "events"),
        ("/aggregate?by=repo,kind&over=hour&limit=10000".into(), "/aggregate", "rows"),
        ("/aggregate?by=secret".into(), "/aggregate", "rows"),
        ("/secrets".into(), "/secrets", "rows"),
        ("/destinations".into(), "/destinations", "rows"),
        ("/hosts".into(), "/hosts", "hosts"),
        ("/acts".into(), "/acts", "acts"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_served_document_says() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    store(&site, &mut host, collector.address(), ordinary()).await;
    let mut asker = Asker::reader(&site, collector.address()).await;
    let document = asker.json("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");

    for (path, documented, member) in lists() {
        let value = asker.json(&path).await;
        assert_as_documented(&document, documented, "get", "application/json", &value);
        let items = value[member].as_array().unwrap_or_else(|| panic!("{path}: {value}"));
        assert!(!items.is_empty(), "{path}");
        let lines = asker.get(&path, "application/x-ndjson").await;
        let lines: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            assert_as_documented(&document, documented, "get", "application/x-ndjson", line);
        }
        let csv = asker.get(&path, "text/csv").await;
        assert!(csv.kind.starts_with("text/csv"), "{path}");
        // Asking is an act itself.
        if documented != "/acts" {
            assert_eq!(lines, *items, "{path}");
            assert_eq!(csv.text.lines().count(), items.len() + 1, "{path}");
        }
    }
    let job = asker.json(&format!("/jobs/{}", &JOB[..12])).await;
    assert_as_documented(&document, "/jobs/{id}", "get", "application/json", &job);
    assert_eq!(job["summary"]["job"]["repository"], "acme/widgets");

    for (path, documented, status, words) in [
        ("/events?where=repository%3Dx", "/events", 400, "column 1"),
        ("/events?limit=0", "/events", 400, "1 to 10000"),
        ("/events?cursor=zz", "/events", 400, "cursor"),
        ("/aggregate?by=text", "/aggregate", 400, "cannot count by"),
        ("/jobs/ffffffff0000", "/jobs/{id}", 404, "no such job"),
        ("/jobs?colour=red", "/jobs", 400, "no parameter"),
        ("/tail?where=since%3D1h", "/tail", 400, "to come"),
        ("/nothing", "/jobs", 404, "openapi.json"),
    ] {
        let refused = asker.get(path, "application/json").await;
        assert_eq!((refused.status.as_u16(), &*refused.kind), (status, "application/problem+json"), "{path}");
        let problem: Value = serde_json::from_str(&refused.text).unwrap();
        assert_as_documented(&document, documented, "get", &refused.kind, &problem);
        assert!(problem["detail"].as_str().unwrap().contains(words), "{path}: {problem}");
        assert_eq!(problem["status"], status);
    }
    assert_eq!(asker.get("/jobs", "text/html").await.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(asker.ask(Method::POST, "/jobs", "*/*", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_manual_are_answered() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    store(&site, &mut host, collector.address(), ordinary()).await;
    let mut asker = Asker::reader(&site, collector.address()).await;
    let manual = include_str!("../../docs/query.md");
    let block = |word: &str| {
        let mut blocks = manual.split("```").skip(1).step_by(2);
        blocks.find_map(|block| block.strip_prefix(word)).unwrap_or_else(|| panic!("no {word}"))
    };
    let paths = block("api").lines().filter_map(|line| line.strip_prefix("/api/v1"));
    let mut answered = 0;
    for path in paths {
        asker.json(path).await;
        answered += 1;
    }
    assert!(answered >= 5);
    let hunted = asker.ask(Method::POST, "/hunt", "application/json", block("indicators")).await;
    let hunted: Value = serde_json::from_str(&hunted.text).unwrap();
    assert!(hunted.get("remarks").is_none(), "{hunted}");
    assert_eq!(hunted["indicators"].as_array().unwrap().len(), 6);
    assert_eq!(hunted["jobs"].as_array().unwrap().len(), 1);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_by_cursor_in_every_form() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    store(&site, &mut host, collector.address(), ordinary()).await;
    let mut asker = Asker::reader(&site, collector.address()).await;
    let all = asker.json("/events?order=oldest").await;
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/events?order=oldest&limit=3&cursor={cursor}");
        let answer = asker.get(&path, "application/x-ndjson").await;
        paged.extend(answer.text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        cursor = answer.cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(&paged, all["events"].as_array().unwrap());
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hunt_names_the_affected_job_and_what_to_rotate_first() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    store(&site, &mut host, collector.address(), ordinary()).await;
    let mut asker = Asker::reader(&site, collector.address()).await;
    let document = asker.json("/openapi.json").await;
    let digest = "a".repeat(64);
    let list = format!("evil[.]example\n192.0.2.0/24\n/usr/bin/nothing\n{digest}\nnot an indicator\n");
    let sigma = "title: True ran\nlogsource:\n    category: process_creation\n    product: linux\ndetection:\n    \
                 selection:\n        OriginalFileName|endswith: /true\n    condition: selection\n";
    let stix = serde_json::json!({ "type": "bundle", "objects": [
        { "type": "indicator", "pattern_type": "stix",
          "pattern": "[domain-name:value = 'a.evil.example' AND ipv4-addr:value = '192.0.2.7']" },
        { "type": "indicator", "pattern_type": "stix",
          "pattern": "[domain-name:value = 'a.evil.example' AND ipv4-addr:value = '198.51.100.9']" },
    ]});
    for (file, found, not_found, remarks) in
        [(list.as_str(), 2, 2, 1), (sigma, 1, 0, 0), (&stix.to_string(), 1, 1, 0)]
    {
        let answer = asker.ask(Method::POST, "/hunt", "application/json", file).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        let result: Value = serde_json::from_str(&answer.text).unwrap();
        assert_as_documented(&document, "/hunt", "post", &answer.kind, &result);
        let indicators = result["indicators"].as_array().unwrap();
        let (hits, misses): (Vec<_>, Vec<_>) = indicators.iter().partition(|it| it.get("events").is_some());
        assert_eq!((hits.len(), misses.len()), (found, not_found), "{result}");
        assert_eq!(result["remarks"].as_array().map_or(0, Vec::len), remarks, "{result}");
        let jobs = result["jobs"].as_array().unwrap();
        assert_eq!((jobs.len(), &jobs[0]["job"]["job_id"]), (1, &Value::from(JOB)), "{result}");
        assert_eq!(result["repositories"][0]["name"], "acme/widgets");
        assert_eq!(result["hosts"][0]["name"], Value::from(host.id.clone()));
        let secrets = result["secrets"].as_array().unwrap();
        // The token was read before the contact, the agent was used after it.
        assert_eq!(secrets[0]["name"], "npm token", "{result}");
        assert_eq!((&secrets[0]["jobs_exposed"], secrets[1].get("jobs_exposed")), (&Value::from("1"), None));
        assert_eq!(secrets[1]["name"], "ssh-agent");
    }
    let hunted = asker.ask(Method::POST, "/hunt", "application/json", &digest).await;
    assert!(
        hunted.text.contains("\"not_recorded\":true") && hunted.text.contains("hashes were not searched")
    );
    let lines = asker.ask(Method::POST, "/hunt", "application/x-ndjson", &list).await;
    let told: Value = serde_json::from_str(lines.text.lines().last().unwrap()).unwrap();
    assert_as_documented(&document, "/hunt", "post", "application/x-ndjson", &told);
    assert!(told["result"]["jobs"].is_array(), "{told}");
    let later = asker.ask(Method::POST, "/hunt?since=2026-11-22T12:00:00Z", "*/*", &list).await;
    let later: Value = serde_json::from_str(&later.text).unwrap();
    assert!(later.get("jobs").is_none() && later.get("secrets").is_none(), "{later}");
    let refused = asker.ask(Method::POST, "/hunt", "*/*", "nothing at all").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let acts = asker.get("/acts?kind=reader.asked", "text/csv").await;
    assert!(
        acts.text.contains("alice Hunt: indicators: 1 domain, 1 hash, 1 network, 1 path"),
        "{}",
        acts.text
    );
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_events_stay_text_in_every_answer() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let mut events = hostile_events();
    for event in &mut events {
        event.host_id.clone_from(&host.id);
    }
    let count = events.len();
    store(&site, &mut host, collector.address(), events).await;
    let mut asker = Asker::reader(&site, collector.address()).await;
    let document = asker.json("/openapi.json").await;
    for (path, documented, _) in lists() {
        let json = asker.get(&path, "application/json").await;
        assert_does_nothing_when_shown(&json.text, &path);
        let value = serde_json::from_str(&json.text).unwrap();
        assert_as_documented(&document, documented, "get", "application/json", &value);
        let csv = asker.get(&path, "text/csv").await;
        assert_does_nothing_when_shown(&csv.text, &path);
        for record in csv.text.split("\r\n") {
            assert!(!record.contains(['\n', '\r']), "{path}: a record of two lines");
            for cell in cells(record) {
                let formula = cell.trim_start().starts_with(['=', '@', '+', '-']);
                assert!(!formula, "{path}: {cell:.80}");
            }
        }
    }
    // Whatever a value is, it can be asked for, and nothing else is found by it.
    let (mut found, mut cursor) = (0, String::new());
    loop {
        let page = asker.json(&format!("/events?limit=1000&cursor={cursor}")).await;
        found += page["events"].as_array().map_or(0, Vec::len);
        cursor = page["next_cursor"].as_str().unwrap_or_default().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(found, count);
    for text in hostile_texts().iter().filter(|text| text.len() < 1000) {
        let search = buildtrail_query::to_text(&buildtrail_proto::v1::Search {
            r#where: vec![buildtrail_proto::v1::Condition {
                field: "actor".into(),
                operator: buildtrail_proto::v1::Operator::Equals.into(),
                values: vec![buildtrail_query::exactly(text)],
            }],
            ..Default::default()
        });
        let search: String = form_urlencoded::byte_serialize(search.as_bytes()).collect();
        let rows = asker.json(&format!("/aggregate?by=actor&where={search}")).await;
        assert_eq!(rows["rows"].as_array().unwrap().len(), 1, "{text:?}: {rows}");
        assert_eq!(rows["rows"][0]["values"][0].as_str(), Some(text.as_str()));
        let id: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let job = asker.get(&format!("/jobs/{}", id.replace('+', "%20")), "application/json").await;
        assert_does_nothing_when_shown(&job.text, text);
    }
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_sends_each_event_as_one_message() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let mut asker = Asker::reader(&site, collector.address()).await;
    let uri = format!("https://{}/api/v1/tail?where=kind%3Dsecret.access", collector.address());
    std::future::poll_fn(|cx| asker.channel.poll_ready(cx)).await.unwrap();
    let response = asker.channel.call(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut hostile = hostile_events();
    hostile.retain(|event| event.kind() == "secret.access" && event.job.as_ref().unwrap().actor.len() < 1000);
    for event in &mut hostile {
        event.host_id.clone_from(&host.id);
    }
    let expected = hostile.len();
    store(&site, &mut host, collector.address(), [hostile, vec![support::heartbeat(1)]].concat()).await;
    let mut body = response.into_body();
    let mut text = String::new();
    while text.matches("event: event\n").count() < expected || !text.ends_with("\n\n") {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    assert_does_nothing_when_shown(&text, "tail");
    let messages = text.split("\n\n").filter(|message| message.starts_with("event: "));
    let mut told = 0;
    for message in messages {
        let data = message.strip_prefix("event: event\ndata: ").unwrap();
        assert!(!data.contains('\n'));
        let event: AuditEvent = serde_json::from_str(data).unwrap();
        assert_eq!(event.kind(), "secret.access");
        told += 1;
    }
    assert_eq!(told, expected);
    drop(body);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_exported_as_a_file_that_verifies() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    store(&site, &mut host, collector.address(), ordinary()).await;
    let mut asker = Asker::reader(&site, collector.address()).await;
    let uri = format!("https://{}/api/v1/jobs/{}/export", collector.address(), &JOB[..12]);
    std::future::poll_fn(|cx| asker.channel.poll_ready(cx)).await.unwrap();
    let response = asker.channel.call(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let found =
        buildtrail_evidence::verify::verify_bundle(&bytes, &buildtrail_evidence::verify::Trust::default());
    assert!(found.unwrap().report.problems.is_empty());
    let unknown = asker.get("/jobs/eeee00000000/export", "*/*").await;
    assert_eq!((unknown.status, &*unknown.kind), (StatusCode::NOT_FOUND, "application/problem+json"));
    collector.stop().await.unwrap();
}
