//! Parameters of a request: those that a path has, each at most once, and what they mean.

use std::collections::HashMap;

use buildtrail_proto::{
    Timestamp,
    v1::{AggregateSort, Bucket, IndicatorFormat, JobSort, Order, Search},
};
use buildtrail_query::nearest;
use buildtrail_words::time;

use super::problem::Problem;

/// A parameter, as it is described: name, its values where they are few, and what it is.
pub(super) type Described = (&'static str, Kind, &'static str);

/// What a parameter's text must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Text,
    Time,
    /// From 1 to this.
    Number(u32),
    Flag,
    OneOf(&'static [&'static str]),
}

pub(super) const WHERE: Described = ("where", Kind::Text, "A search in the language of docs/query.md.");
pub(super) const SINCE: Described =
    ("since", Kind::Time, "Not before this time: RFC 3339, or how long ago (2h).");
pub(super) const UNTIL: Described =
    ("until", Kind::Time, "Before this time: RFC 3339, or how long ago (2h).");
pub(super) const CURSOR: Described =
    ("cursor", Kind::Text, "next_cursor of an earlier answer to the same question.");
pub(super) const ORDER: Described = ("order", Kind::OneOf(&["newest", "oldest"]), "What comes first.");
pub(super) const JOB_SORT: Described = (
    "sort",
    Kind::OneOf(&["started", "duration", "events", "bytes_out"]),
    "What comes first, greatest first.",
);
pub(super) const REVERSED: Described = ("reversed", Kind::Flag, "The other way round.");
pub(super) const BY: Described = ("by", Kind::Text, "Fields to count by, at most 3, separated by commas.");
pub(super) const OVER: Described =
    ("over", Kind::OneOf(&["minute", "hour", "day"]), "Count by time, too (UTC).");
pub(super) const ROW_SORT: Described = (
    "sort",
    Kind::OneOf(&["events", "jobs", "last", "first", "bytes_out", "time"]),
    "What comes first, greatest first; time: by time and values, ascending.",
);
pub(super) const KINDS: Described = ("kind", Kind::Text, "Kinds of acts, separated by commas.");
pub(super) const HOST: Described = ("host", Kind::Text, "Id of the host that an act is about.");
pub(super) const FILE_FORMAT: Described =
    ("format", Kind::OneOf(&["list", "stix", "sigma"]), "What the file is, if its content does not show it.");
pub(super) const EXPORT_FORMAT: Described =
    ("format", Kind::OneOf(&["bundle", "in-toto"]), "What to make; a bundle, if nothing is said.");

/// `limit` with the largest that a path accepts.
pub(super) const fn limit(most: u32) -> Described {
    ("limit", Kind::Number(most), "Most items of an answer.")
}

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Parameters(HashMap<String, String>);

impl Parameters {
    /// Reads the query of a URI.
    ///
    /// # Errors
    /// A parameter that the path does not have, or one that is given twice.
    pub(super) fn read(query: Option<&str>, known: &[Described]) -> Result<Self, Problem> {
        let mut found = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let Some((_, kind, _)) = known.iter().find(|(known, ..)| *known == name) else {
                return Err(unknown(&name, known));
            };
            kind.check(&name, &value)?;
            if found.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Problem::bad(format!("the parameter {name} is given twice")));
            }
        }
        Ok(Self(found))
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn number(&self, name: &str) -> u32 {
        self.text(name).parse().unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    pub(super) fn time(&self, name: &str) -> Option<Timestamp> {
        time::parse(self.text(name)).ok()
    }

    /// Texts that are separated by commas.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        self.text(name).split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// What is asked for, as one search.
    pub(super) fn search(&self) -> Result<Search, Problem> {
        let mut search = buildtrail_query::parse(self.text("where"))
            .map_err(|error| Problem::bad(format!("where: {error}")))?;
        for (name, place) in [("since", &mut search.since), ("until", &mut search.until)] {
            if let Some(time) = self.time(name)
                && place.replace(time).is_some()
            {
                return Err(Problem::bad(format!("{name} is given twice: as a parameter and in where")));
            }
        }
        Ok(search)
    }

    pub(super) fn order(&self) -> Order {
        if self.text("order") == "oldest" { Order::OldestFirst } else { Order::NewestFirst }
    }

    pub(super) fn job_sort(&self) -> JobSort {
        match self.text("sort") {
            "duration" => JobSort::Duration,
            "events" => JobSort::Events,
            "bytes_out" => JobSort::BytesOut,
            _ => JobSort::Started,
        }
    }

    pub(super) fn row_sort(&self, otherwise: AggregateSort) -> AggregateSort {
        match self.text("sort") {
            "events" => AggregateSort::Events,
            "jobs" => AggregateSort::Jobs,
            "last" => AggregateSort::Last,
            "first" => AggregateSort::First,
            "bytes_out" => AggregateSort::BytesOut,
            "time" => AggregateSort::Time,
            _ => otherwise,
        }
    }

    pub(super) fn bucket(&self) -> Bucket {
        match self.text("over") {
            "minute" => Bucket::Minute,
            "hour" => Bucket::Hour,
            "day" => Bucket::Day,
            _ => Bucket::Unspecified,
        }
    }

    pub(super) fn file_format(&self) -> IndicatorFormat {
        match self.text("format") {
            "list" => IndicatorFormat::List,
            "stix" => IndicatorFormat::Stix,
            "sigma" => IndicatorFormat::Sigma,
            _ => IndicatorFormat::Unspecified,
        }
    }
}

impl Kind {
    fn check(self, name: &str, value: &str) -> Result<(), Problem> {
        let wrong = |expected: String| Err(Problem::bad(format!("{name}: {expected}")));
        match self {
            Self::Text => Ok(()),
            Self::Time => match time::parse(value) {
                Ok(_) => Ok(()),
                Err(expected) => wrong(expected),
            },
            Self::Number(most) if value.parse::<u32>().is_ok_and(|it| (1..=most).contains(&it)) => Ok(()),
            Self::Number(most) => wrong(format!("expected a number from 1 to {most}")),
            Self::Flag if matches!(value, "true" | "false") => Ok(()),
            Self::Flag => wrong("expected true or false".into()),
            Self::OneOf(values) if values.contains(&value) => Ok(()),
            Self::OneOf(values) => wrong(format!("expected one of {}", values.join(", "))),
        }
    }
}

fn unknown(name: &str, known: &[Described]) -> Problem {
    let names = || known.iter().map(|(name, ..)| *name);
    let meant = nearest(name, names()).map(|meant| format!(" did you mean {meant}?")).unwrap_or_default();
    let name: String = name.chars().take(100).collect();
    let all = names().collect::<Vec<_>>().join(", ");
    let all = if all.is_empty() { "it has none".into() } else { format!("it has {all}") };
    Problem::bad(format!("this path has no parameter {name:?};{meant} {all}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_parameters_are_refused_by_name() {
        let known = [WHERE, SINCE, limit(100), ORDER, REVERSED];
        for (query, words) in [
            ("wher=x", "did you mean where?"),
            ("x=1", "it has where, since, limit, order, reversed"),
            ("limit=0", "1 to 100"),
            ("limit=101", "1 to 100"),
            ("limit=1&limit=2", "twice"),
            ("order=up", "newest, oldest"),
            ("reversed=yes", "true or false"),
            ("since=yesterday", "2026-11-22T09:00:00Z"),
        ] {
            let problem = Parameters::read(Some(query), &known).unwrap_err();
            assert!(problem.detail.contains(words), "{query}: {}", problem.detail);
        }
        let read = |query| Parameters::read(Some(query), &known).unwrap().search();
        assert!(read("where=repoo%3Dx").unwrap_err().detail.contains("column 1"));
        assert!(read("where=since%3D1h&since=2h").unwrap_err().detail.contains("twice"));
        let search = read("where=repo%3Dacme/*+kind%3Dloss&since=2026-11-22T09:00:00Z").unwrap();
        let text = buildtrail_query::to_text(&search);
        assert_eq!(text, "repo=acme/* kind=loss since=2026-11-22T09:00:00Z");
    }
}
