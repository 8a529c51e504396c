//! Answers: jobs, events, timelines and live tails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::HashMap;

use buildtrail_collector::{health::Refusal, server};
use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{
        AuditEvent, GetJobRequest, JobStarted, ListJobsRequest, SearchEventsRequest, SecretAccess,
        TailRequest, audit_event::Body,
    },
};
use support::{NINE, Site, at, exec, finished, found, heartbeat, in_job, search, secret, wait_for_events};
use tonic::Code;

const ONE: &str = "0aaa0000000000000000000000000001";
const TWO: &str = "0aab0000000000000000000000000002";

/// Two jobs at the same time, and work outside of both.
fn history() -> Vec<Vec<AuditEvent>> {
    vec![
        vec![
            in_job(ONE, "widgets", 0, at(1, Body::JobStarted(JobStarted::default()))),
            in_job(ONE, "widgets", 1, exec(2)),
            in_job(TWO, "gadgets", 1, exec(3)),
            in_job(ONE, "widgets", 1, secret(4)),
            heartbeat(5),
        ],
        vec![
            in_job(ONE, "widgets", 2, exec(6)),
            in_job(ONE, "widgets", 2, secret(7)),
            in_job(TWO, "gadgets", 1, secret(8)),
            in_job(ONE, "widgets", 0, finished(9)),
        ],
    ]
}

fn sequences(events: &[AuditEvent]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

fn counts(counts: &[(&str, u64)]) -> HashMap<String, u64> {
    counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_events_and_timelines_answer_what_was_asked() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let batches = history().into_iter().map(|events| host.seal(events).batch).collect();
    host.send(collector.address(), batches).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    wait_for_events(&mut reader, 9).await;

    let jobs = reader.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    let ids: Vec<_> = jobs.iter().map(|job| job.job.as_ref().unwrap().job_id.as_str()).collect();
    assert_eq!(ids, [TWO, ONE], "newest first");
    assert_eq!((jobs[0].finished, jobs[1].finished), (false, true));
    assert_eq!(jobs[1].host_id, host.id);
    assert_eq!(jobs[1].first_event, Some(timestamp_from_unix_nanos(NINE + 1_000_000_000)));
    assert_eq!(jobs[1].last_event, Some(timestamp_from_unix_nanos(NINE + 9_000_000_000)));
    let expected = [("job.started", 1), ("process.exec", 2), ("secret.access", 2), ("job.finished", 1)];
    assert_eq!(jobs[1].counts, counts(&expected));
    let request = ListJobsRequest { search: Some(search("repo=acme/gadgets")), ..Default::default() };
    assert_eq!(reader.list_jobs(request).await.unwrap().into_inner().jobs.len(), 1);
    let request = ListJobsRequest { limit: 1, ..Default::default() };
    assert_eq!(reader.list_jobs(request).await.unwrap().into_inner().jobs.len(), 1);

    let job = reader.get_job(GetJobRequest { job_id: "0aaa".into() }).await.unwrap().into_inner();
    assert_eq!(job.summary.as_ref(), Some(&jobs[1]));
    assert_eq!(sequences(&job.timeline), [1, 4, 7, 9], "no process.exec, nothing of the other job");
    assert!(!job.more);
    let steps: Vec<_> = job.steps.iter().map(|step| step.step.as_ref().unwrap().id.as_str()).collect();
    assert_eq!(steps, ["__run_1", "__run_2"]);
    assert_eq!(job.steps[0].counts, counts(&[("process.exec", 1), ("secret.access", 1)]));
    let status = reader.get_job(GetJobRequest { job_id: "0aa".into() }).await.unwrap_err();
    assert!(status.message().contains("ambiguous") && status.message().contains(ONE), "{status}");

    let (three, five) = ("2026-11-22T09:00:03Z", "2026-11-22T09:00:05Z");
    for (text, expected) in [
        (format!("job={ONE} kind=process.exec"), vec![2, 6]),
        ("repo=acme/gadgets".into(), vec![3, 8]),
        ("job=\"\"".into(), vec![5]),
        (format!("host={} kind=heartbeat", host.id), vec![5]),
        ("host=h kind=heartbeat".into(), vec![5]),
        ("host=other".into(), vec![]),
        (format!("since={three} until={five}"), vec![3, 4]),
        ("secret~NPM".into(), vec![4, 7, 8]),
        ("secret~npm repo!=acme/widgets".into(), vec![8]),
    ] {
        assert_eq!(sequences(&found(&mut reader, &text).await), expected, "{text}");
    }
    let request = SearchEventsRequest { limit: 2, ..Default::default() };
    let newest = reader.search_events(request.clone()).await.unwrap().into_inner();
    assert_eq!(sequences(&newest.events), [9, 8], "the newest first");
    let request = SearchEventsRequest { cursor: newest.next_cursor, ..request };
    let next = reader.search_events(request.clone()).await.unwrap().into_inner();
    assert_eq!(sequences(&next.events), [7, 6]);
    let of_another = SearchEventsRequest { search: Some(search("repo=acme/gadgets")), ..request };
    assert_eq!(reader.search_events(of_another).await.unwrap_err().code(), Code::InvalidArgument);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_never_outgrows_what_a_client_takes() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let path = "p".repeat(100_000);
    let large =
        |second| at(second, Body::SecretAccess(SecretAccess { path: path.clone(), ..Default::default() }));
    let batches = (0..60).map(|second| host.seal(vec![in_job(ONE, "w", 1, large(second))]).batch).collect();
    host.send(collector.address(), batches).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    let answer = wait_for_events(&mut reader, 30).await;
    assert!(answer.len() < 40);
    for _ in 0..100 {
        let job = reader.get_job(GetJobRequest { job_id: ONE.into() }).await.unwrap().into_inner();
        if job.summary.unwrap().counts["secret.access"] == 60 {
            assert!(job.more && job.timeline[0].sequence == 1);
            collector.stop().await.unwrap();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("60 events were not indexed in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_sees_matching_events_as_they_come() {
    let site = Site::new();
    let collector = site.start().await;
    let mut host = site.host("h");
    let mut reader = site.reader("alice", collector.address()).await;
    let search = Some(search("job=0aaa kind=secret.access"));
    let mut tail = reader.tail(TailRequest { search }).await.unwrap().into_inner();
    let batches = history().into_iter().map(|events| host.seal(events).batch).collect();
    host.send(collector.address(), batches).await.1.unwrap();
    for expected in [4, 7] {
        assert_eq!(tail.message().await.unwrap().unwrap().sequence, expected);
    }
    collector.stop().await.unwrap();
    assert_eq!(tail.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_is_not_read_is_cut_off_and_ingest_goes_on() {
    let site = Site::new();
    let mut config = site.config();
    config.limits.max_tails = 1;
    let collector = server::start(config).await.unwrap();
    let mut host = site.host("h");
    let mut reader = site.reader("alice", collector.address()).await;
    let mut tail = reader.tail(TailRequest::default()).await.unwrap().into_inner();
    let status = reader.tail(TailRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);

    let path = "p".repeat(1000);
    for _ in 0..20 {
        let event = |second| {
            at(second, Body::SecretAccess(SecretAccess { path: path.clone(), ..Default::default() }))
        };
        let batch = host.seal((0..1000).map(event).collect()).batch;
        host.send(collector.address(), vec![batch]).await.1.unwrap();
    }
    let mut seen = 0;
    let end = loop {
        match tail.message().await {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("the tail ended without a reason after {seen} events"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::DataLoss, "{end}");
    assert!(seen < 20_000);
    assert_eq!(collector.health().refused(Refusal::SlowReader), 1);
    assert_eq!(collector.health().events.get(), 20_000);
    collector.stop().await.unwrap();
}
