//! Access: who asks, what they may do, and what they may see.
//!
//! In: each request that is no host's: its certificate, token or session. Out: a [`Person`] with a role and a scope, for
//! gRPC ([`person`]), for pages and the HTTP API (an extractor), or a refusal that says what to do. [`gate`] stands
//! before every door. Must never take a word of the request for a right, or let a revoked proof count again.

mod doors;
mod gate;
mod person;
mod session;

#[allow(unused_imports, reason = "pages with forms come with the next changes")]
pub(crate) use self::{
    doors::{CsrfChecked, Forbidden, person},
    gate::{Access, gate},
    person::{Action, Person, Role, Via},
    session::Csrf,
};
