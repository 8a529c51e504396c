//! Why a question is not answered.

use buildtrail_query::SearchError;
use tonic::Status;

use crate::{access::Forbidden, store::StoreError};

/// A question is not answered. What it says tells nothing that the asker may not see.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error(transparent)]
    Search(#[from] SearchError),
    /// What else of the question cannot be meant.
    #[error("{0}")]
    Asked(String),
    #[error("this cursor is of another question, another person's, or damaged; begin again without one")]
    Cursor,
    #[error("no such job: no job id begins with {0:?}")]
    NoJob(String),
    #[error("job id {prefix:?} is ambiguous; these begin with it, perhaps among others: {}", ids.join(", "))]
    AmbiguousJob { prefix: String, ids: Vec<String> },
    #[error("{0}")]
    Forbidden(Forbidden),
    #[error("{0}")]
    Busy(&'static str),
    #[error(transparent)]
    TimedOut(StoreError),
    /// The reason is in the collector's own log.
    #[error("the collector's index failed; its own log says more")]
    Failed,
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::TimedOut) {
            return Self::TimedOut(error);
        }
        tracing::error!(%error, "a question failed");
        Self::Failed
    }
}

impl From<Forbidden> for QueryError {
    fn from(forbidden: Forbidden) -> Self {
        Self::Forbidden(forbidden)
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        let text = error.to_string();
        match error {
            QueryError::Search(_)
            | QueryError::Asked(_)
            | QueryError::Cursor
            | QueryError::AmbiguousJob { .. } => Self::invalid_argument(text),
            QueryError::NoJob(_) => Self::not_found(text),
            QueryError::Forbidden(_) => Self::permission_denied(text),
            QueryError::Busy(_) => Self::resource_exhausted(text),
            QueryError::TimedOut(_) => Self::deadline_exceeded(text),
            QueryError::Failed => Self::internal(text),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        QueryError::from(error).into()
    }
}
