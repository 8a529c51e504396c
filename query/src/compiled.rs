//! A search that was checked and can be asked of events.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
};

use buildtrail_proto::{
    EVENT_KINDS, Timestamp, unix_nanos,
    v1::{AuditEvent, Condition as Asked, Operator, Search},
};

use crate::{
    Field, MAX_CONDITIONS, MAX_VALUE_BYTES, MAX_VALUES, Network, Pattern, contains_ignoring_case,
    facts::values, field::nearest,
};

/// Digits of a whole job id.
const JOB_ID_DIGITS: usize = 32;
/// Fewer digits are not taken for the beginning of a job id.
const MIN_PREFIX: usize = 4;

/// The search cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// No such field.
    #[error("there is no field {field:?};{} the fields are {}", did_you_mean(.nearest.as_deref()), field_names())]
    UnknownField {
        /// As it was written.
        field: String,
        /// What was perhaps meant.
        nearest: Option<String>,
    },
    /// No such kind of event.
    #[error("there is no kind of event {kind:?};{} the kinds are {}", did_you_mean(.nearest.as_deref()), EVENT_KINDS.join(", "))]
    UnknownKind {
        /// As it was written.
        kind: String,
        /// What was perhaps meant.
        nearest: Option<String>,
    },
    /// Only numbers can be compared.
    #[error("{0} is not a number: >= and <= are for port, bytes and uid; ask with =, != or ~")]
    NotANumber(Field),
    /// What a number is compared with is none.
    #[error("{1:?} is not a number to compare {0} with; write digits, or 10k, 10M, 10G")]
    WrongNumber(Field, String),
    /// Text can only be contained.
    #[error("text is asked for with ~, or as \"words in quotes\"")]
    OnlyContained,
    /// No value.
    #[error("{0} is asked for without a value")]
    NoValue(Field),
    /// Bounds.
    #[error(
        "the search is too long: at most {MAX_CONDITIONS} conditions of {MAX_VALUES} values of {MAX_VALUE_BYTES} bytes"
    )]
    TooLong,
    /// An operator that this build does not know.
    #[error("there is no operator {0}")]
    UnknownOperator(i32),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(" did you mean {nearest:?}?")).unwrap_or_default()
}

fn field_names() -> String {
    Field::ALL.map(Field::name).join(", ")
}

/// The field of a word, or what to write instead.
pub(crate) fn field(word: &str) -> Result<Field, SearchError> {
    Field::parse(word).ok_or_else(|| SearchError::UnknownField {
        field: word.chars().take(100).collect(),
        nearest: nearest(word, Field::ALL.iter().map(|field| field.name())).map(str::to_owned),
    })
}

/// A search that was checked.
#[derive(Debug, Clone)]
pub struct Compiled {
    conditions: Vec<Condition>,
    since: i64,
    until: i64,
}

/// One condition.
#[derive(Debug, Clone)]
pub struct Condition {
    field: Field,
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Equals(Equals),
    /// Lower case.
    Contains(Vec<String>),
    AtLeast(u64),
    AtMost(u64),
}

#[derive(Debug, Clone, Default)]
struct Equals {
    exact: HashSet<String>,
    patterns: Vec<Pattern>,
    networks: Vec<Network>,
    /// Beginnings of job ids.
    prefixes: Vec<String>,
    absent: bool,
}

impl Compiled {
    /// Checks a search.
    ///
    /// # Errors
    /// What no event can match because it is misspelt, and what to write instead.
    pub fn new(search: &Search) -> Result<Self, SearchError> {
        if search.r#where.len() > MAX_CONDITIONS || search.text.len() > MAX_VALUE_BYTES {
            return Err(SearchError::TooLong);
        }
        let mut conditions =
            search.r#where.iter().map(Condition::new).collect::<Result<Vec<Condition>, SearchError>>()?;
        if !search.text.is_empty() {
            let test = Test::Contains(vec![search.text.to_ascii_lowercase()]);
            conditions.push(Condition { field: Field::Text, negated: false, test });
        }
        Ok(Self {
            conditions,
            since: search.since.as_ref().map_or(i64::MIN, nanos),
            until: search.until.as_ref().map_or(i64::MAX, nanos),
        })
    }

    /// Whether an event is what the search asks for.
    #[must_use]
    pub fn matches(&self, event: &AuditEvent) -> bool {
        (self.since..self.until).contains(&event.time.as_ref().map_or(0, nanos))
            && self.conditions.iter().all(|condition| condition.matches(event))
    }

    /// What is asked of the fields; all of it must hold.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// From which time on, in nanoseconds since 1970.
    #[must_use]
    pub fn since(&self) -> i64 {
        self.since
    }

    /// Before which time.
    #[must_use]
    pub fn until(&self) -> i64 {
        self.until
    }

    /// The values of `field` under which a matching event is counted where events are grouped by that field, each once
    /// and in order: those that the conditions on the field accept. Where the event has none: the empty one if a condition
    /// asks for it, else none.
    #[must_use]
    pub fn heads(&self, field: Field, event: &AuditEvent) -> Vec<String> {
        let asked: Vec<&Condition> =
            self.conditions.iter().filter(|it| it.field == field && !it.negated).collect();
        // Then it is the address that was meant, whatever its name is.
        let by_address = |condition: &Condition| {
            let mut accepted = false;
            if field == Field::Dest {
                values(event, Field::Address, &mut |address| accepted |= condition.accepts(&address));
            }
            accepted
        };
        let asked: Vec<&Condition> = asked.into_iter().filter(|condition| !by_address(condition)).collect();
        let (mut heads, mut is_empty) = (BTreeSet::new(), true);
        values(event, field, &mut |value| {
            is_empty = false;
            if asked.iter().all(|condition| condition.accepts(&value)) {
                heads.insert(value.into_owned());
            }
        });
        let asks_absence = |condition: &Condition| {
            condition.field == field && condition.accepts_absence() && !condition.negated
        };
        if is_empty && self.conditions.iter().any(asks_absence) {
            heads.insert(String::new());
        }
        heads.into_iter().collect()
    }
}

/// Nanoseconds since 1970, as far as 64 bits reach.
pub(crate) fn nanos(time: &Timestamp) -> i64 {
    let nanos = unix_nanos(time);
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

impl Condition {
    fn new(asked: &Asked) -> Result<Self, SearchError> {
        let field = field(&asked.field)?;
        if asked.values.len() > MAX_VALUES || asked.values.iter().any(|value| value.len() > MAX_VALUE_BYTES) {
            return Err(SearchError::TooLong);
        }
        if asked.values.is_empty() {
            return Err(SearchError::NoValue(field));
        }
        let operator =
            Operator::try_from(asked.operator).map_err(|_| SearchError::UnknownOperator(asked.operator))?;
        let negated = operator == Operator::NotEquals;
        let test = match operator {
            Operator::Unspecified | Operator::Equals | Operator::NotEquals => {
                Test::Equals(Equals::new(field, &asked.values)?)
            }
            Operator::Contains => {
                if asked.values.iter().any(String::is_empty) {
                    return Err(SearchError::NoValue(field));
                }
                Test::Contains(asked.values.iter().map(|value| value.to_ascii_lowercase()).collect())
            }
            // Any of several bounds: the widest.
            Operator::AtLeast => Test::AtLeast(numbers(field, &asked.values)?.min().unwrap_or_default()),
            Operator::AtMost => Test::AtMost(numbers(field, &asked.values)?.max().unwrap_or_default()),
        };
        Ok(Self { field, negated, test })
    }

    /// Whether the condition holds of an event.
    #[must_use]
    pub fn matches(&self, event: &AuditEvent) -> bool {
        let (mut found, mut some) = (false, false);
        for field in self.fields() {
            values(event, *field, &mut |value| {
                some = true;
                found = found || self.accepts(&value);
            });
        }
        (found || (!some && self.accepts_absence())) != self.negated
    }

    /// Which field is asked for.
    #[must_use]
    pub fn field(&self) -> Field {
        self.field
    }

    /// The fields whose values can meet it.
    #[must_use]
    pub fn fields(&self) -> &'static [Field] {
        match self.field {
            // A destination with a name is also known by its address.
            Field::Dest => &[Field::Dest, Field::Address],
            other => std::slice::from_ref(&Field::ALL[other as usize]),
        }
    }

    /// It holds where no value is accepted.
    #[must_use]
    pub fn is_negated(&self) -> bool {
        self.negated
    }

    /// Whether (regardless of negation) an event without any value is accepted.
    #[must_use]
    pub fn accepts_absence(&self) -> bool {
        matches!(&self.test, Test::Equals(equals) if equals.absent)
    }

    /// Whether (regardless of negation) a value is accepted.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        match &self.test {
            Test::Equals(equals) => equals.accepts(value),
            Test::Contains(needles) => {
                needles.iter().any(|needle| contains_ignoring_case(value.as_bytes(), needle.as_bytes()))
            }
            Test::AtLeast(bound) => value.parse::<u64>().is_ok_and(|number| number >= *bound),
            Test::AtMost(bound) => value.parse::<u64>().is_ok_and(|number| number <= *bound),
        }
    }

    /// The only values that can be accepted, if that can be said.
    #[must_use]
    pub fn only_values(&self) -> Option<Vec<&str>> {
        match &self.test {
            Test::Equals(equals)
                if equals.patterns.is_empty() && equals.networks.is_empty() && equals.prefixes.is_empty() =>
            {
                Some(equals.exact.iter().map(String::as_str).collect())
            }
            _ => None,
        }
    }

    /// Texts of which one must stand in some text of the event, in any case of its ASCII letters, if it is so.
    #[must_use]
    pub fn needles(&self) -> Option<&[String]> {
        match &self.test {
            Test::Contains(needles) if matches!(self.field, Field::Text | Field::Argument | Field::Step) => {
                Some(needles)
            }
            _ => None,
        }
    }
}

impl Equals {
    fn new(field: Field, texts: &[String]) -> Result<Self, SearchError> {
        if field == Field::Text {
            return Err(SearchError::OnlyContained);
        }
        let mut equals = Self::default();
        for text in texts {
            if text.is_empty() {
                equals.absent = true;
                continue;
            }
            let text: Cow<'_, str> = match field {
                Field::Dest | Field::Name => text.to_ascii_lowercase().into(),
                _ => text.into(),
            };
            let pattern = Pattern::new(&text);
            if field == Field::Kind {
                check_kind(&text, &pattern)?;
            }
            if matches!(field, Field::Dest | Field::Address)
                && let Ok(network) = text.parse()
            {
                equals.networks.push(network);
                continue;
            }
            let Some(exact) = pattern.exact() else {
                equals.patterns.push(pattern);
                continue;
            };
            let is_digits = exact.bytes().all(|byte| byte.is_ascii_hexdigit());
            if field == Field::Job && is_digits && (MIN_PREFIX..JOB_ID_DIGITS).contains(&exact.len()) {
                equals.prefixes.push(exact.clone());
            }
            equals.exact.insert(exact);
        }
        Ok(equals)
    }

    fn accepts(&self, value: &str) -> bool {
        self.exact.contains(value)
            || self.patterns.iter().any(|pattern| pattern.matches(value))
            || (!self.networks.is_empty()
                && value.parse().is_ok_and(|address| self.networks.iter().any(|net| net.contains(address))))
            || (value.len() == JOB_ID_DIGITS
                && self.prefixes.iter().any(|prefix| value.starts_with(&**prefix))
                && value.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

fn check_kind(text: &str, pattern: &Pattern) -> Result<(), SearchError> {
    if EVENT_KINDS.iter().any(|kind| pattern.matches(kind)) {
        return Ok(());
    }
    Err(SearchError::UnknownKind {
        kind: text.chars().take(100).collect(),
        nearest: nearest(text, EVENT_KINDS.into_iter()).map(str::to_owned),
    })
}

fn numbers(field: Field, texts: &[String]) -> Result<impl Iterator<Item = u64>, SearchError> {
    if !field.is_number() {
        return Err(SearchError::NotANumber(field));
    }
    let number = |text: &String| {
        let (digits, factor) = match text.char_indices().last() {
            Some((at, 'k')) => (&text[..at], 1_000),
            Some((at, 'M')) => (&text[..at], 1_000_000),
            Some((at, 'G')) => (&text[..at], 1_000_000_000),
            _ => (&**text, 1),
        };
        let wrong = || SearchError::WrongNumber(field, text.chars().take(100).collect());
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
    };
    Ok(texts.iter().map(number).collect::<Result<Vec<u64>, _>>()?.into_iter())
}

#[cfg(test)]
#[path = "compiled_tests.rs"]
mod tests;
