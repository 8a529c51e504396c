//! Witnesses: they cosign growth and nothing else, and nobody waits for one that is away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use buildtrail_collector::{
    config::Config,
    server,
    witness::server::{self as witness, Running, Settings, WitnessError},
};
use buildtrail_evidence::tlog::{
    note::{NoteKey, SignedCheckpoint},
    policy::Policy,
};
use buildtrail_proto::v1::{
    GetCheckpointRequest, GetCheckpointResponse, ListActsRequest, query_client::QueryClient,
};
use support::Site;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Channel;

type Reader = QueryClient<Channel>;

fn log_key(site: &Site) -> NoteKey {
    fs::read_to_string(site.path("data/tlog/log.vkey")).unwrap().trim().parse().unwrap()
}

fn settings(site: &Site, name: &str) -> Settings {
    Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        directory: site.path(name),
        name: format!("{name}.example"),
        logs: vec![log_key(site)],
        tls: None,
    }
}

/// A site whose collector has run once, so that its key is there.
async fn site() -> Site {
    let site = Site::new();
    site.start().await.stop().await.unwrap();
    site
}

fn with_policy(site: &Site, lines: &str) -> Config {
    let policy = site.path("witnesses.policy");
    fs::write(&policy, format!("log {}\n{lines}\n", log_key(site))).unwrap();
    let mut config = site.config();
    config.tree.policy = Some(policy);
    config.tree.checkpoint_seconds = 1;
    config
}

async fn wait_for(
    reader: &mut Reader,
    what: impl Fn(&GetCheckpointResponse) -> bool,
) -> GetCheckpointResponse {
    for _ in 0..300 {
        let answer = reader.get_checkpoint(GetCheckpointRequest {}).await.unwrap().into_inner();
        if what(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come to that in time");
}

async fn kinds(reader: &mut Reader) -> Vec<String> {
    let acts = reader.list_acts(ListActsRequest::default()).await.unwrap().into_inner().acts;
    acts.into_iter().map(|act| act.kind).collect()
}

fn witness_line(name: &str, running: &Running, scheme: &str) -> String {
    format!("witness {name} {} {scheme}://{}\n", running.public_key(), running.address())
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_cosigned_until_the_quorum_is_met_and_one_that_is_away_is_told_of() {
    let site = site().await;
    let near = witness::start(settings(&site, "near")).await.unwrap();
    // Only its key is needed to name it; it is not there.
    let away = witness::start(settings(&site, "away")).await.unwrap();
    let away_line = witness_line("away", &away, "http");
    let away_address = away.address();
    drop(away);
    let lines =
        format!("{}{away_line}group some any near away\nquorum some", witness_line("near", &near, "http"));
    let collector = server::start(with_policy(&site, &lines)).await.unwrap();
    let mut host = site.host("h");
    let batches = host.batches(20);
    host.send(collector.address(), batches).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    let answer = wait_for(&mut reader, |answer| !answer.witnessed.is_empty()).await;
    let policy = Policy::parse(&fs::read_to_string(site.path("witnesses.policy")).unwrap()).unwrap();
    let judged = policy.judge(answer.witnessed.as_bytes()).unwrap();
    assert!(judged.quorum && judged.cosigned[0].0 == "near", "{judged:?}");
    let answer =
        wait_for(&mut reader, |answer| answer.witnesses.iter().any(|line| line.contains("not cosigned")))
            .await;
    assert!(answer.witnesses[1].contains("away has not cosigned"), "{:?}", answer.witnesses);
    assert!(kinds(&mut reader).await.contains(&"witness.missing".to_owned()));

    let back = Settings { listen: away_address, ..settings(&site, "away") };
    let _back = witness::start(back).await.unwrap();
    wait_for(&mut reader, |answer| answer.witnesses[1].contains("away has cosigned")).await;
    let batches = host.batches(5);
    host.send(collector.address(), batches).await.1.unwrap();
    collector.stop().await.unwrap();

    let note = fs::read(site.path("data/tlog/checkpoint")).unwrap();
    let judged = policy.judge(&note).unwrap();
    assert!(judged.quorum, "also the last one, at the stop");
    let witnessed = fs::read(site.path("data/tlog/witnessed")).unwrap();
    assert_eq!(
        SignedCheckpoint::open(&witnessed, &log_key(&site)).unwrap().checkpoint(),
        judged.checkpoint.checkpoint()
    );
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_over_https_notices_a_log_that_was_put_back_from_a_backup() {
    let site = site().await;
    let tls = Some((site.path("ca/cert.pem"), site.path("ca/key.pem")));
    let running = witness::start(Settings { tls, ..settings(&site, "w") }).await.unwrap();
    let config = with_policy(&site, &format!("{}quorum w", witness_line("w", &running, "https")));
    copy(&site.path("data"), &site.path("backup"));
    let collector = server::start(config.clone()).await.unwrap();
    let mut host = site.host("h");
    let batches = host.batches(30);
    host.send(collector.address(), batches).await.1.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    wait_for(&mut reader, |answer| !answer.witnessed.is_empty()).await;
    collector.stop().await.unwrap();

    fs::remove_dir_all(site.path("data")).unwrap();
    copy(&site.path("backup"), &site.path("data"));
    let collector = server::start(config).await.unwrap();
    let mut reader = site.reader("alice", collector.address()).await;
    let answer = wait_for(&mut reader, |answer| answer.witnesses[0].contains("rolled back")).await;
    assert!(answer.witnessed.is_empty(), "{answer:?}");
    collector.stop().await.unwrap();
}

async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

fn post(body: &str) -> Vec<u8> {
    let head = "POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: ";
    format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statuses_are_those_of_the_specification() {
    let site = site().await;
    let running = witness::start(settings(&site, "w")).await.unwrap();
    let note = fs::read_to_string(site.path("data/tlog/checkpoint")).unwrap();
    let first = post(&format!("old 0\n\n{note}"));
    let answer = raw(running.address(), &first).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\u{2014} w.example "), "{answer}");
    let answer = raw(running.address(), &first).await;
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
    assert!(answer.contains("content-type: text/x.tlog.size") && answer.ends_with("\r\n2\n"), "{answer}");
    for (request, status) in [
        (post("old 1"), "400"),
        (post(&format!("old 2\n\n{}", note.replace("buildtrail-", "other-"))), "404"),
        (post(&format!("old 2\n\n{}", note.replace("\n2\n", "\n3\n"))), "403"),
        (post(&"x".repeat(100_000)), "400"),
        (b"GET /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n".to_vec(), "405"),
        (b"GET / HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n".to_vec(), "404"),
    ] {
        let answer = raw(running.address(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    let public = Settings { listen: "0.0.0.0:0".parse().unwrap(), ..settings(&site, "public") };
    assert!(matches!(witness::start(public).await, Err(WitnessError::Plaintext(_))));
}
