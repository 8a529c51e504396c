//! The real `buildtrail` program against a collector of canned answers, over real mutual TLS.

#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use buildtrail_proto::{
    Timestamp,
    v1::{
        AggregateRequest, AggregateResponse, AggregateRow, Assurance, AuditEvent, CollectorEntry,
        CredentialLeftBehind, GetCheckpointRequest, GetCheckpointResponse, GetJobRequest, GetJobResponse,
        HostDark, HostSummary, HostVerification, HostsRequest, HostsResponse, HuntReply, HuntRequest,
        HuntResult, HuntedIndicator, HuntedJob, IdentitySpoof, IndicatorRemark, Job, JobSummary,
        ListActsRequest, ListActsResponse, ListJobsRequest, ListJobsResponse, Loss, Operation, Process,
        ProveConsistencyRequest, ProveConsistencyResponse, ProveEventRequest, ProveEventResponse,
        ProveRecordRequest, ProveRecordResponse, RecordedAct, Search, SearchEventsRequest,
        SearchEventsResponse, SecretAccess, SecretToRotate, SpoofKind, Step, StepSummary, TailRequest, Tier,
        VerifyRequest, VerifyResponse,
        audit_event::Body,
        collector_entry::Act,
        hunt_reply::Reply,
        hunting_server::{Hunting, HuntingServer},
        query_server::{Query, QueryServer},
    },
};
use buildtrail_query::testing::hostile_events;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

const JOB: &str = "3f9a0c11d2e45566778899aabbccddee";

#[derive(Default)]
struct Canned {
    asked: Mutex<Vec<Search>>,
    tokens: Mutex<Vec<String>>,
    hostile: bool,
    problems: Vec<String>,
    incomplete: bool,
    lost: u64,
}

fn job() -> Job {
    Job {
        job_id: JOB.into(),
        platform: "github-actions".into(),
        repository: "acme/\u{1b}[31mwidgets".into(),
        workflow: "ci\nX".into(),
        run_id: "42".into(),
        name: "build".into(),
        actor: "mallory\u{202e}".into(),
        assurance: Assurance::Observed.into(),
        ..Default::default()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds: 1_795_336_200 + seconds, nanos: 0 }
}

fn summary() -> JobSummary {
    JobSummary {
        job: Some(job()),
        host_id: "host-1".into(),
        first_event: Some(at(0)),
        last_event: Some(at(65)),
        finished: true,
        counts: [("secret.access".to_owned(), 1), ("loss".to_owned(), 1)].into(),
        bytes_out: 4711,
        bytes_in: 8,
    }
}

fn events() -> Vec<AuditEvent> {
    let step = Step { id: "__run_2".into(), index: 2, name: "Read the key".into(), ..Step::default() };
    let process = Process { pid: 4711, executable: "/usr/bin/cat".into(), ..Default::default() };
    let access = SecretAccess {
        secret: "AWS shared credentials".into(),
        path: "/root/\u{1b}]0;owned\u{7}/credentials".into(),
        operations: vec![Operation::Read.into()],
        ..Default::default()
    };
    let loss =
        Loss { stage: "spool".into(), reason: "queue full: dns.lookup".into(), count: 3, ..Loss::default() };
    let event = AuditEvent { job: Some(job()), host_id: "host-1".into(), ..Default::default() };
    vec![
        AuditEvent {
            time: Some(at(2)),
            step: Some(step),
            process: Some(process),
            body: Some(Body::SecretAccess(access)),
            ..event.clone()
        },
        AuditEvent { time: Some(at(3)), body: Some(Body::Loss(loss)), ..event.clone() },
        AuditEvent {
            time: Some(at(60)),
            body: Some(Body::CredentialLeftBehind(CredentialLeftBehind {
                secret: "netrc".into(),
                path: "/home/ci/.netrc".into(),
                mode: 0o100_600,
                ..Default::default()
            })),
            ..event.clone()
        },
        AuditEvent {
            time: Some(at(5)),
            body: Some(Body::IdentitySpoof(IdentitySpoof {
                kind: SpoofKind::RunnerProgram.into(),
                path: "/tmp/Runner.Worker".into(),
                platform: "github-actions".into(),
                ..Default::default()
            })),
            ..event
        },
    ]
}

impl Canned {
    fn events(&self) -> Vec<AuditEvent> {
        if self.hostile { hostile_events() } else { events() }
    }

    fn summary(&self) -> JobSummary {
        let job = self.events().swap_remove(0).job;
        JobSummary { job, ..summary() }
    }
}

#[tonic::async_trait]
impl Query for Canned {
    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        Ok(Response::new(ListJobsResponse { jobs: vec![self.summary()], ..Default::default() }))
    }

    /// Two events a page, as often as is asked for; the page behind the cursor "end" is the last one.
    async fn search_events(
        &self,
        request: Request<SearchEventsRequest>,
    ) -> Result<Response<SearchEventsResponse>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        self.tokens.lock().unwrap().extend(token.map(str::to_owned));
        let request = request.into_inner();
        let search = request.search.unwrap_or_default();
        let kinds: Vec<&String> =
            search.r#where.iter().filter(|it| it.field == "kind").flat_map(|it| &it.values).collect();
        let is_narrow = !kinds.is_empty();
        let wanted = |event: &AuditEvent| !is_narrow || kinds.iter().any(|kind| *kind == event.kind());
        let events: Vec<_> = self.events().into_iter().filter(wanted).collect();
        let limit = usize::try_from(request.limit).unwrap().min(if is_narrow || self.hostile {
            usize::MAX
        } else {
            2
        });
        let next_cursor = match request.cursor.as_str() {
            "" => "second\u{1b}",
            "second\u{1b}" => "end",
            _ => "",
        };
        let next_cursor = if is_narrow || self.hostile { String::new() } else { next_cursor.to_owned() };
        self.asked.lock().unwrap().push(search);
        let events = events.into_iter().take(limit).collect();
        Ok(Response::new(SearchEventsResponse { events, next_cursor, reached: None }))
    }

    async fn aggregate(
        &self,
        request: Request<AggregateRequest>,
    ) -> Result<Response<AggregateResponse>, Status> {
        let values = request.into_inner().by.iter().map(|field| format!("=\u{1b}[31m{field}")).collect();
        let row = AggregateRow {
            values,
            time: None,
            events: 12,
            jobs: 3,
            first: Some(at(0)),
            last: Some(at(9)),
            bytes_out: 1000,
            bytes_in: 5,
        };
        Ok(Response::new(AggregateResponse { rows: vec![row], more: true, only_since: Some(at(0)) }))
    }

    async fn list_hosts(&self, _: Request<HostsRequest>) -> Result<Response<HostsResponse>, Status> {
        let host = HostSummary {
            host_id: "host-1".into(),
            name: "runner\u{1b}7".into(),
            tier: Tier::B.into(),
            gaps: vec!["=cmd|' /C calc'!A0".into()],
            last_heard: Some(at(5)),
            events_captured: 100,
            dark: true,
            ..HostSummary::default()
        };
        Ok(Response::new(HostsResponse { hosts: vec![host] }))
    }

    type TailStream = Pin<Box<dyn Stream<Item = Result<AuditEvent, Status>> + Send>>;

    async fn tail(&self, _: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        Ok(Response::new(Box::pin(tokio_stream::iter(self.events().into_iter().map(Ok)))))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        if !JOB.starts_with(&request.into_inner().job_id) {
            return Err(Status::not_found("no job has this id\u{1b}[31m"));
        }
        let step = self.events()[0].step.clone();
        let counts = [("secret.access".to_owned(), 1)].into();
        let steps = vec![StepSummary { step, first_event: Some(at(1)), last_event: Some(at(2)), counts }];
        Ok(Response::new(GetJobResponse {
            summary: Some(self.summary()),
            steps,
            timeline: self.events(),
            more: false,
        }))
    }

    async fn verify(&self, _: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        let statement = "runner-7: complete, 1234 events, 0 lost".into();
        let host =
            HostVerification { complete: !self.incomplete, lost: self.lost, statement, ..Default::default() };
        let problems = self.problems.clone();
        Ok(Response::new(VerifyResponse {
            hosts: vec![host],
            problems,
            batches: 7,
            events: 1234,
            ..Default::default()
        }))
    }

    async fn list_acts(
        &self,
        request: Request<ListActsRequest>,
    ) -> Result<Response<ListActsResponse>, Status> {
        let dark = HostDark { name: "runner\u{1b}7".into(), silent_seconds: 200, ..HostDark::default() };
        let entry = CollectorEntry { time: Some(at(4)), act: Some(Act::HostDark(dark)) };
        let act = RecordedAct { record: 17, kind: entry.kind().into(), entry: Some(entry) };
        let wanted = request.into_inner().kinds;
        let acts = if wanted.is_empty() || wanted.contains(&act.kind) { vec![act] } else { Vec::new() };
        Ok(Response::new(ListActsResponse { acts, more: false }))
    }

    async fn get_checkpoint(
        &self,
        _: Request<GetCheckpointRequest>,
    ) -> Result<Response<GetCheckpointResponse>, Status> {
        Err(Status::unimplemented("canned"))
    }

    async fn prove_record(
        &self,
        _: Request<ProveRecordRequest>,
    ) -> Result<Response<ProveRecordResponse>, Status> {
        Err(Status::unimplemented("canned"))
    }

    async fn prove_consistency(
        &self,
        _: Request<ProveConsistencyRequest>,
    ) -> Result<Response<ProveConsistencyResponse>, Status> {
        Err(Status::unimplemented("canned"))
    }

    async fn prove_event(
        &self,
        _: Request<ProveEventRequest>,
    ) -> Result<Response<ProveEventResponse>, Status> {
        Err(Status::unimplemented("canned"))
    }
}

#[tonic::async_trait]
impl Hunting for Canned {
    type HuntStream = Pin<Box<dyn Stream<Item = Result<HuntReply, Status>> + Send>>;

    async fn hunt(&self, request: Request<HuntRequest>) -> Result<Response<Self::HuntStream>, Status> {
        let found = request.into_inner().indicators.contains("evil.example");
        let indicator = HuntedIndicator {
            indicator: "evil.example".into(),
            kind: "domain".into(),
            line: 1,
            events: u64::from(found),
            jobs: u64::from(found),
            first_seen: Some(at(1)),
            last_seen: Some(at(2)),
            matched: vec!["\u{1b}[31ma.evil.example".into()],
            not_recorded: false,
        };
        let hash = HuntedIndicator {
            indicator: "a".repeat(64),
            kind: "hash".into(),
            not_recorded: true,
            ..HuntedIndicator::default()
        };
        let remark = IndicatorRemark { line: 3, text: "x\u{202e}".into(), reason: "no indicator".into() };
        let secret = SecretToRotate {
            name: "AWS shared credentials".into(),
            what: "secret".into(),
            jobs: 1,
            jobs_exposed: 1,
            last_used: Some(at(2)),
            repositories: vec!["acme/\u{1b}widgets".into()],
            ..SecretToRotate::default()
        };
        let job = HuntedJob {
            job: Some(job()),
            host_id: "host-1".into(),
            first_seen: Some(at(1)),
            last_seen: Some(at(2)),
            indicators: vec![0],
        };
        let result = HuntResult {
            indicators: vec![indicator, hash],
            remarks: vec![remark],
            jobs: if found { vec![job] } else { Vec::new() },
            secrets: if found { vec![secret] } else { Vec::new() },
            order: "Those that may have left come first.".into(),
            notes: vec!["a note\u{1b}".into()],
            ..HuntResult::default()
        };
        let reply = HuntReply { reply: Some(Reply::Result(result)) };
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(reply)]))))
    }
}

/// A collector and a profile to reach it.
struct Scene {
    profile: tempfile::TempDir,
    canned: Arc<Canned>,
    _runtime: Runtime,
}

impl Scene {
    fn new(canned: Canned) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &ca).unwrap();
            (certificate.pem(), key.serialize_pem())
        };
        let (reader, reader_key) = leaf("reader.test");
        let (server, server_key) = leaf("127.0.0.1");
        let canned = Arc::new(canned);
        let runtime = Runtime::new().unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(server, server_key))
            .client_ca_root(Certificate::from_pem(ca.pem()));
        let address = runtime.block_on(serve(canned.clone(), tls));
        for (name, text) in [
            ("ca.pem", ca.pem()),
            ("cert.pem", reader),
            ("key.pem", reader_key),
            ("collector", format!("# where to ask\nhttps://{address}\n")),
        ] {
            fs::write(profile.path().join(name), text).unwrap();
        }
        Self { profile, canned, _runtime: runtime }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        buildtrail(self.profile.path(), arguments).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
        text
    }
}

async fn serve(canned: Arc<Canned>, tls: ServerTlsConfig) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(QueryServer::from_arc(canned.clone()))
        .add_service(HuntingServer::from_arc(canned));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn buildtrail(profile: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buildtrail"));
    command.env_clear().env("BUILDTRAIL_PROFILE", profile).args(arguments).stdin(Stdio::null());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// With `BLESS=1` in the environment the golden files are written anew: read the difference before committing it.
#[test]
fn tables_are_as_written_down_and_hostile_text_is_escaped() {
    let scene = Scene::new(Canned::default());
    let table: &[(&[&str], &str)] = &[
        (&["jobs"], "jobs"),
        (&["events", "--limit", "2"], "events"),
        (&["tail"], "tail"),
        (&["show", "3F9a0c"], "show"),
        (&["secrets"], "secrets"),
        (&["destinations"], "destinations"),
        (&["aggregate", "--by", "repo,kind", "--over", "hour"], "aggregate"),
        (&["hosts"], "hosts"),
        (&["verify", "--trust-collector"], "verify"),
    ];
    for (arguments, name) in table {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
        let shown = scene.text(arguments);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&file, &shown).unwrap();
        }
        assert_eq!(shown, fs::read_to_string(&file).unwrap(), "{arguments:?}");
    }
}

#[test]
fn json_is_one_document_per_line_and_holds_the_whole_text() {
    let scene = Scene::new(Canned::default());
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        scene.text(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(json(&["jobs", "--ndjson"])[0]["job"]["actor"], "mallory\u{202e}");
    let events = json(&["--ndjson", "events", "--limit", "2"]);
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["secret_access"]["path"], "/root/\u{1b}]0;owned\u{7}/credentials");
    assert_eq!(json(&["tail", "--json"])[..2], events);
    assert_eq!(json(&["show", "--json", JOB])[0]["summary"]["job"]["job_id"], JOB);
    assert_eq!(json(&["verify", "--trust-collector", "--json"])[0]["events"], "1234");
    assert_eq!(json(&["secrets", "--ndjson"])[0]["jobs"], "3");
}

#[test]
fn a_list_is_one_json_document_that_says_where_it_goes_on() {
    let scene = Scene::new(Canned::default());
    let json = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&scene.text(&[arguments, &["--json"]].concat())).unwrap()
    };
    let first = json(&["events", "--limit", "2"]);
    assert_eq!(first["events"].as_array().unwrap().len(), 2);
    let next = first["next_cursor"].as_str().unwrap();
    assert_eq!(json(&["events", "--cursor", next, "--limit", "1"])["next_cursor"], "end");
    let all = json(&["events", "--all"]);
    assert_eq!((all["events"].as_array().unwrap().len(), all["next_cursor"].as_str()), (6, Some("")));
    assert_eq!(json(&["jobs"])["jobs"][0]["bytes_out"], "4711");
    assert_eq!(json(&["destinations"])["rows"][0]["bytes_out"], "1000");
    assert_eq!(json(&["destinations"])["more"], true);
    assert_eq!(json(&["hosts"])["hosts"][0]["dark"], true);
    assert_eq!(json(&["acts"])["acts"][0]["record"], "17");
}

#[test]
fn no_csv_holds_a_formula_or_a_raw_control_character() {
    let scene = Scene::new(Canned::default());
    for (arguments, lines) in [
        (&["jobs"][..], 2),
        (&["events", "--limit", "2"], 3),
        (&["tail"], events().len() + 1),
        (&["secrets"], 3),
        (&["destinations"], 2),
        (&["aggregate", "--by", "repo"], 2),
        (&["hosts"], 2),
        (&["acts"], 2),
        (&["show", JOB], events().len() + 1),
    ] {
        let output = scene.run(&[arguments, &["--csv"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("\r\n").count(), lines, "{arguments:?}: {text}");
        let hostile = |c: char| (c.is_control() && c != '\n' && c != '\r') || c == '\u{202e}';
        assert!(!text.contains(hostile), "{arguments:?}: {text:?}");
        for cell in text.split(['\n', ',']) {
            let cell = cell.trim_start_matches('"');
            assert!(!cell.starts_with(['=', '+', '-', '@']), "{arguments:?}: {cell:?}");
        }
    }
    let output = scene.run(&["verify", "--trust-collector", "--csv"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("use --json"));
}

#[test]
fn hostile_events_do_nothing_in_any_view_and_form() {
    let scene = Scene::new(Canned { hostile: true, ..Canned::default() });
    let count = hostile_events().len();
    for view in [&["jobs"][..], &["events", "--limit", "10000"], &["tail"], &["show", JOB], &["secrets"]] {
        for form in [&[][..], &["--json"], &["--ndjson"], &["--csv"]] {
            let output = scene.run(&[view, form].concat());
            assert_eq!(output.status.code(), Some(0), "{view:?} {form:?}: {}", stderr(&output));
            let text = String::from_utf8(output.stdout).unwrap();
            let ends = if form == ["--csv"] { &['\n', '\r'][..] } else { &['\n'] };
            let bad = text.chars().find(|char| {
                (char.is_control() && !ends.contains(char))
                    || matches!(
                        char,
                        '\u{202e}' | '\u{2066}' | '\u{200b}' | '\u{feff}' | '\u{e0041}' | '\u{301}'
                    )
            });
            assert_eq!(bad, None, "{view:?} {form:?}");
            let lines = text.lines().count();
            match (view[0], form) {
                ("events", ["--csv"]) => assert_eq!(lines, count + 1),
                ("events" | "tail", ["--ndjson"]) => assert_eq!(lines, count),
                ("tail", []) => assert_eq!(lines, count, "no event takes two lines"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_hunt_says_what_was_found_what_to_rotate_and_what_was_not_understood() {
    let scene = Scene::new(Canned::default());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (evil, good) = (file("evil", "evil.example\n"), file("good", "good.example\n"));
    let output = scene.run(&["hunt", "--indicators", &evil]);
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "1 of 2 indicators found, in 1 jobs",
        "\\u{1b}[31ma.evil.example",
        "1.",
        "AWS shared credentials",
        "x\\u{202e}",
        "means nothing",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    assert_eq!(scene.run(&["hunt", "--indicators", &good]).status.code(), Some(0));
    let csv = scene.run(&["hunt", "--indicators", &evil, "--csv"]);
    assert!(String::from_utf8_lossy(&csv.stdout).contains("hash,0,not recorded"), "{csv:?}");
    let json = scene.run(&["hunt", "--indicators", &evil, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["secrets"][0]["jobs_exposed"], "1");
    let missing = scene.run(&["hunt", "--indicators", "/nowhere/at/all"]);
    assert!(stderr(&missing).contains("cannot read the indicators in /nowhere/at/all"));
}

#[test]
fn a_token_stands_for_a_certificate() {
    let scene = Scene::new(Canned::default());
    let token = scene.profile.path().join("given");
    fs::write(&token, "bt_fake_token\n").unwrap();
    let with = |arguments: &[&str], token: Option<&str>| {
        let mut command = buildtrail(scene.profile.path(), arguments);
        command.envs(token.map(|token| ("BUILDTRAIL_TOKEN", token))).output().unwrap()
    };
    // This collector wants certificates, so a token alone is not let in.
    for (arguments, environment) in [
        (&["events", "--token-file", token.to_str().unwrap()][..], None),
        (&["events"], Some("bt_fake_token")),
    ] {
        let output = with(arguments, environment);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(!stderr(&output).contains("bt_fake_token"), "{}", stderr(&output));
    }
    let refused = with(&["events"], Some("two words"));
    assert!(stderr(&refused).contains("BUILDTRAIL_TOKEN is no API token"), "{}", stderr(&refused));
}

#[test]
fn searches_reach_the_collector() {
    let scene = Scene::new(Canned::default());
    let asked = |arguments: &[&str]| {
        scene.text(&[&["events", "--limit", "1"], arguments].concat());
        buildtrail_query::to_text(&scene.canned.asked.lock().unwrap().pop().unwrap())
    };
    assert_eq!(asked(&["--outside-jobs"]), "job=\"\"");
    let words = ["--job", "3F9A", "--kind", "secret.access", "--since", "2026-11-22T09:00:00Z"];
    let search = "repo=acme/* dest=*.example.com,10.0.0.0/8 port>=1024 host!=runner-7";
    let expected = format!("{search} job=3f9a kind=secret.access since=2026-11-22T09:00:00Z");
    assert_eq!(asked(&[&["--where", search], &words[..]].concat()), expected);
}

#[test]
fn exit_codes_say_what_verify_found() {
    let altered = Canned { problems: vec!["batch 3 was altered\u{1b}[31m".into()], ..Default::default() };
    let incomplete = Canned { incomplete: true, ..Default::default() };
    let lost = Canned { lost: 7, ..Default::default() };
    for (canned, code) in [(Canned::default(), 0), (altered, 3), (incomplete, 5), (lost, 5)] {
        let output = Scene::new(canned).run(&["verify", "--trust-collector"]);
        assert_eq!(output.status.code(), Some(code));
        assert!(!output.stdout.contains(&0x1b));
    }
    let nowhere = tempfile::tempdir().unwrap();
    let missing = nowhere.path().join("missing");
    let output =
        buildtrail(nowhere.path(), &["verify", "--log", missing.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let output =
        buildtrail(nowhere.path(), &["verify", "--log", nowhere.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "an empty log is intact: {}", stderr(&output));
}

#[test]
fn mistakes_are_explained_with_exit_code_1() {
    let scene = Scene::new(Canned::default());
    let empty = tempfile::tempdir().unwrap();
    let at_nobody = ["--collector", "https://127.0.0.1:1"];
    for (profile, arguments, expected) in [
        (scene.profile.path(), vec!["events", "--kind", "secret.acess"], "did you mean secret.access?"),
        (scene.profile.path(), vec!["events", "--since", "yesterday"], "2026-11-22T09:00:00Z"),
        (scene.profile.path(), vec!["events", "--limit", "0"], "1.."),
        (scene.profile.path(), vec!["events", "--where", "repository=x"], "column 1"),
        (scene.profile.path(), vec!["aggregate", "--by", "repoo"], "did you mean repo?"),
        (scene.profile.path(), vec!["events", "--json", "--csv"], "cannot be used with"),
        (scene.profile.path(), vec!["show", "xyz"], "1 to 32 hexadecimal digits"),
        (scene.profile.path(), vec!["show", "ffff"], "not found: no job has this id\\u{1b}[31m"),
        (
            scene.profile.path(),
            [&["jobs"], &at_nobody[..]].concat(),
            "cannot reach the collector at https://127.0.0.1:1",
        ),
        (
            scene.profile.path(),
            vec!["jobs", "--collector", "http://127.0.0.1:1"],
            "must be https://HOST:PORT",
        ),
        (empty.path(), vec!["jobs"], "say which collector to ask"),
        (empty.path(), [&["jobs"], &at_nobody[..]].concat(), "ca.pem does not exist: give --profile DIR"),
        (scene.profile.path(), vec!["frobnicate"], "unrecognized subcommand"),
    ] {
        let output = buildtrail(profile, &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert!(!output.stderr.contains(&0x1b));
    }
    assert_eq!(scene.run(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scene = Scene::new(Canned::default());
    let mut child = buildtrail(scene.profile.path(), &["events", "--all", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = thread::spawn(move || child.wait_with_output().unwrap()).join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("panicked"));
}

#[test]
fn acts_are_listed_for_people_and_for_programs() {
    let scene = Scene::new(Canned::default());
    let table = scene.text(&["acts"]);
    assert!(table.contains("host.dark") && table.contains("silent for 200 s"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&scene.text(&["acts", "--ndjson"])).unwrap();
    assert_eq!(json["record"], "17");
    assert_eq!(json["entry"]["host_dark"]["silent_seconds"], "200");
    assert_eq!(scene.text(&["acts", "--kind", "chain.fork"]), "No acts.\n");
    let refused = scene.run(&["acts", "--kind", "host.drak"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("did you mean host.dark?"));
}
