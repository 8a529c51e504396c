use std::{fs, path::Path};

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    address: String,
    spool: Spool,
    files: Vec<Entry>,
}

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(deny_unknown_fields, default)]
struct Spool {
    max_bytes: u64,
    segment_bytes: u64,
    enabled: bool,
    mode: Mode,
}

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Careful,
    Fast,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
}

fn message(text: &str) -> String {
    parse::<Sample>(text, Path::new("agent.toml")).expect_err("must be refused").to_string()
}

#[test]
fn good_settings_are_read() {
    let text = "address = 'a'\n[spool]\nmax_bytes = 5\nmode = 'fast'\n[[files]]\nname = 'x'\n";
    let sample: Sample = parse(text, Path::new("agent.toml")).unwrap();
    assert_eq!(sample.spool.max_bytes, 5);
    assert_eq!(sample.spool.mode, Mode::Fast);
    assert_eq!(sample.files, [Entry { name: "x".into() }]);
}

#[test]
fn mistakes_name_file_line_key_expectation_and_nearest_key() {
    let table = [
        (
            "adress = 'a'",
            "agent.toml:1:1: unknown key `adress`; did you mean `address`? (valid here: address, spool, files)",
        ),
        (
            "[spool]\n\nmax-bytes = 5",
            "agent.toml:3:1: unknown key `spool.max-bytes`; did you mean `max_bytes`? (valid here: max_bytes, segment_bytes, enabled, mode)",
        ),
        (
            "[spool]\nzzz = 5",
            "agent.toml:2:1: unknown key `spool.zzz` (valid here: max_bytes, segment_bytes, enabled, mode)",
        ),
        (
            "spool = { maxbytes = 5 }",
            "agent.toml:1:11: unknown key `spool.maxbytes`; did you mean `max_bytes`? (valid here: max_bytes, segment_bytes, enabled, mode)",
        ),
        (
            "[spool]\nmax_bytes = 'big'",
            "agent.toml:2:13: `spool.max_bytes`: expected a whole number, 0 or more, found string \"big\"",
        ),
        (
            "[spool]\nmax_bytes = -1",
            "agent.toml:2:13: `spool.max_bytes`: expected a whole number, 0 or more, found integer `-1`",
        ),
        (
            "[spool]\nenabled = 1",
            "agent.toml:2:11: `spool.enabled`: expected true or false, found integer `1`",
        ),
        (
            "[spool]\nmode = 'fest'",
            "agent.toml:2:8: `spool.mode`: unknown value `fest`; did you mean `fast`? (valid here: careful, fast)",
        ),
        ("spool = 3", "agent.toml:1:9: `spool`: expected a table, found integer `3`"),
        ("[[files]]\nname = 'x'\n[[files]]\n", "agent.toml:3:1: `files.1`: the key `name` is missing"),
        (
            "[[files]]\nname = 'x'\nnmae = 'y'",
            "agent.toml:3:1: unknown key `files.0.nmae`; did you mean `name`? (valid here: name)",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(message(text), expected, "for {text:?}");
    }
}

#[test]
fn broken_toml_is_reported_with_its_place() {
    for (text, place) in [
        ("address = ", "agent.toml:1:"),
        ("address = 'a'\n[spool", "agent.toml:2:"),
        ("[spool]\nmax_bytes = 1\nmax_bytes = 2", "agent.toml:3:1: "),
        ("é = é", "agent.toml:1:"),
    ] {
        let message = message(text);
        assert!(message.starts_with(place), "{text:?} gave {message}");
    }
}

#[test]
fn hostile_text_is_escaped_and_cut() {
    let escape = message("\"\\u001b[31m`, expected `x`\" = 1");
    assert!(!escape.contains('\u{1b}'), "{escape:?}");
    let long = message(&format!("{} = 1", "k".repeat(100_000)));
    assert!(long.len() < 1000, "{} bytes", long.len());
    for text in
        ["`` = 1", "'`' = 1", "'`, ' = 1", "[spool]\nmode = '`, expected `'", "[spool]\nmode = ''", "\u{0}"]
    {
        let _ = message(text);
    }
}

#[test]
fn a_failed_check_names_the_line_of_its_key() {
    let check = |key: &str, text: &str| {
        parse_checked::<Sample>(text, Path::new("agent.toml"), |_| {
            Err(Invalid::new(key, "must be less than 3"))
        })
        .expect_err("must be refused")
        .to_string()
    };
    let text = "[spool]\nmode = 'fast'\nmax_bytes = 7\n[[files]]\nname = 'x'\n[[files]]\nname = 'y'\n";
    assert_eq!(check("spool.max_bytes", text), "agent.toml:3:1: `spool.max_bytes`: must be less than 3");
    assert_eq!(check("files.1.name", text), "agent.toml:7:1: `files.1.name`: must be less than 3");
    // Not in the file: the table it would stand in, or only the file.
    assert_eq!(
        check("spool.segment_bytes", text),
        "agent.toml:1:2: `spool.segment_bytes`: must be less than 3"
    );
    assert_eq!(check("address", text), "agent.toml: `address`: must be less than 3");
}

#[test]
fn files_that_cannot_be_read_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let load_error = |path: &Path| load::<Sample>(path).expect_err("must be refused").to_string();

    assert!(load_error(&file).ends_with("agent.toml: it does not exist"), "{}", load_error(&file));
    assert!(load_error(folder.path()).ends_with("it is a directory"), "{}", load_error(folder.path()));
    fs::write(&file, b"address = 'a'\n# \xff\n").unwrap();
    assert!(load_error(&file).ends_with("agent.toml:2: not UTF-8 text: is it the right file?"));
    fs::write(&file, vec![b'\n'; 1024 * 1024 + 1]).unwrap();
    assert!(load_error(&file).contains("larger than 1048576 bytes"));
    fs::write(&file, "address = 'a'\n").unwrap();
    assert_eq!(load::<Sample>(&file).unwrap().address, "a");
}
