//! The query model: what can be asked of the trail, in which words, what matches, and who may see it.
//!
//! In: a search as text ([`parse`]) or as a message. Out: [`Compiled`], which says of an event whether it matches; the
//! facts by which an index finds events ([`facts`]); the same search as text again ([`to_text`]); and [`Scope`], what a
//! person may see. The collector's index, its live tail, the command line and the pages all mean this by a search; where
//! the index is quicker, it must answer as [`Compiled::matches`] and [`Scope::allows`] do.
//! Fields are numbered by their place in [`Field::ALL`] in indexes: a new order needs a new index.
//! Must never do I/O, nor take more time or memory than the bounds of a search allow.

mod compiled;
mod facts;
mod field;
mod language;
mod network;
mod pattern;
mod scope;
#[cfg(feature = "testing")]
pub mod testing;

pub use compiled::{Compiled, Condition, SearchError};
pub use facts::{Fact, bytes, facts, values};
pub use field::{Field, nearest};
pub use language::{ParseError, parse, parse_at, to_text};
pub use network::Network;
pub use pattern::{Pattern, contains_ignoring_case, exactly};
pub use scope::{RepositoryGlob, RepositoryGlobError, Scope};

/// Most conditions of a search.
pub const MAX_CONDITIONS: usize = 32;
/// Most values of a condition.
pub const MAX_VALUES: usize = 256;
/// Longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024;
