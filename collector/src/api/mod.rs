//! The HTTP/JSON API: the same questions as over gRPC, at `/api/v1/…`.
//!
//! In: requests of a [`Person`](crate::access::Person), with the parameters of docs/query.md. Out: the protobuf JSON of the same answers, CSV or one
//! document per line, as `Accept` wants it; live events as server-sent events; refusals as problem documents (RFC 9457).
//! Must never answer anybody who is not known, nor name anything outside a person's scope.

mod answer;
mod events;
mod export;
mod hunt;
mod openapi;
mod parameters;
mod problem;
mod rows;
mod schema;
mod tail;

use std::sync::Arc;

use axum::{
    Router,
    routing::{any, get, post},
};

use crate::{export::Service as Export, hunt::Hunts, query::Queries};

/// What the API is served with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) queries: Queries,
    pub(crate) hunts: Hunts,
    pub(crate) export: Arc<Export>,
}

/// The API's paths.
pub(crate) fn router(api: Api) -> Router {
    let paths = Router::new()
        .route("/jobs", get(events::jobs))
        .route("/jobs/{id}", get(events::job))
        .route("/jobs/{id}/export", get(export::job))
        .route("/events", get(events::events))
        .route("/aggregate", get(rows::aggregate))
        .route("/secrets", get(rows::secrets))
        .route("/destinations", get(rows::destinations))
        .route("/hosts", get(rows::hosts))
        .route("/acts", get(events::acts))
        .route("/tail", get(tail::tail))
        .route("/hunt", post(hunt::hunt))
        .route("/openapi.json", get(openapi::serve))
        .route("/{*path}", any(problem::no_such_path))
        .method_not_allowed_fallback(problem::no_such_method)
        .with_state(api);
    Router::new().nest("/api/v1", paths)
}
