//! Our checkpoints and proofs before an independent judge: Go's `golang.org/x/mod/sumdb`, through `tests/oracle/main.go`.
//!
//! Needs Debian's `golang-go` and `golang-golang-x-mod-dev`, which `cargo xtask test` installs; ignored otherwise.

#![allow(clippy::unwrap_used, reason = "how a test fails")]

use std::{
    fmt::Write as _,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use buildtrail_evidence::{
    digest::Digest,
    key::HostKey,
    tlog::{
        builder::TreeBuilder,
        note::{Checkpoint, KeyKind, NoteSigner},
        tiles::Tiles,
    },
};

const SIZES: u64 = 5000;
const ORIGIN: &str = "example.org/build";

#[test]
#[ignore = "needs golang-go and golang-golang-x-mod-dev: `cargo xtask test` installs and runs it"]
fn go_agrees_with_every_checkpoint_and_proof_up_to_5000_leaves() {
    let (questions, expected) = questions();
    let answer = ask(&questions);
    assert_eq!(answer, format!("{expected} checks agree\n"));
}

fn ask(questions: &str) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/main.go");
    let mut go = Command::new("go")
        .arg("run")
        .arg(program)
        // As Debian's packages of Go libraries want to be used.
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOFLAGS", "")
        .env("GOCACHE", std::env::temp_dir().join("buildtrail-go-cache"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = go.stdin.take().unwrap();
    let questions = questions.to_owned();
    // The oracle may end early; what it says then is the verdict.
    let writing = std::thread::spawn(move || drop(input.write_all(questions.as_bytes())));
    let answer = go.wait_with_output().unwrap();
    writing.join().unwrap();
    String::from_utf8_lossy(&answer.stdout).into_owned()
}

/// For every size a checkpoint, and for sizes spread over all of them proofs; each once as it is and once with a bit
/// flipped, which must be refused.
fn questions() -> (String, usize) {
    let key = NoteSigner::new(ORIGIN, KeyKind::Log, HostKey::from_seed(&[1; 32])).unwrap();
    // In memory where the machine has such a place: thousands of small files are written.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let mut asked = Asked { text: format!("key {}\n", key.public()), count: 0 };
    let (mut builder, mut roots) = (TreeBuilder::default(), Vec::new());
    for size in 0..=SIZES {
        if size > 0 {
            let mut full = Vec::new();
            builder.push(&leaf(size - 1), &mut full).unwrap();
            for file in full.iter().chain(&builder.partial()) {
                let path = directory.path().join(&file.path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, &file.bytes).unwrap();
            }
        }
        let tree = Checkpoint { origin: ORIGIN.into(), size, root: builder.root() };
        roots.push(tree.root);
        let note = tree.clone().sign(&key).unwrap().note();
        asked.checkpoint(&note, size);
        if size > 0 {
            asked.proofs(&Tiles::new(directory.path()), &tree, &roots);
        }
    }
    (asked.text, asked.count)
}

fn leaf(number: u64) -> Vec<u8> {
    format!("leaf {number}").into_bytes()
}

struct Asked {
    text: String,
    count: usize,
}

impl Asked {
    fn ask(&mut self, verdict: &str, question: &str) {
        writeln!(self.text, "{verdict} {question}").unwrap();
        self.count += 1;
    }

    fn checkpoint(&mut self, note: &str, size: u64) {
        let mut changed = note.as_bytes().to_vec();
        // In the root, which is the third line.
        let at = ORIGIN.len() + 1 + size.to_string().len() + 1 + usize::try_from(size % 40).unwrap();
        changed[at] ^= 1;
        self.ask("bad", &format!("checkpoint {}", BASE64_STANDARD.encode(changed)));
        self.ask("good", &format!("checkpoint {}", BASE64_STANDARD.encode(note)));
    }

    fn proofs(&mut self, tiles: &Tiles, tree: &Checkpoint, roots: &[Digest]) {
        // Other places for every size: all of them over many sizes.
        let index = tree.size.wrapping_mul(2_654_435_761) % tree.size;
        let path = tiles.inclusion(tree, index).unwrap();
        self.pair("inclusion", index, &leaf(index), &path);
        let old = 1 + tree.size.wrapping_mul(40_503) % tree.size;
        let (path, root) = tiles.consistency(tree, old).unwrap();
        assert_eq!(root, roots[usize::try_from(old).unwrap()]);
        self.pair("consistency", old, root.as_bytes(), &path);
    }

    fn pair(&mut self, what: &str, number: u64, data: &[u8], path: &[Digest]) {
        let joined: Vec<u8> = path.iter().flat_map(|hash| hash.0).collect();
        let question = |data: &[u8], path: &[u8]| {
            format!("{what} {number} {} {}", BASE64_STANDARD.encode(data), BASE64_STANDARD.encode(path))
        };
        let (mut data_changed, mut path_changed) = (data.to_vec(), joined.clone());
        let at = usize::try_from(number).unwrap();
        data_changed[at % data.len()] ^= 1;
        self.ask("good", &question(data, &joined));
        self.ask("bad", &question(&data_changed, &joined));
        if !joined.is_empty() {
            path_changed[at % joined.len()] ^= 0x80;
            self.ask("bad", &question(data, &path_changed));
        }
    }
}
