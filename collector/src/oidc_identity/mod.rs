//! What CI providers say about jobs.
//!
//! In: a token that a runner's hook handed to its agent, and the job as that agent sees it. Out: whether the provider signed
//! the same repository and run; to the host as an answer, and as an act into the log. Only issuers of the settings are
//! believed. Must never keep, log or repeat a token, or ask anybody but those issuers for keys.

mod claims;
mod keys;
mod token;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use buildtrail_proto::v1::{
    CheckIdentityRequest, CheckIdentityResponse, IdentityChecked, IdentityVerified, Job,
    collector_entry::Act, identity_server::Identity,
};
use hyper::Uri;
use tonic::{Request, Response, Status};

use crate::{
    acts::{Acts, printable},
    config::IdentityIssuer,
    health::Health,
    peer,
    tls::{self, TlsError},
};
use keys::KeySource;
use token::{MAX_TOKEN, Unproven};

/// Checks of one host in a [`WINDOW`]: each is an entry in the log.
const MOST: u32 = 60;
const WINDOW: Duration = Duration::from_mins(1);

/// The gRPC service.
#[derive(Clone)]
pub(crate) struct Service {
    issuers: Arc<[Issuer]>,
    acts: Acts,
    health: Arc<Health>,
    asked: Arc<Mutex<HashMap<String, (Instant, u32)>>>,
}

struct Issuer {
    name: String,
    audience: String,
    keys: KeySource,
}

/// Whether keys may be fetched from there: https, or http that does not leave this machine.
pub(crate) fn is_keys_url(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match url.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        _ => false,
    }
}

impl Service {
    pub(crate) fn new(issuers: &[IdentityIssuer], acts: Acts, health: Arc<Health>) -> Result<Self, TlsError> {
        let issuers = issuers.iter().map(issuer).collect::<Result<Vec<Issuer>, TlsError>>()?;
        Ok(Self { issuers: issuers.into(), acts, health, asked: Arc::default() })
    }

    /// One more check of this host; false when it has had enough.
    fn admit(&self, host: &str) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        asked.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        let (_, count) = asked.entry(host.to_owned()).or_insert((now, 0));
        *count += 1;
        *count <= MOST
    }

    async fn check(&self, token: &str, job: &Job) -> (bool, IdentityVerified) {
        let mut result = IdentityVerified::default();
        match self.prove(token, job, &mut result).await {
            Ok(verified) => (verified, result),
            Err(why) => {
                result.refused = why;
                (false, result)
            }
        }
    }

    async fn prove(&self, token: &str, job: &Job, result: &mut IdentityVerified) -> Result<bool, String> {
        let unproven = Unproven::parse(token).map_err(|error| error.to_string())?;
        result.issuer = printable(&unproven.issuer());
        result.key_id = printable(&unproven.key_id.as_deref().unwrap_or_default());
        let known = self.issuers.iter().find(|issuer| issuer.name == unproven.issuer());
        let issuer = known.ok_or("its issuer is not one of the settings")?;
        let keys = issuer.keys.keys(unproven.key_id.as_deref()).await?;
        let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let claims = unproven
            .prove(&keys, &issuer.audience, i64::try_from(now).unwrap_or(i64::MAX))
            .map_err(|error| error.to_string())?;
        result.subject = printable(&token::text(&claims, "sub"));
        result.audience.clone_from(&issuer.audience);
        let comparison = claims::compare(&claims, job);
        let verified = comparison.verifies();
        result.agreed = comparison.agreed;
        result.differing = comparison.differing;
        Ok(verified)
    }
}

fn issuer(settings: &IdentityIssuer) -> Result<Issuer, TlsError> {
    let url: Uri = settings.keys_url.parse().unwrap_or_default();
    let secure = url.scheme_str() == Some("https");
    let tls = secure.then(|| tls::plain_connector(&settings.ca)).transpose()?;
    let keys = KeySource::new(url, tls);
    Ok(Issuer { name: settings.issuer.clone(), audience: settings.audience.clone(), keys })
}

#[tonic::async_trait]
impl Identity for Service {
    async fn check(
        &self,
        request: Request<CheckIdentityRequest>,
    ) -> Result<Response<CheckIdentityResponse>, Status> {
        let host = peer::host(&request, &self.health)?;
        let CheckIdentityRequest { job, token } = request.into_inner();
        let job = job.ok_or_else(|| Status::invalid_argument("the job is missing"))?;
        if token.len() > MAX_TOKEN
            || job.job_id.len() != 32
            || !job.job_id.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Err(Status::invalid_argument("the token is too long, or the job has no id"));
        }
        if !self.admit(host.id.as_str()) {
            return Err(Status::resource_exhausted("too many identities to check; try again in a minute"));
        }
        let (verified, result) = Self::check(self, &token, &job).await;
        let act = IdentityChecked {
            host_id: host.id.to_string(),
            job_id: job.job_id,
            verified,
            result: Some(result.clone()),
        };
        let noted = self.acts.record_durably(Act::IdentityChecked(act)).await;
        noted.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(CheckIdentityResponse { result: Some(result), verified }))
    }
}

#[cfg(test)]
mod tests;
