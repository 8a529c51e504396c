//! Refusals: problem documents (RFC 9457).

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use buildtrail_words::formats;
use tonic::{Code, Status};

use crate::{access::Forbidden, query::QueryError};

/// Media type of a refusal.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// What is wrong, and what to do.
    pub(super) detail: String,
}

impl Problem {
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Refused"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut body = Vec::new();
        if formats::json(&mut body, &document).is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        (self.status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Status::from(error).into()
    }
}

impl From<Forbidden> for Problem {
    fn from(forbidden: Forbidden) -> Self {
        Self { status: StatusCode::FORBIDDEN, detail: forbidden.to_string() }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status: code, detail: status.message().to_owned() }
    }
}

pub(super) async fn no_such_path() -> Problem {
    Problem {
        status: StatusCode::NOT_FOUND,
        detail: "there is no such path; see /api/v1/openapi.json".into(),
    }
}

pub(super) async fn no_such_method() -> Problem {
    let detail = "this path has no such method; see /api/v1/openapi.json".into();
    Problem { status: StatusCode::METHOD_NOT_ALLOWED, detail }
}
