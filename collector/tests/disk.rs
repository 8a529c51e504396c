//! The real program on a small disk, and the index made anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use buildtrail_evidence::verify;
use buildtrail_proto::v1::{
    ListActsRequest, ListJobsRequest, RecordedAct, collector_entry::Act, query_client::QueryClient,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Site, in_job, secret, wait_for_events};
use tonic::{Code, transport::Channel};

type Reader = QueryClient<Channel>;

fn write_settings(site: &Site, reserve: u64) -> PathBuf {
    let (settings, ca) = (site.path("collector.toml"), site.path("ca"));
    let text = format!(
        "listen = '127.0.0.1:0'\ndata_directory = '{}'\n[tls]\nca = '{}'\ncertificate = '{}'\nprivate_key = '{}'\n\
         [log]\nreserve_bytes = {reserve}\n",
        site.path("data").display(),
        ca.join("ca.pem").display(),
        ca.join("cert.pem").display(),
        ca.join("key.pem").display(),
    );
    fs::write(&settings, text).unwrap();
    settings
}

/// A collector whose data directory is a file system of its own, which nobody else sees and which ends with it.
struct Small {
    child: Child,
    address: SocketAddr,
    /// The data directory, by way of the process.
    data: PathBuf,
}

impl Small {
    fn start(site: &Site, megabytes: u64) -> Self {
        let settings = write_settings(site, 8 << 20);
        let (data, address_file) = (site.path("data"), site.path("address"));
        fs::create_dir(&data).unwrap();
        let script = "mount -t tmpfs -o size=$1m,mode=0700 none \"$2\" && exec \"$3\" serve --config \"$4\" --address-file \"$5\"";
        let mut command = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-c", script, "sh", &megabytes.to_string()]);
        command.arg(&data).arg(env!("CARGO_BIN_EXE_buildtrail-collector")).arg(settings).arg(&address_file);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let address = loop {
            if let Ok(text) = fs::read_to_string(&address_file) {
                break text.trim().parse().unwrap();
            }
            assert!(
                Instant::now() < until,
                "the collector did not start; does this machine allow mount namespaces?"
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        let data = Path::new("/proc")
            .join(child.id().to_string())
            .join("root")
            .join(data.strip_prefix("/").unwrap());
        Self { child, address, data }
    }

    /// Fills the disk until only so much is left.
    fn fill(&self, leave: u64) {
        let mut ballast = fs::File::create(self.data.join("ballast")).unwrap();
        let chunk = vec![0; 64 << 10];
        while free(&self.data) > leave && ballast.write_all(&chunk).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.data.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free(path: &Path) -> u64 {
    let found = nix::sys::statvfs::statvfs(path).unwrap();
    found.blocks_available() * found.fragment_size()
}

async fn acts(reader: &mut Reader) -> Vec<RecordedAct> {
    reader.list_acts(ListActsRequest { limit: 10_000, ..Default::default() }).await.unwrap().into_inner().acts
}

async fn wait_for_act(reader: &mut Reader, kind: &str, count: usize) -> RecordedAct {
    for _ in 0..300 {
        let found: Vec<_> = acts(reader).await.into_iter().filter(|act| act.kind == kind).collect();
        if found.len() >= count {
            return found[count - 1].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no {kind} in time");
}

/// As a host does: again and again until it is acknowledged.
async fn send_until_acknowledged(
    host: &support::TestHost,
    address: SocketAddr,
    batches: &[buildtrail_proto::v1::SignedBatch],
) {
    for _ in 0..100 {
        if host.send(address, batches.to_vec()).await.1.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not acknowledged in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_batches_keeps_a_reserve_for_saying_so_and_loses_nothing() {
    let site = Site::new();
    let mut small = Small::start(&site, 40);
    let mut host = site.host("h");
    let batches = host.batches(90);
    let mut reader = site.reader("alice", small.address).await;
    host.send(small.address, batches[..30].to_vec()).await.1.unwrap();

    small.fill(6 << 20);
    let (acknowledged, end) = host.send(small.address, batches[30..60].to_vec()).await;
    assert!(acknowledged.is_empty());
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    wait_for_act(&mut reader, "disk.full", 1).await;
    small.empty();
    send_until_acknowledged(&host, small.address, &batches[30..60]).await;
    let back = wait_for_act(&mut reader, "disk.back", 1).await;
    let Some(Act::DiskBack(back)) = back.entry.unwrap().act else { panic!() };
    assert!(back.refused >= 1);

    // Somebody else takes the reserve as well.
    small.fill(0);
    assert_eq!(
        host.send(small.address, batches[60..].to_vec()).await.1.unwrap_err().code(),
        Code::Unavailable
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    small.empty();
    send_until_acknowledged(&host, small.address, &batches[60..]).await;
    let events = wait_for_events(&mut reader, 90).await;
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), (1..=90).collect::<Vec<_>>());
    let report = verify::verify(&small.data.join("log")).unwrap();
    assert_eq!(report.batches, 90);
    assert!(report.hosts[0].complete, "{report:?}");
    kill(Pid::from_raw(i32::try_from(small.child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(small.child.wait().unwrap().success());
}

fn reindex(settings: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_buildtrail-collector");
    Command::new(program).arg("reindex").arg("--config").arg(settings).output().unwrap()
}

/// All that the index knows, but for the questions that were asked about it.
async fn everything(reader: &mut Reader) -> String {
    let events = support::found(reader, "").await;
    let jobs = reader.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    let counts: Vec<_> =
        jobs.iter().map(|job| job.counts.iter().collect::<std::collections::BTreeMap<_, _>>()).collect();
    let acts: Vec<_> = acts(reader).await.into_iter().filter(|act| act.record < 40).collect();
    format!("{events:?} {counts:?} {acts:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_made_anew_knows_what_the_old_one_knew() {
    let site = Site::new();
    let settings = write_settings(&site, 0);
    let collector = site.start().await;
    let busy = reindex(&settings);
    assert!(!busy.status.success());
    assert!(String::from_utf8_lossy(&busy.stderr).contains("in use by another process"), "{busy:?}");
    let mut host = site.host("h");
    let job = |second| in_job("0aaa0000000000000000000000000001", "widgets", 1, secret(second));
    let batches = (0..50).map(|number| host.seal(vec![job(number), secret(number)]).batch).collect();
    host.send(collector.address(), batches).await.1.unwrap();
    host.sealer.rewind(buildtrail_evidence::batch::ChainHead::default());
    let forked = host.seal(vec![secret(999)]).batch;
    assert!(host.send(collector.address(), vec![forked]).await.1.is_err());
    let mut reader = site.reader("alice", collector.address()).await;
    wait_for_events(&mut reader, 100).await;
    let before = everything(&mut reader).await;
    collector.stop().await.unwrap();

    let done = reindex(&settings);
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.starts_with("indexed ") && said.ends_with(" records\n"), "{said}");
    let collector = site.start().await;
    let mut reader = site.reader("alice", collector.address()).await;
    assert_eq!(everything(&mut reader).await, before);
    collector.stop().await.unwrap();
}
