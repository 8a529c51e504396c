use super::*;

const NOW: Timestamp = Timestamp { seconds: 1_795_338_000, nanos: 0 };

fn read(text: &str) -> Search {
    parse_at(text, NOW).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_words_of_a_search_are_understood() {
    let search = read(
        r#"repo=acme/* kind=secret.access,credential.use secret~aws dest=*.example.com port>=1024 host!=runner-7 "free text" since=2h until=2026-11-22T10:00Z"#,
    );
    let words: Vec<_> = search
        .r#where
        .iter()
        .map(|it| {
            (it.field.as_str(), it.operator(), it.values.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        words,
        [
            ("repo", Operator::Equals, vec!["acme/*"]),
            ("kind", Operator::Equals, vec!["secret.access", "credential.use"]),
            ("secret", Operator::Contains, vec!["aws"]),
            ("dest", Operator::Equals, vec!["*.example.com"]),
            ("port", Operator::AtLeast, vec!["1024"]),
            ("host", Operator::NotEquals, vec!["runner-7"]),
        ]
    );
    assert_eq!(search.text, "free text");
    assert_eq!(search.since.unwrap().seconds, NOW.seconds - 7200);
    assert_eq!(search.until.unwrap().seconds, NOW.seconds + 3600);
    assert_eq!(read("until=2026-11-22").until.unwrap().seconds, NOW.seconds - 9 * 3600);
    assert_eq!(read("curl pipe").r#where.len(), 1, "the first free word is the text, the second a condition");
    assert_eq!(read(r#"path="a \"b\", c\d""#).r#where[0].values, [r#"a "b", c\d"#]);
    assert_eq!(read("job=\"\"").r#where[0].values, [""]);
    assert_eq!(read("  "), Search::default());
}

#[test]
fn mistakes_are_pointed_at() {
    for (text, column, message) in [
        ("repo=a sceret~aws", 8, "\"secret\""),
        ("sinc=2h", 1, "\"since\""),
        ("kind=secret.acess", 6, "\"secret.access\""),
        ("since=yesterday", 7, "2026-11-22"),
        ("since=1h since=2h", 10, "twice"),
        ("since>=1h", 1, "since=TIME"),
        ("ä path=\"x", 8, "not closed"),
        ("repo>=3", 7, "not a number"),
        ("port>=many", 7, "digits"),
        ("path=a\"b", 7, "quote"),
        ("path=\"a\"b", 9, "space"),
        ("=a", 1, "field"),
        ("text=a", 6, "~"),
        ("secret~", 8, "without a value"),
    ] {
        let error = parse_at(text, NOW).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
    assert!(parse(&"a ".repeat(40_000)).is_err());
}

#[test]
fn a_search_survives_being_written_down() {
    let mut random = 7_u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap_or(0) % bound
    };
    let pieces = ["a", "*", " ", "\"", "\\", ",", "=", "~", "ä", "?", "\n", "<=", "since=1h", "\u{202e}"];
    for _ in 0..5_000 {
        let mut text = || (0..=below(4)).map(|_| pieces[below(pieces.len())]).collect::<String>();
        let condition = |field: &str, operator: Operator, values| Condition {
            field: field.into(),
            operator: operator.into(),
            values,
        };
        let search = Search {
            r#where: vec![
                condition("path", Operator::Equals, vec![text(), text()]),
                condition("exe", Operator::NotEquals, vec![String::new()]),
                condition("text", Operator::Contains, vec![text()]),
                condition("port", Operator::AtMost, vec!["10k".into()]),
            ],
            text: text(),
            since: Some(NOW),
            until: Some(Timestamp { nanos: 5, ..NOW }),
        };
        let written = to_text(&search);
        assert_eq!(parse(&written).as_ref(), Ok(&search), "{written}");
    }
}

#[test]
fn no_text_breaks_the_parser() {
    let pieces = ["repo", "=", "!", "~", ">=", "\"", "\\", ",", " ", "ä", "since", "2h", "*"];
    for number in 0..pieces.len().pow(4) {
        let text: String =
            (0..4).map(|place| pieces[number / pieces.len().pow(place) % pieces.len()]).collect();
        if let Ok(search) = parse_at(&text, NOW) {
            assert_eq!(parse_at(&to_text(&search), NOW).as_ref(), Ok(&search), "{text}");
        }
    }
}
