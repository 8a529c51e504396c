//! The smallest thing to look for: one condition on one recorded value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use globset::{GlobBuilder, GlobMatcher};

/// Longest text of one condition, in bytes.
const MAX_TEXT: usize = 4096;

/// A condition on a recorded value.
#[derive(Debug, Clone)]
pub(super) enum Atom {
    /// A host name, in lower case.
    Name(Text),
    /// This name and every name below it.
    NameAndBelow(String),
    /// An address, or all of a network.
    Network(Network),
    /// A whole path: of a secret or of an executable.
    Path(Text),
    /// The last part of a path.
    FileName(Text),
    /// One argument, or a whole command line.
    CommandLine(Text),
    /// Digest of a file: agents record none.
    Hash,
}

/// How a text must be.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Exactly(String),
    Like(GlobMatcher),
}

impl Text {
    /// A pattern with `*` and `?`.
    pub(super) fn glob(pattern: &str) -> Result<Self, String> {
        Self::pattern(pattern, '*', '?')
    }

    /// A pattern with `%` and `_`, as SQL and STIX have it.
    pub(super) fn like(pattern: &str) -> Result<Self, String> {
        Self::pattern(pattern, '%', '_')
    }

    fn pattern(pattern: &str, many: char, one: char) -> Result<Self, String> {
        if pattern.len() > MAX_TEXT {
            return Err(format!("it is longer than {MAX_TEXT} bytes"));
        }
        let mut glob = String::new();
        for character in pattern.chars() {
            match character {
                _ if character == many => glob.push('*'),
                _ if character == one => glob.push('?'),
                '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!' | ',' | '-' => glob.extend(['\\', character]),
                _ => glob.push(character),
            }
        }
        let glob = GlobBuilder::new(&glob).literal_separator(false).build();
        glob.map(|glob| Self::Like(glob.compile_matcher()))
            .map_err(|error| format!("the pattern cannot be used: {error}"))
    }

    pub(super) fn exactly(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("it is longer than {MAX_TEXT} bytes"));
        }
        Ok(Self::Exactly(text.to_owned()))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exactly(wanted) => wanted == text,
            Self::Like(glob) => glob.is_match(text),
        }
    }
}

/// Addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`.
    pub(super) fn parse(text: &str) -> Option<Result<Self, String>> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) => match bits.parse::<u8>() {
                Ok(bits) if bits <= all => bits,
                _ => return Some(Err(format!("the number behind / must be 0 to {all}"))),
            },
        };
        // Agents write IPv4 addresses that came as IPv6 ones as IPv4.
        let canonical = address.to_canonical();
        let bits = match (all, canonical.is_ipv4()) {
            (128, true) if bits < 96 => {
                return Some(Err("a network of IPv4 addresses written as IPv6 has at least 96 bits".into()));
            }
            (128, true) => bits - 96,
            _ => bits,
        };
        Some(Ok(Self { address: masked(canonical, bits), bits }))
    }

    pub(super) fn is_single(self) -> bool {
        self.bits == if self.address.is_ipv4() { 32 } else { 128 }
    }

    pub(super) fn bits(self) -> u8 {
        self.bits
    }

    /// The network of this size that an address is in.
    pub(super) fn around(address: IpAddr, bits: u8) -> Self {
        Self { address: masked(address, bits), bits }
    }

    pub(super) fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// A host name in lower case without the last dot; `None` for what is none.
pub(super) fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last_is_no_number =
        name.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()));
    (name.len() <= 253 && name.split('.').all(is_label) && last_is_no_number).then_some(name)
}

/// The host of a URL: what agents record of it.
pub(super) fn host_of_url(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, _)| host)?,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    };
    (!host.is_empty()).then_some(host)
}

/// Name of the digest with this many hexadecimal digits.
pub(super) fn digest_name(text: &str) -> Option<&'static str> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match text.len() {
        32 => Some("MD5"),
        40 => Some("SHA-1"),
        64 => Some("SHA-256"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_cut_to_their_bits() {
        let parse = |text: &str| Network::parse(text).unwrap().unwrap();
        assert_eq!(parse("192.0.2.77/24"), parse("192.0.2.0/24"));
        assert_eq!(parse("::ffff:192.0.2.1"), parse("192.0.2.1"));
        assert_eq!(parse("::ffff:192.0.2.0/120"), parse("192.0.2.0/24"));
        assert_eq!(Network::around("192.0.2.9".parse().unwrap(), 24), parse("192.0.2.0/24"));
        assert_eq!(parse("0.0.0.0/0"), Network::around("203.0.113.1".parse().unwrap(), 0));
        assert!(parse("2001:db8::1").is_single());
        assert!(Network::parse("192.0.2.0/33").unwrap().is_err());
        assert!(Network::parse("::ffff:192.0.2.0/90").unwrap().is_err());
        assert!(Network::parse("example.test").is_none());
    }

    #[test]
    fn the_host_of_a_url_is_found_whatever_stands_around_it() {
        for (url, host) in [
            ("https://evil.example/a/b?c=d", Some("evil.example")),
            ("http://user:pw@evil.example:8080/x", Some("evil.example")),
            ("https://[2001:db8::1]:443/", Some("2001:db8::1")),
            ("https://good.example@evil.example", Some("evil.example")),
            ("https:///path", None),
            ("evil.example/path", None),
        ] {
            assert_eq!(host_of_url(url), host, "{url}");
        }
    }

    #[test]
    fn only_stars_and_question_marks_are_wild() {
        let glob = Text::glob("/tmp/[x]{a,b}*/?").unwrap();
        assert!(glob.matches("/tmp/[x]{a,b}/deep/er/1"));
        assert!(!glob.matches("/tmp/xa/1"));
    }
}
