//! Resolves and validates every structure member that the eBPF programs read.

use buildtrail_agent_abi::{Member, OFFSET_FIELDS, Offsets};

use super::btf::{Btf, BtfError};

/// Offsets for the running kernel, and what it lacks.
#[derive(Debug)]
pub struct Resolved {
    /// To be injected into the programs.
    pub offsets: Offsets,
    /// One sentence for each member that is missing or different; what needs it is off.
    pub missing: Vec<String>,
}

/// Resolves all of [`OFFSET_FIELDS`].
#[must_use]
pub fn resolve(btf: &Btf<'_>) -> Resolved {
    let mut resolved = Resolved { offsets: Offsets::absent(), missing: Vec::new() };
    for member in OFFSET_FIELDS {
        match resolve_one(btf, member) {
            Ok(offset) => {
                if let Some(field) = resolved.offsets.member_mut(member.field) {
                    *field = offset;
                }
            }
            Err(error) => resolved.missing.push(error.to_string()),
        }
    }
    resolved
}

/// The first alternative that is there and right, else what is wrong with the last one.
fn resolve_one(btf: &Btf<'_>, member: &Member) -> Result<u32, BtfError> {
    let mut outcome = Err(BtfError::NoStructure(member.structure.to_owned()));
    for path in member.path.split('|') {
        outcome = resolve_path(btf, member, path);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn resolve_path(btf: &Btf<'_>, member: &Member, path: &str) -> Result<u32, BtfError> {
    let place = btf.member(member.structure, path)?;
    let unexpected = |found: String, expected: String| BtfError::Unexpected {
        structure: member.structure.to_owned(),
        path: path.to_owned(),
        found,
        expected,
    };
    let width = btf.width(place)?;
    if member.width != 0 && width != Some(member.width) {
        let found = width.map_or_else(|| "not a scalar".to_owned(), |width| format!("{width} bytes wide"));
        return Err(unexpected(found, format!("{} bytes", member.width)));
    }
    let pointee = btf.pointee(place)?;
    if !member.pointee.is_empty() && pointee != member.pointee {
        return Err(unexpected(
            format!("a pointer to '{pointee}'"),
            format!("a pointer to '{}'", member.pointee),
        ));
    }
    Ok(place.offset)
}
