//! Events and acts in words, for people.
//!
//! In: [`AuditEvent`](buildtrail_proto::v1::AuditEvent)s and the collector's entries. Out: short plain sentences, the same
//! in the command line and in the browser; and rows and documents for programs. Must never let a character through that does something when it is shown: no
//! control, direction or invisible characters; what shows text as HTML still escapes HTML.

pub mod acts;
pub mod columns;
pub mod describe;
pub mod display;
pub mod formats;
pub mod time;
