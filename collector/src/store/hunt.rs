//! What a hunt reads: the values that there are, who used one of them, and which secrets a job had.

use std::sync::Arc;

use buildtrail_proto::v1::AuditEvent;
use buildtrail_query::{Field, Scope};
use rusqlite::params;

use super::{Asked, StoreError, dictionary::number};

/// Uses of a value by the events of one host, boot and job.
pub(crate) struct Use {
    /// An event that holds host, boot and job, and nothing else.
    pub(crate) of: Arc<AuditEvent>,
    pub(crate) count: u64,
    /// Nanoseconds since 1970.
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// A secret or a credential that a job used.
pub(crate) struct UsedSecret {
    pub(crate) field: Field,
    pub(crate) name: String,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Asked {
    /// Hands every value of a field to `take`. Whether anybody in the scope used it, [`Asked::uses_of`] says.
    pub(crate) fn every_value(
        &self,
        _: &Scope,
        field: Field,
        take: &mut dyn FnMut(i64, &str),
    ) -> Result<(), StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT id, text FROM dictionary WHERE field = ?1")?;
        let mut rows = statement.query([number(field)])?;
        while let Some(row) = rows.next()? {
            let text = row.get_ref(1)?.as_str().map_err(|_| StoreError::Damaged("a value"))?;
            take(row.get(0)?, text);
        }
        Ok(())
    }

    /// Who used a value between the two times, as exactly as hours are.
    pub(crate) fn uses_of(
        &self,
        scope: &Scope,
        value: i64,
        (since, until): (i64, i64),
    ) -> Result<Vec<Use>, StoreError> {
        let visible = self.in_scope(scope);
        let mut statement = self.connection.prepare_cached(
            "SELECT identity, sum(count), min(first), max(last) FROM uses
             WHERE value = ?1 AND last >= ?2 AND first < ?3 GROUP BY identity",
        )?;
        let mut rows = statement.query(params![value, since, until])?;
        let mut uses = Vec::new();
        while let Some(row) = rows.next()? {
            if let Some(identity) = visible.get(row.get(0)?)? {
                uses.push(Use {
                    of: Arc::new(identity.event.clone()),
                    count: row.get::<_, i64>(1)?.cast_unsigned(),
                    first: row.get(2)?,
                    last: row.get(3)?,
                });
            }
        }
        Ok(uses)
    }

    /// The secrets and credentials that a job of a host read or used, whenever that was.
    pub(crate) fn secrets_of(
        &self,
        scope: &Scope,
        host_id: &str,
        job_id: &str,
    ) -> Result<Vec<UsedSecret>, StoreError> {
        let visible = self.in_scope(scope);
        let mut statement = self.connection.prepare_cached(
            "SELECT identities.id FROM jobs JOIN hosts ON hosts.id = jobs.host JOIN identities ON identities.job = jobs.id
             WHERE jobs.job_id = ?1 AND hosts.host_id = ?2",
        )?;
        let identities = statement.query_map([job_id, host_id], |row| row.get::<_, i64>(0))?;
        let mut secrets = Vec::new();
        for identity in identities {
            let identity = identity?;
            if visible.get(identity)?.is_some() {
                self.secrets_of_identity(identity, &mut secrets)?;
            }
        }
        Ok(secrets)
    }

    fn secrets_of_identity(&self, identity: i64, secrets: &mut Vec<UsedSecret>) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT dictionary.field, dictionary.text, min(uses.first), max(uses.last)
             FROM uses INDEXED BY uses_by_identity JOIN dictionary ON dictionary.id = uses.value
             WHERE uses.identity = ?1 AND dictionary.field IN (?2, ?3) GROUP BY dictionary.id",
        )?;
        let fields = params![identity, number(Field::Secret), number(Field::Credential)];
        let mut rows = statement.query(fields)?;
        while let Some(row) = rows.next()? {
            let is_secret = row.get::<_, i64>(0)? == number(Field::Secret);
            secrets.push(UsedSecret {
                field: if is_secret { Field::Secret } else { Field::Credential },
                name: row.get(1)?,
                first: row.get(2)?,
                last: row.get(3)?,
            });
        }
        Ok(())
    }
}
