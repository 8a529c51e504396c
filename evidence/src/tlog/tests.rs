use std::fs;

use tempfile::TempDir;

use super::{
    builder::{LongLeafError, TreeBuilder, TreeFile},
    note::{
        Checkpoint, CheckpointError, KeyKind, NoteKey, NoteKeyError, NoteSigner, SignatureLine,
        SignedCheckpoint,
    },
    policy::{Policy, PolicyProblem},
    proof::{ProofError, TlogProof, check_consistency, check_inclusion},
    tiles::{Tiles, TreeError},
};
use crate::{
    digest::Digest,
    key::HostKey,
    log::MAX_LEAF_BYTES,
    merkle::{Frontier, leaf_hash},
};

const ORIGIN: &str = "example.org/build";

fn leaf(index: u64) -> Vec<u8> {
    format!("leaf {index}").into_bytes()
}

fn log() -> NoteSigner {
    NoteSigner::new(ORIGIN, KeyKind::Log, HostKey::from_seed(&[1; 32])).unwrap()
}

fn witness(seed: u8) -> NoteSigner {
    NoteSigner::new(&format!("w{seed}.example"), KeyKind::Witness, HostKey::from_seed(&[seed; 32])).unwrap()
}

fn save(directory: &TempDir, files: &[TreeFile]) {
    for file in files {
        let path = directory.path().join(&file.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &file.bytes).unwrap();
    }
}

/// A tree on disk, with the root that it had at every size.
fn tree(size: u64) -> (TempDir, Tiles, Vec<Digest>) {
    let directory = tempfile::tempdir().unwrap();
    let (mut builder, mut full, mut roots) = (TreeBuilder::default(), Vec::new(), Vec::new());
    for index in 0..size {
        roots.push(builder.root());
        builder.push(&leaf(index), &mut full).unwrap();
    }
    roots.push(builder.root());
    save(&directory, &full);
    save(&directory, &builder.partial());
    let tiles = Tiles::new(directory.path());
    (directory, tiles, roots)
}

fn checkpoint(size: u64, root: Digest) -> Checkpoint {
    Checkpoint { origin: ORIGIN.into(), size, root }
}

#[test]
fn the_builder_has_the_frontiers_root_at_every_size_and_resumes_from_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let (mut builder, mut frontier, mut full) = (TreeBuilder::default(), Frontier::default(), Vec::new());
    for index in 0..70_000 {
        if index < 600 {
            assert_eq!(builder.root(), frontier.root(), "size {index}");
        }
        builder.push(&leaf(index), &mut full).unwrap();
        frontier.push(leaf_hash(&leaf(index)));
        if [0, 1, 254, 255, 256, 511, 65_534, 65_535, 65_536, 69_999].contains(&index) {
            save(&directory, &full);
            save(&directory, &builder.partial());
            let tree = checkpoint(index + 1, frontier.root());
            let resumed = TreeBuilder::resume(&Tiles::new(directory.path()), &tree);
            assert_eq!(resumed.unwrap(), builder);
        }
    }
}

#[test]
fn files_have_the_names_of_the_tile_format() {
    use super::tiles::{bundle_path, tile_path};
    assert_eq!(tile_path(0, 0, 256), "tile/0/000");
    assert_eq!(tile_path(1, 1_234_067, 5), "tile/1/x001/x234/067.p/5");
    assert_eq!(bundle_path(999, 256), "tile/entries/999");
    // The specification's example: a tree of 70,000.
    let (mut builder, mut full) = (TreeBuilder::default(), Vec::new());
    for index in 0..70_000 {
        builder.push(&leaf(index), &mut full).unwrap();
    }
    let names: Vec<String> = builder.partial().into_iter().map(|file| file.path).collect();
    assert_eq!(names, ["tile/0/273.p/112", "tile/entries/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
    assert_eq!(builder.push(&vec![0; MAX_LEAF_BYTES + 1], &mut full), Err(LongLeafError(MAX_LEAF_BYTES + 1)));
    assert_eq!(builder.size(), 70_000);
}

#[test]
fn every_inclusion_and_consistency_proof_of_a_tree_holds_and_no_other() {
    for (size, stride) in [(1, 1), (2, 1), (3, 1), (7, 1), (8, 1), (255, 11), (256, 5), (257, 8), (600, 13)] {
        let (_directory, tiles, roots) = tree(size);
        let head = checkpoint(size, *roots.last().unwrap());
        for index in (0..size).step_by(stride) {
            let path = tiles.inclusion(&head, index).unwrap();
            check_inclusion(leaf_hash(&leaf(index)), index, &path, &head).unwrap();
            let other = check_inclusion(leaf_hash(b"other"), index, &path, &head);
            assert_eq!(other, Err(ProofError::Wrong));
            if size > 1 {
                let moved = check_inclusion(leaf_hash(&leaf(index)), (index + 1) % size, &path, &head);
                assert_eq!(moved, Err(ProofError::Wrong));
            }
        }
        for (old, root) in (0..=size).zip(&roots).step_by(stride) {
            let (path, old_root) = tiles.consistency(&head, old).unwrap();
            assert_eq!(old_root, *root);
            check_consistency(old, *root, &path, &head).unwrap();
            let (path, _, middle) = tiles.consistency_between(&head, old / 2, old).unwrap();
            check_consistency(
                old / 2,
                roots[usize::try_from(old / 2).unwrap()],
                &path,
                &checkpoint(old, middle),
            )
            .unwrap();
            assert_eq!(middle, *root);
            let (path, _) = tiles.consistency(&head, old).unwrap();
            let forked = check_consistency(old, Digest::of(b"fork"), &path, &head);
            assert_eq!(forked, Err(ProofError::Wrong));
        }
    }
}

#[test]
fn questions_beyond_the_tree_and_hostile_proofs_are_refused_without_panic() {
    let (_directory, tiles, roots) = tree(5);
    let head = checkpoint(5, roots[5]);
    assert!(matches!(tiles.inclusion(&head, 5), Err(TreeError::Beyond { size: 5, asked: 5 })));
    assert!(matches!(tiles.consistency(&head, 6), Err(TreeError::Beyond { .. })));
    let root = roots[5];
    for path in [vec![], vec![root; 3], vec![root; 63], vec![root; 10_000]] {
        for index in [0, 4, 5, super::MAX_SIZE, u64::MAX] {
            assert_eq!(check_inclusion(root, index, &path, &head), Err(ProofError::Wrong));
            if index != 5 || !path.is_empty() {
                assert_eq!(check_consistency(index, root, &path, &head), Err(ProofError::Wrong), "{index}");
            }
        }
    }
}

#[test]
fn a_flipped_bit_in_any_tile_is_noticed_and_a_missing_file_is_named() {
    let (directory, tiles, roots) = tree(300);
    let head = checkpoint(300, roots[300]);
    // Which of the proofs for leaves 0 and 260 need the file.
    for (path, needed) in
        [("tile/0/000", [true, false]), ("tile/0/001.p/44", [true, true]), ("tile/1/000.p/1", [false, true])]
    {
        let path = directory.path().join(path);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[17] ^= 4;
        fs::write(&path, bad).unwrap();
        let noticed =
            [0, 260].map(|index| matches!(tiles.inclusion(&head, index), Err(TreeError::Altered(_))));
        assert_eq!(noticed, needed, "{path:?}");
        fs::write(&path, good).unwrap();
    }
    let bundle = directory.path().join("tile/entries/001.p/44");
    let mut bad = fs::read(&bundle).unwrap();
    bad[5] ^= 1;
    fs::write(&bundle, bad).unwrap();
    assert!(matches!(TreeBuilder::resume(&tiles, &head), Err(TreeError::Altered(_))));
    fs::remove_file(directory.path().join("tile/0/001.p/44")).unwrap();
    let error = tiles.inclusion(&head, 299).unwrap_err().to_string();
    assert!(error.contains("001.p/44"), "{error}");
}

#[test]
fn keys_round_trip_as_vkeys_and_mistyped_ones_are_refused() {
    for signer in [log(), witness(2)] {
        let vkey = signer.public().to_string();
        assert_eq!(&vkey.parse::<NoteKey>().unwrap(), signer.public());
    }
    // From the signed-note package of Go.
    let known = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert_eq!(known.parse::<NoteKey>().unwrap().to_string(), known);
    for (bad, error) in [
        ("PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoteKeyError::Id),
        ("PeterNeuman+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoteKeyError::Id),
        ("Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoteKeyError::Name),
        ("PeterNeumann+c74f20a3+Ahpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", NoteKeyError::Kind),
        ("PeterNeumann+c74f20a3+", NoteKeyError::Format),
        ("PeterNeumann+c74f20a3", NoteKeyError::Format),
    ] {
        assert_eq!(bad.parse::<NoteKey>(), Err(error), "{bad}");
    }
    assert_eq!(NoteKey::new("a\u{1b}b", KeyKind::Log, *log().public().public_key()), Err(NoteKeyError::Name));
}

#[test]
fn a_checkpoint_counts_only_with_its_logs_signature() {
    let signed = checkpoint(7, Digest::of(b"x")).sign(&log()).unwrap();
    let note = signed.note();
    let opened = SignedCheckpoint::open(note.as_bytes(), log().public()).unwrap();
    assert_eq!((opened.note(), opened.checkpoint()), (note.clone(), signed.checkpoint()));

    let impostor = NoteSigner::new(ORIGIN, KeyKind::Log, HostKey::from_seed(&[9; 32])).unwrap();
    assert_eq!(
        SignedCheckpoint::open(note.as_bytes(), impostor.public()),
        Err(CheckpointError::Signature(ORIGIN.into()))
    );
    let other = NoteSigner::new("other.example", KeyKind::Log, HostKey::from_seed(&[1; 32])).unwrap();
    let error = SignedCheckpoint::open(note.as_bytes(), other.public()).unwrap_err();
    assert!(matches!(error, CheckpointError::Origin { .. }));
    for position in 0..note.len() {
        let mut altered = note.clone().into_bytes();
        altered[position] ^= 1;
        assert!(SignedCheckpoint::open(&altered, log().public()).is_err(), "byte {position}");
    }
    let huge = checkpoint(u64::MAX, Digest::of(b"x")).sign(&log()).unwrap().note();
    assert_eq!(SignedCheckpoint::open(huge.as_bytes(), log().public()), Err(CheckpointError::Malformed));
}

#[test]
fn a_cosignature_is_the_witnesss_over_this_checkpoint_and_its_time() {
    let mut signed = checkpoint(7, Digest::of(b"x")).sign(&log()).unwrap();
    let line = witness(2).sign(signed.text().as_bytes(), 1_795_338_000).unwrap();
    assert_eq!(SignatureLine::parse_all(&format!("{line}\n")).unwrap(), std::slice::from_ref(&line));
    assert!(!signed.add(&line, witness(3).public()), "of another witness");
    assert!(signed.add(&line, witness(2).public()));
    let opened = SignedCheckpoint::open(signed.note().as_bytes(), log().public()).unwrap();
    assert_eq!(opened.cosigned_by(witness(2).public()), Some(1_795_338_000));
    assert_eq!(opened.cosigned_by(witness(3).public()), None);
    let mut next = checkpoint(8, Digest::of(b"x")).sign(&log()).unwrap();
    assert!(!next.add(&line, witness(2).public()), "over another checkpoint");
    let later = witness(2).sign(signed.text().as_bytes(), 1_795_338_060).unwrap();
    assert!(signed.add(&later, witness(2).public()));
    assert_eq!(signed.note().lines().count(), 6, "the newer cosignature replaces the older one");
}

#[test]
fn a_proof_in_text_form_round_trips() {
    let (_directory, tiles, roots) = tree(300);
    let head = checkpoint(300, roots[300]);
    let path = tiles.inclusion(&head, 123).unwrap();
    let proof = TlogProof { index: 123, path, checkpoint: head.sign(&log()).unwrap().note() };
    let text = proof.to_text();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 123\n"));
    assert_eq!(TlogProof::parse(&text).unwrap(), proof);
    let with_extra = text.replace("index", "extra AAAA\nindex");
    assert_eq!(TlogProof::parse(&with_extra).unwrap(), proof);
    for bad in ["", "c2sp.org/tlog-proof@v1\n\n", &text.replace("index 123", "index 0123"), &text[1..]] {
        assert_eq!(TlogProof::parse(bad), Err(ProofError::Malformed));
    }
}

fn policy_text(rest: &str) -> String {
    let witness_line =
        |seed| format!("witness W{seed} {} https://w{seed}.example/\n", witness(seed).public());
    let witnesses: Vec<String> = (2..6).map(witness_line).collect();
    format!("# who must cosign\n\nlog {}\n{}{rest}", log().public(), witnesses.concat())
}

#[test]
fn a_quorum_is_counted_through_groups() {
    let text = policy_text("group two 2 W2 W3 W4\ngroup\tboth  all two W5\nquorum both\n");
    let policy = Policy::parse(&text).unwrap();
    let mut signed = checkpoint(7, Digest::of(b"x")).sign(&log()).unwrap();
    let mut judged = policy.judge(signed.note().as_bytes()).unwrap();
    assert!(!judged.quorum && judged.cosigned.is_empty());
    for (seed, enough) in [(2, false), (5, false), (9, false), (3, true)] {
        let cosigner = witness(seed);
        signed.add(&cosigner.sign(signed.text().as_bytes(), 5).unwrap(), cosigner.public());
        judged = policy.judge(signed.note().as_bytes()).unwrap();
        assert_eq!(judged.quorum, enough, "after W{seed}");
    }
    assert_eq!(judged.cosigned, [("W2".to_owned(), 5), ("W3".to_owned(), 5), ("W5".to_owned(), 5)]);
    assert!(Policy::parse("quorum none").unwrap().is_quorum([]));
    let foreign = Policy::parse("quorum none").unwrap().judge(signed.note().as_bytes());
    assert_eq!(foreign, Err(CheckpointError::Signature(ORIGIN.into())));
}

#[test]
fn a_wrong_policy_names_its_line() {
    let cases = [
        ("quorum nobody\n", 8, PolicyProblem::Unknown("nobody".into())),
        ("", 8, PolicyProblem::NoQuorum),
        ("quorum none\nquorum none\n", 9, PolicyProblem::Twice("quorum".into())),
        ("group a any W2\ngroup b any W2\n", 9, PolicyProblem::Twice("W2".into())),
        ("group a 2 W2\n", 8, PolicyProblem::Threshold),
        ("group a any\n", 8, PolicyProblem::Threshold),
        ("group W2 any W3\n", 8, PolicyProblem::Twice("W2".into())),
        ("group none any W3\n", 8, PolicyProblem::Twice("none".into())),
        ("witnes W9\n", 8, PolicyProblem::Syntax),
        ("quorum W2 \u{1b}\n", 1, PolicyProblem::Text),
    ];
    for (rest, line, problem) in cases {
        let error = Policy::parse(&policy_text(rest)).unwrap_err();
        assert_eq!((error.line, error.problem), (line, problem), "{rest}");
    }
    let swapped = format!("log {}\nquorum none", witness(2).public());
    assert_eq!(Policy::parse(&swapped).unwrap_err().problem, PolicyProblem::Kind);
}

#[test]
fn the_documented_vectors_hold() {
    let vectors = include_str!("../../../docs/formats/tree.md");
    let (_directory, tiles, roots) = tree(5);
    let mut signed = checkpoint(5, roots[5]).sign(&log()).unwrap();
    let cosigner = witness(2);
    signed.add(&cosigner.sign(signed.text().as_bytes(), 1_795_338_000).unwrap(), cosigner.public());
    let path = tiles.inclusion(signed.checkpoint(), 3).unwrap();
    let proof = TlogProof { index: 3, path, checkpoint: signed.note() };
    let consistency = tiles.consistency(signed.checkpoint(), 3).unwrap().0;
    let consistency: Vec<String> = consistency.into_iter().map(super::proof::encode_hash).collect();
    for (name, value) in [
        ("public keys", format!("{}\n{}\n", log().public(), cosigner.public())),
        ("leaf hash of `leaf 3`", format!("{}\n", leaf_hash(&leaf(3)))),
        ("root of five leaves", format!("{}\n", roots[5])),
        ("checkpoint of five leaves, cosigned at 2026-11-22 09:00:00 UTC", signed.note()),
        ("proof of leaf 3", proof.to_text()),
        ("consistency of five leaves with the first three", consistency.join("\n") + "\n"),
    ] {
        let expected = format!("{name}:\n{value}");
        assert!(vectors.contains(&expected), "missing in docs/formats/tree.md:\n{expected}");
    }
}
