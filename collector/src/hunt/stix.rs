//! Indicators of a STIX 2.1 bundle.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::{Indicator, Indicators, sigma, stix_pattern};

/// A bundle, or what a TAXII server hands out: what both have is a list of objects.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    objects: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    name: String,
    #[serde(default)]
    pattern: String,
    /// Earlier versions have no other than STIX patterns.
    #[serde(default = "stix")]
    pattern_type: String,
    #[serde(default)]
    revoked: bool,
}

fn stix() -> String {
    "stix".into()
}

/// Reads a bundle; what is not understood becomes a remark.
pub(super) fn read(text: &str, found: &mut Indicators) -> Result<(), String> {
    let bundle: Bundle = serde_json::from_str(text)
        .map_err(|error| format!("it begins like a STIX bundle, but is not JSON of one: {error}"))?;
    let mut others: BTreeMap<String, u32> = BTreeMap::new();
    let mut number = 0;
    for object in bundle.objects {
        let kind = object.get("type").and_then(|kind| kind.as_str()).unwrap_or("without a type").to_owned();
        if kind != "indicator" {
            *others.entry(kind).or_default() += 1;
            continue;
        }
        number += 1;
        match serde_json::from_value::<Object>(object) {
            Ok(object) => indicator(&object, number, found),
            Err(error) => found.remark(number, "indicator", &format!("it is not one of STIX 2.1: {error}")),
        }
    }
    for (kind, count) in others {
        found.remark(
            0,
            &kind,
            &format!("{count} objects of this type are no indicators and were not searched for"),
        );
    }
    Ok(())
}

fn indicator(object: &Object, number: u32, found: &mut Indicators) {
    let shown = if object.name.is_empty() { &object.pattern } else { &object.name };
    if object.revoked {
        return found.remark(number, shown, "it is revoked");
    }
    match object.pattern_type.as_str() {
        "stix" => match stix_pattern::parse(&object.pattern) {
            Ok((kind, alternatives)) => {
                found.add(Indicator::new(&object.pattern, kind, number, alternatives));
            }
            Err(reason) => found.remark(number, &object.pattern, &reason),
        },
        "sigma" => sigma::read(&object.pattern, number, found),
        other => found.remark(number, shown, &format!("patterns of type {other} are not understood")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_searched_for_or_named() {
        let bundle = serde_json::json!({
            "type": "bundle", "id": "bundle--1",
            "objects": [
                { "type": "indicator", "pattern": "[domain-name:value = 'evil.example']", "pattern_type": "stix" },
                { "type": "indicator", "pattern": "[domain-name:value MATCHES 'e.*']", "pattern_type": "stix" },
                { "type": "indicator", "name": "snort one", "pattern": "alert tcp", "pattern_type": "snort" },
                { "type": "indicator", "pattern": "[url:value = 'https://old.example/']", "revoked": true },
                { "type": "indicator", "pattern": 5 },
                { "type": "malware", "name": "x" }, { "type": "malware" }, {},
            ]
        });
        let mut found = Indicators::default();
        read(&bundle.to_string(), &mut found).unwrap();
        assert_eq!(found.all.len(), 1);
        let remarks: Vec<(u32, &str)> =
            found.remarks.iter().map(|remark| (remark.line, remark.reason.as_str())).collect();
        assert_eq!(remarks.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 4, 5, 0, 0]);
        for (at, words) in [(0, "MATCHES"), (1, "snort"), (2, "revoked"), (4, "2 objects"), (5, "1 objects")]
        {
            assert!(remarks[at].1.contains(words), "{}", remarks[at].1);
        }
        assert!(read("{ not json", &mut found).is_err());
    }
}
