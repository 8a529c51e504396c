//! Who is at the other end: the role that a certificate gives.
//!
//! In: a certificate that TLS has verified. Out: a [`Peer`]. The role is a URI in the subject alternative names:
//! `buildtrail://host/ID`, `buildtrail://reader/NAME` or `buildtrail://admin/NAME`, exactly one. Must never derive rights
//! from anything else, nor give any to a certificate that has expired.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use buildtrail_evidence::{
    id::{HostId, is_valid_id},
    key::HostPublicKey,
};
use tonic::{Request, Status};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::OID_SIG_ED25519,
    prelude::FromDer as _,
};

use crate::{
    access::{LOCAL, SSO},
    enrol::{Reason, refuse},
    health::{Health, Refusal},
    tls::Stay,
};

/// Prefix of a host's role.
pub(crate) const HOST_URI: &str = "buildtrail://host/";
/// Prefix of a reader's role.
pub(crate) const READER_URI: &str = "buildtrail://reader/";
/// Prefix of an administrator's role.
pub(crate) const ADMIN_URI: &str = "buildtrail://admin/";

/// A verified peer.
#[derive(Debug, PartialEq)]
pub(crate) enum Peer {
    Host(Arc<Host>),
    Reader(String),
    /// May do what readers may, and decide which hosts there are.
    Admin(String),
    /// No certificate: may enrol, or sign in, and nothing else.
    Anonymous,
    /// A certificate of our authority that gives no role here; says why.
    Nobody(&'static str),
}

/// A host, by its certificate.
#[derive(Debug, PartialEq)]
pub(crate) struct Host {
    pub(crate) id: HostId,
    /// The certificate's common name; the id where that is missing or not printable.
    pub(crate) name: String,
    /// The certificate's key, which must also sign the host's batches.
    pub(crate) key: HostPublicKey,
    /// When the certificate ends, in seconds since the epoch. It may be over: then the host may only renew it.
    pub(crate) expires: i64,
    /// DER.
    pub(crate) certificate: Vec<u8>,
}

impl Host {
    /// How long the certificate is still good; zero when it is over.
    pub(crate) fn validity_left(&self) -> Duration {
        let end = UNIX_EPOCH + Duration::from_secs(u64::try_from(self.expires).unwrap_or_default());
        end.duration_since(SystemTime::now()).unwrap_or_default()
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.validity_left().is_zero()
    }
}

impl Peer {
    /// Whether this peer may use a connection for as long as it likes.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Host(host) => !host.is_expired(),
            Self::Reader(_) | Self::Admin(_) => true,
            Self::Anonymous | Self::Nobody(_) => false,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {} ({})", host.name, host.id),
            Self::Reader(name) => write!(f, "reader {name}"),
            Self::Admin(name) => write!(f, "administrator {name}"),
            Self::Anonymous => f.write_str("peer without a certificate"),
            Self::Nobody(why) => write!(f, "peer without a role ({why})"),
        }
    }
}

impl Peer {
    /// The role of a certificate in DER form.
    pub(crate) fn of_certificate(der: &[u8]) -> Self {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => role(&certificate, der).unwrap_or_else(Self::Nobody),
            Err(_) => Self::Nobody("the certificate does not parse"),
        }
    }
}

fn role(certificate: &X509Certificate<'_>, der: &[u8]) -> Result<Peer, &'static str> {
    let names = certificate.subject_alternative_name().map_err(|_| "its alternative names do not parse")?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("buildtrail:") => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else {
        return Err("it does not hold exactly one buildtrail:// role");
    };
    if let Some(id) = uri.strip_prefix(HOST_URI) {
        let id = HostId::parse(id).map_err(|_| "its host id is not valid")?;
        return Ok(Peer::Host(Arc::new(Host {
            name: common_name(certificate).unwrap_or_else(|| id.to_string()),
            id,
            key: ed25519_key(certificate)?,
            expires: certificate.validity().not_after.timestamp(),
            certificate: der.to_vec(),
        })));
    }
    let of_role = |prefix| uri.strip_prefix(prefix).filter(|name| is_valid_id(name)).map(str::to_owned);
    // Names with these beginnings are people's who sign in.
    let of_role = |prefix| of_role(prefix).filter(|name| !name.starts_with(LOCAL) && !name.starts_with(SSO));
    let person = of_role(READER_URI).map(Peer::Reader).or_else(|| of_role(ADMIN_URI).map(Peer::Admin));
    person.ok_or("its role is neither host, reader nor admin")
}

fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    is_valid_id(name).then(|| name.to_owned())
}

fn ed25519_key(certificate: &X509Certificate<'_>) -> Result<HostPublicKey, &'static str> {
    let info = certificate.public_key();
    if info.algorithm.algorithm != OID_SIG_ED25519 {
        return Err("its key is not an Ed25519 key");
    }
    HostPublicKey::try_from(&*info.subject_public_key.data).map_err(|_| "its key is not an Ed25519 key")
}

/// What a connection tells each request that comes over it.
#[derive(Debug, Clone)]
pub(crate) struct PeerInfo {
    pub(crate) peer: Arc<Peer>,
    pub(crate) address: SocketAddr,
    /// For when a person is recognised on the connection.
    pub(crate) stay: Arc<Stay>,
}

/// Where a request came from, for people.
pub(crate) fn address<T>(request: &Request<T>) -> String {
    let info = request.extensions().get::<PeerInfo>();
    info.map_or_else(|| "an unknown address".to_owned(), |info| info.address.to_string())
}

/// The host that sent a request.
pub(crate) fn host<T>(request: &Request<T>, health: &Health) -> Result<Arc<Host>, Status> {
    let host = host_even_expired(request, health)?;
    if host.is_expired() {
        health.refuse(Refusal::Expired, &host.id, "its certificate has expired");
        return Err(refuse(Reason::Expired));
    }
    Ok(host)
}

/// The host that sent a request, by a certificate that may be out of date.
pub(crate) fn host_even_expired<T>(request: &Request<T>, health: &Health) -> Result<Arc<Host>, Status> {
    match of(request)?.as_ref() {
        Peer::Host(host) => Ok(host.clone()),
        other => Err(denied(other, "only hosts may do this", health)),
    }
}

fn of<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    let info = request.extensions().get::<PeerInfo>();
    info.map(|info| info.peer.clone())
        .ok_or_else(|| Status::unauthenticated("no client certificate was shown"))
}

fn denied(peer: &Peer, rule: &str, health: &Health) -> Status {
    health.refuse(Refusal::Identity, peer, rule);
    Status::permission_denied(format!(
        "{rule}; you are a {peer}. `buildtrail-collector ca` issues certificates for all roles"
    ))
}
