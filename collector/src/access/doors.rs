//! How gRPC calls, pages and the HTTP API get at the person that [`super::gate`] has recognised.

use std::{collections::HashMap, fmt, sync::Arc};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{Method, StatusCode, header, request::Parts, uri::Authority},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tonic::Status;

use super::{
    Action, Person,
    gate::{Recognised, Refused},
};
use crate::{
    health::{Health, Refusal},
    peer::{Peer, PeerInfo},
};

/// Largest form.
const MAX_FORM_BYTES: usize = 64 << 10;

/// The person behind a gRPC call, who may do this.
///
/// # Errors
/// Nobody is recognised, or they may not; says what would be needed.
pub(crate) fn person<T>(
    request: &tonic::Request<T>,
    action: Action,
    health: &Health,
) -> Result<Arc<Person>, Status> {
    let recognised = request.extensions().get::<Recognised>();
    match recognised.map(|recognised| &recognised.0) {
        Some(Ok(Some(person))) => {
            person.require(action).map_err(|forbidden| {
                health.refuse(Refusal::Identity, person, &forbidden);
                Status::permission_denied(forbidden.to_string())
            })?;
            Ok(person.clone())
        }
        Some(Err(refused)) => Err(refused.status()),
        Some(Ok(None)) | None => {
            let rule = "only readers may ask questions";
            match request.extensions().get::<PeerInfo>().map(|info| info.peer.as_ref()) {
                Some(Peer::Anonymous) | None => {
                    health.refuse(Refusal::Identity, "peer without a certificate", rule);
                    Err(Status::unauthenticated(
                        "show the certificate of a reader (`buildtrail-collector ca reader`) or a token \
                         (`buildtrail token create`)",
                    ))
                }
                Some(peer) => {
                    health.refuse(Refusal::Identity, peer, rule);
                    Err(Status::permission_denied(format!(
                        "{rule}; you are a {peer}. `buildtrail-collector ca` issues certificates for all roles"
                    )))
                }
            }
        }
    }
}

impl Person {
    /// Makes sure that this person may do this.
    pub(crate) fn require(&self, action: Action) -> Result<(), Forbidden> {
        if self.may(action) {
            return Ok(());
        }
        Err(Forbidden { action, person: self.to_string(), by_role: !self.role.may(action) })
    }
}

/// Somebody known may not do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forbidden {
    action: Action,
    person: String,
    by_role: bool,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, person, by_role } = self;
        let why = if *by_role { "the role does not allow it" } else { "it takes a scope of everything" };
        let words = action.words();
        write!(f, "{person} may not {words}: {why}; an administrator grants roles and scopes in [access]")
    }
}

impl IntoResponse for Forbidden {
    fn into_response(self) -> Response {
        error(StatusCode::FORBIDDEN, "forbidden", &self.to_string())
    }
}

/// Nobody is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unrecognised {
    /// A person's page: sign in, then go on there.
    SignIn(String),
    /// What was shown does not count.
    Refused(Refused),
    /// Nothing was shown, and it is no page.
    Nothing,
}

impl IntoResponse for Unrecognised {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn(next) => {
                let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
                (StatusCode::SEE_OTHER, [(header::LOCATION, format!("/login?next={next}"))]).into_response()
            }
            Self::Refused(why) => {
                let (status, code) = why.http();
                error(status, code, &why.to_string())
            }
            Self::Nothing => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"buildtrail\"")];
                (challenge, error(StatusCode::UNAUTHORIZED, "unauthenticated", NOTHING)).into_response()
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Person {
    type Rejection = Unrecognised;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Unrecognised> {
        match parts.extensions.get::<Recognised>().map(|recognised| &recognised.0) {
            Some(Ok(Some(person))) => return Ok(person.as_ref().clone()),
            Some(Err(refused)) => return Err(Unrecognised::Refused(*refused)),
            Some(Ok(None)) | None => {}
        }
        let path = parts.uri.path();
        let is_page =
            parts.method == Method::GET && !path.starts_with("/api/") && !path.starts_with("/tlog/");
        if is_page {
            let next = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            return Err(Unrecognised::SignIn(next.to_owned()));
        }
        Err(Unrecognised::Nothing)
    }
}

const NOTHING: &str = "sign in, or send a token: `Authorization: Bearer …` (`buildtrail token create`)";

/// A form that its person has sent from a page of ours, by name. Of a name that comes twice, the last value counts.
#[derive(Debug)]
pub(crate) struct CsrfChecked {
    pub(crate) person: Person,
    fields: HashMap<String, String>,
}

impl CsrfChecked {
    /// The field's value without blanks around it; empty where it is missing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.trim())
    }
}

impl<S: Send + Sync> FromRequest<S> for CsrfChecked {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let person =
            Person::from_request_parts(&mut parts, state).await.map_err(IntoResponse::into_response)?;
        let fields = read_form(body).await?;
        let refused = |why| error(StatusCode::FORBIDDEN, "csrf", why);
        ensure_same_site(&parts).map_err(refused)?;
        let csrf = person.csrf.as_ref().ok_or_else(|| refused("forms are for people who signed in"))?;
        if !fields.get("csrf").is_some_and(|sent| csrf.is(sent)) {
            return Err(refused("this form is out of date; open its page again"));
        }
        Ok(Self { person, fields })
    }
}

/// The fields of a small form.
pub(crate) async fn read_form(body: axum::body::Body) -> Result<HashMap<String, String>, Response> {
    let read = Limited::new(body, MAX_FORM_BYTES).collect().await.map_err(|problem| {
        if problem.is::<LengthLimitError>() {
            error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "this form is too large")
        } else {
            error(StatusCode::BAD_REQUEST, "broken", "the form broke off")
        }
    })?;
    let bytes: Bytes = read.to_bytes();
    Ok(form_urlencoded::parse(&bytes).into_owned().collect())
}

/// Browsers say from where a form came; what does not come from our own pages is no form of ours.
pub(crate) fn ensure_same_site(parts: &Parts) -> Result<(), &'static str> {
    const FOREIGN: &str = "this form came from another site";
    let text = |name| parts.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(FOREIGN);
    }
    let host = text("host").or_else(|| parts.uri.authority().map(Authority::as_str));
    match text("origin").map(|origin| origin.strip_prefix("https://")) {
        None => Ok(()),
        Some(origin) if origin.is_some() && origin == host => Ok(()),
        Some(_) => Err(FOREIGN),
    }
}

/// An error as the HTTP API words it.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "error": { "code": code, "message": message } });
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(headers: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = Request::builder().method("POST").uri("/account");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ensure_same_site(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn forms_of_other_sites_are_told_by_what_browsers_say() {
        let host = ("host", "trail.example:7443");
        for own in [
            &[host][..],
            &[host, ("origin", "https://trail.example:7443"), ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none")],
        ] {
            assert!(from(own).is_ok(), "{own:?}");
        }
        for foreign in [
            &[host, ("origin", "https://evil.example")][..],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://trail.example:7443")],
            &[host, ("origin", "https://trail.example")],
            &[host, ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site")],
        ] {
            assert!(from(foreign).is_err(), "{foreign:?}");
        }
    }
}
