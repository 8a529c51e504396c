//! What a witness signs: its rules and its memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use buildtrail_evidence::{
    digest::Digest,
    tlog::{
        note::{CheckpointError, KeyKind, NoteKey, NoteSigner, SignedCheckpoint, claimed_origin},
        proof::{MAX_HASHES, check_consistency, decode_hash, parse_decimal},
    },
};
use buildtrail_proto::now;

use crate::tree::{TreeError, files, load_or_make_key};

/// Longest request, in bytes.
pub(super) const MAX_REQUEST: usize = 64 * 1024;

/// The witness cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// Its files or its key.
    #[error(transparent)]
    Files(#[from] TreeError),
    /// What it remembers of a log is not a checkpoint of that log.
    #[error(
        "{} does not hold a checkpoint that the log {origin:?} has signed: {source}; a witness that forgets could be \
         deceived, so put the file back from a copy", path.display()
    )]
    Memory {
        /// The file.
        path: PathBuf,
        /// Whose it should be.
        origin: String,
        /// What is wrong.
        source: CheckpointError,
    },
    /// The log's key is another kind of key.
    #[error("the key of {0:?} is a witness's; give the key of a log")]
    NotALog(String),
    /// Two keys under one name.
    #[error("the log {0:?} is named twice")]
    Twice(String),
    /// The address.
    #[error("cannot listen on {address}: {source}; choose another one with --listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Plain HTTP for others than this machine.
    #[error(
        "{0} can be reached from other machines: give --tls-certificate and --tls-key, or a loopback address"
    )]
    Plaintext(std::net::SocketAddr),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// 200: a signature line.
    Cosigned(String),
    /// 400
    Malformed(&'static str),
    /// 403
    NotSigned,
    /// 404
    UnknownLog,
    /// 409, with the size that is remembered.
    OtherSize(u64),
    /// 409: another tree of the same size.
    Forked,
    /// 422
    Inconsistent,
    /// 500: nothing was signed.
    Failed,
}

/// A witness's key and memory.
#[derive(Debug)]
pub(super) struct Cosigner {
    signer: NoteSigner,
    logs: Vec<Log>,
}

#[derive(Debug)]
struct Log {
    key: NoteKey,
    file: PathBuf,
    /// The last checkpoint that was cosigned. Held while the next one is checked and written.
    latest: Mutex<Option<SignedCheckpoint>>,
}

struct Request<'a> {
    old_size: u64,
    path: Vec<Digest>,
    note: &'a [u8],
}

impl Cosigner {
    pub(super) fn open(directory: &Path, name: &str, logs: Vec<NoteKey>) -> Result<Self, WitnessError> {
        files::make_directory(&directory.join("logs"))?;
        let signer = load_or_make_key(&directory.join("witness-key.pem"), KeyKind::Witness, name)?;
        let mut known: Vec<Log> = Vec::new();
        for key in logs {
            if key.kind() != KeyKind::Log {
                return Err(WitnessError::NotALog(key.name().to_owned()));
            }
            if known.iter().any(|log| log.key.name() == key.name()) {
                return Err(WitnessError::Twice(key.name().to_owned()));
            }
            known.push(Log::open(directory, key)?);
        }
        Ok(Self { signer, logs: known })
    }

    pub(super) fn public_key(&self) -> &NoteKey {
        self.signer.public()
    }

    /// `POST add-checkpoint`. Blocks on the disk.
    pub(super) fn add_checkpoint(&self, body: &[u8]) -> Reply {
        let Some(request) = parse(body) else {
            return Reply::Malformed("the request is not in the form of tlog-witness");
        };
        let Ok(origin) = claimed_origin(request.note) else { return Reply::Malformed("no checkpoint") };
        let Some(log) = self.logs.iter().find(|log| log.key.name() == origin) else {
            return Reply::UnknownLog;
        };
        let new = match SignedCheckpoint::open(request.note, &log.key) {
            Ok(new) => new,
            Err(CheckpointError::Malformed) => return Reply::Malformed("the checkpoint is malformed"),
            Err(_) => return Reply::NotSigned,
        };
        if request.old_size > new.checkpoint().size {
            return Reply::Malformed("the old size is larger than the checkpoint's");
        }
        let mut latest = log.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(refused) = follows(latest.as_ref(), &request, &new) {
            tracing::warn!(
                origin,
                old = request.old_size,
                new = new.checkpoint().size,
                ?refused,
                "not cosigned"
            );
            return refused;
        }
        self.cosign(log, &mut latest, new)
    }

    fn cosign(&self, log: &Log, latest: &mut Option<SignedCheckpoint>, new: SignedCheckpoint) -> Reply {
        let seconds = u64::try_from(now().seconds).unwrap_or_default();
        let line = match self.signer.sign(new.text().as_bytes(), seconds) {
            Ok(line) => line,
            Err(error) => {
                tracing::error!(%error, "cannot sign");
                return Reply::Failed;
            }
        };
        if let Err(error) = files::replace(&log.file, new.note().as_bytes()) {
            tracing::error!(%error, "nothing is cosigned that cannot be remembered");
            return Reply::Failed;
        }
        *latest = Some(new);
        Reply::Cosigned(format!("{line}\n"))
    }
}

impl Log {
    fn open(directory: &Path, key: NoteKey) -> Result<Self, WitnessError> {
        let name = Digest::of(key.name().as_bytes()).to_string();
        let file = directory.join("logs").join(name);
        let wrong =
            |source| WitnessError::Memory { path: file.clone(), origin: key.name().to_owned(), source };
        let note = match fs::read(&file) {
            Ok(note) => Some(note),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(TreeError::Io { action: "read", path: file, source }.into()),
        };
        let latest = note.map(|note| SignedCheckpoint::open(&note, &key).map_err(wrong)).transpose()?;
        Ok(Self { file, latest: Mutex::new(latest), key })
    }
}

fn follows(
    latest: Option<&SignedCheckpoint>,
    request: &Request<'_>,
    new: &SignedCheckpoint,
) -> Result<(), Reply> {
    let new = new.checkpoint();
    let (size, root) =
        latest.map_or((0, Digest::of(&[])), |latest| (latest.checkpoint().size, latest.checkpoint().root));
    if request.old_size != size {
        return Err(Reply::OtherSize(size));
    }
    if size == new.size && root != new.root {
        return Err(Reply::Forked);
    }
    check_consistency(size, root, &request.path, new).map_err(|_| Reply::Inconsistent)
}

fn parse(body: &[u8]) -> Option<Request<'_>> {
    let end = body.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, note) = (std::str::from_utf8(&body[..end]).ok()?, &body[end + 2..]);
    let mut lines = head.split('\n');
    let old_size = parse_decimal(lines.next()?.strip_prefix("old ")?)?;
    let path: Vec<Digest> = lines.map(decode_hash).collect::<Option<_>>()?;
    (path.len() <= MAX_HASHES).then_some(Request { old_size, path, note })
}

#[cfg(test)]
mod tests {
    use buildtrail_evidence::{
        key::HostKey,
        tlog::{builder::TreeBuilder, note::Checkpoint, proof::encode_hash, tiles::Tiles},
    };
    use tempfile::TempDir;

    use super::*;

    const ORIGIN: &str = "example.org/build";

    fn log_signer(seed: u8) -> NoteSigner {
        NoteSigner::new(ORIGIN, KeyKind::Log, HostKey::from_seed(&[seed; 32])).unwrap()
    }

    fn open(directory: &TempDir) -> Cosigner {
        Cosigner::open(directory.path(), "w.example", vec![log_signer(1).public().clone()]).unwrap()
    }

    /// Trees of the leaves `seed 0`, `seed 1`, …, with their files.
    struct History(TempDir, &'static str);

    impl History {
        fn head(&self, size: u64) -> Checkpoint {
            let (mut builder, mut files) = (TreeBuilder::default(), Vec::new());
            for index in 0..size {
                builder.push(format!("{} {index}", self.1).as_bytes(), &mut files).unwrap();
            }
            files.extend(builder.partial());
            files::write_all(self.0.path(), &files).unwrap();
            Checkpoint { origin: ORIGIN.into(), size, root: builder.root() }
        }

        fn request(&self, old: u64, new: u64, signer: &NoteSigner) -> Vec<u8> {
            let head = self.head(new);
            let path = if old <= new {
                Tiles::new(self.0.path()).consistency(&head, old).unwrap().0
            } else {
                vec![]
            };
            let path: String = path.into_iter().map(|hash| encode_hash(hash) + "\n").collect();
            format!("old {old}\n{path}\n{}", head.sign(signer).unwrap().note()).into_bytes()
        }
    }

    fn history(seed: &'static str) -> History {
        History(tempfile::tempdir().unwrap(), seed)
    }

    fn is_cosigned(reply: &Reply) -> bool {
        matches!(reply, Reply::Cosigned(_))
    }

    #[test]
    fn growth_is_cosigned_and_remembered_over_restarts() {
        let (directory, honest, log) = (tempfile::tempdir().unwrap(), history("leaf"), log_signer(1));
        let witness = open(&directory);
        let reply = witness.add_checkpoint(&honest.request(0, 5, &log));
        let Reply::Cosigned(line) = reply else { panic!("{reply:?}") };
        let mut signed = honest.head(5).sign(&log).unwrap();
        let line = buildtrail_evidence::tlog::note::SignatureLine::parse_all(&line).unwrap().remove(0);
        assert!(signed.add(&line, witness.public_key()));
        assert!(is_cosigned(&witness.add_checkpoint(&honest.request(5, 5, &log))), "the same once more");
        drop(witness);
        let witness = open(&directory);
        assert!(is_cosigned(&witness.add_checkpoint(&honest.request(5, 300, &log))));
        assert_eq!(witness.add_checkpoint(&honest.request(5, 300, &log)), Reply::OtherSize(300));
    }

    #[test]
    fn rollback_and_forks_are_refused_with_the_status_of_the_specification() {
        let (directory, honest, forked) = (tempfile::tempdir().unwrap(), history("leaf"), history("other"));
        let log = log_signer(1);
        let witness = open(&directory);
        assert!(is_cosigned(&witness.add_checkpoint(&honest.request(0, 9, &log))));
        assert_eq!(witness.add_checkpoint(&honest.request(0, 4, &log)), Reply::OtherSize(9), "rolled back");
        assert_eq!(witness.add_checkpoint(&forked.request(9, 9, &log)), Reply::Forked);
        assert_eq!(witness.add_checkpoint(&forked.request(9, 12, &log)), Reply::Inconsistent);
        let mut wrong = honest.request(9, 4, &log);
        assert!(matches!(witness.add_checkpoint(&wrong), Reply::Malformed(_)), "old above new");
        assert_eq!(witness.add_checkpoint(&honest.request(9, 12, &log_signer(2))), Reply::NotSigned);
        let foreign = NoteSigner::new("other.example", KeyKind::Log, HostKey::from_seed(&[1; 32])).unwrap();
        let head = Checkpoint { origin: "other.example".into(), ..honest.head(12) };
        let note = format!("old 9\n\n{}", head.sign(&foreign).unwrap().note());
        assert_eq!(witness.add_checkpoint(note.as_bytes()), Reply::UnknownLog);
        wrong = honest.request(9, 12, &log);
        for cut in 0..wrong.len() {
            assert!(!is_cosigned(&witness.add_checkpoint(&wrong[..cut])), "cut at {cut}");
        }
        assert!(is_cosigned(&witness.add_checkpoint(&wrong)), "none of this was taken for the newest");
    }

    #[test]
    fn a_witness_with_a_broken_memory_does_not_start() {
        let (directory, honest) = (tempfile::tempdir().unwrap(), history("leaf"));
        assert!(is_cosigned(&open(&directory).add_checkpoint(&honest.request(0, 5, &log_signer(1)))));
        let memory = directory.path().join("logs").join(Digest::of(ORIGIN.as_bytes()).to_string());
        let text = fs::read_to_string(&memory).unwrap().replace("\n5\n", "\n4\n");
        fs::write(&memory, text).unwrap();
        let refused = Cosigner::open(directory.path(), "w.example", vec![log_signer(1).public().clone()]);
        assert!(matches!(refused, Err(WitnessError::Memory { .. })));
    }
}
