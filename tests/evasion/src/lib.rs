//! Every way to a secret, to another process's memory and to the network: what a job could try, and what must be seen.
//!
//! In: a directory of fake secrets ([`place::prepare`]). Out: the acts themselves, by name (the program `evasion`), and the
//! table [`techniques`] with the judge [`judge::judge`], which the native suite and the guests of `vm-test` share. Must only
//! touch fake secrets, loopback and its own processes (and look at the fake runner above it).

#[macro_use]
mod call;
pub mod expect;
pub mod judge;
pub mod load;
pub mod micro;
pub mod place;

mod credentials;
mod files;
mod files_change;
mod files_places;
mod memory;
mod network;
mod network_more;
mod process;
pub mod reader;
mod ring;

pub use expect::{Event, Family, Match, Seen, Technique, Tier};

/// The whole table.
#[must_use]
pub fn techniques() -> Vec<&'static Technique> {
    [
        files::TECHNIQUES,
        files_places::TECHNIQUES,
        files_change::TECHNIQUES,
        memory::TECHNIQUES,
        network::TECHNIQUES,
        network_more::TECHNIQUES,
        process::TECHNIQUES,
        credentials::TECHNIQUES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_file_name() {
        let mut names = HashSet::new();
        for technique in techniques() {
            assert!(names.insert(technique.name), "{} is there twice", technique.name);
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(technique.name.chars().all(plain), "{}", technique.name);
        }
    }

    #[test]
    fn what_is_not_seen_has_a_reason() {
        for technique in techniques() {
            for seen in [&technique.a, &technique.b] {
                if let Seen::Gap(reason) | Seen::Race(_, reason) = seen {
                    assert!(reason.ends_with('.'), "{}: a reason is a sentence", technique.name);
                }
            }
        }
    }
}
