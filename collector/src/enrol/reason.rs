//! Why a host is refused: one word for programs, one sentence for people.

use tonic::{Code, Status, metadata::MetadataValue};

use super::{control::Unfit, sessions::Ended};

/// The metadata that holds the word.
const KEY: &str = "buildtrail-reason";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The token is unknown, cancelled, expired or used up.
    Token,
    /// The token is for hosts of other names.
    Name,
    /// The certificate has expired, and may not be renewed (any more).
    Expired,
    Cloned,
    Revoked,
    /// A newer stream of the same host.
    Superseded,
    /// The collector issues no certificates.
    Off,
}

impl Reason {
    fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Name => "name",
            Self::Expired => "expired",
            Self::Cloned => "cloned",
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
            Self::Off => "off",
        }
    }

    fn code(self) -> Code {
        match self {
            Self::Superseded => Code::Aborted,
            Self::Off => Code::FailedPrecondition,
            Self::Token | Self::Name => Code::PermissionDenied,
            Self::Expired | Self::Cloned | Self::Revoked => Code::Unauthenticated,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Token => {
                "the join token is unknown, cancelled, expired or used up; `buildtrail enrol create` makes a new one"
            }
            Self::Name => "the join token is for hosts of other names; see `buildtrail enrol list`",
            Self::Expired => {
                "this host's certificate has expired and cannot be used; it can be renewed within the grace that the \
                 operator set, and after that the host must enrol again"
            }
            Self::Cloned => {
                "this host's key is in use on two machines at once, so it proves nothing any more; each of them must \
                 enrol again with a new key"
            }
            Self::Revoked => "this host's certificate was revoked by an administrator",
            Self::Superseded => "a newer stream of this host took over",
            Self::Off => {
                "this collector issues no certificates: enrol.authority_key in its settings names the key to do it with"
            }
        }
    }
}

impl From<Unfit> for Reason {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::UnknownToken | Unfit::Cancelled | Unfit::Expired | Unfit::UsedUp => Self::Token,
            Unfit::Name => Self::Name,
            Unfit::KeyCloned => Self::Cloned,
            Unfit::KeyRevoked => Self::Revoked,
        }
    }
}

impl From<Ended> for Reason {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Superseded => Self::Superseded,
            Ended::Cloned => Self::Cloned,
            Ended::Revoked => Self::Revoked,
        }
    }
}

/// The answer to a host that is refused.
pub(crate) fn refuse(reason: Reason) -> Status {
    let mut status = Status::new(reason.code(), reason.sentence());
    status.metadata_mut().insert(KEY, MetadataValue::from_static(reason.word()));
    status
}
