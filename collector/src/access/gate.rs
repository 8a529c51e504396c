//! What every request passes first: who is it?

use std::{fmt, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use buildtrail_query::Scope;
use tonic::Status;

use super::{Person, Role, Via};
use crate::peer::{Peer, PeerInfo};

/// Everything about people. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Access(Arc<()>);

/// Who a request comes from, as far as it says so: nobody, somebody, or one whose proof does not count.
#[derive(Debug, Clone)]
pub(super) struct Recognised(pub(super) Result<Option<Arc<Person>>, Refused>);

/// A proof that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl Refused {
    pub(super) fn status(self) -> Status {
        Status::unauthenticated(self.to_string())
    }
}

impl Access {
    fn recognise(peer: &Peer) -> Option<Person> {
        let (name, role) = match peer {
            Peer::Reader(name) => (name.clone(), Role::Auditor),
            Peer::Admin(name) => (name.clone(), Role::Admin),
            Peer::Host(_) | Peer::Anonymous | Peer::Nobody(_) => return None,
        };
        Some(Person { name, role, scope: Scope::Everything, via: Via::Certificate, csrf: None })
    }
}

/// Recognises the person behind a request, for the doors behind.
pub(crate) async fn gate(State(_): State<Access>, mut request: Request, next: Next) -> Response {
    let person = request.extensions().get::<PeerInfo>().and_then(|info| Access::recognise(&info.peer));
    request.extensions_mut().insert(Recognised(Ok(person.map(Arc::new))));
    next.run(request).await
}
