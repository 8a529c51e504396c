//! The dictionary: every value of an indexed field once, by number.

use std::collections::HashMap;

use buildtrail_query::{Condition, Field};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::StoreError;

/// Values that the writer remembers, of each field.
const REMEMBERED: usize = 50_000;

/// The number of a field in the dictionary.
pub(super) fn number(field: Field) -> i64 {
    field as i64
}

/// Whether the field is indexed and can differ among the events of one identity and kind.
pub(super) fn is_of_events(field: Field) -> bool {
    field.is_indexed() && !field.is_of_identity() && field != Field::Kind
}

/// What the writer remembers of the tables, so that it need not look.
#[derive(Debug, Default)]
pub(super) struct Known {
    values: HashMap<Field, HashMap<Box<str>, i64>>,
    /// By their bytes: the identity's number and its job's.
    pub(super) identities: HashMap<Vec<u8>, (i64, Option<i64>)>,
}

impl Known {
    /// Forgets everything: a transaction was undone, or rows went.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The number of a value, which is added where it is new.
    pub(super) fn value(
        &mut self,
        index: &Transaction<'_>,
        field: Field,
        text: &str,
    ) -> Result<i64, StoreError> {
        let known = self.values.entry(field).or_default();
        if let Some(id) = known.get(text) {
            return Ok(*id);
        }
        let found = index
            .prepare_cached("SELECT id FROM dictionary WHERE field = ?1 AND text = ?2")?
            .query_row(params![number(field), text], |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => index
                .prepare_cached("INSERT INTO dictionary VALUES (NULL, ?1, ?2) RETURNING id")?
                .query_row(params![number(field), text], |row| row.get(0))?,
        };
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(text.into(), id);
        Ok(id)
    }
}

/// The values of a field that `accept` accepts, with their numbers. More than `limit`: `None`.
pub(super) fn accepted(
    connection: &Connection,
    field: Field,
    limit: usize,
    accept: impl Fn(&str) -> bool,
) -> Result<Option<Vec<i64>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id, text FROM dictionary WHERE field = ?1")?;
    let mut rows = statement.query([number(field)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let text = row.get_ref(1)?.as_str().map_err(|_| StoreError::Damaged("a value"))?;
        if accept(text) {
            if found.len() == limit {
                return Ok(None);
            }
            found.push(row.get(0)?);
        }
    }
    Ok(Some(found))
}

/// The values that a condition accepts, regardless of negation, of all fields that can meet it. More than `limit`: `None`.
pub(super) fn of_condition(
    connection: &Connection,
    condition: &Condition,
    limit: usize,
) -> Result<Option<Vec<i64>>, StoreError> {
    let mut found = Vec::new();
    for field in condition.fields() {
        let of_field = if let Some(texts) = condition.only_values() {
            exact(connection, *field, &texts)?
        } else {
            let Some(ids) = accepted(connection, *field, limit, |text| condition.accepts(text))? else {
                return Ok(None);
            };
            ids
        };
        found.extend(of_field);
    }
    Ok((found.len() <= limit).then_some(found))
}

/// The numbers of these values, of those that there are.
pub(super) fn exact(connection: &Connection, field: Field, texts: &[&str]) -> Result<Vec<i64>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM dictionary WHERE field = ?1 AND text = ?2")?;
    let mut found = Vec::new();
    for text in texts {
        found.extend(
            statement.query_row(params![number(field), text], |row| row.get::<_, i64>(0)).optional()?,
        );
    }
    Ok(found)
}
