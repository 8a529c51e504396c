//! From flags, variables and profile to a channel on which questions can be asked.

use std::{
    env,
    error::Error as _,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use buildtrail_proto::v1::{
    access_client::AccessClient, administration_client::AdministrationClient, export_client::ExportClient,
    hunting_client::HuntingClient, query_client::QueryClient,
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::args::Connection;

/// Largest file of a profile, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection (`tail`) is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A connection on which every question carries the API token, if there is one.
type Authorized = InterceptedService<Channel, Token>;
/// Asks questions.
pub(crate) type Questions = QueryClient<Authorized>;

/// Connects to the collector, to ask it.
pub(crate) async fn connect(connection: &Connection) -> Result<Questions> {
    let channel = channel(connection).await?;
    Ok(QueryClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// Connects to the collector, to tell it which hosts there are.
pub(crate) async fn administration(connection: &Connection) -> Result<AdministrationClient<Authorized>> {
    let channel = channel(connection).await?;
    Ok(AdministrationClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// Connects to the collector, to take evidence away.
pub(crate) async fn export(connection: &Connection) -> Result<ExportClient<Authorized>> {
    let channel = channel(connection).await?;
    Ok(ExportClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// Connects to the collector, to look for indicators.
pub(crate) async fn hunting(connection: &Connection) -> Result<HuntingClient<Authorized>> {
    let channel = channel(connection).await?;
    Ok(HuntingClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// Connects to the collector, to make and revoke API tokens.
pub(crate) async fn access(connection: &Connection) -> Result<AccessClient<Authorized>> {
    let channel = channel(connection).await?;
    Ok(AccessClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// The profile's directory, where what was seen is remembered.
pub(crate) fn profile_directory(connection: &Connection) -> Option<PathBuf> {
    Profile::find(connection).0
}

async fn channel(connection: &Connection) -> Result<Authorized> {
    let profile = Profile::find(connection);
    let url = match &connection.collector {
        Some(url) => url.clone(),
        None => profile.url()?,
    };
    let file = |given: &Option<PathBuf>, name: &str, flag: &str| {
        let path = match given {
            Some(path) => path.clone(),
            None => profile.file(name, flag)?,
        };
        read(&path)
    };
    let ca = file(&connection.ca, "ca.pem", "--ca")?;
    let token = Token::find(connection, &profile)?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if token.0.is_none() {
        let certificate = file(&connection.certificate, "cert.pem", "--certificate or --token-file")?;
        let key = file(&connection.private_key, "key.pem", "--private-key")?;
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    if let Some(name) = &connection.server_name {
        tls = tls.domain_name(name);
    }
    if !url.starts_with("https://") {
        bail!("the collector's URL must be https://HOST:PORT, not {url:?}");
    }
    let endpoint = Endpoint::from_shared(url.clone())
        .with_context(|| format!("the collector's URL must be https://HOST:PORT, not {url:?}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .tls_config(tls)
        .map_err(|error| anyhow!("the certificates cannot be used: {}", causes(&error)))?;
    let channel = endpoint.connect().await;
    let channel =
        channel.map_err(|error| anyhow!("cannot reach the collector at {url}: {}", causes(&error)))?;
    Ok(InterceptedService::new(channel, token))
}

/// An API token, as it is sent.
#[derive(Clone)]
pub(crate) struct Token(Option<MetadataValue<Ascii>>);

impl Token {
    /// From a flag's file, the environment or the profile, in this order; a certificate that was named comes before the
    /// profile's token.
    fn find(connection: &Connection, profile: &Profile) -> Result<Self> {
        let given = match &connection.token_file {
            Some(path) => Some((read(path)?, format!("the token in {}", path.display()))),
            None => match env::var("BUILDTRAIL_TOKEN").ok().filter(|token| !token.is_empty()) {
                Some(token) => Some((token, "BUILDTRAIL_TOKEN".to_owned())),
                None if connection.certificate.is_some() => None,
                None => profile.token()?,
            },
        };
        let Some((token, name)) = given else { return Ok(Self(None)) };
        let token = token.trim();
        let is_printable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>().ok().filter(|_| is_printable);
        // Its value is shown nowhere.
        let mut value =
            value.with_context(|| format!("{name} is no API token: it must be one line of plain text"))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// What a refusal means for the person who asked.
pub(crate) fn explain(status: &Status) -> anyhow::Error {
    let message = status.message();
    match status.code() {
        Code::NotFound => anyhow!("not found: {message}"),
        Code::InvalidArgument => anyhow!("the collector does not accept the question: {message}"),
        Code::PermissionDenied | Code::Unauthenticated => anyhow!("not allowed: {message}"),
        Code::Unavailable | Code::Unknown | Code::Cancelled if status.source().is_some() => {
            anyhow!("the connection to the collector broke: {}", causes(status))
        }
        code => anyhow!("the collector could not answer ({code:?}): {message}"),
    }
}

/// Directory with the files of a connection.
struct Profile(Option<PathBuf>);

impl Profile {
    fn find(connection: &Connection) -> Self {
        let below = |variable: &str, rest: &str| {
            env::var_os(variable).filter(|value| !value.is_empty()).map(|value| Path::new(&value).join(rest))
        };
        let directory = connection.profile.clone();
        let directory = directory.or_else(|| below("XDG_CONFIG_HOME", "buildtrail"));
        Self(directory.or_else(|| below("HOME", ".config/buildtrail")))
    }

    fn directory(&self, wanted: &str) -> Result<&Path> {
        self.0.as_deref().with_context(|| format!("say which collector to ask: give --profile or {wanted}"))
    }

    fn file(&self, name: &str, flag: &str) -> Result<PathBuf> {
        let path = self.directory(flag)?.join(name);
        if path.exists() {
            return Ok(path);
        }
        bail!(
            "{} does not exist: give --profile DIR with ca.pem, cert.pem and key.pem, or {flag}",
            path.display()
        )
    }

    fn token(&self) -> Result<Option<(String, String)>> {
        let Some(path) = self.0.as_ref().map(|directory| directory.join("token")) else { return Ok(None) };
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some((read(&path)?, format!("the token in {}", path.display()))))
    }

    fn url(&self) -> Result<String> {
        let path = self.directory("--collector")?.join("collector");
        if !path.exists() {
            bail!(
                "say which collector to ask: give --collector URL, set BUILDTRAIL_COLLECTOR, or write the URL to {}",
                path.display()
            );
        }
        let text = read(&path)?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let url = lines.next().with_context(|| format!("{} holds no URL", path.display()))?;
        Ok(url.to_owned())
    }
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// An error with all its causes; wrappers often repeat what they wrap.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}
