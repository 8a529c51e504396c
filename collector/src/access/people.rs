//! Who somebody is, by what they show, and what they may do now.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use axum::http::uri::Authority;
use buildtrail_proto::v1::{
    ApiTokenCreated, ApiTokenRevoked, PersonRevoked, RightsChanged, SignedIn, SignedOut, collector_entry::Act,
};
use buildtrail_query::Scope;
use prost::Message as _;
use tokio::sync::{Semaphore, watch};

use super::{
    LOCAL, Person, Role, SSO, Via,
    attempts::Attempts,
    gate::{Names, Refused},
    oidc::Oidc,
    records::{AdminRow, Records, Rights, SessionRow, SessionTimes, TokenRow},
    session::Secret,
    token::ApiToken,
};
use crate::{
    acts::{Acts, Failures, printable},
    config::{self, Config},
    enrol::ControlError,
    health::Health,
};

/// Of passwords, from one address in ten minutes.
const SIGN_INS: u32 = 20;
const SIGN_IN_SPAN: i64 = 600;
/// Wrong tokens from one address in a minute.
const WRONG_TOKENS: u32 = 60;
/// Passwords that are hashed at a time: each takes 19 MiB.
const HASHING: usize = 2;
/// How often acts that other processes left are looked for.
const LEFT_ACTS: std::time::Duration = std::time::Duration::from_secs(5);
/// Longest name of a token, in characters.
const MAX_NAME: usize = 100;

/// Everything about people. Clones share it.
#[derive(Clone)]
pub(crate) struct Access(Arc<Inner>);

pub(super) struct Inner {
    records: Mutex<Records>,
    settings: config::Access,
    web: config::Web,
    names: Names,
    acts: Acts,
    failures: Arc<Failures>,
    health: Arc<Health>,
    requests: Attempts<String>,
    pub(super) sign_ins: Attempts<IpAddr>,
    wrong_tokens: Attempts<IpAddr>,
    pub(super) hashing: Semaphore,
    pub(super) oidc: Option<Oidc>,
}

/// Why something of a person's own cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("{0}")]
    Invalid(String),
    #[error("there is no such {0} of yours")]
    Missing(&'static str),
    #[error("{}", Refused::Unavailable)]
    Unavailable,
}

impl From<Refused> for Problem {
    fn from(_: Refused) -> Self {
        Self::Unavailable
    }
}

/// A token that somebody asks for.
#[derive(Debug, Clone)]
pub(crate) struct WantedToken {
    pub(crate) name: String,
    /// Of the owner, where these are `None`.
    pub(crate) role: Option<Role>,
    pub(crate) scope: Option<Scope>,
    pub(crate) lifetime: u64,
}

impl Access {
    pub(crate) fn new(
        config: &Config,
        certificate_names: Vec<String>,
        acts: Acts,
        failures: Arc<Failures>,
        health: Arc<Health>,
    ) -> Result<Self, crate::server::ServeError> {
        let url = config.web.authority().and_then(|url| url.parse::<Authority>().ok());
        let url = url.map(|url| url.host().trim_matches(['[', ']']).to_owned());
        let names = certificate_names.into_iter().chain(url).chain([config.listen.ip().to_string()]);
        let settings = config.access.clone();
        let oidc = settings.oidc.as_ref().map(|oidc| Oidc::new(oidc, &config.web)).transpose()?;
        Ok(Self(Arc::new(Inner {
            records: Mutex::new(Records::open(&config.control_file())?),
            web: config.web.clone(),
            names: Names::new(names),
            acts,
            failures,
            health,
            requests: Attempts::new(settings.requests_per_minute, 60),
            sign_ins: Attempts::new(SIGN_INS, SIGN_IN_SPAN),
            wrong_tokens: Attempts::new(WRONG_TOKENS, 60),
            hashing: Semaphore::new(HASHING),
            settings,
            oidc,
        })))
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(super) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(super) fn has_url(&self) -> bool {
        self.0.web.url.is_some()
    }

    pub(super) fn is_called(&self, host: &str) -> bool {
        self.0.names.contain(host)
    }

    pub(super) fn may_ask(&self, person: &str) -> bool {
        self.0.requests.take(person.to_owned(), now())
    }

    pub(super) fn may_guess(&self, address: IpAddr) -> bool {
        self.0.wrong_tokens.is_below(&address, now())
    }

    pub(super) fn guessed_wrong(&self, address: IpAddr) {
        self.0.wrong_tokens.take(address, now());
    }

    pub(super) fn record(&self, act: Act) {
        self.0.acts.record(act);
    }

    pub(super) fn failed(&self, person: &str, reason: &str, peer: &str) {
        self.0.failures.add(person, reason, peer);
    }

    pub(super) async fn with_records<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Records) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Refused> {
        let access = self.clone();
        let worked = tokio::task::spawn_blocking(move || {
            work(&mut access.0.records.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match worked.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    fn times(&self) -> SessionTimes {
        let seconds = |span: buildtrail_settings::Span| i64::try_from(span.seconds()).unwrap_or(i64::MAX);
        let settings = &self.0.settings;
        SessionTimes {
            now: now(),
            idle: seconds(settings.session_idle),
            lifetime: seconds(settings.session_lifetime),
        }
    }

    /// For the cookie, in seconds.
    pub(super) fn session_lifetime(&self) -> u64 {
        self.0.settings.session_lifetime.seconds()
    }

    /// What a certificate gives; `None`: nothing.
    fn rights_of_certificate(&self, name: &str, admin: bool) -> Option<Rights> {
        let readers = &self.0.settings.readers;
        if let Some(rights) = readers.get(name) {
            return Some(Rights { role: rights.role, scope: rights.scope() });
        }
        match (admin, readers.is_empty()) {
            (true, _) => Some(Rights { role: Role::Admin, scope: Scope::Everything }),
            (false, true) => Some(Rights { role: Role::Auditor, scope: Scope::Everything }),
            (false, false) => None,
        }
    }

    pub(super) async fn by_certificate(&self, name: &str, admin: bool) -> Result<Option<Person>, Refused> {
        let wanted = name.to_owned();
        if self.with_records(move |records| records.is_revoked(&wanted)).await? {
            return Err(Refused::Person);
        }
        // A certificate without rights is a person without rights rather than nobody: the answer says so.
        let rights = self.rights_of_certificate(name, admin);
        let rights = rights.unwrap_or(Rights { role: Role::Viewer, scope: Scope::Repositories(Vec::new()) });
        Ok(Some(person(name, rights, Via::Certificate)))
    }

    pub(super) async fn by_session(&self, secret: &Secret) -> Result<Option<Person>, Refused> {
        let (id, times) = (secret.id(), self.times());
        let found = self.with_records(move |records| records.use_session(&id, times)).await?;
        Ok(found.map(|session| Person {
            csrf: Some(secret.csrf()),
            ..person(&session.person, session.rights, Via::Session(secret.id()))
        }))
    }

    pub(super) async fn by_token(&self, shown: &str) -> Result<Person, Refused> {
        let shown = ApiToken::parse(shown).ok_or(Refused::Token)?;
        let (id, digest) = (shown.id(), shown.digest());
        let found = self
            .with_records(move |records| {
                let token = records.token(&id)?;
                let now = now();
                let good = |token: &TokenRow| token.digest == digest && !token.revoked && token.expires > now;
                let Some(token) = token.filter(good) else { return Ok(None) };
                records.token_used(&token, now)?;
                let owner = match token.owner.strip_prefix(LOCAL) {
                    Some(admin) => records.admin(admin)?.map(|_| ("local".to_owned(), all())),
                    None => records.known(&token.owner)?,
                };
                Ok(Some((token, owner)))
            })
            .await?;
        let (token, owner) = found.ok_or(Refused::Token)?;
        let now_allowed = owner.and_then(|(subject, rights)| match &*subject {
            READER | ADMIN if !token.owner.starts_with(SSO) => {
                self.rights_of_certificate(&token.owner, subject == ADMIN)
            }
            _ => Some(rights),
        });
        if !now_allowed.is_some_and(|rights| rights.include(&token.rights)) {
            return Err(Refused::Outgrown);
        }
        Ok(person(&token.owner, token.rights, Via::Token(token.id)))
    }

    /// Begins a session in place of an older one.
    pub(super) async fn begin_session(
        &self,
        name: &str,
        rights: &Rights,
        peer: &str,
        browser: &str,
        recovery_code: bool,
    ) -> Result<Secret, Refused> {
        let secret = Secret::generate().map_err(|_| unavailable(&"the system gives no random numbers"))?;
        let times = self.times();
        let session = SessionRow {
            id: secret.id().as_bytes().to_vec(),
            person: name.to_owned(),
            rights: rights.clone(),
            created: times.now,
            seen: times.now,
            peer: peer.to_owned(),
            browser: printable(&browser),
        };
        self.with_records(move |records| records.add_session(&session, times)).await?;
        self.record(Act::SignedIn(SignedIn {
            person: name.to_owned(),
            role: rights.role.to_string(),
            scope: rights.scope.to_string(),
            peer: peer.to_owned(),
            recovery_code,
        }));
        tracing::info!(person = name, peer, "signed in");
        if name.starts_with(LOCAL) {
            tracing::warn!(person = name, peer, "a local administrator, who is for emergencies, signed in");
        }
        Ok(secret)
    }

    /// Somebody has come through single sign-on: is the name theirs, and what did they have last time?
    pub(super) async fn welcome(&self, name: &str, subject: &str, rights: &Rights) -> Result<(), Problem> {
        let (known, id, new) = (name.to_owned(), subject.to_owned(), rights.clone());
        let before = self
            .with_records(move |records| {
                if records.is_revoked(&known)? {
                    return Ok(Err("is revoked"));
                }
                let before = records.known(&known)?;
                if before.as_ref().is_some_and(|(subject, _)| *subject != id) {
                    return Ok(Err("belongs to another account at the identity provider"));
                }
                records.remember(&known, &id, &new, now())?;
                Ok(Ok(before))
            })
            .await?;
        let before = before.map_err(|why| Problem::Invalid(format!("the name {name} {why}")))?;
        if let Some((_, before)) = before.filter(|(_, before)| before != rights) {
            let (person, before, after) = (name.to_owned(), before.words(), rights.words());
            self.record(Act::RightsChanged(RightsChanged { person, before, after }));
        }
        Ok(())
    }

    pub(super) async fn sessions(&self, person: &Person) -> Result<Vec<SessionRow>, Problem> {
        let (name, times) = (person.name.clone(), self.times());
        Ok(self.with_records(move |records| records.sessions_of(&name, times)).await?)
    }

    pub(super) async fn end_session(&self, person: &Person, id: Vec<u8>, why: &str) -> Result<(), Problem> {
        let name = person.name.clone();
        if !self.with_records(move |records| records.end_session(&name, &id)).await? {
            return Err(Problem::Missing("session"));
        }
        self.record(Act::SignedOut(SignedOut { person: person.name.clone(), reason: why.to_owned() }));
        Ok(())
    }

    /// Makes a token and returns what its owner must keep.
    pub(super) async fn create_token(
        &self,
        owner: &Person,
        wanted: WantedToken,
    ) -> Result<(String, TokenRow), Problem> {
        let rights = self.check_token(owner, &wanted).map_err(Problem::Invalid)?;
        let token = ApiToken::generate().map_err(|_| Problem::Unavailable)?;
        let created = now();
        let row = TokenRow {
            id: token.id(),
            digest: token.digest(),
            name: wanted.name,
            owner: owner.name.clone(),
            rights,
            created,
            expires: created.saturating_add(i64::try_from(wanted.lifetime).unwrap_or(i64::MAX)),
            used: 0,
            revoked: false,
        };
        let (kept, maker) = (row.clone(), owner.clone());
        let certificate_kind = if owner.role == Role::Admin { ADMIN } else { READER };
        let added = self
            .with_records(move |records| {
                if maker.via == Via::Certificate {
                    let rights = Rights { role: maker.role, scope: maker.scope };
                    records.remember(&maker.name, certificate_kind, &rights, created)?;
                }
                records.add_token(&kept)
            })
            .await?;
        added.ok_or_else(|| Problem::Invalid("you have 100 tokens already; revoke some".into()))?;
        self.record(Act::ApiTokenCreated(ApiTokenCreated {
            token_id: row.id.clone(),
            name: row.name.clone(),
            owner: row.owner.clone(),
            role: row.rights.role.to_string(),
            scope: row.rights.scope.to_string(),
            expires: Some(buildtrail_proto::Timestamp { seconds: row.expires, nanos: 0 }),
        }));
        Ok((token.reveal(), row))
    }

    fn check_token(&self, owner: &Person, wanted: &WantedToken) -> Result<Rights, String> {
        let longest = self.0.settings.token_lifetime;
        if !(60..=longest.seconds()).contains(&wanted.lifetime) {
            return Err(format!("a token lives from one minute to {longest} (access.token_lifetime)"));
        }
        let name = &wanted.name;
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(format!("say in 1 to {MAX_NAME} characters what the token is for"));
        }
        if matches!(owner.via, Via::Token(_)) {
            return Err("tokens cannot make tokens; sign in, or show a certificate".into());
        }
        let own = Rights { role: owner.role, scope: owner.scope.clone() };
        let rights = Rights {
            role: wanted.role.unwrap_or(owner.role),
            scope: wanted.scope.clone().unwrap_or_else(|| owner.scope.clone()),
        };
        if !own.include(&rights) {
            return Err(format!("a token allows no more than its owner: you are {}", own.words()));
        }
        Ok(rights)
    }

    /// One's own; of all people if `all`.
    pub(super) async fn tokens(&self, person: &Person, all: bool) -> Result<Vec<TokenRow>, Problem> {
        let owner = (!all).then(|| person.name.clone());
        Ok(self.with_records(move |records| records.tokens(owner.as_deref())).await?)
    }

    /// One's own; of all people if `all`.
    pub(super) async fn revoke_token(&self, person: &Person, id: &str, all: bool) -> Result<(), Problem> {
        let (wanted, owner) = (id.to_owned(), (!all).then(|| person.name.clone()));
        let revoked =
            self.with_records(move |records| records.revoke_token(&wanted, owner.as_deref())).await?;
        let owner = revoked.ok_or(Problem::Missing("token"))?;
        let by = person.name.clone();
        self.record(Act::ApiTokenRevoked(ApiTokenRevoked { token_id: id.to_owned(), owner, by }));
        Ok(())
    }

    pub(super) async fn revoke_person(&self, by: &Person, name: &str, reason: &str) -> Result<(), Problem> {
        if name.is_empty() || name.len() > 300 || name.chars().any(char::is_control) {
            return Err(Problem::Invalid(
                "name a person: ann (a certificate's), sso:ann or local:ann".into(),
            ));
        }
        if name == by.name {
            return Err(Problem::Invalid("nobody revokes themselves".into()));
        }
        let reason = printable(&reason);
        let (person, admin, why) = (name.to_owned(), by.name.clone(), reason.clone());
        self.with_records(move |records| records.revoke_person(&person, &admin, &why, now())).await?;
        tracing::warn!(person = name, by = by.name, "person revoked");
        self.record(Act::PersonRevoked(PersonRevoked {
            person: name.to_owned(),
            by: by.name.clone(),
            reason,
        }));
        Ok(())
    }

    pub(super) async fn admin(&self, name: &str) -> Result<Option<AdminRow>, Refused> {
        let wanted = name.to_owned();
        let person = format!("{LOCAL}{name}");
        self.with_records(
            move |records| {
                if records.is_revoked(&person)? { Ok(None) } else { records.admin(&wanted) }
            },
        )
        .await
    }
}

/// Brings into the log what the command line on this machine did.
pub(crate) async fn record_left_acts(access: Access, mut stopping: watch::Receiver<bool>) {
    loop {
        let left = access.with_records(|records| records.left_acts()).await.unwrap_or_default();
        for (number, act) in left {
            if let Ok(entry) = buildtrail_proto::v1::CollectorEntry::decode(&*act)
                && let Some(act) = entry.act
                && access.0.acts.record_durably(act).await.is_err()
            {
                break;
            }
            let _ = access.with_records(move |records| records.act_recorded(number)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LEFT_ACTS) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

/// In place of the provider's subject: which kind of certificate.
const READER: &str = "reader";
const ADMIN: &str = "admin";

pub(super) fn all() -> Rights {
    Rights { role: Role::Admin, scope: Scope::Everything }
}

fn person(name: &str, rights: Rights, via: Via) -> Person {
    Person { name: name.to_owned(), role: rights.role, scope: rights.scope, via, csrf: None }
}

fn unavailable(error: &dyn std::fmt::Display) -> Refused {
    tracing::error!(%error, "people cannot be looked up");
    Refused::Unavailable
}

/// Seconds since the epoch.
pub(super) fn now() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
