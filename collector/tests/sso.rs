//! Single sign-on through a real provider, `oidc-provider-mock`, whose program `BUILDTRAIL_OIDC_PROVIDER` names; `cargo
//! xtask setup` installs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "support/browser.rs"]
mod browser;
mod support;

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use browser::{Answer, Browser};
use buildtrail_collector::{
    config::{Config, Group, Oidc, Role},
    server,
    server::Running,
};
use buildtrail_proto::v1::{ListActsRequest, collector_entry::Act};
use buildtrail_settings::Span;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use support::Site;
use tokio::net::TcpStream;

/// The provider's process; ended when it is dropped.
struct Provider {
    process: Child,
    address: SocketAddr,
}

impl Provider {
    async fn start() -> Self {
        let Some(program) = std::env::var_os("BUILDTRAIL_OIDC_PROVIDER") else {
            panic!("BUILDTRAIL_OIDC_PROVIDER is not set");
        };
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let user = |sub: &str, name: &str, groups: &str| {
            format!(r#"{{"sub":"{sub}","preferred_username":"{name}","groups":[{groups}]}}"#)
        };
        let process = Command::new(program)
            .args(["--port", &address.port().to_string(), "--require-nonce", "true"])
            .args(["--user-claims", &user("1", "ann", r#""security","other""#)])
            .args(["--user-claims", &user("2", "eve", r#""other""#)])
            .args(["--user-claims", &user("3", "ann", r#""security""#)])
            .args(["--user-claims", &user("4", "<b>", r#""security""#)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let provider = Self { process, address };
        for _ in 0..600 {
            if TcpStream::connect(address).await.is_ok() {
                return provider;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the provider does not listen");
    }

    /// What the provider's page does when a person chooses an account: where it sends the browser back to.
    async fn choose(&self, page: &str, subject: &str) -> String {
        let path = page.strip_prefix(&format!("http://{}", self.address)).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driving = tokio::spawn(connection);
        let request = Request::post(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(format!("sub={subject}"))))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let location = answer.headers().get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        driving.abort();
        location.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&body)))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn config(site: &Site, provider: &Provider, port: u16) -> Config {
    std::fs::write(site.path("oidc-secret"), "not-a-real-secret\n").unwrap();
    let mut config = site.config();
    config.listen.set_port(port);
    config.web.url = Some(format!("https://127.0.0.1:{port}"));
    config.access.oidc = Some(Oidc {
        issuer: format!("http://{}", provider.address),
        client_id: "buildtrail".into(),
        client_secret_file: Some(site.path("oidc-secret")),
        ca: None,
        scopes: Vec::new(),
        name_claim: "preferred_username".into(),
        group_claim: "groups".into(),
        clock_skew: Span::from_seconds(60),
        groups: vec![Group {
            group: "security".into(),
            role: Role::Analyst,
            repositories: vec!["acme/*".into()],
            everything: false,
        }],
    });
    config
}

async fn start(site: &Site, provider: &Provider) -> Running {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server::start(config(site, provider, port)).await.unwrap()
}

/// To the provider and back; the path of the callback.
async fn come_back(browser: &mut Browser, provider: &Provider, subject: &str) -> String {
    let away = browser.get("/auth/start?next=/account").await;
    assert_eq!(away.status, StatusCode::SEE_OTHER, "{}", away.body);
    for part in ["code_challenge=", "code_challenge_method=S256", "state=", "nonce=", "response_type=code"] {
        assert!(away.location().contains(part), "{}", away.location());
    }
    let back = provider.choose(away.location(), subject).await;
    let (_, path) = back.strip_prefix("https://").unwrap().split_once('/').unwrap();
    format!("/{path}")
}

async fn sign_in(browser: &mut Browser, provider: &Provider, subject: &str) -> Answer {
    let path = come_back(browser, provider, subject).await;
    browser.get(&path).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the provider's program"]
async fn people_come_in_through_the_provider_with_what_their_groups_give() {
    let provider = Provider::start().await;
    let site = Site::new();
    let collector = start(&site, &provider).await;
    let mut browser = Browser::new(&site, collector.address());
    let login = browser.get("/login").await;
    assert!(login.body.contains("/auth/start"), "{}", login.body);

    let entered = sign_in(&mut browser, &provider, "1").await;
    assert_eq!((entered.status, entered.location()), (StatusCode::SEE_OTHER, "/account"), "{}", entered.body);
    let account = browser.get("/account").await;
    assert!(account.body.contains("sso:ann") && account.body.contains("analyst"), "{}", account.body);
    assert!(account.body.contains("acme/*") && !account.body.contains("for emergencies"));
    let csrf = account.csrf();
    let token = [("csrf", &*csrf), ("name", "ci"), ("days", "1"), ("role", "admin")];
    assert_eq!(browser.post("/account/tokens", &token).await.status, StatusCode::UNPROCESSABLE_ENTITY);

    // In none of the groups; another account of the same name; a name that is none.
    for subject in ["2", "3", "4"] {
        let mut other = Browser::new(&site, collector.address());
        let refused = sign_in(&mut other, &provider, subject).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{subject}: {}", refused.body);
        assert!(!other.cookies.contains_key("__Host-buildtrail"), "{subject}");
    }
    assert_eq!(browser.post("/logout", &[("csrf", &csrf)]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.get("/account").await.status, StatusCode::SEE_OTHER);

    let mut auditor = site.reader("auditor", collector.address()).await;
    let mut kinds = Vec::new();
    for act in auditor.list_acts(ListActsRequest::default()).await.unwrap().into_inner().acts {
        if let Some(Act::SignInFailed(failed)) = &act.entry.as_ref().unwrap().act {
            kinds.push(failed.person.clone());
        }
    }
    assert!(kinds.contains(&"sso:eve".to_owned()) && kinds.contains(&"sso:ann".to_owned()), "{kinds:?}");
    collector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the provider's program"]
async fn an_answer_counts_once_and_only_for_the_browser_that_asked() {
    let provider = Provider::start().await;
    let site = Site::new();
    let collector = start(&site, &provider).await;
    let mut victim = Browser::new(&site, collector.address());
    let mut attacker = Browser::new(&site, collector.address());

    let answer = come_back(&mut attacker, &provider, "1").await;
    assert_eq!(victim.get(&answer).await.status, StatusCode::FORBIDDEN, "begun in another browser");
    come_back(&mut victim, &provider, "1").await;
    assert_eq!(victim.get(&answer).await.status, StatusCode::FORBIDDEN, "of another attempt");
    assert_eq!(attacker.get(&answer).await.status, StatusCode::SEE_OTHER);
    assert_eq!(attacker.get(&answer).await.status, StatusCode::FORBIDDEN, "a second time");
    let own = come_back(&mut victim, &provider, "1").await;
    let forged = own.replace("code=", "code=x");
    assert_eq!(
        victim.get(&forged).await.status,
        StatusCode::FORBIDDEN,
        "a code that the provider did not give"
    );
    assert!(victim.cookies.keys().all(|name| name != "__Host-buildtrail"));

    collector.stop().await.unwrap();
}
