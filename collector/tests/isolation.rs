//! Random people with random scopes ask random questions through every gRPC call: they learn of what is inside their scope
//! exactly what is there, and of the rest nothing: no row, no number, no name, not that it exists.
//!
//! `BUILDTRAIL_SEED` repeats a run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::time::{Duration, SystemTime};

use buildtrail_collector::server::Running;
use buildtrail_proto::v1::{
    AggregateRequest, AuditEvent, ConnectionOpened, CreateApiTokenRequest, ExportFormat, ExportJobRequest,
    GetCheckpointRequest, GetJobRequest, HostsRequest, JobStarted, ListActsRequest, ListJobsRequest,
    ProcessExec, ProveConsistencyRequest, ProveEventRequest, ProveRecordRequest, ReadLogRequest,
    SearchEventsRequest, SecretAccess, TailRequest, VerifyRequest, access_client::AccessClient,
    audit_event::Body, export_client::ExportClient, query_client::QueryClient,
};
use buildtrail_query::{Compiled, Scope};
use prost::Message;
use support::{Site, at, connect, connect_without_certificate, heartbeat, in_job, search, wait_for_events};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::Channel,
};

/// Of `acme`; what happens outside of jobs is another matter.
const REPOSITORIES: [&str; 6] = ["web", "web-test", "ops", "x", "y/web", "secretive"];
const GLOBS: [&str; 8] =
    ["acme/web", "acme/web*", "acme/*", "acme/?", "*/web", "acme/ops", "other/*", "acme/secret?ve"];
const PEOPLE: usize = 12;
const QUESTIONS: usize = 25;

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let seed = std::env::var("BUILDTRAIL_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = seed.unwrap_or_else(|| u64::try_from(clock & u128::from(u64::MAX)).unwrap());
        eprintln!("BUILDTRAIL_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

fn job_id(repository: usize) -> String {
    format!("0{repository}{}", "ab".repeat(15))
}

/// Stands in every text of a repository's events, and nowhere else.
fn mark(repository: usize) -> String {
    format!("mark{repository}of{}", REPOSITORIES[repository].replace('/', "-"))
}

fn event(random: &mut Random, second: u64) -> AuditEvent {
    let repository = random.below(REPOSITORIES.len());
    let mark = mark(repository);
    let body = match random.below(4) {
        0 => Body::JobStarted(JobStarted::default()),
        1 => Body::SecretAccess(SecretAccess { secret: mark.clone(), ..SecretAccess::default() }),
        2 => Body::ProcessExec(ProcessExec { filename: format!("/bin/{mark}"), ..ProcessExec::default() }),
        _ => Body::ConnectionOpened(ConnectionOpened {
            dns_names: vec![format!("{mark}.example")],
            ..ConnectionOpened::default()
        }),
    };
    let mut event = in_job(&job_id(repository), REPOSITORIES[repository], 1, at(second, body));
    let job = event.job.as_mut().unwrap();
    job.workflow.clone_from(&mark);
    job.actor = mark;
    event
}

fn question(random: &mut Random) -> String {
    let repository = random.below(REPOSITORIES.len());
    match random.below(9) {
        0 => String::new(),
        1 => format!("repo=acme/{}", REPOSITORIES[repository]),
        2 => "repo=*".into(),
        3 => format!("secret~{}", &mark(repository)[..5]),
        4 => format!("job={}", job_id(repository)),
        5 => format!("dest=*{}*", mark(repository)),
        6 => format!("actor!={}", mark(repository)),
        7 => "kind=secret.access,process.exec,heartbeat".into(),
        _ => format!("\"{}\"", mark(repository)),
    }
}

type WithToken<F> = InterceptedService<Channel, F>;

#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

struct Person {
    scope: Scope,
    words: String,
    query: QueryClient<WithToken<Bearer>>,
    export: ExportClient<WithToken<Bearer>>,
}

/// Somebody with a token that an administrator made, for some of the repositories, or for none that exists.
async fn person(site: &Site, collector: &Running, random: &mut Random) -> Person {
    let globs: Vec<String> = (0..=random.below(2)).map(|_| (*random.of(&GLOBS)).to_owned()).collect();
    let role = *random.of(&["analyst", "responder", "auditor", "admin"]);
    let mut root = AccessClient::new(connect(collector.address(), &site.path("root")).await.unwrap());
    let request = CreateApiTokenRequest {
        name: "isolation".into(),
        role: role.into(),
        repositories: globs.clone(),
        lifetime_seconds: 3600,
    };
    let token = root.create_api_token(request).await.unwrap().into_inner().token;
    let bearer = Bearer(format!("Bearer {token}").parse().unwrap());
    let channel = connect_without_certificate(site, collector.address()).await.unwrap();
    Person {
        words: format!("{role} of {globs:?}"),
        scope: Scope::Repositories(globs.iter().map(|glob| glob.parse().unwrap()).collect()),
        query: QueryClient::with_interceptor(channel.clone(), bearer.clone()),
        export: ExportClient::with_interceptor(channel, bearer),
    }
}

impl Person {
    fn sees(&self, repository: usize) -> bool {
        self.scope.allows_repository(&format!("acme/{}", REPOSITORIES[repository]))
    }

    /// Nothing that was answered holds a mark, a name or a job of a repository outside.
    fn check(&self, answer: &[u8], asked: &str) {
        for hidden in (0..REPOSITORIES.len()).filter(|repository| !self.sees(*repository)) {
            for text in [mark(hidden), job_id(hidden)] {
                let found = answer.windows(text.len()).any(|window| window == text.as_bytes());
                // What somebody asked for may come back to them in an error.
                assert!(!found || asked.contains(&text), "{}: {asked}: {text} came out", self.words);
            }
        }
    }

    fn check_status(&self, status: &Status, asked: &str) {
        self.check(status.message().as_bytes(), asked);
    }

    async fn ask(&mut self, text: &str, all: &[AuditEvent], random: &mut Random) {
        let wanted = Compiled::new(&search(text)).unwrap();
        let inside: Vec<&AuditEvent> =
            all.iter().filter(|event| self.scope.allows(event) && wanted.matches(event)).collect();
        let asked = Some(search(text));

        let request = SearchEventsRequest { search: asked.clone(), limit: 10_000, ..Default::default() };
        let found = self.query.search_events(request).await.unwrap().into_inner();
        self.check(&found.encode_to_vec(), text);
        let mut numbers: Vec<u64> = found.events.iter().map(|event| event.sequence).collect();
        numbers.sort_unstable();
        let mut expected: Vec<u64> = inside.iter().map(|event| event.sequence).collect();
        expected.sort_unstable();
        assert_eq!(numbers, expected, "{}: {text}", self.words);

        let request = ListJobsRequest { search: asked.clone(), limit: 1000, ..Default::default() };
        let jobs = self.query.list_jobs(request).await.unwrap().into_inner();
        self.check(&jobs.encode_to_vec(), text);
        let outside =
            jobs.jobs.iter().find(|job| !self.scope.allows_repository(&job.job.as_ref().unwrap().repository));
        assert!(outside.is_none(), "{}: {text}: {outside:?}", self.words);

        let by = *random.of(&["", "repo", "secret", "kind", "host", "actor", "job"]);
        let request = AggregateRequest {
            search: asked,
            by: if by.is_empty() { Vec::new() } else { vec![by.into()] },
            limit: 10_000,
            ..Default::default()
        };
        let counted = self.query.aggregate(request).await.unwrap().into_inner();
        self.check(&counted.encode_to_vec(), text);
        let events: u64 = counted.rows.iter().map(|row| row.events).sum();
        let most = u64::try_from(inside.len()).unwrap();
        if matches!(by, "" | "kind") {
            assert_eq!(events, most, "{}: {text} by {by:?}", self.words);
        }
        assert!(counted.rows.iter().all(|row| row.events <= most), "{}: {text} by {by:?}", self.words);
    }

    /// A job outside and a job that is nowhere are answered alike, through every door to one job.
    async fn look_for(&mut self, repository: usize, all: &[AuditEvent], host: &str) {
        let there = self.sees(repository)
            && all.iter().any(|event| event.job.as_ref().is_some_and(|job| job.job_id == job_id(repository)));
        let id = job_id(repository);
        let nowhere = "0f".repeat(16);
        let outcome = |result: Result<Vec<u8>, Status>, id: &str| match result {
            Ok(answer) => Ok(answer),
            Err(status) => Err((status.code(), status.message().replace(id, "ID"))),
        };
        let one = self.query.get_job(GetJobRequest { job_id: id.clone() }).await;
        let one = outcome(one.map(|answer| answer.into_inner().encode_to_vec()), &id);
        let none = self.query.get_job(GetJobRequest { job_id: nowhere.clone() }).await;
        let none = outcome(none.map(|answer| answer.into_inner().encode_to_vec()), &nowhere);
        self.compare(there, &one, &none, &id);
        // Half an id must not tell of others that begin alike.
        if let Err(status) = self.query.get_job(GetJobRequest { job_id: "0".into() }).await {
            self.check_status(&status, "");
        }

        let export = |job_id: String| ExportJobRequest { job_id, format: ExportFormat::Bundle.into() };
        let one = match self.export.export_job(export(id.clone())).await {
            Ok(pieces) => {
                let mut bytes = Vec::new();
                let mut pieces = pieces.into_inner();
                while let Some(piece) = pieces.message().await.unwrap() {
                    bytes.extend(piece.data);
                }
                Ok(bytes)
            }
            Err(status) => Err(status),
        };
        let one = outcome(one, &id);
        let none = self.export.export_job(export(nowhere.clone())).await;
        let none = outcome(none.map(|_| Vec::new()), &nowhere);
        self.compare(there, &one, &none, &id);

        for event in all.iter().take(30) {
            let request =
                |sequence| ProveEventRequest { host_id: host.to_owned(), boot_id: "b1".into(), sequence };
            match self.query.prove_event(request(event.sequence)).await {
                Ok(proof) => {
                    assert!(self.scope.allows(event), "{}: event {}", self.words, event.sequence);
                    self.check(&proof.into_inner().encode_to_vec(), "");
                }
                Err(refused) => {
                    assert!(!self.scope.allows(event), "{}: event {}: {refused}", self.words, event.sequence);
                    let unknown = self.query.prove_event(request(999_999)).await.unwrap_err();
                    let alike = unknown.message().replace("999999", &event.sequence.to_string());
                    assert_eq!((refused.code(), refused.message()), (unknown.code(), &*alike));
                }
            }
        }
    }

    fn compare(
        &self,
        there: bool,
        one: &Result<Vec<u8>, (Code, String)>,
        none: &Result<Vec<u8>, (Code, String)>,
        id: &str,
    ) {
        assert_eq!(one.is_ok(), there, "{}: {id}: {one:?}", self.words);
        if let Ok(answer) = one {
            self.check(answer, "");
        } else {
            assert_eq!(one, none, "{}: {id}", self.words);
        }
    }

    /// What shows more than single jobs is for people who see everything.
    async fn is_kept_from_the_whole(&mut self) {
        let denied = [
            self.query.list_hosts(HostsRequest::default()).await.map(|_| ()),
            self.query.list_acts(ListActsRequest::default()).await.map(|_| ()),
            self.query.verify(VerifyRequest {}).await.map(|_| ()),
            self.query.get_checkpoint(GetCheckpointRequest {}).await.map(|_| ()),
            self.query.prove_record(ProveRecordRequest { record: 1 }).await.map(|_| ()),
            self.query
                .prove_consistency(ProveConsistencyRequest { old_size: 1, new_size: 2 })
                .await
                .map(|_| ()),
            self.export.read_log(ReadLogRequest::default()).await.map(|_| ()),
        ];
        for (number, denied) in denied.into_iter().enumerate() {
            let denied = denied.unwrap_err();
            assert_eq!(denied.code(), Code::PermissionDenied, "{}: {number}: {denied}", self.words);
            self.check_status(&denied, "");
        }
    }
}

/// Waits until a signed checkpoint covers the last event.
async fn proven(everything: &mut QueryClient<Channel>, host_id: &str, sequence: u64) {
    for _ in 0..500 {
        let request = ProveEventRequest { host_id: host_id.into(), boot_id: "b1".into(), sequence };
        if everything.prove_event(request).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no checkpoint covers event {sequence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_of_what_is_outside_their_scope() {
    let mut random = Random::new();
    let site = Site::new();
    let mut config = site.config();
    config.access.requests_per_minute = 1_000_000;
    let collector = buildtrail_collector::server::start(config).await.unwrap();
    buildtrail_collector::ca::issue_admin(&site.path("ca"), "root", &site.path("root")).unwrap();
    let mut host = site.host("h");
    let mut batches = Vec::new();
    for batch in 0..12 {
        let mut events: Vec<AuditEvent> =
            (0..10).map(|second| event(&mut random, batch * 10 + second)).collect();
        events.push(heartbeat(batch * 10 + 9));
        batches.push(host.seal(events).batch);
    }
    host.send(collector.address(), batches).await.1.unwrap();
    let mut everything = QueryClient::new(connect(collector.address(), &site.path("root")).await.unwrap());
    let all = wait_for_events(&mut everything, 132).await;
    assert_eq!(all.len(), 132);
    proven(&mut everything, &host.id, 132).await;

    for _ in 0..PEOPLE {
        let mut person = person(&site, &collector, &mut random).await;
        for _ in 0..QUESTIONS {
            let text = question(&mut random);
            person.ask(&text, &all, &mut random).await;
        }
        for repository in 0..REPOSITORIES.len() {
            person.look_for(repository, &all, &host.id).await;
        }
        person.is_kept_from_the_whole().await;
    }
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_tail_shows_what_is_inside_the_scope_and_nothing_else() {
    let mut random = Random::new();
    let site = Site::new();
    let collector = site.start().await;
    buildtrail_collector::ca::issue_admin(&site.path("ca"), "root", &site.path("root")).unwrap();
    let mut people = Vec::new();
    for _ in 0..4 {
        let mut person = person(&site, &collector, &mut random).await;
        let tail = person.query.tail(TailRequest::default()).await.unwrap().into_inner();
        people.push((person, tail));
    }
    let mut host = site.host("h");
    let events: Vec<AuditEvent> = (0..60).map(|second| event(&mut random, second)).collect();
    let batch = host.seal([events, vec![heartbeat(61)]].concat()).batch;
    host.send(collector.address(), vec![batch]).await.1.unwrap();
    let mut everything = QueryClient::new(connect(collector.address(), &site.path("root")).await.unwrap());
    let all = wait_for_events(&mut everything, 61).await;
    for (person, mut tail) in people {
        let expected: Vec<u64> =
            all.iter().filter(|event| person.scope.allows(event)).map(|event| event.sequence).collect();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let next = tokio::time::timeout(Duration::from_secs(30), tail.message()).await;
            let event = next.unwrap().unwrap().unwrap();
            person.check(&event.encode_to_vec(), "");
            seen.push(event.sequence);
        }
        seen.sort_unstable();
        assert_eq!(seen, expected, "{}", person.words);
    }
    collector.stop().await.unwrap();
}
