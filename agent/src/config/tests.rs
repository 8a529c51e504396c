use std::path::Path;

use buildtrail_settings::SettingsError;

use super::*;

fn parse(text: &str) -> Result<Config, SettingsError> {
    Config::parse(text, Path::new("agent.toml"))
}

fn message(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

/// The keys that a table takes, as the reader itself lists them.
fn valid_keys(table: &str) -> Vec<String> {
    match parse(&format!("{table}\nzzzzzz = 1")) {
        Err(SettingsError::Mistake(mistake)) => mistake.valid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_documented_default_is_the_default() {
    assert_eq!(parse(Config::documented_default()).unwrap(), Config::default());
}

#[test]
fn the_documented_default_explains_every_key() {
    let text = Config::documented_default();
    for section in valid_keys("").into_iter().filter(|section| section != "platform") {
        let start = text.find(&format!("\n[{section}]\n")).unwrap_or_else(|| panic!("no section {section}"));
        let body = &text[start + 2..];
        let body = &body[..body.find("\n[").unwrap_or(body.len())];
        for key in valid_keys(&format!("[{section}]")) {
            let shown =
                [format!("\n{key} = "), format!("\n# {key} = "), format!("\n# [[{section}.{key}]]\n")];
            assert!(shown.iter().any(|line| body.contains(line)), "{section}.{key} is not documented");
        }
    }
    for key in ["name", "family", "path"] {
        assert!(text.contains(&format!("\n# {key} = ")), "catalog.files.{key} is not documented");
    }
    for key in ["unit", "executable", "owner", "user"] {
        assert!(text.contains(&format!("\n# {key} = ")), "runners.trusted.{key} is not documented");
    }
}

#[test]
fn the_examples_in_the_documented_default_are_valid() {
    let is_setting = |line: &str| {
        line.starts_with("[[")
            || line
                .split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let mut text = String::new();
    for line in Config::documented_default().lines() {
        let example = line.strip_prefix("# ").filter(|rest| is_setting(rest));
        let replaced = example.is_none() && line == "programs = []";
        text.push_str(if replaced { "" } else { example.unwrap_or(line) });
        text.push('\n');
    }
    let config = parse(&text).unwrap();
    assert_eq!(config.catalog.files[0].path, "/srv/keys/deploy_*");
    assert_eq!(config.runners.programs[0].platform, "github-actions");
    assert_eq!(config.runners.trusted[0].user, Some(1001));
    assert_eq!(config.collector.server_name.as_deref(), Some("collector.example.org"));
}

#[test]
fn wrong_values_are_explained() {
    let table = [
        (
            "[[runners.trusted]]\nowner = 0",
            "agent.toml:1:1: `runners.trusted.0`: expected unit, executable or user, or several of them",
        ),
        (
            "[runners]\ntrust = 'declared'",
            "agent.toml:2:1: `runners.trust`: \"declared\" without any [[runners.trusted]]: no job would be known",
        ),
        (
            "[host]\nstate_directory = 'state'",
            "agent.toml:2:1: `host.state_directory`: expected an absolute path without .., found \"state\"",
        ),
        (
            "[collector]\naddresses = ['http://c:1']",
            "agent.toml:2:14: `collector.addresses.0`: expected https://HOST:PORT, found \"http://c:1\"",
        ),
        (
            "[collector]\naddresses = ['https://a:1', 'c']",
            "agent.toml:2:29: `collector.addresses.1`: expected https://HOST:PORT, found \"c\"",
        ),
        (
            "[collector]\naddresses = ['https://c:1/x']",
            "agent.toml:2:14: `collector.addresses.0`: expected https://HOST:PORT, found \"https://c:1/x\"",
        ),
        (
            "[collector]\naddresses = []",
            "agent.toml:2:1: `collector.addresses`: expected at least one address",
        ),
        (
            "[collector]\nca = '/ca.pem'",
            "agent.toml:1:2: `collector`: ca, certificate and private_key are given together, or none of them",
        ),
        (
            "[collector]\nproxy = 'proxy:3128'",
            "agent.toml:2:1: `collector.proxy`: expected http://HOST:PORT, found \"proxy:3128\"",
        ),
        (
            "[collector]\nproxy_credentials = '/p'",
            "agent.toml:2:1: `collector.proxy_credentials`: collector.proxy is missing",
        ),
        (
            "[collector]\nmax_bytes_per_second = 5",
            "agent.toml:2:1: `collector.max_bytes_per_second`: 5 is out of range: from 8192 to 1099511627776",
        ),
        (
            "[enrol]\ntoken_file = '/t'",
            "agent.toml:1:2: `enrol`: token_file and ca_pin are given together, or none of them",
        ),
        (
            "[enrol]\nname = 'a b'",
            "agent.toml:2:1: `enrol.name`: expected 1 to 64 letters, digits, '.', '_', ':' or '-'",
        ),
        (
            "[collector]\nserver_name = ''",
            "agent.toml:2:1: `collector.server_name`: must not be empty; leave the key out instead",
        ),
        (
            "[spool]\nmax_bytes = 5",
            "agent.toml:2:1: `spool.max_bytes`: 5 is out of range: from 1048576 to 1099511627776",
        ),
        (
            "[spool]\nmax_bytes = 1048576",
            "agent.toml:1:2: `spool.segment_bytes`: 8388608 is more than a quarter of spool.max_bytes (1048576): lower it or raise spool.max_bytes",
        ),
        (
            "[spool]\nbatch_events = 0",
            "agent.toml:2:1: `spool.batch_events`: 0 is out of range: from 1 to 1000",
        ),
        (
            "[spool]\nbatch_interval_ms = 0",
            "agent.toml:2:1: `spool.batch_interval_ms`: 0 is out of range: from 1 to 60000",
        ),
        (
            "[sensor]\nbulk_ring_bytes = 3000000",
            "agent.toml:2:1: `sensor.bulk_ring_bytes`: 3000000 is not a power of two: take 2097152 or 4194304",
        ),
        (
            "[catalog]\nhomes = ['/root', 'home']",
            "agent.toml:2:19: `catalog.homes.1`: expected an absolute path, found \"home\"",
        ),
        (
            "[catalog]\nhomes = ['/*/x']",
            "agent.toml:2:10: `catalog.homes.0`: wildcards are understood in the last component only",
        ),
        (
            "[[catalog.files]]\nname = 'x'\nfamily = 'ssh'\npath = 'key'",
            "agent.toml:4:1: `catalog.files.0.path`: expected an absolute path or one that begins with ~/, found \"key\"",
        ),
        (
            "[[catalog.files]]\nname = ''\nfamily = 'ssh'\npath = '/key'",
            "agent.toml:2:1: `catalog.files.0.name`: expected 1 to 100 printable characters",
        ),
        (
            "[[catalog.files]]\nname = 'x'\nfamily = 'ssh'\npath = '/k/[a'",
            "agent.toml:4:1: `catalog.files.0.path`: wrong wildcard: unclosed character class; missing ']'",
        ),
        (
            "[runners]\nprograms = [{ platform = 'act', executable = 'act' }]",
            "agent.toml:2:33: `runners.programs.0.executable`: expected an absolute path without .., found \"act\"",
        ),
        (
            "[runners]\nprograms = [{ platform = 'github', executable = '/x' }]",
            "agent.toml:2:15: `runners.programs.0.platform`: unknown platform \"github\": expected one of act, azure-pipelines, buildbot, buildkite, circleci, drone, forgejo, gitea, github-actions, gitlab-ci-local, gitlab, jenkins, teamcity, woodpecker",
        ),
        (
            "[colector]\naddress = 'x'",
            "agent.toml:1:2: unknown key `colector`; did you mean `collector`? (valid here: host, collector, enrol, spool, catalog, sensor, runners, platform, hooks)",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(message(text), expected, "for {text:?}");
    }
}
