//! Peers that attack below gRPC: connections, TLS, HTTP/2, frames. Each is refused, counted, and a host beside it is served.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use buildtrail_collector::{health::Refusal, server, server::Running};
use buildtrail_settings::Span;
use http::Request;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use support::{Site, TestHost, send};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Waits for at least `count` refusals.
async fn refused(collector: &Running, why: Refusal, count: u64) {
    for _ in 0..1500 {
        if collector.health().refused(why) >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{why:?}: {} of {count} after 30 s", collector.health().refused(why));
}

/// A host that delivers batch after batch until it is told to stop, each within the time that a client waits.
struct Neighbour {
    stop: oneshot::Sender<()>,
    delivering: JoinHandle<u64>,
}

impl Neighbour {
    async fn start(site: &Site, address: SocketAddr) -> Self {
        let mut host = site.host("neighbour");
        let mut client = host.client(address).await;
        let (stop, mut stopped) = oneshot::channel();
        let delivering = tokio::spawn(async move {
            let mut delivered = 0;
            while stopped.try_recv().is_err() {
                let sending = send(&mut client, host.batches(1));
                let (acknowledged, end) =
                    tokio::time::timeout(Duration::from_secs(20), sending).await.unwrap();
                end.unwrap();
                delivered += 1;
                assert_eq!(acknowledged, [delivered]);
            }
            delivered
        });
        Self { stop, delivering }
    }

    /// It was served all the time, and connects anew while the attack is on.
    async fn assert_served(self, site: &Site, address: SocketAddr) {
        self.stop.send(()).unwrap();
        assert!(self.delivering.await.unwrap() > 0);
        let mut late = site.host("latecomer");
        let batches = late.batches(1);
        late.send(address, batches).await.1.unwrap();
    }
}

async fn from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(address).await.unwrap()
}

/// A loopback address that is not the good hosts'.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

/// TLS with the identity in `directory`, and nothing above it.
async fn tls(address: SocketAddr, directory: &Path) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join("ca.pem")).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, from(ATTACKER, address).await).await.unwrap()
}

const OUT_OF_RANGE: &str = "11";
const RESOURCE_EXHAUSTED: &str = "8";

/// Sends `frame` as the body of a gRPC stream of `host`; the status it is answered with.
async fn grpc_status(address: SocketAddr, host: &TestHost, encoding: &str, frame: Vec<u8>) -> String {
    let (mut client, connection) = h2::client::handshake(tls(address, &host.out).await).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = Request::post(format!("https://{address}/buildtrail.v1.Ingest/Stream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .header("buildtrail-boot", "b1")
        .header("buildtrail-machine", "0".repeat(64))
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data(frame.into(), false).unwrap();
    let response = response.await.unwrap();
    let status = |headers: &http::HeaderMap| {
        headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
    };
    if let Some(status) = status(response.headers()) {
        return status;
    }
    let mut answer = response.into_body();
    while let Some(data) = answer.data().await {
        let _ = answer.flow_control().release_capacity(data.unwrap().len());
    }
    let status = status(&answer.trailers().await.unwrap().unwrap()).unwrap();
    driving.abort();
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_gigabytes_and_zstd_bombs_are_refused_by_what_they_announce() {
    let site = Site::new();
    let collector = site.start().await;
    let neighbour = Neighbour::start(&site, collector.address()).await;
    let attacker = site.host("attacker");
    let announced = [&[0, 0xff, 0xff, 0xff, 0xff][..], &[7; 1000]].concat();
    assert_eq!(
        grpc_status(collector.address(), &attacker, "identity", announced.clone()).await,
        OUT_OF_RANGE
    );
    let compressed = [&[1][..], &announced[1..]].concat();
    assert_eq!(grpc_status(collector.address(), &attacker, "zstd", compressed).await, OUT_OF_RANGE);

    // A gigabyte of zeros in some dozen kilobytes.
    let mut bomb = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        std::io::Write::write_all(&mut bomb, &zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    let length = u32::try_from(bomb.len()).unwrap().to_be_bytes();
    let frame = [&[1][..], &length, &bomb].concat();
    assert_eq!(grpc_status(collector.address(), &attacker, "zstd", frame).await, RESOURCE_EXHAUSTED);
    refused(&collector, Refusal::Oversized, 3).await;

    // Neither zstd nor announced as such.
    let frame = [&[1, 0, 0, 0, 9][..], b"not zstd!"].concat();
    assert_ne!(grpc_status(collector.address(), &attacker, "zstd", frame.clone()).await, "0");
    assert_ne!(grpc_status(collector.address(), &attacker, "gzip", frame.clone()).await, "0");
    assert_ne!(grpc_status(collector.address(), &attacker, "identity", frame).await, "0");
    refused(&collector, Refusal::Garbage, 1).await;
    neighbour.assert_served(&site, collector.address()).await;
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_or_too_little_is_cut_off_at_every_level() {
    let site = Site::new();
    let collector = site.start().await;
    let neighbour = Neighbour::start(&site, collector.address()).await;
    let attacker = site.host("attacker");
    // TCP and no word.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(from(ATTACKER, collector.address()).await);
    }
    // A TLS greeting of 16 KiB that never ends.
    let mut begun = from(ATTACKER, collector.address()).await;
    begun.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]).await.unwrap();
    // TLS, and no HTTP/2; and HTTP/2's preface, a byte a second.
    let mut no_preface = tls(collector.address(), &attacker.out).await;
    let mut dripping = tls(collector.address(), &attacker.out).await;
    let drip = tokio::spawn(async move {
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
            if dripping.write_all(&[*byte]).await.is_err() || dripping.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    refused(&collector, Refusal::Handshake, 21).await;
    refused(&collector, Refusal::Stalled, 2).await;
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
    // After its own settings the collector ends this.
    let mut settings = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), no_preface.read_to_end(&mut settings)).await;
    assert!(ended.is_ok(), "still open");
    drip.await.unwrap();
    neighbour.assert_served(&site, collector.address()).await;
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_connections_of_the_others() {
    let site = Site::new();
    let collector = server::start(site.enrolling()).await.unwrap();
    let neighbour = Neighbour::start(&site, collector.address()).await;
    let attacker = site.host("attacker");
    let mut handshakes = Vec::new();
    for _ in 0..300 {
        handshakes.push(from(ATTACKER, collector.address()).await);
    }
    refused(&collector, Refusal::Busy, 300 - 64).await;
    drop(handshakes);
    refused(&collector, Refusal::Handshake, 64).await;

    let before = collector.health().refused(Refusal::Busy);
    let mut connections = Vec::new();
    for _ in 0..12 {
        connections.push(tls(collector.address(), &attacker.out).await);
    }
    refused(&collector, Refusal::Busy, before + 4).await;
    assert_eq!(collector.health().refused(Refusal::Busy), before + 4);
    neighbour.assert_served(&site, collector.address()).await;
    collector.stop().await.unwrap();
}

/// Noise that is the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    next.take(length).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_at_every_level_disturbs_nobody() {
    let site = Site::new();
    let collector = site.start().await;
    let neighbour = Neighbour::start(&site, collector.address()).await;
    let attacker = site.host("attacker");
    let start = u64::from(std::process::id());
    eprintln!("seeds {start}..{}", start + 40);
    for seed in start..start + 40 {
        let length = usize::try_from(seed % 5000).unwrap() + 1;
        let mut stream = from(ATTACKER, collector.address()).await;
        let _reset = stream.write_all(&noise(seed, length)).await;
        drop(stream);

        let mut stream = tls(collector.address(), &attacker.out).await;
        if seed % 2 == 0 {
            let _reset = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        }
        let _reset = stream.write_all(&noise(seed, length)).await;
        let _reset = stream.shutdown().await;
        // The collector ends it, rather than waiting.
        let mut answer = Vec::new();
        let _reset =
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();

        let frame = noise(seed, length);
        let frame = [&[0][..], &u32::try_from(frame.len()).unwrap().to_be_bytes(), &frame].concat();
        assert_ne!(grpc_status(collector.address(), &attacker, "identity", frame).await, "0", "seed {seed}");
    }
    refused(&collector, Refusal::Handshake, 40).await;
    refused(&collector, Refusal::Garbage, 40).await;
    assert_eq!(collector.health().refused(Refusal::Stalled), 0);
    neighbour.assert_served(&site, collector.address()).await;
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused_in_the_handshake_where_nobody_can_renew() {
    let site = Site::new();
    let mut issuing = site.enrolling();
    issuing.enrol.certificate_lifetime = Span::from_seconds(3);
    let out = site.path("old");
    let collector = server::start(issuing).await.unwrap();
    let host = site.host("old");
    let channel = support::connect(collector.address(), &out).await.unwrap();
    let mut client = buildtrail_proto::v1::enrolment_client::EnrolmentClient::new(channel);
    let renewed = client.renew(buildtrail_proto::v1::RenewRequest {}).await.unwrap().into_inner();
    let certificate = pem::encode(&pem::Pem::new("CERTIFICATE", renewed.certificate));
    std::fs::write(out.join("cert.pem"), certificate).unwrap();
    collector.stop().await.unwrap();
    tokio::time::sleep(Duration::from_millis(4100)).await;

    let collector = site.start().await;
    let neighbour = Neighbour::start(&site, collector.address()).await;
    let mut stream = tls(collector.address(), &host.out).await;
    assert!(stream.read(&mut [0; 1]).await.is_err());
    refused(&collector, Refusal::Expired, 1).await;
    neighbour.assert_served(&site, collector.address()).await;
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_reads_holds_up_nobody() {
    let site = Site::new();
    let collector = site.start().await;
    let neighbour = Neighbour::start(&site, collector.address()).await;
    let mut attacker = site.host("attacker");
    let (mut client, connection) =
        h2::client::handshake(tls(collector.address(), &attacker.out).await).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = Request::post(format!("https://{}/buildtrail.v1.Ingest/Stream", collector.address()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("buildtrail-boot", "b1")
        .header("buildtrail-machine", "0".repeat(64))
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    for batch in attacker.batches(500) {
        let message = prost::Message::encode_to_vec(&batch);
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        body.send_data([&[0][..], &length, &message].concat().into(), false).unwrap();
    }
    // Not one acknowledgement is read.
    let unread = response.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    neighbour.assert_served(&site, collector.address()).await;
    drop((unread, body, client));
    driving.abort();
    collector.stop().await.unwrap();
}
