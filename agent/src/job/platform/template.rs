//! Texts with places for what a process shows: `${CI_SERVER_URL}/jobs/${CI_JOB_ID}`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest text that a template makes, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// Longest name of a variable that leaves the kernel with its value.
const MAX_NAME: usize = buildtrail_agent_abi::VARIABLE_NAME_BYTES;

/// A text with places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// An environment variable.
    Variable(String),
    /// Something else that is known of the process: `${@program}`.
    Fact(String),
}

/// What stands at the places.
pub trait Lookup {
    /// The value of an environment variable; `None` or empty: not there.
    fn variable(&self, name: &str) -> Option<String>;
    /// Another fact.
    fn fact(&self, name: &str) -> Option<String>;
}

impl Template {
    /// Understands the text.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some(start) = rest.find("${") {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            let inside = &rest[start + 2..];
            let end = inside.find('}').ok_or_else(|| format!("\"{source}\" has a ${{ without a }}"))?;
            parts.push(place(&inside[..end])?);
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { source: source.to_owned(), parts })
    }

    /// The text with its places filled in; `None` when one of them is empty.
    pub fn fill(&self, lookup: &impl Lookup) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(fixed) => text.push_str(fixed),
                Part::Variable(name) => text.push_str(&lookup.variable(name).filter(|v| !v.is_empty())?),
                Part::Fact(name) => text.push_str(&lookup.fact(name).filter(|v| !v.is_empty())?),
            }
        }
        (text.len() <= MAX_TEXT).then_some(text)
    }

    /// Names of the environment variables in it.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Names of the other facts in it.
    pub fn facts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Fact(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

fn place(name: &str) -> Result<Part, String> {
    if let Some(fact) = name.strip_prefix('@') {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        return if !fact.is_empty() && fact.chars().all(plain) {
            Ok(Part::Fact(fact.to_owned()))
        } else {
            Err(format!("\"${{@{fact}}}\": expected lower-case letters, digits or '_' behind the @"))
        };
    }
    check_variable(name)?;
    Ok(Part::Variable(name.to_owned()))
}

/// Whether this can be the name of an environment variable whose value leaves the kernel.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check_variable(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(format!(
            "\"{name}\" is no name of a variable: expected 1 to {MAX_NAME} letters, digits or '_'"
        ));
    }
    if crate::catalog::variables::carries_credential(name.as_bytes()) {
        return Err(format!("the variable {name} is a credential, whose value never leaves the kernel"));
    }
    Ok(())
}

impl std::fmt::Display for Template {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

/// Templates of which the first one counts that has all its places filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Choice(Vec<Template>);

impl Choice {
    /// The first text that can be made; empty when there is none.
    pub fn fill(&self, lookup: &impl Lookup) -> String {
        self.0.iter().find_map(|template| template.fill(lookup)).unwrap_or_default()
    }

    /// All templates.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        self.0.iter()
    }

    /// Nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> de::Visitor<'de> for OneOrMore {
            type Value = Choice;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a text like \"${CI_JOB_ID}\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Choice, E> {
                Ok(Choice(vec![Template::parse(text).map_err(E::custom)?]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Choice, A::Error> {
                let mut templates = Vec::new();
                while let Some(template) = list.next_element()? {
                    templates.push(template);
                }
                Ok(Choice(templates))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table;

    impl Lookup for Table {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "A" => Some("a".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }

        fn fact(&self, name: &str) -> Option<String> {
            (name == "program").then(|| "sh".into())
        }
    }

    #[test]
    fn places_are_filled_or_the_whole_text_is_left_out() {
        let fill = |text: &str| Template::parse(text).unwrap().fill(&Table);
        assert_eq!(fill("x/${A}/${@program}"), Some("x/a/sh".into()));
        assert_eq!(fill("plain"), Some("plain".into()));
        assert_eq!(fill("${A}${EMPTY}"), None);
        assert_eq!(fill("${MISSING}"), None);
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, problem) in [
            ("${A", "without a }"),
            ("${}", "is no name of a variable"),
            ("${@A}", "lower-case"),
            ("${DEPLOY_TOKEN}", "is a credential"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
