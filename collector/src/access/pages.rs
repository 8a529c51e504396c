//! Signing in and out, and what belongs to oneself: sessions and tokens.

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use buildtrail_query::Scope;
use maud::{Markup, html};

use super::{
    Access, Action, CsrfChecked, LOCAL, Person, Role, Via,
    doors::{ensure_same_site, error, read_form},
    frame::{self, Message},
    gate::{Recognised, cookie, query_of},
    local::{Outcome, Typed},
    oidc::{CALLBACK, Denied},
    people::{self, Problem, WantedToken, now},
    records::Rights,
    session::{COOKIE, Secret},
};
use crate::peer::PeerInfo;

/// Knows a browser while its person is at the provider.
const ATTEMPT_COOKIE: &str = "__Host-buildtrail-sign-in";
const ATTEMPT_SECONDS: u64 = 600;
/// Whatever was wrong, and also while the account is closed: whoever guesses learns nothing.
const WRONG: &str =
    "Name, password or code is wrong, or there were too many attempts: then wait a few minutes.";

/// `/login`, `/logout`, `/auth/…`, `/account…`.
pub(crate) fn router(access: Access) -> Router {
    Router::new()
        .route("/login", get(login_page).post(login))
        .route("/logout", post(logout))
        .route("/auth/start", get(start))
        .route(CALLBACK, get(callback))
        .route("/account", get(account))
        .route("/account/tokens", post(create_token))
        .route("/account/tokens/revoke", post(revoke_token))
        .route("/account/sessions/end", post(end_session))
        .route("/account/people/revoke", post(revoke_person))
        .with_state(access)
}

/// Where to go on: a path of ours, and nothing that a browser could take for another site.
fn safe(next: &str) -> &str {
    let plain = next.starts_with('/') && !next.starts_with("//") && next.len() <= 2000;
    if plain && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') { next } else { "/" }
}

async fn login_page(State(access): State<Access>, request: Request) -> Response {
    let query = query_of(request.uri());
    let next = query.get("next").map_or("/", |next| safe(next)).to_owned();
    let recognised = request.extensions().get::<Recognised>();
    if recognised.is_some_and(|recognised| matches!(recognised.0, Ok(Some(_)))) {
        return to(&next, &[]);
    }
    sign_in_page(&access, StatusCode::OK, &next, None)
}

fn sign_in_page(access: &Access, status: StatusCode, next: &str, problem: Option<&str>) -> Response {
    let encoded: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    let content = html! {
        h1 { "Sign in" }
        @if let Some(problem) = problem { (frame::message(Message::Bad, problem)) }
        @if access.inner().oidc.is_some() {
            p { a.button href={ "/auth/start?next=" (encoded) } { "Sign in with your organisation" } }
            h2 { "In an emergency" }
        }
        form method="post" action="/login" {
            input type="hidden" name="next" value=(next);
            p { label { "Local administrator " input name="name" autocomplete="username" required maxlength="64"; } }
            p { label { "Password " input name="password" type="password" autocomplete="current-password" required; } }
            p {
                label {
                    "Code of your device, or a recovery code "
                    input name="code" autocomplete="one-time-code" required maxlength="64";
                }
            }
            p { button { "Sign in" } }
        }
    };
    frame::page(status, None, "Sign in", &content)
}

async fn login(State(access): State<Access>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(why) = ensure_same_site(&parts) {
        return error(StatusCode::FORBIDDEN, "csrf", why);
    }
    let fields = match read_form(body).await {
        Ok(fields) => fields,
        Err(refused) => return refused,
    };
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let next = field("next");
    let next = safe(&next);
    let Some(info) = parts.extensions.get::<PeerInfo>() else {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "nobody knows where this comes from");
    };
    let (peer, claimed) = (info.address.to_string(), format!("{LOCAL}{}", field("name").trim()));
    let wrong = |status| sign_in_page(&access, status, next, Some(WRONG));
    if !access.inner().sign_ins.take(info.address.ip(), now()) {
        access.failed(&claimed, "too many attempts from one address", &peer);
        return wrong(StatusCode::TOO_MANY_REQUESTS);
    }
    let typed =
        Typed { name: field("name").trim().to_owned(), password: field("password"), code: field("code") };
    match access.check(typed).await {
        Ok(Outcome::Good { recovery_code }) => {
            enter(&access, &claimed, &people::all(), &parts.headers, &peer, next, recovery_code).await
        }
        Ok(Outcome::Bad(why)) => {
            access.failed(&claimed, why, &peer);
            wrong(StatusCode::FORBIDDEN)
        }
        Err(refused) => sign_in_page(&access, refused.http().0, next, Some(&refused.to_string())),
    }
}

/// A new session, in place of the one that this browser may have had.
async fn enter(
    access: &Access,
    name: &str,
    rights: &Rights,
    headers: &HeaderMap,
    peer: &str,
    next: &str,
    recovery_code: bool,
) -> Response {
    if let Some(old) = cookie(headers, COOKIE).and_then(Secret::parse)
        && let Ok(Some(person)) = access.by_session(&old).await
    {
        let ended = access.end_session(&person, old.id().as_bytes().to_vec(), "another sign-in");
        if let Err(problem) = ended.await {
            tracing::warn!(%problem, "the browser's earlier session was not ended");
        }
    }
    let browser = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    match access.begin_session(name, rights, peer, browser, recovery_code).await {
        Ok(secret) => {
            let cookie = set_cookie(COOKIE, &secret.reveal(), access.session_lifetime());
            to(next, &[cookie, set_cookie(ATTEMPT_COOKIE, "", 0)])
        }
        Err(refused) => sign_in_page(access, refused.http().0, next, Some(&refused.to_string())),
    }
}

async fn start(State(access): State<Access>, request: Request) -> Response {
    let query = query_of(request.uri());
    let next = query.get("next").map_or("/", |next| safe(next)).to_owned();
    let Some(oidc) = &access.inner().oidc else {
        return sign_in_page(
            &access,
            StatusCode::NOT_FOUND,
            &next,
            Some("Single sign-on is not set up here."),
        );
    };
    let address = request.extensions().get::<PeerInfo>().map(|info| info.address);
    if address.is_none_or(|address| !access.inner().sign_ins.take(address.ip(), now())) {
        return sign_in_page(&access, StatusCode::TOO_MANY_REQUESTS, &next, Some(WRONG));
    }
    let Ok(secret) = Secret::generate() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the system gives no random numbers");
    };
    match oidc.begin(secret.id(), next.clone()).await {
        Ok(url) => to(&url, &[set_cookie(ATTEMPT_COOKIE, &secret.reveal(), ATTEMPT_SECONDS)]),
        Err(denied) => {
            tracing::warn!(%denied, "single sign-on");
            sign_in_page(&access, StatusCode::BAD_GATEWAY, &next, Some(&said(&denied)))
        }
    }
}

async fn callback(State(access): State<Access>, uri: Uri, request: Request) -> Response {
    let Some(oidc) = &access.inner().oidc else {
        return sign_in_page(&access, StatusCode::NOT_FOUND, "/", Some("Single sign-on is not set up here."));
    };
    let info = request.extensions().get::<PeerInfo>();
    let peer = info.map_or_else(String::new, |info| info.address.to_string());
    let Some(browser) = cookie(request.headers(), ATTEMPT_COOKIE).and_then(Secret::parse) else {
        return sign_in_page(&access, StatusCode::FORBIDDEN, "/", Some(&Denied::Attempt.to_string()));
    };
    let arrival = match oidc.finish(&browser.id(), &query_of(&uri)).await {
        Ok(arrival) => arrival,
        Err(denied) => {
            let person =
                if let Denied::Groups(name) = &denied { name } else { "somebody at the identity provider" };
            access.failed(person, &said(&denied), &peer);
            tracing::warn!(%denied, "single sign-on");
            return sign_in_page(&access, StatusCode::FORBIDDEN, "/", Some(&said(&denied)));
        }
    };
    if let Err(problem) = access.welcome(&arrival.name, &arrival.subject, &arrival.rights).await {
        access.failed(&arrival.name, &problem.to_string(), &peer);
        return sign_in_page(&access, StatusCode::FORBIDDEN, "/", Some(&problem.to_string()));
    }
    let (headers, next) = (request.headers(), &arrival.next);
    enter(&access, &arrival.name, &arrival.rights, headers, &peer, next, false).await
}

/// What strangers may know of it; the collector's own log says all.
fn said(denied: &Denied) -> String {
    match denied {
        Denied::Provider(_) => {
            "The identity provider cannot be asked now; the collector's own log says why.".into()
        }
        Denied::Token(_) => {
            "What the identity provider says is not good; the collector's own log says why.".into()
        }
        Denied::Attempt | Denied::Refused(_) | Denied::Groups(_) => denied.to_string(),
    }
}

async fn logout(State(access): State<Access>, form: CsrfChecked) -> Response {
    if let Via::Session(id) = &form.person.via
        && let Err(problem) = access.end_session(&form.person, id.as_bytes().to_vec(), "asked").await
    {
        return refuse(&form.person, &problem);
    }
    to("/login", &[set_cookie(COOKIE, "", 0)])
}

async fn account(State(access): State<Access>, person: Person) -> Response {
    account_page(&access, &person, None).await
}

async fn create_token(State(access): State<Access>, form: CsrfChecked) -> Response {
    let days: u64 = form.field("days").parse().unwrap_or_default();
    let globs: Result<Vec<_>, _> = form.field("repositories").split_whitespace().map(str::parse).collect();
    let globs: Vec<buildtrail_query::RepositoryGlob> = match globs {
        Ok(globs) => globs,
        Err(error) => return refuse(&form.person, &Problem::Invalid(error.to_string())),
    };
    let wanted = WantedToken {
        name: form.field("name").to_owned(),
        role: Role::parse(form.field("role")),
        scope: (!globs.is_empty()).then_some(Scope::Repositories(globs)),
        lifetime: days.saturating_mul(86_400),
    };
    match access.create_token(&form.person, wanted).await {
        Ok((shown, row)) => account_page(&access, &form.person, Some((&shown, &row.name))).await,
        Err(problem) => refuse(&form.person, &problem),
    }
}

async fn revoke_token(State(access): State<Access>, form: CsrfChecked) -> Response {
    let all = form.person.may(Action::Administer);
    back(&form.person, access.revoke_token(&form.person, form.field("id"), all).await)
}

async fn end_session(State(access): State<Access>, form: CsrfChecked) -> Response {
    let id = hex::decode(form.field("id")).unwrap_or_default();
    back(&form.person, access.end_session(&form.person, id, "ended from the account page").await)
}

async fn revoke_person(State(access): State<Access>, form: CsrfChecked) -> Response {
    if let Err(forbidden) = form.person.require(Action::Administer) {
        return forbidden.into_response();
    }
    let done = access.revoke_person(&form.person, form.field("person"), form.field("reason")).await;
    back(&form.person, done)
}

fn back(person: &Person, done: Result<(), Problem>) -> Response {
    match done {
        Ok(()) => to("/account", &[]),
        Err(problem) => refuse(person, &problem),
    }
}

fn refuse(person: &Person, problem: &Problem) -> Response {
    let status = match problem {
        Problem::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Problem::Missing(_) => StatusCode::NOT_FOUND,
        Problem::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let content = html! {
        h1 { "Not done" }
        (frame::message(Message::Bad, &problem.to_string()))
        p { a href="/account" { "Back to your account" } }
    };
    frame::page(status, Some(person), "Not done", &content)
}

async fn account_page(access: &Access, person: &Person, new: Option<(&str, &str)>) -> Response {
    let all = person.may(Action::Administer);
    let found =
        async { Ok::<_, Problem>((access.sessions(person).await?, access.tokens(person, all).await?)) };
    let (sessions, tokens) = match found.await {
        Ok(found) => found,
        Err(problem) => return refuse(person, &problem),
    };
    let own = match &person.via {
        Via::Session(id) => id.as_bytes().to_vec(),
        Via::Token(_) | Via::Certificate => Vec::new(),
    };
    let content = html! {
        h1 { "Your account" }
        p { strong { (person.name) } ", " (person.role) " of " (person.scope) }
        @if let Some((shown, name)) = new {
            (frame::message(Message::Good, &format!("The token {name:?}, shown this once:")))
            p { code { (shown) } }
        }
        (sessions_table(person, &sessions, &own))
        (tokens_table(person, &tokens))
        @if person.csrf.is_some() { (token_form(person)) }
        @if all && person.csrf.is_some() { (revoke_form(person)) }
    };
    frame::page(StatusCode::OK, Some(person), "Your account", &content)
}

fn sessions_table(person: &Person, sessions: &[super::records::SessionRow], own: &[u8]) -> Markup {
    html! {
        h2 { "Sessions" }
        @if sessions.is_empty() { p { "None." } } @else {
            table {
                thead { tr { th { "Signed in" } th { "Last used" } th { "From" } th { "Browser" } th { "" } } }
                tbody {
                    @for session in sessions {
                        tr {
                            td { (frame::time(session.created)) }
                            td { (frame::time(session.seen)) }
                            td { (session.peer) }
                            td { (session.browser) }
                            td {
                                @if session.id == own { "this one" } @else {
                                    (button(person, "/account/sessions/end", &hex::encode(&session.id), "End"))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn tokens_table(person: &Person, tokens: &[super::records::TokenRow]) -> Markup {
    html! {
        h2 { "Tokens" }
        @if tokens.is_empty() { p { "None." } } @else {
            table {
                thead {
                    tr {
                        th { "Token" } th { "For" } th { "Owner" } th { "Allows" } th { "Ends" } th { "Last used" }
                        th { "" }
                    }
                }
                tbody {
                    @for token in tokens {
                        tr {
                            td { (token.id) }
                            td { (token.name) }
                            td { (token.owner) }
                            td { (token.rights.words()) }
                            td { (frame::time(token.expires)) }
                            td { @if token.used == 0 { "never" } @else { (frame::time(token.used)) } }
                            td {
                                @if token.revoked { "revoked" } @else if token.expires <= now() { "over" } @else {
                                    (button(person, "/account/tokens/revoke", &token.id, "Revoke"))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A button that changes something; none where there is no session to prove the will.
fn button(person: &Person, action: &str, id: &str, label: &str) -> Markup {
    html! {
        @if let Some(csrf) = &person.csrf {
            form method="post" action=(action) {
                input type="hidden" name="csrf" value=(csrf.as_str());
                input type="hidden" name="id" value=(id);
                button { (label) }
            }
        }
    }
}

fn token_form(person: &Person) -> Markup {
    let roles = super::person::ROLES.into_iter().filter(|role| person.role.includes(*role));
    html! {
        h2 { "New token" }
        form method="post" action="/account/tokens" {
            input type="hidden" name="csrf" value=[person.csrf.as_ref().map(super::Csrf::as_str)];
            p { label { "What it is for " input name="name" required maxlength="100"; } }
            p {
                label {
                    "Role "
                    select name="role" { @for role in roles { option value=(role) { (role) } } }
                }
            }
            p {
                label {
                    "Repositories, as acme/*; without any, all that you see "
                    input name="repositories" maxlength="2000";
                }
            }
            p { label { "Days " input name="days" type="number" min="1" max="366" value="30" required; } }
            p { button { "Make the token" } }
        }
    }
}

fn revoke_form(person: &Person) -> Markup {
    html! {
        h2 { "Revoke a person" }
        p { "Their sessions, tokens and certificates count no longer." }
        form method="post" action="/account/people/revoke" {
            input type="hidden" name="csrf" value=[person.csrf.as_ref().map(super::Csrf::as_str)];
            p { label { "Person: ann (a certificate's), sso:ann, local:ann " input name="person" required; } }
            p { label { "Reason " input name="reason" required maxlength="300"; } }
            p { button { "Revoke" } }
        }
    }
}

fn set_cookie(name: &str, value: &str, seconds: u64) -> String {
    format!("{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax")
}

fn to(address: &str, cookies: &[String]) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(address).unwrap_or(HeaderValue::from_static("/")));
    for cookie in cookies.iter().filter_map(|cookie| HeaderValue::from_str(cookie).ok()) {
        headers.append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_to_another_site() {
        for good in ["/", "/jobs?where=repo%3Dacme", "/account"] {
            assert_eq!(safe(good), good);
        }
        for bad in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "javascript:x", "/a b", "/a\nb"]
        {
            assert_eq!(safe(bad), "/", "{bad}");
        }
    }
}
