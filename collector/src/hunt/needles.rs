//! All conditions of a file, arranged so that a value is compared with thousands of them at once.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    Indicator, Wanted,
    atom::{Atom, Network, Text},
};

/// Place of a condition: indicator, alternative, condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) indicator: usize,
    pub(super) alternative: usize,
    pub(super) condition: usize,
}

/// What kind of value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Haystack {
    /// Host names, looked up or connected to.
    Name,
    Address,
    /// Paths of secrets and of executables.
    Path,
    CommandLine,
}

/// The conditions.
#[derive(Debug, Default)]
pub(super) struct Needles<'a> {
    names: Texts<'a>,
    below: HashMap<&'a str, Vec<Place>>,
    networks: HashMap<Network, Vec<Place>>,
    /// The sizes of networks that occur, for IPv4 and IPv6.
    sizes: BTreeSet<(bool, u8)>,
    paths: Texts<'a>,
    file_names: Texts<'a>,
    command_lines: Texts<'a>,
}

#[derive(Debug, Default)]
struct Texts<'a> {
    exactly: HashMap<&'a str, Vec<Place>>,
    like: Vec<(&'a Text, Place)>,
}

impl<'a> Texts<'a> {
    fn add(&mut self, text: &'a Text, place: Place) {
        match text {
            Text::Exactly(text) => self.exactly.entry(text).or_default().push(place),
            Text::Like(_) => self.like.push((text, place)),
        }
    }

    fn find(&self, value: &str, found: &mut Vec<Place>) {
        found.extend(self.exactly.get(value).into_iter().flatten());
        found.extend(self.like.iter().filter(|(text, _)| text.matches(value)).map(|(_, place)| *place));
    }
}

impl<'a> Needles<'a> {
    pub(super) fn new(indicators: &'a [Indicator]) -> Self {
        let mut needles = Self::default();
        for (indicator, wanted) in indicators.iter().enumerate() {
            let Wanted::Values(alternatives) = &wanted.wanted else { continue };
            for (alternative, conditions) in alternatives.iter().enumerate() {
                for (condition, atom) in conditions.iter().enumerate() {
                    needles.add(atom, Place { indicator, alternative, condition });
                }
            }
        }
        needles
    }

    fn add(&mut self, atom: &'a Atom, place: Place) {
        match atom {
            Atom::Name(text) => self.names.add(text, place),
            Atom::NameAndBelow(name) => self.below.entry(name).or_default().push(place),
            Atom::Network(network) => {
                self.sizes.insert((network.is_ipv4(), network.bits()));
                self.networks.entry(*network).or_default().push(place);
            }
            Atom::Path(text) => self.paths.add(text, place),
            Atom::FileName(text) => self.file_names.add(text, place),
            Atom::CommandLine(text) => self.command_lines.add(text, place),
            Atom::Hash => {}
        }
    }

    /// The conditions that a value fulfils.
    pub(super) fn find(&self, haystack: Haystack, value: &str) -> Vec<Place> {
        let mut found = Vec::new();
        match haystack {
            Haystack::Name => self.find_name(value, &mut found),
            Haystack::Address => self.find_address(value, &mut found),
            Haystack::Path => {
                self.paths.find(value, &mut found);
                self.file_names.find(value.rsplit('/').next().unwrap_or(value), &mut found);
            }
            Haystack::CommandLine => self.command_lines.find(value, &mut found),
        }
        found
    }

    fn find_name(&self, value: &str, found: &mut Vec<Place>) {
        let name = value.strip_suffix('.').unwrap_or(value).to_ascii_lowercase();
        self.names.find(&name, found);
        let mut rest = &name[..];
        loop {
            found.extend(self.below.get(rest).into_iter().flatten());
            match rest.split_once('.') {
                Some((_, above)) => rest = above,
                None => return,
            }
        }
    }

    fn find_address(&self, value: &str, found: &mut Vec<Place>) {
        let Ok(address) = value.parse::<IpAddr>() else { return };
        let address = address.to_canonical();
        for (_, bits) in self.sizes.iter().filter(|(is_ipv4, _)| *is_ipv4 == address.is_ipv4()) {
            found.extend(self.networks.get(&Network::around(address, *bits)).into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::IndicatorFormat;

    use super::{super::Indicators, *};

    fn found(list: &str, haystack: Haystack, value: &str) -> Vec<usize> {
        let indicators = Indicators::parse(list, IndicatorFormat::List).unwrap();
        let mut found: Vec<_> =
            Needles::new(&indicators.all).find(haystack, value).iter().map(|place| place.indicator).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn a_domain_is_itself_and_all_below_and_nothing_beside() {
        let list = "evil.example\n*.wild.example\nhttps://exact.example/x\n";
        for (value, expected) in [
            ("evil.example", &[0][..]),
            ("EVIL.example.", &[0]),
            ("a.b.evil.example", &[0]),
            ("notevil.example", &[]),
            ("evil.example.test", &[]),
            ("wild.example", &[]),
            ("x.wild.example", &[1]),
            ("exact.example", &[2]),
            ("x.exact.example", &[]),
        ] {
            assert_eq!(found(list, Haystack::Name, value), expected, "{value}");
        }
    }

    #[test]
    fn an_address_is_found_by_each_network_around_it() {
        let list = "192.0.2.7\n192.0.2.0/24\n0.0.0.0/0\n2001:db8::/32\n";
        for (value, expected) in [
            ("192.0.2.7", &[0, 1, 2][..]),
            ("192.0.2.8", &[1, 2]),
            ("::ffff:192.0.2.7", &[0, 1, 2]),
            ("2001:db8::9", &[3]),
            ("2001:db9::9", &[]),
            ("evil.example", &[]),
        ] {
            assert_eq!(found(list, Haystack::Address, value), expected, "{value}");
        }
    }

    #[test]
    fn paths_match_whole() {
        let list = "/tmp/x\n/opt/evil/\n/dev/shm/*.so\n";
        for (value, expected) in [
            ("/tmp/x", &[0][..]),
            ("/tmp/x/y", &[]),
            ("/opt/evil/a/b", &[1]),
            ("/opt/evil2/a", &[]),
            ("/dev/shm/a.so", &[2]),
            ("/dev/shm/a.so.1", &[]),
        ] {
            assert_eq!(found(list, Haystack::Path, value), expected, "{value}");
        }
    }
}
