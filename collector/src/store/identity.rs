//! What events share: host, boot and job.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use buildtrail_proto::v1::AuditEvent;
use buildtrail_query::{Compiled, Condition, Scope};
use prost::Message as _;
use rusqlite::OptionalExtension as _;

use super::{Asked, StoreError};

/// Identities that readers remember.
const REMEMBERED: usize = 50_000;

/// What the events of one identity share.
#[derive(Debug)]
pub(super) struct Identity {
    /// An event that holds nothing else.
    pub(super) event: AuditEvent,
    pub(super) job: Option<i64>,
    bytes: Vec<u8>,
}

impl Identity {
    /// The whole event.
    pub(super) fn complete(&self, body: &[u8]) -> Result<AuditEvent, StoreError> {
        let mut event = AuditEvent::decode(body).map_err(|_| StoreError::Damaged("an event"))?;
        event.host_id.clone_from(&self.event.host_id);
        event.boot_id.clone_from(&self.event.boot_id);
        event.job.clone_from(&self.event.job);
        Ok(event)
    }

    /// The encoded fields that the events share.
    pub(super) fn shared(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Identities by number, for all questions. Numbers are never used again.
#[derive(Debug, Default)]
pub(super) struct Identities(Mutex<HashMap<i64, Arc<Identity>>>);

/// Which identities a question may look at.
pub(super) struct Visible<'a> {
    asked: &'a Asked,
    scope: &'a Scope,
    conditions: Vec<&'a Condition>,
    decided: RefCell<HashMap<i64, Option<Arc<Identity>>>>,
}

impl Asked {
    /// Those that the scope allows.
    pub(super) fn in_scope<'a>(&'a self, scope: &'a Scope) -> Visible<'a> {
        Visible { asked: self, scope, conditions: Vec::new(), decided: RefCell::default() }
    }

    /// Those that the scope allows and that meet what the search asks of identities.
    pub(super) fn visible<'a>(&'a self, scope: &'a Scope, search: &'a Compiled) -> Visible<'a> {
        let conditions = search.conditions().iter().filter(|it| it.field().is_of_identity()).collect();
        Visible { conditions, ..self.in_scope(scope) }
    }

    fn identity(&self, id: i64) -> Result<Option<Arc<Identity>>, StoreError> {
        if let Some(known) = self.identities.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Some(known.clone()));
        }
        let found = self
            .connection
            .prepare_cached("SELECT job, bytes FROM identities WHERE id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        let Some((job, bytes)) = found else { return Ok(None) };
        let event = AuditEvent::decode(&bytes[..]).map_err(|_| StoreError::Damaged("an identity"))?;
        let identity = Arc::new(Identity { event, job, bytes });
        let mut known = self.identities.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id, identity.clone());
        Ok(Some(identity))
    }
}

impl Visible<'_> {
    /// The identity, if its events may be seen and can match.
    pub(super) fn get(&self, id: i64) -> Result<Option<Arc<Identity>>, StoreError> {
        if let Some(decided) = self.decided.borrow().get(&id) {
            return Ok(decided.clone());
        }
        let found = self.asked.identity(id)?.filter(|identity| {
            self.scope.allows(&identity.event)
                && self.conditions.iter().all(|condition| condition.matches(&identity.event))
        });
        self.decided.borrow_mut().insert(id, found.clone());
        Ok(found)
    }
}
