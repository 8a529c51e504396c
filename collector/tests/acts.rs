//! What the collector does and notices is in its log: starts, questions, refusals, forks, hosts gone dark, retention.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use buildtrail_collector::{
    config::{Config, Hosts, Retention},
    server,
};
use buildtrail_evidence::{batch, batch::ChainHead, key::HostKey, verify};
use buildtrail_proto::v1::{
    ListActsRequest, ListJobsRequest, RecordedAct, collector_entry::Act, query_client::QueryClient,
};
use support::{Site, at, exec, finished, heartbeat, in_job, secret, wait_for_events};
use tonic::{Code, transport::Channel};

type Reader = QueryClient<Channel>;

async fn acts(reader: &mut Reader, kind: &str) -> Vec<RecordedAct> {
    let kinds = if kind.is_empty() { Vec::new() } else { vec![kind.to_owned()] };
    let request = ListActsRequest { kinds, ..ListActsRequest::default() };
    reader.list_acts(request).await.unwrap().into_inner().acts
}

/// Waits until there are this many acts of a kind.
async fn wait_for_acts(reader: &mut Reader, kind: &str, count: usize) -> Vec<RecordedAct> {
    for _ in 0..500 {
        let found = acts(reader, kind).await;
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{count} of {kind} were not noted in time");
}

fn act(recorded: &RecordedAct) -> &Act {
    recorded.entry.as_ref().unwrap().act.as_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_stops_questions_and_refusals_are_entries_in_order() {
    let site = Site::new();
    site.start().await.stop().await.unwrap();
    let collector = site.start().await;
    let mut alice = site.reader("alice", collector.address()).await;
    let host = site.host("h");
    let mut not_a_reader = QueryClient::new(support::connect(collector.address(), &host.out).await.unwrap());
    let refused = not_a_reader.list_jobs(ListJobsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let question =
        ListJobsRequest { search: Some(support::search("repo=acme/widgets")), ..ListJobsRequest::default() };
    for _ in 0..20 {
        alice.list_jobs(question.clone()).await.unwrap();
    }
    collector.stop().await.unwrap();

    let collector = site.start().await;
    let mut bob = site.reader("bob", collector.address()).await;
    let all = acts(&mut bob, "").await;
    let kinds: Vec<&str> = all.iter().map(|act| act.kind.as_str()).collect();
    assert_eq!(kinds[..3], ["collector.started", "collector.stopped", "collector.started"]);
    assert!(kinds.contains(&"peers.refused"), "{kinds:?}");
    let records: Vec<u64> = all.iter().map(|act| act.record).collect();
    assert!(records.is_sorted(), "{records:?}");
    let asked: Vec<_> = all
        .iter()
        .filter_map(|recorded| match act(recorded) {
            Act::ReaderAsked(asked) => Some((asked.reader.as_str(), asked.what.as_str(), asked.count)),
            _ => None,
        })
        .filter(|(reader, ..)| *reader == "alice")
        .collect();
    let what = "repo=acme/widgets";
    assert_eq!(asked, [("alice", what, 1), ("alice", what, 19)], "the first at once, the rest together");
    let Some(Act::CollectorStarted(started)) = all[2].entry.as_ref().unwrap().act.clone() else { panic!() };
    assert_eq!(started.checkpoint_size, 2);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_noted_once_with_its_proof_and_repetitions_and_replays_change_nothing() {
    let site = Site::new();
    let mut host = site.host("h");
    let collector = site.start().await;
    let originals = host.batches(300);
    host.send(collector.address(), originals.clone()).await.1.unwrap();
    // A restored disk: the same number again, with another history.
    host.sealer.rewind(ChainHead::default());
    let forked = host.seal(vec![secret(5)]).batch;
    for _ in 0..3 {
        let (acknowledged, end) = host.send(collector.address(), vec![forked.clone()]).await;
        assert!(acknowledged.is_empty());
        assert_eq!(end.unwrap_err().code(), Code::AlreadyExists);
    }
    collector.stop().await.unwrap();

    let collector = site.start().await;
    let (_, end) = host.send(collector.address(), vec![forked.clone()]).await;
    assert_eq!(end.unwrap_err().code(), Code::AlreadyExists, "also after a restart");
    let mut replay: Vec<_> = originals[..50].to_vec();
    replay.extend_from_slice(&originals[20..]);
    host.send(collector.address(), replay).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    assert_eq!(wait_for_events(&mut reader, 300).await.len(), 300);
    let forks = acts(&mut reader, "chain.fork").await;
    assert_eq!(forks.len(), 1);
    let Act::ChainFork(fork) = act(&forks[0]) else { panic!("{forks:?}") };
    assert_eq!((fork.host_id.as_str(), fork.number), (host.id.as_str(), 1));
    // Whoever has the host's key can see that the host signed both.
    let proof = buildtrail_proto::v1::SignedBatch {
        header: fork.header.clone(),
        signature: fork.signature.clone(),
        body: forked.body.clone(),
        lost_before: Vec::new(),
    };
    let key =
        HostKey::from_pkcs8_pem(&fs::read_to_string(host.out.join("key.pem")).unwrap()).unwrap().public();
    let (one, other) = (batch::open(&proof, &key).unwrap(), batch::open(&originals[0], &key).unwrap());
    assert_eq!(one.header.number, other.header.number);
    assert_ne!(one.digest, other.digest);
    collector.stop().await.unwrap();
    let report = verify::verify(&site.config().log_directory()).unwrap();
    assert_eq!((report.problems, report.batches), (Vec::new(), 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_without_end_do_not_fill_the_log() {
    let site = Site::new();
    let mut host = site.host("h");
    let collector = site.start().await;
    let first = host.batches(1);
    host.send(collector.address(), first).await.1.unwrap();
    for second in 0..40 {
        host.sealer.rewind(ChainHead::default());
        let forked = host.seal(vec![secret(100 + second)]).batch;
        assert!(host.send(collector.address(), vec![forked]).await.1.is_err());
    }
    let mut reader = site.reader("alice", collector.address()).await;
    assert_eq!(wait_for_acts(&mut reader, "chain.fork", 16).await.len(), 16);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_host_goes_dark_with_its_jobs_and_comes_back_and_a_restart_is_no_alarm() {
    let site = Site::new();
    let config = Config { hosts: Hosts { dark_after_seconds: 1 }, ..site.config() };
    let collector = server::start(config.clone()).await.unwrap();
    let mut host = site.host("h");
    let job = |id: &str, event| in_job(id, "widgets", 1, event);
    let (over, running) = ("0aaa0000000000000000000000000001", "0bbb0000000000000000000000000002");
    let events = vec![job(over, exec(1)), job(over, finished(2)), job(running, exec(3))];
    let batch = host.seal(events).batch;
    host.send(collector.address(), vec![batch]).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    let dark = wait_for_acts(&mut reader, "host.dark", 1).await;
    let Act::HostDark(dark) = act(&dark[0]) else { panic!("{dark:?}") };
    assert_eq!(dark.host_id, host.id);
    let jobs: Vec<&str> = dark.jobs.iter().map(|job| job.job_id.as_str()).collect();
    assert_eq!(jobs, [running], "the one that had not finished");

    // The collector itself is away: it says nothing new about a host that was dark before.
    collector.stop().await.unwrap();
    let collector = server::start(config.clone()).await.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(acts(&mut reader, "host.dark").await.len(), 1);
    // The clock of the host stepped back a day: what counts is that something came.
    let batch = host.seal(vec![at(0, heartbeat(0).body.unwrap())]).batch;
    host.send(collector.address(), vec![batch]).await.1.unwrap();
    assert_eq!(wait_for_acts(&mut reader, "host.back", 1).await.len(), 1);
    wait_for_acts(&mut reader, "host.dark", 2).await;
    collector.stop().await.unwrap();
}

/// A site whose log has a closed segment of old records and an open one, and its original bytes.
async fn site_with_history() -> (Site, support::TestHost, PathBuf) {
    let site = Site::new();
    let config = Config {
        log: buildtrail_collector::config::Log { segment_bytes: 1 << 20, reserve_bytes: 0 },
        ..site.config()
    };
    let collector = server::start(config).await.unwrap();
    let mut host = site.host("h");
    let job = "0aaa0000000000000000000000000001";
    let mut batches = Vec::new();
    for number in 0..30_u64 {
        let events = (0..400).map(|part| in_job(job, "widgets", 1, secret(number * 400 + part))).collect();
        batches.push(host.seal(events).batch);
    }
    host.send(collector.address(), batches).await.1.unwrap();
    collector.stop().await.unwrap();
    let first = site.config().log_directory().join("00000000000000000000.seg");
    (site, host, first)
}

fn make_old(segment: &PathBuf) {
    let old = SystemTime::now() - Duration::from_hours(24 * 100);
    fs::File::options().write(true).open(segment).unwrap().set_modified(old).unwrap();
}

fn keeping_90_days(site: &Site) -> Config {
    let retention = Retention { max_age_days: 90, max_bytes: 0 };
    Config { retention, ..site.config() }
}

async fn list_events(reader: &mut Reader, kinds: &[&str]) -> usize {
    support::found(reader, &format!("kind={}", kinds.join(","))).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_are_removed_with_a_statement_and_hashes_stay() {
    let (site, host, segment) = site_with_history().await;
    make_old(&segment);
    let before = fs::read(&segment).unwrap();
    let collector = server::start(keeping_90_days(&site)).await.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    let statements = wait_for_acts(&mut reader, "bodies.removed", 1).await;
    let Act::BodiesRemoved(removed) = act(&statements[0]) else { panic!("{statements:?}") };
    assert_eq!((removed.first_record, removed.why.as_str()), (0, "older than 90 days"));
    assert!(removed.batches > 0 && removed.batches < 30, "{removed:?}");
    assert_eq!(removed.events, removed.batches * 400);
    assert_eq!(removed.counts["secret.access"], removed.events);
    let left = usize::try_from(12_000 - removed.events).unwrap();
    for _ in 0..500 {
        if list_events(&mut reader, &["secret.access"]).await == left {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(list_events(&mut reader, &["secret.access"]).await, left);
    collector.stop().await.unwrap();
    let after = fs::read(&segment).unwrap();
    assert!(after.len() < before.len() / 2, "{} of {} bytes", after.len(), before.len());

    // Crashed between statement and removal: the next start removes, and states nothing again; so does a new index.
    fs::write(&segment, &before).unwrap();
    make_old(&segment);
    fs::remove_file(site.config().index_file()).unwrap();
    let collector = server::start(keeping_90_days(&site)).await.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    for _ in 0..500 {
        if fs::metadata(&segment).unwrap().len() == after.len() as u64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fs::read(&segment).unwrap(), after);
    assert_eq!(acts(&mut reader, "bodies.removed").await.len(), 1);
    collector.stop().await.unwrap();

    // Everything that is signed still verifies, and an index made anew has what is left.
    let report = verify::verify(&site.config().log_directory()).unwrap();
    assert_eq!((report.problems.clone(), report.batches), (Vec::new(), 30), "{report:?}");
    fs::remove_file(site.config().index_file()).unwrap();
    let collector = site.start().await;
    let mut reader = site.reader("alice", collector.address()).await;
    assert_eq!(list_events(&mut reader, &["secret.access"]).await, left);
    host.send(collector.address(), Vec::new()).await.1.unwrap();
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_beyond_its_bound_loses_its_oldest_events_only() {
    let (site, _, segment) = site_with_history().await;
    let total: u64 = fs::read_dir(site.config().log_directory())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    let retention = Retention { max_age_days: 0, max_bytes: total - 1 };
    let collector = server::start(Config { retention, ..site.config() }).await.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    let statements = wait_for_acts(&mut reader, "bodies.removed", 1).await;
    collector.stop().await.unwrap();
    let Act::BodiesRemoved(removed) = act(&statements[0]) else { panic!("{statements:?}") };
    assert!(removed.first_record == 0 && removed.why.contains("larger than"), "{removed:?}");
    assert_eq!(statements.len(), 1);
    assert!(fs::metadata(&segment).unwrap().len() < total / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_spool_was_damaged_goes_on_and_the_log_says_which_batches_are_lost() {
    let site = Site::new();
    let mut host = site.host("h");
    let collector = site.start().await;
    let mut batches = host.batches(6);
    let mut behind = batches.split_off(4);
    host.send(collector.address(), batches[..2].to_vec()).await.1.unwrap();

    let refused = host.send(collector.address(), behind.clone()).await.1.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "a gap without the host's word");
    let key = HostKey::from_pkcs8_pem(&fs::read_to_string(host.out.join("key.pem")).unwrap()).unwrap();
    batch::say_lost_before(&key, &mut behind[0]);
    for _twice in 0..2 {
        host.send(collector.address(), behind.clone()).await.1.unwrap();
    }
    // What was said to be lost cannot come later with another content.
    let old = host.send(collector.address(), batches[2..].to_vec()).await.1.unwrap_err();
    assert_eq!(old.code(), Code::AlreadyExists);

    let mut reader = site.reader("reader", collector.address()).await;
    let lost = wait_for_acts(&mut reader, "batches.lost", 1).await;
    assert_eq!(lost.len(), 1);
    let Act::BatchesLost(lost) = act(&lost[0]) else { panic!("{lost:?}") };
    assert_eq!((lost.host_id.as_str(), lost.first, lost.last), (host.id.as_str(), 3, 4));
    drop(reader);
    collector.stop().await.unwrap();
    let report = verify::verify(&site.config().log_directory()).unwrap();
    assert!(!report.hosts[0].complete);
    assert!(report.hosts[0].statement.contains("batches 3–4, which the host says it lost"), "{report:?}");
}
