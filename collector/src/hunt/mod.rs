//! Retro-hunt: which jobs of the past touched an indicator, and which secrets they had.
//!
//! In: a file of indicators (`list`, `stix`, `sigma`) and a [`Scope`](buildtrail_query::Scope). Out: jobs, repositories,
//! hosts and the secrets to rotate, in order. Must never leave out an indicator without saying so, nor say "not found"
//! of what agents do not record.

mod atom;
mod contacts;
mod list;
mod needles;
mod result;
mod run;
mod service;
mod sigma;
mod stix;
mod stix_pattern;

use std::collections::BTreeMap;

use buildtrail_proto::v1::{IndicatorFormat, IndicatorRemark};

use self::{atom::Atom, sigma::Rule, stix_pattern::Alternatives};
pub(crate) use self::{
    run::{Hunt, HuntError},
    service::{Hunts, Replies, Service, result},
};

/// Largest file of indicators, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 8 << 20;
/// Most indicators in one file.
const MAX_INDICATORS: usize = 50_000;
/// Most remarks that are listed one by one.
const MAX_REMARKS: usize = 1000;
/// Characters of an indicator that are shown.
const MAX_SHOWN: usize = 300;

/// One indicator of a file.
#[derive(Debug)]
struct Indicator {
    /// As the file has it.
    shown: String,
    kind: &'static str,
    /// Line, or number in the file.
    line: u32,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    /// Any of these; of each, all conditions in one job.
    Values(Alternatives),
    Events(Box<Rule>),
}

impl Indicator {
    fn new(shown: &str, kind: &'static str, line: u32, alternatives: Alternatives) -> Self {
        Self { shown: cut(shown), kind, line, wanted: Wanted::Values(alternatives) }
    }

    fn sigma(title: &str, number: u32, rule: Rule) -> Self {
        Self { shown: cut(title), kind: "sigma rule", line: number, wanted: Wanted::Events(Box::new(rule)) }
    }

    fn rule(&self) -> Option<&Rule> {
        match &self.wanted {
            Wanted::Events(rule) => Some(rule),
            Wanted::Values(_) => None,
        }
    }

    /// Whether no alternative can be answered, because each needs something that agents do not record.
    fn is_not_recorded(&self) -> bool {
        match &self.wanted {
            Wanted::Values(alternatives) => {
                alternatives.iter().all(|all| all.iter().any(|atom| matches!(atom, Atom::Hash)))
            }
            Wanted::Events(_) => false,
        }
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Indicators {
    all: Vec<Indicator>,
    remarks: Vec<IndicatorRemark>,
    more_remarks: usize,
}

impl Indicators {
    /// Reads a file of indicators.
    ///
    /// # Errors
    /// It is too long, or nothing in it can be searched for.
    pub(crate) fn parse(text: &str, format: IndicatorFormat) -> Result<Self, String> {
        if text.len() > MAX_FILE_BYTES {
            return Err(format!("the indicators are longer than {MAX_FILE_BYTES} bytes; split the file"));
        }
        let mut found = Self::default();
        let format = match format {
            IndicatorFormat::Unspecified if text.trim_start().starts_with('{') => IndicatorFormat::Stix,
            IndicatorFormat::Unspecified if looks_like_sigma(text) => IndicatorFormat::Sigma,
            given => given,
        };
        match format {
            IndicatorFormat::Stix => stix::read(text, &mut found)?,
            IndicatorFormat::Sigma => sigma::read(text, 1, &mut found),
            IndicatorFormat::List | IndicatorFormat::Unspecified => list::read(text, &mut found),
        }
        if found.all.is_empty() {
            return Err(found.nothing());
        }
        if found.more_remarks > 0 {
            let reason = format!("{} more things were not understood", found.more_remarks);
            found.remarks.push(IndicatorRemark { line: 0, text: "…".into(), reason });
        }
        Ok(found)
    }

    /// For the log: how many of which kinds.
    pub(crate) fn words(&self) -> String {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for indicator in &self.all {
            *kinds.entry(indicator.kind).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        format!("indicators: {}", kinds.join(", "))
    }

    fn nothing(&self) -> String {
        match self.remarks.first() {
            Some(IndicatorRemark { line: 0, text, reason }) => {
                format!("no indicator can be searched for; of {text:?}: {reason}")
            }
            Some(IndicatorRemark { line, text, reason }) => {
                format!("no indicator can be searched for; number {line}, {text:?}: {reason}")
            }
            None => "there is no indicator in it".into(),
        }
    }

    fn add(&mut self, indicator: Indicator) {
        if self.all.len() < MAX_INDICATORS {
            self.all.push(indicator);
        } else {
            let reason = format!("more than {MAX_INDICATORS} indicators; split the file");
            self.remark(indicator.line, &indicator.shown, &reason);
        }
    }

    fn remark(&mut self, line: u32, text: &str, reason: &str) {
        if self.remarks.len() < MAX_REMARKS {
            self.remarks.push(IndicatorRemark { line, text: cut(text), reason: cut(reason) });
        } else {
            self.more_remarks += 1;
        }
    }
}

fn looks_like_sigma(text: &str) -> bool {
    let begins = |word: &str| text.lines().any(|line| line.trim_end() == word);
    begins("detection:") && (begins("logsource:") || text.lines().any(|line| line.starts_with("logsource:")))
}

fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGMA: &str = "
title: Miner
logsource:
    category: process_creation
    product: linux
detection:
    selection:
        Image|endswith: '/xmrig'
    condition: selection
";

    #[test]
    fn the_format_is_known_by_the_content() {
        for (text, kind) in [
            ("evil.example\n", "domain"),
            (SIGMA, "sigma rule"),
            (
                r#"{"type": "bundle", "objects": [{"type": "indicator", "pattern": "[ipv4-addr:value = '192.0.2.1']"}]}"#,
                "address",
            ),
        ] {
            let found = Indicators::parse(text, IndicatorFormat::Unspecified).unwrap();
            assert_eq!(found.all[0].kind, kind);
        }
        assert!(Indicators::parse(SIGMA, IndicatorFormat::List).is_err());
    }

    #[test]
    fn a_file_without_an_indicator_is_refused_with_the_first_reason() {
        let refused = |text: &str| Indicators::parse(text, IndicatorFormat::Unspecified).unwrap_err();
        assert!(refused("# nothing\n").contains("no indicator"));
        assert!(refused("\n\n1.2.3\n").contains("number 3"));
        assert!(refused(&"x".repeat(MAX_FILE_BYTES + 1)).contains("split"));
    }

    #[test]
    fn hashes_are_said_to_be_unrecorded_also_inside_of_patterns() {
        let digest = "a".repeat(64);
        let text = format!("{digest}\nevil.example\n");
        let found = Indicators::parse(&text, IndicatorFormat::List).unwrap();
        assert_eq!(found.all.iter().map(Indicator::is_not_recorded).collect::<Vec<_>>(), [true, false]);
        let both = format!("[file:name = 'x' AND file:hashes.'SHA-256' = '{digest}']");
        let either = format!("[file:name = 'x' OR file:hashes.'SHA-256' = '{digest}']");
        let bundle = serde_json::json!({ "objects": [
            { "type": "indicator", "pattern": both }, { "type": "indicator", "pattern": either },
        ]});
        let found = Indicators::parse(&bundle.to_string(), IndicatorFormat::Stix).unwrap();
        assert_eq!(found.all.iter().map(Indicator::is_not_recorded).collect::<Vec<_>>(), [true, false]);
    }
}
