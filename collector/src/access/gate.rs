//! What every request passes first: who is it, does it come too often, is it meant for this host?

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use tonic::Status;

use super::{
    Access, Person, Via,
    doors::error,
    session::{COOKIE, Secret},
};
use crate::{
    health::Refusal,
    peer::{Peer, PeerInfo},
};

/// Who a request comes from, as far as it says so: nobody, somebody, or one whose proof does not count.
#[derive(Debug, Clone)]
pub(super) struct Recognised(pub(super) Result<Option<Arc<Person>>, Refused>);

/// A proof that does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Unknown, expired or revoked.
    Token,
    /// The owner may no longer do what the token allows.
    Outgrown,
    /// All of this person's proofs.
    Person,
    TooOften,
    Unavailable,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => {
                "this token is unknown, expired or revoked; `buildtrail token create` makes another"
            }
            Self::Outgrown => "this token allows more than its owner may do now; make another",
            Self::Person => "this person is revoked; an administrator can say why",
            Self::TooOften => "too many requests; slow down, or raise access.requests_per_minute",
            Self::Unavailable => "the collector cannot look up people now; its own log says why",
        })
    }
}

impl Refused {
    pub(super) fn status(self) -> Status {
        match self {
            Self::TooOften => Status::resource_exhausted(self.to_string()),
            Self::Unavailable => Status::unavailable(self.to_string()),
            Self::Token | Self::Outgrown | Self::Person => Status::unauthenticated(self.to_string()),
        }
    }

    pub(super) fn http(self) -> (StatusCode, &'static str) {
        match self {
            Self::TooOften => (StatusCode::TOO_MANY_REQUESTS, "too_often"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Token | Self::Outgrown | Self::Person => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        }
    }
}

/// Recognises the person behind a request, for the doors behind, and sees to what holds for every answer to a browser.
pub(crate) async fn gate(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let is_grpc = header_text(request.headers(), &header::CONTENT_TYPE)
        .is_some_and(|kind| kind.starts_with("application/grpc"));
    if !is_grpc && !access.is_meant(&request) {
        let message = "this collector is not called so; web.url in its settings names it";
        return secured(&access, error(StatusCode::MISDIRECTED_REQUEST, "misdirected", message));
    }
    let info = request.extensions().get::<PeerInfo>().cloned();
    let recognised = access.recognise(info.as_ref(), request.headers()).await;
    let recognised = recognised.and_then(|person| access.in_time(person));
    match (&recognised, &info) {
        (Ok(Some(person)), Some(info)) if person.via != Via::Certificate => info.stay.settle(&person.name),
        (Err(refused), Some(info)) => access.health().refuse(Refusal::Token, info.address.ip(), refused),
        _ => {}
    }
    request.extensions_mut().insert(Recognised(recognised.map(|person| person.map(Arc::new))));
    let response = next.run(request).await;
    if is_grpc { response } else { secured(&access, response) }
}

impl Access {
    /// A token before a session before a certificate: whoever shows one of the former means it.
    async fn recognise(
        &self,
        info: Option<&PeerInfo>,
        headers: &HeaderMap,
    ) -> Result<Option<Person>, Refused> {
        if let Some(shown) = header_text(headers, &header::AUTHORIZATION) {
            let Some(token) = shown.strip_prefix("Bearer ") else { return Err(Refused::Token) };
            if let Some(address) = info.map(|info| info.address.ip())
                && !self.may_guess(address)
            {
                return Err(Refused::TooOften);
            }
            let person = self.by_token(token.trim()).await;
            if let (Err(Refused::Token), Some(info)) = (&person, info) {
                self.guessed_wrong(info.address.ip());
            }
            return person.map(Some);
        }
        if let Some(secret) = cookie(headers, COOKIE).and_then(Secret::parse)
            && let Some(person) = self.by_session(&secret).await?
        {
            return Ok(Some(person));
        }
        match info.map(|info| info.peer.as_ref()) {
            Some(Peer::Reader(name)) => self.by_certificate(name, false).await,
            Some(Peer::Admin(name)) => self.by_certificate(name, true).await,
            Some(Peer::Host(_) | Peer::Anonymous | Peer::Nobody(_)) | None => Ok(None),
        }
    }

    fn in_time(&self, person: Option<Person>) -> Result<Option<Person>, Refused> {
        match person {
            Some(person) if !self.may_ask(&person.name) => Err(Refused::TooOften),
            person => Ok(person),
        }
    }

    /// Whether a browser means this host: one that was made to take it for another does not.
    fn is_meant(&self, request: &Request) -> bool {
        let host = header_text(request.headers(), &header::HOST)
            .or_else(|| request.uri().authority().map(Authority::as_str));
        let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
        self.is_called(authority.host().trim_matches(['[', ']']))
    }
}

/// Which names a collector answers to.
#[derive(Debug)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    pub(super) fn contain(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        self.0.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => {
                host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain)
            }
            None => *name == host || address.is_some() && name.parse().ok() == address,
        })
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// The cookie of this name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// No page may run, load, frame or send anything but with this very collector.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                              connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

fn secured(access: &Access, mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if access.has_url() {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

/// Values by name, for callbacks and links. Of a name that comes twice, the last value counts.
pub(super) fn query_of(uri: &Uri) -> HashMap<String, String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_answers_to_its_names() {
        let names = Names::new(["Trail.example".into(), "*.ci.example".into(), "::1".into()]);
        for good in ["trail.EXAMPLE", "a.ci.example", "0:0:0:0:0:0:0:1"] {
            assert!(names.contain(good), "{good}");
        }
        for bad in ["", "evil.example", "a.b.ci.example", ".ci.example", "ci.example", "::2"] {
            assert!(!names.contain(bad), "{bad}");
        }
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; __Host-buildtrail=xyz;b=2"));
        assert_eq!(cookie(&headers, COOKIE), Some("xyz"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "host-buildtrail"), None);
    }
}
