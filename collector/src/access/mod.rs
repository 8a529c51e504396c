//! Access: who asks, what they may do, and what they may see.
//!
//! In: each request that is no host's: its certificate, token or session. Out: a [`Person`] with a role and a scope, for
//! gRPC ([`person()`]), for pages and the HTTP API (an extractor), or a refusal that says what to do. [`gate`] stands
//! before every door; [`router`] has the pages on which people sign in. Must never take a word of the request for a right,
//! keep a secret where a digest will do, or let a revoked proof count again.

mod attempts;
mod doors;
mod fetch;
mod frame;
mod gate;
pub mod local;
mod oidc;
mod pages;
mod password;
mod people;
mod person;
mod records;
mod service;
mod session;
mod token;

pub(crate) use self::{
    doors::{CsrfChecked, Forbidden, person},
    gate::gate,
    pages::router,
    people::{Access, record_left_acts},
    person::{Action, LOCAL, Person, SSO, Via},
    session::Csrf,
};
pub use self::{oidc::OidcError, person::Role};
