//! People: signing in as a local administrator, sessions, forms, tokens, revocation, and what of it is in the log.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "support/browser.rs"]
mod browser;
mod support;

use std::time::{Duration, SystemTime};

use browser::{Answer, Browser};
use buildtrail_collector::{
    access::local::{self, NewAdmin},
    config::{Rights, Role},
    server,
    server::Running,
};
use buildtrail_proto::v1::{
    AggregateRequest, CreateApiTokenRequest, CreateApiTokenResponse, ListActsRequest, ListApiTokensRequest,
    RecordedAct, RevokeApiTokenRequest, RevokePersonRequest, VerifyRequest, WhoAmIRequest,
    access_client::AccessClient, collector_entry::Act, query_client::QueryClient,
};
use data_encoding::BASE32_NOPAD;
use http::{Request, StatusCode};
use ring::hmac;
use support::{Site, connect, connect_without_certificate};
use tonic::{Code, Status, transport::Channel};

const PASSWORD: &str = "not a real password";

fn administrator(site: &Site) -> NewAdmin {
    local::put(&site.config().control_file(), "root", PASSWORD, false, "the test").unwrap()
}

/// As an authenticator program shows it, `steps` away from now.
fn code(admin: &NewAdmin, steps: i64) -> String {
    let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let step = i64::try_from(seconds / 30).unwrap() + steps;
    let key = BASE32_NOPAD.decode(admin.device.as_bytes()).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key), &step.to_be_bytes());
    let tag = tag.as_ref();
    let at = usize::from(tag[19] & 15);
    let word = u32::from_be_bytes(tag[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

async fn sign_in(browser: &mut Browser, password: &str, code: &str) -> Answer {
    let fields = [("name", "root"), ("password", password), ("code", code), ("next", "/account")];
    browser.post("/login", &fields).await
}

async fn acts(site: &Site, collector: &Running, kind: &str, count: usize) -> Vec<RecordedAct> {
    let mut auditor = site.reader("auditor", collector.address()).await;
    for _ in 0..500 {
        let request = ListActsRequest { kinds: vec![kind.into()], ..ListActsRequest::default() };
        let found = auditor.list_acts(request).await.unwrap().into_inner().acts;
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{count} of {kind} were not noted in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_administrator_signs_in_once_per_code_and_every_step_is_an_act() {
    let site = Site::new();
    let collector = site.start().await;
    let admin = administrator(&site);
    let mut browser = Browser::new(&site, collector.address());

    let asked = browser.get("/account?x=1").await;
    assert_eq!((asked.status, asked.location()), (StatusCode::SEE_OTHER, "/login?next=%2Faccount%3Fx%3D1"));
    let page = browser.get("/login").await;
    assert!(page.status.is_success() && page.body.contains("Password"));
    for (password, code) in [("wrong password!", code(&admin, 0)), (PASSWORD, "000000x".into())] {
        let refused = sign_in(&mut browser, password, &code).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert!(refused.body.contains("wrong") && browser.cookies.is_empty());
    }
    let used = code(&admin, 0);
    let entered = sign_in(&mut browser, PASSWORD, &used).await;
    assert_eq!((entered.status, entered.location()), (StatusCode::SEE_OTHER, "/account"));
    let cookie = entered.header("set-cookie");
    for attribute in ["__Host-buildtrail=", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let account = browser.get("/account").await;
    assert!(
        account.body.contains("local:root") && account.body.contains("for emergencies"),
        "{}",
        account.body
    );

    let mut again = Browser::new(&site, collector.address());
    assert_eq!(
        sign_in(&mut again, PASSWORD, &used).await.status,
        StatusCode::FORBIDDEN,
        "a code is for once"
    );
    let recovery = &admin.recovery_codes[0];
    assert_eq!(sign_in(&mut again, PASSWORD, recovery).await.status, StatusCode::SEE_OTHER);
    let mut third = Browser::new(&site, collector.address());
    assert_eq!(sign_in(&mut third, PASSWORD, recovery).await.status, StatusCode::FORBIDDEN);

    let old = browser.cookies.clone();
    let left = browser.post("/logout", &[("csrf", &account.csrf())]).await;
    assert_eq!((left.status, left.location()), (StatusCode::SEE_OTHER, "/login"));
    assert!(browser.cookies.is_empty());
    browser.cookies = old;
    assert_eq!(
        browser.get("/account").await.status,
        StatusCode::SEE_OTHER,
        "the session is over, not the cookie"
    );

    let changed = acts(&site, &collector, "admin.changed", 1).await;
    let Some(Act::AdministratorChanged(changed)) = &changed[0].entry.as_ref().unwrap().act else { panic!() };
    assert_eq!((&*changed.name, &*changed.by), ("local:root", "the test"));
    acts(&site, &collector, "person.signed_in", 2).await;
    acts(&site, &collector, "person.signed_out", 1).await;
    let failed = acts(&site, &collector, "person.sign_in_failed", 2).await;
    for failed in failed {
        let Some(Act::SignInFailed(failed)) = failed.entry.unwrap().act else { panic!() };
        assert_eq!(failed.person, "local:root");
    }
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_closes_the_account_and_tells_nothing() {
    let site = Site::new();
    let collector = site.start().await;
    let admin = administrator(&site);
    let mut browser = Browser::new(&site, collector.address());
    let mut pages = Vec::new();
    for _ in 0..6 {
        pages.push(sign_in(&mut browser, "a wrong password", "000000").await.body);
    }
    let right = sign_in(&mut browser, PASSWORD, &code(&admin, 0)).await;
    assert_eq!(right.status, StatusCode::FORBIDDEN, "closed for a while");
    let unknown = [("name", "nobody"), ("password", PASSWORD), ("code", "000000"), ("next", "/account")];
    pages.extend([right.body, browser.post("/login", &unknown).await.body]);
    assert!(pages.iter().all(|page| *page == pages[0]), "every refusal looks the same");
    for _ in 0..13 {
        sign_in(&mut browser, "a wrong password", "000000").await;
    }
    assert_eq!(sign_in(&mut browser, PASSWORD, "000000").await.status, StatusCode::TOO_MANY_REQUESTS);
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_count_only_from_our_own_pages_and_answers_are_locked_down() {
    let site = Site::new();
    let collector = site.start().await;
    let admin = administrator(&site);
    let mut browser = Browser::new(&site, collector.address());
    let foreign = Request::post("/login").header("origin", "https://evil.example");
    assert_eq!(browser.send(foreign, "name=root").await.status, StatusCode::FORBIDDEN);
    sign_in(&mut browser, PASSWORD, &code(&admin, 0)).await;
    let page = browser.get("/account").await;
    let csrf = page.csrf();
    let token = [("name", "ci"), ("days", "1"), ("role", "viewer"), ("csrf", &*csrf)];
    assert_eq!(browser.post("/account/tokens", &token[..3]).await.status, StatusCode::FORBIDDEN);
    let foreign = Request::post("/account/tokens").header("sec-fetch-site", "cross-site");
    assert_eq!(
        browser.send(foreign, &format!("name=x&days=1&csrf={csrf}")).await.status,
        StatusCode::FORBIDDEN
    );
    let made = browser.post("/account/tokens", &token).await;
    assert!(made.status.is_success() && made.body.contains("btapi_"), "{}", made.body);
    let large = browser.post("/account/tokens", &[("name", &*"x".repeat(70_000))]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);

    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(!page.body.contains("<script>") && !page.body.contains("style="), "nothing inline");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
    ] {
        assert_eq!(page.header(name), value, "{name}");
    }
    let rebound = Request::get("/login").header("host", "evil.example");
    assert_eq!(browser.send(rebound, "").await.status, StatusCode::MISDIRECTED_REQUEST);
    collector.stop().await.unwrap();
}

fn bearer(
    token: &str,
) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, Status> + Clone + use<> {
    let value: tonic::metadata::MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    move |mut request| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    }
}

async fn access(site: &Site, collector: &Running, name: &str, admin: bool) -> AccessClient<Channel> {
    let out = site.path(name);
    if !out.exists() {
        let issue = if admin {
            buildtrail_collector::ca::issue_admin
        } else {
            buildtrail_collector::ca::issue_reader
        };
        issue(&site.path("ca"), name, &out).unwrap();
    }
    AccessClient::new(connect(collector.address(), &out).await.unwrap())
}

async fn token(
    access: &mut AccessClient<Channel>,
    role: &str,
    repositories: &[&str],
) -> Result<CreateApiTokenResponse, Status> {
    let request = CreateApiTokenRequest {
        name: "for a test".into(),
        role: role.into(),
        repositories: repositories.iter().map(ToString::to_string).collect(),
        lifetime_seconds: 3600,
    };
    access.create_api_token(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_never_allows_more_than_its_owner_does_now() {
    let site = Site::new();
    let mut config = site.config();
    let rights = |role, repositories: &[&str]| Rights {
        role,
        repositories: repositories.iter().map(ToString::to_string).collect(),
        everything: false,
    };
    config.access.readers.insert("ann".into(), rights(Role::Analyst, &["acme/*"]));
    let collector = server::start(config.clone()).await.unwrap();
    let mut ann = access(&site, &collector, "ann", false).await;
    let who = ann.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((&*who.name, &*who.role, who.everything), ("ann", "analyst", false));
    for (role, repositories) in
        [("admin", &[][..]), ("auditor", &[]), ("analyst", &["other/x"]), ("", &["*"])]
    {
        let refused = token(&mut ann, role, repositories).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{role} {repositories:?}");
        assert!(refused.message().contains("analyst of acme/*"), "{refused}");
    }
    let made = token(&mut ann, "viewer", &["acme/web"]).await.unwrap();
    let own = token(&mut ann, "", &[]).await.unwrap();
    assert!(!made.token.contains(&made.about.unwrap().id.repeat(2)));

    let channel = connect_without_certificate(&site, collector.address()).await.unwrap();
    let with = |token: &str| AccessClient::with_interceptor(channel.clone(), bearer(token));
    let query = |token: &str| QueryClient::with_interceptor(channel.clone(), bearer(token));
    let who = with(&made.token).who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (&*who.name, &*who.role, &who.repositories[..]),
        ("ann", "viewer", &["acme/web".to_owned()][..])
    );
    let denied = query(&made.token).aggregate(AggregateRequest::default()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("the role does not allow it"), "{denied}");
    query(&own.token).aggregate(AggregateRequest::default()).await.unwrap();
    let denied = query(&own.token).verify(VerifyRequest {}).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let by_token = CreateApiTokenRequest { name: "x".into(), lifetime_seconds: 3600, ..Default::default() };
    assert!(with(&own.token).create_api_token(by_token).await.is_err(), "tokens make no tokens");
    for wrong in ["", "btapi_00_00", &own.token[..own.token.len() - 1]] {
        let refused = query(wrong).aggregate(AggregateRequest::default()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{wrong}");
    }

    let listed = ann.list_api_tokens(ListApiTokensRequest { all: false }).await.unwrap().into_inner().tokens;
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|token| token.used.is_some() && !token.revoked), "{listed:?}");
    let id = made.token.split('_').nth(1).unwrap().to_owned();
    let mut stranger = access(&site, &collector, "stranger", false).await;
    assert_eq!(
        stranger.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().repositories,
        Vec::<String>::new()
    );
    let foreign = stranger.revoke_api_token(RevokeApiTokenRequest { id: id.clone() }).await.unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound);
    ann.revoke_api_token(RevokeApiTokenRequest { id }).await.unwrap();
    let refused = with(&made.token).who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    collector.stop().await.unwrap();

    // Ann sees less after a change of the settings; so does what she made before.
    config.access.readers.insert("ann".into(), rights(Role::Analyst, &["acme/web"]));
    let collector = server::start(config).await.unwrap();
    let channel = connect_without_certificate(&site, collector.address()).await.unwrap();
    let mut outgrown = AccessClient::with_interceptor(channel, bearer(&own.token));
    let refused = outgrown.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("more than its owner"), "{refused}");
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_person_has_neither_certificate_nor_token() {
    let site = Site::new();
    let collector = site.start().await;
    let mut eve = access(&site, &collector, "eve", false).await;
    let made = token(&mut eve, "", &[]).await.unwrap();
    let request = RevokePersonRequest { person: "eve".into(), reason: "left".into() };
    assert_eq!(eve.revoke_person(request.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let mut root = access(&site, &collector, "root", true).await;
    root.revoke_person(request).await.unwrap();
    let refused = eve.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("revoked"), "{refused}");
    let channel = connect_without_certificate(&site, collector.address()).await.unwrap();
    let mut by_token = AccessClient::with_interceptor(channel, bearer(&made.token));
    assert_eq!(by_token.who_am_i(WhoAmIRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let revoked = acts(&site, &collector, "person.revoked", 1).await;
    let Some(Act::PersonRevoked(revoked)) = &revoked[0].entry.as_ref().unwrap().act else { panic!() };
    assert_eq!((&*revoked.person, &*revoked.by, &*revoked.reason), ("eve", "root", "left"));
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_asks_only_so_often() {
    let site = Site::new();
    let mut config = site.config();
    config.access.requests_per_minute = 10;
    let collector = server::start(config).await.unwrap();
    let mut ann = access(&site, &collector, "ann", false).await;
    let mut codes = Vec::new();
    // A minute may end in between.
    for _ in 0..21 {
        codes.push(ann.who_am_i(WhoAmIRequest {}).await.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert!(
        codes.contains(&Code::ResourceExhausted) && codes[..10].iter().all(|code| *code == Code::Ok),
        "{codes:?}"
    );
    collector.stop().await.unwrap();
}
