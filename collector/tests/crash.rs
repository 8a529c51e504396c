//! The real program: killed at any time it loses nothing that it acknowledged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{
    fs,
    io::Read as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use buildtrail_evidence::{
    tlog::{
        note::{Checkpoint, NoteKey, SignedCheckpoint},
        tiles::Tiles,
    },
    verify,
};
use buildtrail_proto::v1::SignedBatch;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Site, TestHost, secret, wait_for_events};

struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(site: &Site) -> Self {
        let settings = site.path("collector.toml");
        let ca = site.path("ca");
        let text = format!(
            "listen = '127.0.0.1:0'\ndata_directory = '{}'\n[tls]\nca = '{}'\ncertificate = '{}'\nprivate_key = '{}'\n",
            site.path("data").display(),
            ca.join("ca.pem").display(),
            ca.join("cert.pem").display(),
            ca.join("key.pem").display(),
        );
        fs::write(&settings, text).unwrap();
        let address_file = site.path("address");
        let _ = fs::remove_file(&address_file);
        let child = Command::new(env!("CARGO_BIN_EXE_buildtrail-collector"))
            .arg("serve")
            .arg("--config")
            .arg(&settings)
            .arg("--address-file")
            .arg(&address_file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = wait_for_address(&address_file);
        Self { child, address }
    }

    fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for_address(file: &Path) -> SocketAddr {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if let Ok(text) = fs::read_to_string(file) {
            return text.trim().parse().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the collector did not start");
}

/// Batches 1 to `count`, three events each.
fn batches(host: &mut TestHost, count: u64) -> Vec<SignedBatch> {
    (0..count).map(|number| host.seal((0..3).map(|part| secret(number * 3 + part)).collect()).batch).collect()
}

/// Sends from `first` on until the stream breaks; returns the last acknowledged number.
async fn stream_until_cut(host: &TestHost, address: SocketAddr, batches: &[SignedBatch], first: u64) -> u64 {
    let rest = batches[usize::try_from(first - 1).unwrap()..].to_vec();
    let (acknowledged, _) = host.send(address, rest).await;
    assert!(acknowledged.windows(2).all(|pair| pair[1] == pair[0] + 1));
    acknowledged.last().copied().unwrap_or(first - 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_any_time_loses_nothing_acknowledged_and_stores_nothing_twice() {
    const BATCHES: u64 = 600;
    let site = Site::new();
    let mut host = site.host("runner-7");
    let all = batches(&mut host, BATCHES);
    let (mut acknowledged, mut signed) = (0, None);
    for round in 0..6 {
        let mut program = Program::start(&site);
        let address = program.address;
        let pid = Pid::from_raw(i32::try_from(program.child.id()).unwrap());
        let killer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(30 + 23 * round)).await;
            kill(pid, Signal::SIGKILL).unwrap();
        });
        // As after a lost acknowledgement: the last ones again.
        let first = acknowledged.max(5) - 4;
        acknowledged = acknowledged.max(stream_until_cut(&host, address, &all, first).await);
        killer.await.unwrap();
        program.child.wait().unwrap();
        let report = verify::verify(&site.config().log_directory()).unwrap();
        assert!(
            report.batches >= acknowledged,
            "{} of {acknowledged} acknowledged are there",
            report.batches
        );
        signed = Some(grown(&site, signed));
    }

    let mut program = Program::start(&site);
    let last = stream_until_cut(&host, program.address, &all, acknowledged + 1).await;
    assert_eq!(last, BATCHES);
    let mut reader = site.reader("alice", program.address).await;
    let stored = wait_for_events(&mut reader, usize::try_from(BATCHES * 3).unwrap()).await;
    assert_eq!(
        stored.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        (1..=BATCHES * 3).collect::<Vec<_>>()
    );
    assert!(program.signal(Signal::SIGTERM).success());
    let report = verify::verify(&site.config().log_directory()).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.batches, report.events), (BATCHES, BATCHES * 3));
    assert!(report.hosts[0].complete);
    grown(&site, signed);
}

/// The newest checkpoint, which must begin with the one before.
fn grown(site: &Site, before: Option<Checkpoint>) -> Checkpoint {
    let key: NoteKey = fs::read_to_string(site.path("data/tlog/log.vkey")).unwrap().trim().parse().unwrap();
    let note = fs::read(site.path("data/tlog/checkpoint")).unwrap();
    let now = SignedCheckpoint::open(&note, &key).unwrap().checkpoint().clone();
    if let Some(before) = before {
        let (_, root) = Tiles::new(&site.path("data/tlog")).consistency(&now, before.size).unwrap();
        assert_eq!(root, before.root, "the tree of {} was replaced", before.size);
    }
    now
}

#[test]
fn it_says_where_it_listens_and_stops_cleanly_when_asked() {
    let site = Site::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut program = Program::start(&site);
        assert!(program.signal(signal).success());
        let mut said = String::new();
        program.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("listening on {}\n", program.address));
    }
}

#[test]
fn a_mistake_is_one_clear_sentence() {
    let site = Site::new();
    let settings = site.path("collector.toml");
    fs::write(&settings, "lisen = '127.0.0.1:0'\n").unwrap();
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_buildtrail-collector")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = run(&["serve", "--config", settings.to_str().unwrap()]);
    assert!(code == Some(1) && error.contains("collector.toml:1") && error.contains("listen"), "{error}");
    let ca = site.path("ca");
    let (code, error) = run(&["ca", "init", "--dir", ca.to_str().unwrap(), "--name", "localhost"]);
    assert!(code == Some(1) && error.contains("not overwritten"), "{error}");
    fs::write(&settings, format!("data_directory = '{}'\n[tls]\nca = '/nowhere'\n", ca.display())).unwrap();
    let (code, error) = run(&["serve", "--config", settings.to_str().unwrap()]);
    assert!(code == Some(1) && error.contains("ca init"), "{error}");
}
