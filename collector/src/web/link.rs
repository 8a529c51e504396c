//! Addresses of pages, and what a request's address asks for.

use std::fmt;

use axum::http::Uri;
use form_urlencoded::{Serializer, parse};

/// Longest value that is taken from an address.
const MAX_VALUE: usize = 4096;

/// An address within the site.
pub(super) struct Link {
    path: String,
    query: Vec<(String, String)>,
}

/// A page.
pub(super) fn to(path: impl Into<String>) -> Link {
    Link { path: path.into(), query: Vec::new() }
}

impl Link {
    /// With a parameter, unless its value is empty.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.query.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if !self.query.is_empty() {
            let query = Serializer::new(String::new()).extend_pairs(&self.query).finish();
            write!(f, "?{query}")?;
        }
        Ok(())
    }
}

/// The address that was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Address {
    path: String,
    query: Vec<(String, String)>,
}

impl Address {
    pub(super) fn of(uri: &Uri) -> Self {
        let query = parse(uri.query().unwrap_or_default().as_bytes())
            .filter(|(_, value)| value.len() <= MAX_VALUE)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        Self { path: uri.path().to_owned(), query }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The parameter's last value; empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.query.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// All parameters but one.
    pub(super) fn others<'a>(&'a self, without: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let others = self.query.iter().filter(move |(name, _)| !without.contains(&name.as_str()));
        others.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same page with another value of one parameter; a cursor, which belongs to the old question, is left out.
    pub(super) fn changed(&self, name: &str, value: &str) -> Link {
        let mut link = to(self.path.clone());
        for (known, kept) in self.others(&[name, "cursor", "tz"]) {
            link = link.with(known, kept);
        }
        link.with(name, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_hostile_values() {
        let value = "a&b=c?d#e/\"'<>\u{202e}\0é";
        let link = to("/secret").with("name", value).with("empty", "").to_string();
        assert!(link.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>".contains(&byte)), "{link}");
        let address = Address::of(&link.parse().unwrap());
        assert_eq!((address.path(), address.get("name"), address.get("other")), ("/secret", value, ""));
        assert_eq!(address.changed("name", "x").to_string(), "/secret?name=x");
        let long = to("/secret").with("name", &"x".repeat(MAX_VALUE + 1)).to_string();
        assert_eq!(Address::of(&long.parse().unwrap()).get("name"), "");
    }
}
