//! Indicators one a line: domains, addresses, networks, URLs, hashes, paths.

use super::{
    Indicator, Indicators,
    atom::{Atom, Network, Text, digest_name, host_name, host_of_url},
};

const WHAT_IS_ACCEPTED: &str =
    "it is no domain, address, network, URL, hash (MD5, SHA-1, SHA-256) or absolute path";

/// Reads a list; what is not understood becomes a remark.
pub(super) fn read(text: &str, found: &mut Indicators) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in (1..).zip(text.lines()) {
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        match condition(&refanged(line)) {
            Ok((kind, atom)) => found.add(Indicator::new(line, kind, number, vec![vec![atom]])),
            Err(reason) => found.remark(number, line, &reason),
        }
    }
}

/// A `#` begins a comment at the beginning of a line and behind a space.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, character) in line.char_indices() {
        if character == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = character;
    }
    line
}

/// Undoes what is done to indicators so that nobody clicks on them.
fn refanged(line: &str) -> String {
    let mut text = line.to_owned();
    if text.starts_with('/') {
        return text;
    }
    for (defanged, plain) in [
        ("[.]", "."),
        ("(.)", "."),
        ("{.}", "."),
        ("[dot]", "."),
        ("(dot)", "."),
        ("\\.", "."),
        ("[:]", ":"),
        ("[://]", "://"),
        ("[/]", "/"),
    ] {
        text = text.replace(defanged, plain);
    }
    for (defanged, plain) in [("hxxps", "https"), ("hxxp", "http"), ("hXXps", "https"), ("hXXp", "http")] {
        if let Some(rest) = text.strip_prefix(defanged) {
            return format!("{plain}{rest}");
        }
    }
    text
}

fn condition(text: &str) -> Result<(&'static str, Atom), String> {
    if text.starts_with('/') {
        return path(text);
    }
    if text.contains("://") {
        let host = host_of_url(text).ok_or("it is a URL without a host")?;
        return host_condition(host).map(|atom| ("url", atom));
    }
    if let Some(network) = Network::parse(text) {
        let network = network?;
        let kind = if network.is_single() { "address" } else { "network" };
        return Ok((kind, Atom::Network(network)));
    }
    if is_digest(text) {
        return Ok(("hash", Atom::Hash));
    }
    if let Some(rest) = text.strip_prefix("*.") {
        let name = host_name(rest).ok_or(WHAT_IS_ACCEPTED)?;
        return Ok(("domain", Atom::Name(Text::glob(&format!("*.{name}"))?)));
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
        && host_condition(host).is_ok()
    {
        return Err(format!("it has a port; write {host}, and look for the port with `buildtrail events`"));
    }
    if !text.is_ascii() && text.contains('.') && !text.contains(char::is_whitespace) {
        return Err("a domain must be written in ASCII, as DNS has it (xn--…)".into());
    }
    match host_name(text) {
        Some(name) if name.contains('.') => Ok(("domain", Atom::NameAndBelow(name))),
        _ => Err(WHAT_IS_ACCEPTED.into()),
    }
}

/// As a list writes it, or with its name in front: `sha256:…`.
fn is_digest(text: &str) -> bool {
    if digest_name(text).is_some() {
        return true;
    }
    text.split_once([':', '=']).is_some_and(|(name, digits)| {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        digest_name(digits).is_some_and(|digest| digest.replace('-', "").eq_ignore_ascii_case(&name))
    })
}

fn host_condition(host: &str) -> Result<Atom, String> {
    if let Some(network) = Network::parse(host) {
        return network.map(Atom::Network);
    }
    host_name(host).map(|name| Atom::Name(Text::Exactly(name))).ok_or_else(|| WHAT_IS_ACCEPTED.into())
}

/// A path; everything below it if it ends in `/`; a pattern if it has `*` or `?`.
fn path(text: &str) -> Result<(&'static str, Atom), String> {
    let condition = if text.contains(['*', '?']) {
        Text::glob(text)?
    } else if text.len() > 1 && text.ends_with('/') {
        Text::glob(&format!("{text}*"))?
    } else {
        Text::exactly(text)?
    };
    Ok(("path", Atom::Path(condition)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Indicators {
        let mut found = Indicators::default();
        read(text, &mut found);
        found
    }

    #[test]
    fn each_kind_of_line_is_known() {
        for (line, kind) in [
            ("evil.example", "domain"),
            ("EVIL.example.", "domain"),
            ("evil[.]example", "domain"),
            ("evil(dot)example  # a comment", "domain"),
            ("*.evil.example", "domain"),
            ("hxxps://evil[.]example/a#b", "url"),
            ("http[:]//192.0.2.7:8080/x", "url"),
            ("192.0.2[.]7", "address"),
            ("2001:db8::7", "address"),
            ("192.0.2.0/24", "network"),
            ("d41d8cd98f00b204e9800998ecf8427e", "hash"),
            ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "hash"),
            ("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "hash"),
            ("/tmp/.x/miner", "path"),
            ("/dev/shm/*", "path"),
            ("/opt/evil#1/", "path"),
        ] {
            let found = read_all(line);
            assert!(found.remarks.is_empty(), "{line}: {:?}", found.remarks);
            assert_eq!(found.all[0].kind, kind, "{line}");
        }
    }

    #[test]
    fn each_line_that_is_not_understood_is_named() {
        let text = "# nothing\n\nevil.example\nnot an indicator\n192.0.2.0/40\nevil.example:443\nmünchen.example\nrelative/path\n1.2.3\nabc123\n";
        let found = read_all(text);
        assert_eq!(found.all.len(), 1);
        let lines: Vec<u32> = found.remarks.iter().map(|remark| remark.line).collect();
        assert_eq!(lines, [4, 5, 6, 7, 8, 9, 10]);
        assert!(found.remarks[1].reason.contains("0 to 32"));
        assert!(found.remarks[2].reason.contains("port"));
        assert!(found.remarks[3].reason.contains("xn--"));
    }
}
