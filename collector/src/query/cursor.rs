//! Where the next page begins, for one question of one scope.
//!
//! A cursor is two numbers and a digest of the question and the scope, in hexadecimal. It holds nothing of the answer, and
//! whoever makes one up only chooses where his own question begins.

use buildtrail_evidence::digest::Digest;
use buildtrail_query::Scope;
use prost::Message;

use super::QueryError;

/// Bytes of the digest.
const BINDING: usize = 12;

/// A question that has pages.
pub(super) struct Question(Digest);

impl Question {
    /// `request` must be without limit and cursor.
    pub(super) fn new(call: &str, request: &impl Message, scope: &Scope) -> Self {
        let mut bytes = Vec::new();
        for part in [call.as_bytes(), &request.encode_to_vec(), format!("{scope:?}").as_bytes()] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        Self(Digest::of(&bytes))
    }

    pub(super) fn cursor(&self, (first, second): (i64, i64)) -> String {
        let numbers = [first.to_be_bytes(), second.to_be_bytes()].concat();
        hex::encode([&numbers[..], &self.0.as_bytes()[..BINDING]].concat())
    }

    /// `None`: the first page.
    pub(super) fn read(&self, cursor: &str) -> Result<Option<(i64, i64)>, QueryError> {
        if cursor.is_empty() {
            return Ok(None);
        }
        let bytes = hex::decode(cursor).map_err(|_| QueryError::Cursor)?;
        let number =
            |at: usize| -> Option<i64> { Some(i64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
        match (number(0), number(8), bytes.get(16..)) {
            (Some(first), Some(second), Some(binding)) if *binding == self.0.as_bytes()[..BINDING] => {
                Ok(Some((first, second)))
            }
            _ => Err(QueryError::Cursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::Search;

    use super::*;

    #[test]
    fn a_cursor_serves_only_its_own_question_and_scope() {
        let search = Search { text: "a".into(), ..Search::default() };
        let everything = Question::new("SearchEvents", &search, &Scope::Everything);
        let cursor = everything.cursor((-5, i64::MAX));
        assert_eq!(everything.read(&cursor).unwrap(), Some((-5, i64::MAX)));
        assert_eq!(everything.read("").unwrap(), None);
        let acme = Scope::Repositories(vec!["acme/*".parse().unwrap()]);
        for other in [
            Question::new("SearchEvents", &search, &acme),
            Question::new("ListJobs", &search, &Scope::Everything),
            Question::new("SearchEvents", &Search::default(), &Scope::Everything),
        ] {
            assert!(matches!(other.read(&cursor), Err(QueryError::Cursor)));
        }
        for damaged in ["zz", "00", &cursor[2..], &format!("{cursor}00")] {
            assert!(matches!(everything.read(damaged), Err(QueryError::Cursor)), "{damaged}");
        }
    }
}
