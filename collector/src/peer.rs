//! Who is at the other end: the role that a certificate gives.
//!
//! In: a certificate that TLS has verified. Out: a [`Peer`]. The role is a URI in the subject alternative names:
//! `buildtrail://host/ID` or `buildtrail://reader/NAME`, exactly one. Must never derive rights from anything else.

use std::{fmt, sync::Arc};

use buildtrail_evidence::{
    id::{HostId, is_valid_id},
    key::HostPublicKey,
};
use tonic::{Request, Status};
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::OID_SIG_ED25519,
    prelude::FromDer as _,
};

use crate::health::{Health, Refusal};

/// Prefix of a host's role.
pub(crate) const HOST_URI: &str = "buildtrail://host/";
/// Prefix of a reader's role.
pub(crate) const READER_URI: &str = "buildtrail://reader/";

/// A verified peer.
#[derive(Debug, PartialEq)]
pub(crate) enum Peer {
    Host(Arc<Host>),
    Reader(String),
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
    /// DER.
    pub(crate) certificate: Vec<u8>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host {} ({})", host.name, host.id),
            Self::Reader(name) => write!(f, "reader {name}"),
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
            certificate: der.to_vec(),
        })));
    }
    match uri.strip_prefix(READER_URI) {
        Some(name) if is_valid_id(name) => Ok(Peer::Reader(name.to_owned())),
        _ => Err("its role is neither host nor reader"),
    }
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
pub(crate) struct PeerInfo(pub(crate) Arc<Peer>);

/// The host that sent a request.
pub(crate) fn host<T>(request: &Request<T>, health: &Health) -> Result<Arc<Host>, Status> {
    match of(request)?.as_ref() {
        Peer::Host(host) => Ok(host.clone()),
        other => Err(denied(other, "only hosts may send batches", health)),
    }
}

/// Makes sure that a request was sent by a reader.
pub(crate) fn ensure_reader<T>(request: &Request<T>, health: &Health) -> Result<Arc<Peer>, Status> {
    let peer = of(request)?;
    match peer.as_ref() {
        Peer::Reader(_) => Ok(peer),
        other => Err(denied(other, "only readers may ask questions", health)),
    }
}

fn of<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    let info = request.extensions().get::<PeerInfo>();
    info.map(|info| info.0.clone()).ok_or_else(|| Status::unauthenticated("no client certificate was shown"))
}

fn denied(peer: &Peer, rule: &str, health: &Health) -> Status {
    health.refuse(Refusal::Identity, peer, rule);
    Status::permission_denied(format!(
        "{rule}; your certificate is that of a {peer}. `buildtrail-collector ca` issues certificates for both roles"
    ))
}
