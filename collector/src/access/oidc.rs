//! Single sign-on with `OpenID` Connect: code flow with PKCE, state and nonce.
//!
//! In: somebody who wants to sign in, and what the provider sends back with their browser. Out: a name, the account it
//! belongs to, and the rights that its groups give, or a refusal. Must never believe a token that is not signed for this
//! collector and this very attempt, nor anybody who is in none of the groups of the settings.

use std::{
    collections::HashMap,
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use buildtrail_query::Scope;
use openidconnect::{
    AdditionalClaims, AuthenticationFlow, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, IdTokenFields, IssuerUrl, Nonce,
    OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope as Asked,
    StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreResponseType,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{SSO, fetch::Fetch, records::Rights, session::SessionId};
use crate::config;

/// Where the provider sends browsers back to.
pub(super) const CALLBACK: &str = "/auth/callback";
/// How long what the provider publishes about itself is good.
const METADATA_TIME: Duration = Duration::from_mins(5);
/// How long somebody may take at the provider, and how many may be there at a time.
const PATIENCE: Duration = Duration::from_mins(10);
const MAX_PENDING: usize = 1024;
/// Longest name of a person, in bytes.
const MAX_NAME: usize = 128;
/// Groups of one person that are looked at.
const MAX_GROUPS: usize = 10_000;
/// With keys of the provider's own; with a shared secret anybody who knows it could sign.
const SIGNATURES: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// `[access.oidc]` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("single sign-on cannot be set up: {0}; see [access.oidc] in the settings")]
pub struct OidcError(String);

/// Why somebody did not get in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("the identity provider cannot be asked now: {0}")]
    Provider(String),
    #[error("this sign-in was begun elsewhere, used before, or too long ago; begin again")]
    Attempt,
    #[error("the identity provider says no: {0}")]
    Refused(String),
    #[error("what the identity provider says is not good: {0}")]
    Token(String),
    #[error("{0} is in none of the groups that may come in; an administrator grants them in [access.oidc]")]
    Groups(String),
}

/// Somebody whom the provider knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) name: String,
    /// The provider's own name for the account, which nobody can change.
    pub(super) subject: String,
    pub(super) rights: Rights,
    /// Where to go on.
    pub(super) next: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Claims(HashMap<String, Value>);

impl AdditionalClaims for Claims {}

type Fields = IdTokenFields<
    Claims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Client = openidconnect::Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// An attempt to sign in, between our page and the provider's answer.
struct Pending {
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    next: String,
    begun: Instant,
}

pub(super) struct Oidc {
    settings: config::Oidc,
    issuer: IssuerUrl,
    redirect: RedirectUrl,
    secret: Option<ClientSecret>,
    fetch: Fetch,
    metadata: Mutex<Option<(Instant, CoreProviderMetadata)>>,
    /// By the cookie of the browser that began.
    pending: Mutex<HashMap<SessionId, Pending>>,
}

impl Oidc {
    pub(super) fn new(settings: &config::Oidc, web: &config::Web) -> Result<Self, OidcError> {
        let url = web.url.as_deref().unwrap_or_default().trim_end_matches('/');
        let secret = settings.client_secret_file.as_ref().map(|path| {
            let read = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(ClientSecret::new(read.trim().to_owned()))
        });
        Ok(Self {
            issuer: IssuerUrl::new(settings.issuer.clone()).map_err(|error| OidcError(error.to_string()))?,
            redirect: RedirectUrl::new(format!("{url}{CALLBACK}"))
                .map_err(|error| OidcError(error.to_string()))?,
            secret: secret.transpose().map_err(OidcError)?,
            fetch: Fetch::new(settings.ca.as_deref()).map_err(OidcError)?,
            metadata: Mutex::default(),
            pending: Mutex::default(),
            settings: settings.clone(),
        })
    }

    /// The address at the provider to which this browser, known by a cookie of its own, is sent.
    pub(super) async fn begin(&self, browser: SessionId, next: String) -> Result<String, Denied> {
        let client = self.client(METADATA_TIME).await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut asking = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .set_pkce_challenge(challenge);
        for scope in ["profile", "email"].into_iter().chain(self.settings.scopes.iter().map(String::as_str)) {
            asking = asking.add_scope(Asked::new(scope.to_owned()));
        }
        let (url, state, nonce) = asking.url();
        if !config::is_trustworthy(url.as_str()) {
            return Err(Denied::Provider("its page for signing in is not HTTPS".into()));
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|_, attempt| attempt.begun.elapsed() < PATIENCE);
        if pending.len() >= MAX_PENDING {
            return Err(Denied::Provider("too many people are signing in at once".into()));
        }
        pending.insert(browser, Pending { state, nonce, verifier, next, begun: Instant::now() });
        Ok(url.to_string())
    }

    /// What the provider sent back with this browser, once for each attempt.
    pub(super) async fn finish(
        &self,
        browser: &SessionId,
        answer: &HashMap<String, String>,
    ) -> Result<Arrival, Denied> {
        let attempt = self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(browser);
        let attempt = attempt.filter(|attempt| attempt.begun.elapsed() < PATIENCE).ok_or(Denied::Attempt)?;
        let said = |name: &str| answer.get(name).map(String::as_str);
        if !said("state").is_some_and(|state| super::session::same_text(state, attempt.state.secret())) {
            return Err(Denied::Attempt);
        }
        if said("iss").is_some_and(|issuer| issuer != self.settings.issuer) {
            return Err(Denied::Token("the answer is of another provider".into()));
        }
        if let Some(error) = said("error") {
            return Err(Denied::Refused(error.chars().take(100).collect()));
        }
        let code = AuthorizationCode::new(said("code").ok_or(Denied::Attempt)?.to_owned());
        let (claims, subject) = self.redeem(code, attempt.verifier, &attempt.nonce).await?;
        let name = self.name(&claims)?;
        let rights = self.rights(&claims).ok_or_else(|| Denied::Groups(name.clone()))?;
        Ok(Arrival { name, subject, rights, next: attempt.next })
    }

    /// The person's claims and subject, for the provider's code.
    async fn redeem(
        &self,
        code: AuthorizationCode,
        verifier: PkceCodeVerifier,
        nonce: &Nonce,
    ) -> Result<(Claims, String), Denied> {
        let client = self.client(METADATA_TIME).await?;
        let asking = client.exchange_code(code).map_err(|error| provider(&error))?;
        let answer = asking.set_pkce_verifier(verifier).request_async(&self.fetch).await;
        let answer = answer.map_err(|error| match error {
            openidconnect::RequestTokenError::ServerResponse(said) => {
                Denied::Refused(said.error().to_string())
            }
            other => provider(&other),
        })?;
        let token = answer.id_token().ok_or_else(|| Denied::Token("it holds no ID token".into()))?;
        let claims = match self.verified(&client, token, nonce) {
            // The provider may have begun to use another key since we looked.
            Err(_) => self.verified(&self.client(Duration::ZERO).await?, token, nonce)?,
            good => good?,
        };
        let subject = claims.0.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut claims = claims;
        if claims.at(&self.settings.group_claim).is_none()
            && let Ok(asking) = client.user_info(
                answer.access_token().clone(),
                Some(openidconnect::SubjectIdentifier::new(subject.clone())),
            )
        {
            let more: openidconnect::UserInfoClaims<Claims, CoreGenderClaim> =
                asking.request_async(&self.fetch).await.map_err(|error| provider(&error))?;
            let more = more.additional_claims().0.clone();
            for (name, value) in more {
                claims.0.entry(name).or_insert(value);
            }
        }
        Ok((claims, subject))
    }

    /// All claims of an ID token that is good for us and for this attempt.
    fn verified(
        &self,
        client: &Client,
        token: &openidconnect::IdToken<
            Claims,
            CoreGenderClaim,
            CoreJweContentEncryptionAlgorithm,
            CoreJwsSigningAlgorithm,
        >,
        nonce: &Nonce,
    ) -> Result<Claims, Denied> {
        let skew = Duration::from_secs(self.settings.clock_skew.seconds());
        let verifier = client
            .id_token_verifier()
            .set_allowed_algs(SIGNATURES)
            .set_time_fn(move || (SystemTime::now() - skew).into())
            .set_issue_time_verifier_fn(move |issued| {
                if SystemTime::from(issued) > SystemTime::now() + skew {
                    return Err("it comes from the future; compare the clocks".into());
                }
                Ok(())
            });
        let claims = token.claims(&verifier, nonce).map_err(|error| Denied::Token(chain(&error)))?;
        let value = serde_json::to_value(claims).map_err(|error| Denied::Token(error.to_string()))?;
        serde_json::from_value(value).map_err(|error| Denied::Token(error.to_string()))
    }

    async fn client(&self, max_age: Duration) -> Result<Client, Denied> {
        let known = self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = known.filter(|(since, _)| since.elapsed() < max_age);
        let metadata = if let Some((_, metadata)) = fresh {
            metadata
        } else {
            let found = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.fetch).await;
            let found = found.map_err(|error| provider(&error))?;
            let mut metadata = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
            *metadata = Some((Instant::now(), found.clone()));
            found
        };
        let id = ClientId::new(self.settings.client_id.clone());
        let client = Client::from_provider_metadata(metadata, id, self.secret.clone());
        Ok(client.set_redirect_uri(self.redirect.clone()))
    }

    fn name(&self, claims: &Claims) -> Result<String, Denied> {
        let claim = &self.settings.name_claim;
        let name = claims.at(claim).and_then(Value::as_str).unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".@_+-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            let why = format!(
                "its claim {claim} is no name (letters, digits and . @ _ + -); see access.oidc.name_claim"
            );
            return Err(Denied::Token(why));
        }
        Ok(format!("{SSO}{name}"))
    }

    /// The first entry whose group fits decides the role; entries of the same role add repositories.
    fn rights(&self, claims: &Claims) -> Option<Rights> {
        let groups: Vec<&str> = match claims.at(&self.settings.group_claim)? {
            Value::String(group) => vec![group],
            Value::Array(groups) => groups.iter().take(MAX_GROUPS).filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let mut fitting = self.settings.groups.iter().filter(|entry| groups.contains(&&*entry.group));
        let first = fitting.next()?.rights();
        let same_role = fitting.map(config::Group::rights).filter(|rights| rights.role == first.role);
        let scope = same_role.fold(first.scope(), |scope, rights| match (scope, rights.scope()) {
            (Scope::Repositories(mut globs), Scope::Repositories(more)) => {
                globs.extend(more);
                Scope::Repositories(globs)
            }
            _ => Scope::Everything,
        });
        Some(Rights { role: first.role, scope })
    }
}

impl Claims {
    /// A claim by its name, or by its path: `realm_access.roles`.
    fn at(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| {
            let mut steps = name.split('.');
            let first = self.0.get(steps.next()?)?;
            steps.try_fold(first, |value, step| value.get(step))
        })
    }
}

fn provider(error: &dyn std::error::Error) -> Denied {
    Denied::Provider(chain(error))
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oidc(groups: &[(&str, config::Role, &[&str])]) -> Oidc {
        let group = |(group, role, repositories): &(&str, config::Role, &[&str])| config::Group {
            group: (*group).to_owned(),
            role: *role,
            repositories: repositories.iter().map(ToString::to_string).collect(),
            everything: repositories.is_empty(),
        };
        let settings = config::Oidc {
            issuer: "https://id.example".into(),
            client_id: "buildtrail".into(),
            client_secret_file: None,
            ca: None,
            scopes: Vec::new(),
            name_claim: "preferred_username".into(),
            group_claim: "realm.roles".into(),
            clock_skew: buildtrail_settings::Span::from_seconds(60),
            groups: groups.iter().map(group).collect(),
        };
        let web = config::Web { enabled: true, url: Some("https://trail.example".into()) };
        Oidc::new(&settings, &web).unwrap()
    }

    fn claims(groups: &Value) -> Claims {
        serde_json::from_value(
            serde_json::json!({ "preferred_username": "ann", "realm": { "roles": groups } }),
        )
        .unwrap()
    }

    #[test]
    fn the_first_group_decides_the_role_and_its_equals_add_repositories() {
        use config::Role::{Analyst, Viewer};
        let oidc = oidc(&[
            ("lead", Analyst, &["acme/*"]),
            ("all", Viewer, &[]),
            ("web", Viewer, &["acme/web"]),
            ("ops", Analyst, &["acme/ops", "infra/*"]),
        ]);
        for (groups, expected) in [
            (serde_json::json!(["web"]), "viewer of acme/web"),
            (serde_json::json!("web"), "viewer of acme/web"),
            (serde_json::json!(["web", "all"]), "viewer of everything"),
            (serde_json::json!(["ops", "lead", "all"]), "analyst of acme/*, acme/ops, infra/*"),
        ] {
            assert_eq!(oidc.rights(&claims(&groups)).unwrap().words(), expected, "{groups}");
        }
        for nobody in [
            serde_json::json!(["other"]),
            serde_json::json!([]),
            serde_json::json!(7),
            serde_json::json!([7]),
        ] {
            assert_eq!(oidc.rights(&claims(&nobody)), None, "{nobody}");
        }
        assert_eq!(oidc.rights(&Claims::default()), None);
    }

    #[test]
    fn names_are_plain_and_marked_as_the_providers() {
        let oidc = oidc(&[]);
        assert_eq!(oidc.name(&claims(&Value::Null)).unwrap(), "sso:ann");
        for bad in ["", "local:root", "a b", "ann\n", "ä", &"x".repeat(200)] {
            let claims = Claims([("preferred_username".to_owned(), Value::from(bad))].into());
            assert!(matches!(oidc.name(&claims), Err(Denied::Token(_))), "{bad}");
        }
    }
}
