//! The web pages: what happened, for people, rendered here and readable without script.
//!
//! In: requests of people whom [`crate::access`] has recognised. Out: HTML, one stylesheet, one small script, and events
//! as a stream for the live tail. `pages` says what each page shows, [`ask`] what it asks; every question goes through
//! [`Queries`] as the person who looks, so that nothing outside of their scope can be on a page.
//! Must never show text of a job that did not pass [`text`], put style or script into a page, or ask anything of
//! another site.

mod ask;
mod assets;
mod chart;
mod handlers;
mod layout;
mod link;
mod pages;
mod parts;
mod stream;
mod text;
mod verify;
mod zone;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use maud::Markup;
use tonic::Status;

use self::{
    ask::Asking,
    layout::{Section, View, Visitor},
    link::Address,
    zone::Zone,
};
use crate::{
    access::{Action, Person},
    export,
    query::{self, Queries, QueryError},
};

/// How long a browser remembers the time zone.
const ZONE_SECONDS: u32 = 31_536_000;

/// What pages are made from. Clones are one.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) queries: Queries,
    pub(crate) query: Arc<query::Service>,
    pub(crate) export: Arc<export::Service>,
}

/// All pages.
pub(crate) fn router(web: Web) -> Router {
    Router::new()
        .route("/", get(handlers::overview))
        .route("/jobs", get(handlers::jobs))
        .route("/jobs/{id}", get(handlers::job))
        .route("/jobs/{id}/verify", post(verify::job))
        .route("/jobs/{id}/evidence", get(verify::evidence))
        .route("/secrets", get(handlers::secrets))
        .route("/secret", get(handlers::secret))
        .route("/credential", get(handlers::credential))
        .route("/destinations", get(handlers::destinations))
        .route("/destination", get(handlers::destination))
        .route("/hosts", get(handlers::hosts))
        .route("/hosts/{id}", get(handlers::host))
        .route("/integrity", get(handlers::integrity))
        .route("/integrity/verify", post(verify::log))
        .route("/search", get(handlers::search))
        .route("/event", get(handlers::event))
        .route("/tail", get(handlers::tail))
        .route("/tail/events", get(stream::tail))
        .route("/help", get(handlers::help))
        .route("/{*rest}", get(handlers::nothing).fallback(unimplemented))
        .layer(from_fn(remember_zone))
        .route("/assets/{name}", get(assets::serve))
        .with_state(web)
}

/// What gRPC clients are told about calls that this collector does not know.
async fn unimplemented() -> Response {
    Status::unimplemented("this collector does not know this call").into_http::<Body>().into_response()
}

/// A zone that the address names is kept in a cookie.
async fn remember_zone(request: Request, next: Next) -> Response {
    let zone = Zone::named(Address::of(request.uri()).get("tz"));
    let mut response = next.run(request).await;
    if let Some(zone) = zone {
        let name = zone::COOKIE;
        let cookie =
            format!("{name}={}; Path=/; Max-Age={ZONE_SECONDS}; Secure; HttpOnly; SameSite=Lax", zone.name());
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// A page of [`crate::access`], in the frame of ours; `person` is `None` before anybody has signed in.
pub(crate) fn framed(status: StatusCode, person: Option<&Person>, title: &str, content: &Markup) -> Response {
    let address = Address::of(&Uri::from_static("/account"));
    let view = View { visitor: person.map(visitor), zone: Zone::utc(), address };
    layout::page_with(status, &view, Section::Other, title, content)
}

fn visitor(person: &Person) -> Visitor {
    Visitor {
        name: person.name.clone(),
        role: person.role.name(),
        scope: person.scope.to_string(),
        everything: person.scope.is_everything(),
        csrf: person.csrf.as_ref().map(|csrf| csrf.as_str().to_owned()),
        closed: [
            (Section::Hosts, Action::ReadHosts),
            (Section::Integrity, Action::ReadActs),
            (Section::Tail, Action::Analyse),
        ]
        .into_iter()
        .filter_map(|(section, action)| (!person.may(action)).then_some(section))
        .collect(),
        is_break_glass: person.is_break_glass(),
    }
}

/// Somebody looks at a page.
pub(crate) struct Visit {
    person: Person,
    view: View,
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = <Person as FromRequestParts<S>>::Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let person = Person::from_request_parts(parts, state).await?;
        Ok(Self::of(person, parts))
    }
}

impl Visit {
    fn of(person: Person, parts: &Parts) -> Self {
        let address = Address::of(&parts.uri);
        let zone =
            Zone::named(address.get("tz")).or_else(|| zone_of(&parts.headers)).unwrap_or_else(Zone::utc);
        Self { view: View { visitor: Some(visitor(&person)), zone, address }, person }
    }

    fn asking<'a>(&'a self, web: &'a Web) -> Asking<'a> {
        Asking { queries: &web.queries, person: &self.person }
    }

    /// The page for a question that was not answered.
    fn failed(&self, error: QueryError) -> Response {
        self.refused(&Status::from(error))
    }

    fn refused(&self, status: &Status) -> Response {
        use tonic::Code;
        let code = match status.code() {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::PermissionDenied | Code::Unauthenticated => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        pages::errors::page(&self.view, code, status.message())
    }
}

fn zone_of(headers: &HeaderMap) -> Option<Zone> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, name) = pairs.find(|(name, _)| *name == zone::COOKIE)?;
    Zone::named(name)
}
