//! Sending checkpoints to the witnesses of the policy.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::SyncSender},
    time::Duration,
};

use buildtrail_evidence::tlog::{
    note::{SignatureLine, SignedCheckpoint},
    policy::{Policy, Witness},
    proof::{encode_hash, parse_decimal},
    tiles::Tiles,
};
use buildtrail_proto::v1::{WitnessBack, WitnessMissing, collector_entry::Act};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    acts::{Acts, printable},
    config::Config,
    server::ServeError,
    tls,
    tree::{Message, Published, TreeError},
};

/// For one request and its answer.
const TIME: Duration = Duration::from_secs(10);
/// Between two attempts while a witness is away.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// What the witnesses did last, in words, in the order of the policy.
pub(crate) type Statements = Arc<Mutex<Vec<String>>>;

/// One witness and what it needs to be asked.
struct Submitter {
    witness: Witness,
    url: Uri,
    tls: TlsConnector,
    tiles: Tiles,
    to_tree: SyncSender<Message>,
    acts: Acts,
    statements: Statements,
    place: usize,
    /// Size of the newest checkpoint that this witness has cosigned, as far as is known here.
    known: u64,
}

type Failure = String;

/// Starts a task for each witness of the policy that has a URL.
pub(crate) fn start(
    config: &Config,
    policy: Option<&Policy>,
    published: &Published,
    to_tree: &SyncSender<Message>,
    acts: &Acts,
) -> Result<Statements, ServeError> {
    let statements = Statements::default();
    let (Some(policy), Some(path)) = (policy, &config.tree.policy) else { return Ok(statements) };
    let authority = config.tree.witness_ca.as_ref().unwrap_or(&config.tls.ca);
    let tls = tls::plain_connector(authority)?;
    for (place, witness) in policy.witnesses().iter().enumerate() {
        let name = &witness.name;
        let Some(url) = &witness.url else {
            said(&statements).push(format!("{name} has no URL in the policy and is not asked from here"));
            continue;
        };
        said(&statements).push(format!("{name} was not asked yet"));
        let url =
            parse_url(url).ok_or_else(|| TreeError::WitnessUrl { path: path.clone(), name: name.clone() })?;
        let submitter = Submitter {
            witness: witness.clone(),
            url,
            tls: tls.clone(),
            tiles: Tiles::new(&config.tree_directory()),
            to_tree: to_tree.clone(),
            acts: acts.clone(),
            statements: statements.clone(),
            place,
            known: 0,
        };
        tokio::spawn(submitter.run(published.clone()));
    }
    Ok(statements)
}

fn parse_url(url: &str) -> Option<Uri> {
    let url: Uri = url.parse().ok()?;
    let fits = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    (fits && url.query().is_none()).then_some(url)
}

fn said(statements: &Statements) -> MutexGuard<'_, Vec<String>> {
    statements.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Submitter {
    /// Submits each new checkpoint until there are no more.
    async fn run(mut self, mut published: Published) {
        let mut missed: Option<u64> = None;
        loop {
            let head = published.borrow_and_update().latest.clone();
            let size = head.checkpoint().size;
            match self.submit(&head).await {
                Ok(line) => {
                    self.say(format!("{} has cosigned {size} records", self.witness.name));
                    if let Some(missed) = missed.take() {
                        let name = self.witness.name.clone();
                        self.acts.record(Act::WitnessBack(WitnessBack { name, missed }));
                    }
                    // A keeper that is busy or gone takes the next one.
                    let _ =
                        self.to_tree.try_send(Message::Cosigned(Box::new((self.witness.key.clone(), line))));
                }
                Err(why) => {
                    self.say(format!("{} has not cosigned {size} records: {why}", self.witness.name));
                    if missed.is_none() {
                        tracing::warn!(witness = self.witness.name, why, "no cosignature");
                        let name = self.witness.name.clone();
                        self.acts.record(Act::WitnessMissing(WitnessMissing { name, reason: why }));
                    }
                    missed = Some(missed.unwrap_or_default() + 1);
                    if self.pause(&mut published).await {
                        continue;
                    }
                    return;
                }
            }
            // Its sender is gone when the collector has stopped.
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits before the next attempt; `false`: the collector has stopped.
    async fn pause(&self, published: &mut Published) -> bool {
        let until = tokio::time::Instant::now() + PAUSE;
        loop {
            match tokio::time::timeout_at(until, published.changed()).await {
                Err(_) => return true,
                Ok(Err(_)) => return false,
                Ok(Ok(())) => {}
            }
        }
    }

    fn say(&self, statement: String) {
        if let Some(place) = said(&self.statements).get_mut(self.place) {
            *place = statement;
        }
    }

    async fn submit(&mut self, head: &SignedCheckpoint) -> Result<SignatureLine, Failure> {
        let (status, body) = self.post(head).await?;
        let (status, body) = match (status, parse_decimal(body.trim_end())) {
            (StatusCode::CONFLICT, Some(size)) if size <= head.checkpoint().size => {
                self.known = size;
                self.post(head).await?
            }
            (StatusCode::CONFLICT, Some(size)) => {
                return Err(format!("it has seen {size} records: this log was rolled back or has a twin"));
            }
            _ => (status, body),
        };
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", printable(&body.trim_end())));
        }
        let lines = SignatureLine::parse_all(&body).map_err(|error| error.to_string())?;
        let by_witness = |line: &SignatureLine| line.is_by(&self.witness.key, head.text().as_bytes());
        let line = lines.into_iter().find(by_witness).ok_or("it answered without its signature")?;
        self.known = head.checkpoint().size;
        Ok(line)
    }

    async fn post(&self, head: &SignedCheckpoint) -> Result<(StatusCode, String), Failure> {
        let (tiles, tree, known) = (self.tiles.clone(), head.checkpoint().clone(), self.known);
        let proving = tokio::task::spawn_blocking(move || tiles.consistency(&tree, known)).await;
        let (path, _) = proving.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let path: Vec<String> = path.into_iter().map(|hash| encode_hash(hash) + "\n").collect();
        let body = format!("old {known}\n{}\n{}", path.concat(), head.note());
        timeout(TIME, self.request(body)).await.unwrap_or_else(|_| Err("it took too long".into()))
    }

    async fn request(&self, body: String) -> Result<(StatusCode, String), Failure> {
        let host = self.url.host().ok_or("its URL names no host")?;
        let secure = self.url.scheme_str() == Some("https");
        let port = self.url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let path = format!("{}/add-checkpoint", self.url.path().trim_end_matches('/'));
        let request = Request::post(path)
            .header(HOST, format!("{host}:{port}"))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        if secure {
            let name = ServerName::try_from(address.0.to_owned()).map_err(|error| error.to_string())?;
            let stream = self.tls.connect(name, stream).await.map_err(|error| error.to_string())?;
            exchange(stream, request).await
        } else {
            exchange(stream, request).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, String), Failure> {
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let driving = tokio::spawn(connection);
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| "its answer is too long or broke off")?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let answer = answer.await;
    driving.abort();
    answer
}
