//! STIX patterns: the comparisons of one observation, joined by AND and OR.
//!
//! What is not understood (NOT, MATCHES, several observations that must follow each other, …) is refused with its name:
//! half a pattern would find something else than its author meant.

use super::atom::{Atom, Network, Text, digest_name, host_name, host_of_url};

/// Alternatives, each a list of conditions that must all hold.
pub(super) type Alternatives = Vec<Vec<Atom>>;

const MAX_DEPTH: u32 = 32;
const MAX_ALTERNATIVES: usize = 1000;
const MAX_CONDITIONS: usize = 32;

/// Reads a pattern: what kind of thing it looks for, and its alternatives.
pub(super) fn parse(pattern: &str) -> Result<(&'static str, Alternatives), String> {
    let mut parser = Parser { tokens: tokens(pattern)?, at: 0, kinds: Vec::new() };
    let alternatives = parser.observations(0)?;
    if let Some(token) = parser.next() {
        return Err(match token {
            Token::Word(word)
                if word.eq_ignore_ascii_case("AND") || word.eq_ignore_ascii_case("FOLLOWEDBY") =>
            {
                format!("several observations joined by {word} are not understood; OR is")
            }
            Token::Word(word) => format!("{word} behind an observation is not understood"),
            other => format!("there is {other} too much at its end"),
        });
    }
    parser.kinds.dedup();
    let kind = if let [kind] = parser.kinds[..] { kind } else { "stix pattern" };
    Ok((kind, alternatives))
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Sign(char),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`.
    Comparison(String),
    Word(String),
    Text(String),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sign(sign) => write!(f, "{sign}"),
            Self::Comparison(text) | Self::Word(text) => f.write_str(text),
            Self::Text(text) => write!(f, "'{text}'"),
        }
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        tokens.push(match character {
            _ if character.is_whitespace() => continue,
            '[' | ']' | '(' | ')' | ',' | ':' | '.' | '*' => Token::Sign(character),
            '=' | '!' | '<' | '>' => {
                let mut text = character.to_string();
                text.extend(rest.next_if_eq(&'='));
                Token::Comparison(text)
            }
            '\'' => Token::Text(quoted(&mut rest)?),
            _ if is_word(character) => {
                let mut word = character.to_string();
                while let Some(next) = rest.next_if(|next| is_word(*next)) {
                    word.push(next);
                }
                Token::Word(word)
            }
            other => return Err(format!("it has a {other:?} that no pattern has")),
        });
    }
    Ok(tokens)
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

/// What stands between apostrophes; a backslash before either sign lets it stand for itself.
fn quoted(rest: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut text = String::new();
    while let Some(character) = rest.next() {
        match character {
            '\'' => return Ok(text),
            '\\' => text.extend(rest.next()),
            _ => text.push(character),
        }
    }
    Err("a text has no closing apostrophe".into())
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    kinds: Vec<&'static str>,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn take(&mut self, sign: char) -> bool {
        let there = self.tokens.get(self.at) == Some(&Token::Sign(sign));
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        let found = self.tokens.get(self.at).map_or_else(|| "its end".to_owned(), ToString::to_string);
        if self.take(sign) { Ok(()) } else { Err(format!("there is {found} where {sign} must be")) }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let there =
            matches!(self.tokens.get(self.at), Some(Token::Word(found)) if found.eq_ignore_ascii_case(word));
        self.at += usize::from(there);
        there
    }

    /// `[…] OR […]`
    fn observations(&mut self, depth: u32) -> Result<Alternatives, String> {
        let mut all = self.observation(depth)?;
        while self.take_word("OR") {
            all.extend(self.observation(depth)?);
            bounded(&all)?;
        }
        Ok(all)
    }

    fn observation(&mut self, depth: u32) -> Result<Alternatives, String> {
        let depth = deeper(depth)?;
        if self.take('(') {
            let inner = self.observations(depth)?;
            self.expect(')')?;
            return Ok(inner);
        }
        self.expect('[')?;
        let inner = self.any_of(depth)?;
        self.expect(']')?;
        Ok(inner)
    }

    fn any_of(&mut self, depth: u32) -> Result<Alternatives, String> {
        let mut all = self.all_of(depth)?;
        while self.take_word("OR") {
            all.extend(self.all_of(depth)?);
            bounded(&all)?;
        }
        Ok(all)
    }

    fn all_of(&mut self, depth: u32) -> Result<Alternatives, String> {
        let mut all = self.comparison(depth)?;
        while self.take_word("AND") {
            let more = self.comparison(depth)?;
            let joined = all.iter().flat_map(|one| more.iter().map(|other| [&one[..], &other[..]].concat()));
            all = joined.take(MAX_ALTERNATIVES + 1).collect();
            bounded(&all)?;
        }
        Ok(all)
    }

    fn comparison(&mut self, depth: u32) -> Result<Alternatives, String> {
        if self.take('(') {
            let inner = self.any_of(deeper(depth)?)?;
            self.expect(')')?;
            return Ok(inner);
        }
        let path = self.path()?;
        if self.take_word("NOT") {
            return Err("NOT is not understood".into());
        }
        let how = match self.next() {
            Some(Token::Comparison(sign)) if sign == "=" || sign == "==" => How::Equals,
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("IN") => How::In,
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("LIKE") => How::Like,
            Some(Token::Word(word)) if word.eq_ignore_ascii_case("ISSUBSET") => How::IsSubset,
            Some(other) => return Err(format!("{other} is not understood; =, IN, LIKE and ISSUBSET are")),
            None => return Err("it ends behind a property".into()),
        };
        let mut values = vec![];
        if matches!(how, How::In) {
            self.expect('(')?;
            values.push(self.text()?);
            while self.take(',') {
                values.push(self.text()?);
            }
            self.expect(')')?;
        } else {
            values.push(self.text()?);
        }
        let mut alternatives = Vec::with_capacity(values.len());
        for value in values {
            let (kind, atom) = condition(&path, how, &value)?;
            self.kinds.push(kind);
            alternatives.push(vec![atom]);
        }
        bounded(&alternatives)?;
        Ok(alternatives)
    }

    fn text(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Text(text)) => Ok(text),
            Some(other) => Err(format!("the value {other} is not understood; texts in apostrophes are")),
            None => Err("a value is missing".into()),
        }
    }

    /// `file:hashes.'SHA-256'` as `file:hashes.SHA-256`; list positions are left out.
    fn path(&mut self) -> Result<String, String> {
        let Some(Token::Word(object)) = self.next() else { return Err("an object's name is missing".into()) };
        self.expect(':')?;
        let mut path = format!("{object}:");
        loop {
            match self.next() {
                Some(Token::Word(part) | Token::Text(part)) => path.push_str(&part),
                _ => return Err(format!("a property's name is missing behind {path}")),
            }
            if self.take('[') {
                self.at += 1;
                self.expect(']')?;
            }
            if !self.take('.') {
                return Ok(path);
            }
            path.push('.');
        }
    }
}

fn deeper(depth: u32) -> Result<u32, String> {
    if depth == MAX_DEPTH { Err("it has too many brackets in brackets".into()) } else { Ok(depth + 1) }
}

fn bounded(alternatives: &Alternatives) -> Result<(), String> {
    let too_long = alternatives.iter().any(|all| all.len() > MAX_CONDITIONS);
    if alternatives.len() > MAX_ALTERNATIVES || too_long {
        return Err(format!(
            "it has more than {MAX_ALTERNATIVES} alternatives or {MAX_CONDITIONS} conditions that must hold together"
        ));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Equals,
    In,
    Like,
    IsSubset,
}

fn condition(path: &str, how: How, value: &str) -> Result<(&'static str, Atom), String> {
    let text = |value: &str| if how == How::Like { Text::like(value) } else { Text::exactly(value) };
    let (object, property) = path.split_once(':').unwrap_or((path, ""));
    let is_address = matches!(object, "ipv4-addr" | "ipv6-addr") && property == "value"
        || matches!(path, "network-traffic:dst_ref.value" | "domain-name:resolves_to_refs.value");
    if is_address {
        return address(how, value);
    }
    if how == How::IsSubset {
        return Err(format!("ISSUBSET is not understood of {path}; of addresses it is"));
    }
    match path {
        "domain-name:value" if how == How::Like => {
            Ok(("domain", Atom::Name(text(&value.to_ascii_lowercase())?)))
        }
        "domain-name:value" => {
            let name = host_name(value).ok_or_else(|| format!("{value} is no domain in ASCII"))?;
            Ok(("domain", Atom::Name(Text::Exactly(name))))
        }
        "url:value" if how == How::Like => Err("LIKE is not understood of url:value; = is".into()),
        "url:value" => {
            let host = host_of_url(value).ok_or_else(|| format!("{value} is a URL without a host"))?;
            match Network::parse(host) {
                Some(network) => Ok(("url", Atom::Network(network?))),
                None => host_name(host)
                    .map(|name| ("url", Atom::Name(Text::Exactly(name))))
                    .ok_or_else(|| format!("{host} is no host name in ASCII")),
            }
        }
        "file:name" => Ok(("file name", Atom::FileName(text(value)?))),
        "directory:path" | "file:parent_directory_ref.path" => {
            let below =
                format!("{}/{}", value.trim_end_matches('/'), if how == How::Like { '%' } else { '*' });
            let condition = if how == How::Like { Text::like(&below) } else { Text::glob(&below) };
            Ok(("path", Atom::Path(condition?)))
        }
        "process:command_line" => Ok(("command line", Atom::CommandLine(text(value)?))),
        "process:image_ref.name" | "process:binary_ref.name" => {
            Ok(("file name", Atom::FileName(text(value)?)))
        }
        _ => match path.split_once("hashes.") {
            Some((_, algorithm)) if how == How::Like || digest_name(value).is_none() => Err(format!(
                "a {algorithm} digest like {value} is not understood; MD5, SHA-1 and SHA-256 in hexadecimal digits are"
            )),
            Some(_) => Ok(("hash", Atom::Hash)),
            None => Err(format!("{path} is not understood")),
        },
    }
}

fn address(how: How, value: &str) -> Result<(&'static str, Atom), String> {
    if how == How::Like {
        return Err("LIKE is not understood of addresses; = and ISSUBSET are".into());
    }
    let network = Network::parse(value).ok_or_else(|| format!("{value} is no address"))??;
    let kind = if network.is_single() { "address" } else { "network" };
    Ok((kind, Atom::Network(network)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_of_the_usual_objects_are_understood() {
        let digest = "a".repeat(64);
        for (pattern, kind, alternatives) in [
            ("[domain-name:value = 'Evil.example']", "domain", 1),
            ("[domain-name:value = 'a.example' OR domain-name:value = 'b.example']", "domain", 2),
            ("[ipv4-addr:value = '192.0.2.1'] OR [ipv6-addr:value = '2001:db8::1']", "address", 2),
            ("[ipv4-addr:value ISSUBSET '192.0.2.0/24']", "network", 1),
            ("[ipv4-addr:value IN ('192.0.2.1', '192.0.2.2')]", "address", 2),
            (&format!("[file:hashes.'SHA-256' = '{digest}']"), "hash", 1),
            (&format!("[file:hashes.MD5 = '{}']", "b".repeat(32)), "hash", 1),
            ("[file:name LIKE 'miner%']", "file name", 1),
            ("[url:value = 'https://evil.example/x?y']", "url", 1),
            ("[process:command_line = 'curl \\'x\\'']", "command line", 1),
            ("[network-traffic:dst_ref.value = '192.0.2.1']", "address", 1),
            (
                "([domain-name:value = 'a.example' AND (file:name = 'x' OR file:name = 'y')])",
                "stix pattern",
                2,
            ),
        ] {
            let (found, all) = parse(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!((found, all.len()), (kind, alternatives), "{pattern}");
        }
        let (_, all) =
            parse("[domain-name:value = 'a.example' AND (file:name = 'x' OR file:name = 'y')]").unwrap();
        assert!(all.iter().all(|conditions| conditions.len() == 2));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (pattern, named) in [
            ("[domain-name:value MATCHES 'x']", "MATCHES"),
            ("[domain-name:value != 'x']", "!="),
            ("[domain-name:value NOT = 'x']", "NOT"),
            ("[a:b = 'x'] FOLLOWEDBY [a:b = 'y']", "a:b"),
            ("[file:name = 'x'] FOLLOWEDBY [file:name = 'y']", "FOLLOWEDBY"),
            ("[file:name = 'x'] AND [file:name = 'y']", "AND"),
            ("[file:name = 'x'] WITHIN 5 SECONDS", "WITHIN"),
            ("[file:size = 5]", "5"),
            ("[windows-registry-key:key = 'x']", "windows-registry-key:key"),
            ("[file:hashes.'SHA-512' = 'abcd']", "SHA-512"),
            ("[file:name = 'x'", "]"),
            ("file:name = 'x'", "["),
            ("[file:name = 'x]", "apostrophe"),
            ("[file:name = 'x'] {", "{"),
            ("", "["),
        ] {
            let reason = parse(pattern).unwrap_err();
            assert!(reason.contains(named), "{pattern}: {reason}");
        }
    }

    #[test]
    fn no_pattern_makes_the_collector_work_without_bound() {
        let brackets = "(".repeat(100_000);
        assert!(parse(&brackets).unwrap_err().contains("brackets"));
        let pair = "(file:name = 'x' OR file:name = 'y')";
        let many = format!("[{}]", vec![pair; 30].join(" AND "));
        assert!(parse(&many).unwrap_err().contains("alternatives"));
        let long = format!("[{}]", vec!["file:name = 'x'"; 40].join(" AND "));
        assert!(parse(&long).unwrap_err().contains("together"));
    }
}
