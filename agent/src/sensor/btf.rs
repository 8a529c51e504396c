//! Finds structure members in the running kernel's type information (Documentation/bpf/btf.rst).
//!
//! Borrows the raw bytes and keeps one offset for each type: a few hundred KiB while it lives.

use std::{collections::HashMap, fmt};

/// The kernel's own type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const TYPE_HEADER_BYTES: usize = 12;
/// Members of members of anonymous members: more than any kernel nests, and an end for a hostile file.
const MAX_DEPTH: u32 = 32;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FWD: u32 = 7;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why a member cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or cut short.
    #[error("malformed kernel type information at byte {0}")]
    Malformed(usize),
    /// This kernel has no such structure.
    #[error("the kernel has no struct {0}")]
    NoStructure(String),
    /// The structure has no such member.
    #[error("struct {structure} has no member {path}")]
    NoMember {
        /// The structure.
        structure: String,
        /// The path that was looked for.
        path: String,
    },
    /// The member is there but is not what the programs expect.
    #[error("{structure}.{path} is {found}, expected {expected}")]
    Unexpected {
        /// The structure.
        structure: String,
        /// The member.
        path: String,
        /// What BTF says.
        found: String,
        /// What the programs were written for.
        expected: String,
    },
}

/// Parsed BTF.
pub struct Btf<'a> {
    data: &'a [u8],
    strings: usize,
    /// Where each type begins; index 0 is `void`.
    types: Vec<u32>,
    structures: HashMap<&'a [u8], u32>,
    functions: HashMap<&'a [u8], u32>,
    /// `btf_trace_NAME`: pointers to the functions that tracepoints call.
    tracepoints: HashMap<&'a [u8], u32>,
}

impl fmt::Debug for Btf<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Btf").field("types", &self.types.len()).finish_non_exhaustive()
    }
}

/// A member's place and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start of the structure.
    pub offset: u32,
    type_id: u32,
}

struct Type {
    at: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Type {
    fn kind(&self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn members(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn is_composite(&self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }

    fn is_modifier(&self) -> bool {
        matches!(self.kind(), kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG)
    }

    fn trailing_bytes(&self) -> usize {
        match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 4,
            kind::ARRAY => 12,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * self.members(),
            kind::ENUM | kind::FUNC_PROTO => 8 * self.members(),
            _ => 0,
        }
    }
}

impl<'a> Btf<'a> {
    /// Indexes `data`.
    ///
    /// # Errors
    ///
    /// [`BtfError::Malformed`] when it is not little-endian BTF or ends early.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        if read_u16(data, 0)? != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header = read_u32(data, 4)? as usize;
        let types_start = header.saturating_add(read_u32(data, 8)? as usize);
        let types_end = types_start.saturating_add(read_u32(data, 12)? as usize);
        let strings = header.saturating_add(read_u32(data, 16)? as usize);
        if types_end > data.len() || strings > data.len() {
            return Err(BtfError::Malformed(data.len()));
        }
        let mut btf = Self {
            data,
            strings,
            types: vec![0],
            structures: HashMap::new(),
            functions: HashMap::new(),
            tracepoints: HashMap::new(),
        };
        let mut at = types_start;
        while at < types_end {
            let entry = btf.type_at(at)?;
            let id = u32::try_from(btf.types.len()).map_err(|_| BtfError::Malformed(at))?;
            btf.types.push(u32::try_from(at).map_err(|_| BtfError::Malformed(at))?);
            if entry.kind() == kind::STRUCT && entry.members() > 0 {
                let name = btf.string(entry.name)?;
                btf.structures.entry(name).or_insert(id);
            } else if entry.kind() == kind::FUNC {
                let name = btf.string(entry.name)?;
                btf.functions.entry(name).or_insert(id);
            } else if entry.kind() == kind::TYPEDEF
                && let Some(name) = btf.string(entry.name)?.strip_prefix(b"btf_trace_")
            {
                btf.tracepoints.entry(name).or_insert(id);
            }
            at += TYPE_HEADER_BYTES + entry.trailing_bytes();
        }
        Ok(btf)
    }

    /// Finds a member (`a`, or `a.b` for a member of a member), looking into anonymous structures and unions.
    ///
    /// # Errors
    ///
    /// [`BtfError::NoStructure`] or [`BtfError::NoMember`] when this kernel lacks it, [`BtfError::Malformed`].
    pub fn member(&self, structure: &str, path: &str) -> Result<Place, BtfError> {
        let id = *self
            .structures
            .get(structure.as_bytes())
            .ok_or_else(|| BtfError::NoStructure(structure.to_owned()))?;
        let mut place = Place { offset: 0, type_id: id };
        for name in path.split('.') {
            let inner = self.find(place.type_id, name.as_bytes(), MAX_DEPTH)?;
            let inner =
                inner.ok_or_else(|| BtfError::NoMember { structure: structure.into(), path: path.into() })?;
            place = Place { offset: place.offset + inner.offset, type_id: inner.type_id };
        }
        Ok(place)
    }

    /// Size in bytes of the member's type; `None` for types without one.
    ///
    /// # Errors
    ///
    /// [`BtfError::Malformed`]
    pub fn width(&self, place: Place) -> Result<Option<u32>, BtfError> {
        let entry = self.resolve(place.type_id)?;
        Ok(match entry.kind() {
            kind::PTR => Some(8),
            kind::INT | kind::ENUM | kind::ENUM64 | kind::STRUCT | kind::UNION => Some(entry.size_or_type),
            _ => None,
        })
    }

    /// Name of the structure that the member points to; empty when it is no pointer to a structure.
    ///
    /// # Errors
    ///
    /// [`BtfError::Malformed`]
    pub fn pointee(&self, place: Place) -> Result<String, BtfError> {
        let entry = self.resolve(place.type_id)?;
        if entry.kind() != kind::PTR || entry.size_or_type == 0 {
            return Ok(String::new());
        }
        let target = self.resolve(entry.size_or_type)?;
        Ok(String::from_utf8_lossy(self.string(target.name)?).into_owned())
    }

    /// Types of a kernel function's arguments, in C's words; `None` when this kernel has no such function.
    ///
    /// # Errors
    ///
    /// [`BtfError::Malformed`]
    pub fn function(&self, name: &str) -> Result<Option<Vec<String>>, BtfError> {
        let Some(id) = self.functions.get(name.as_bytes()) else { return Ok(None) };
        let entry = self.entry(*id)?;
        self.arguments(entry.size_or_type).map(Some)
    }

    /// Types of a tracepoint's arguments, in C's words; `None` when this kernel has no such tracepoint.
    ///
    /// # Errors
    ///
    /// [`BtfError::Malformed`]
    pub fn tracepoint(&self, name: &str) -> Result<Option<Vec<String>>, BtfError> {
        let Some(id) = self.tracepoints.get(name.as_bytes()) else { return Ok(None) };
        let pointer = self.resolve(*id)?;
        let mut arguments = self.arguments(pointer.size_or_type)?;
        // The first is what the tracepoint's user registered.
        if !arguments.is_empty() {
            arguments.remove(0);
        }
        Ok(Some(arguments))
    }

    fn arguments(&self, prototype: u32) -> Result<Vec<String>, BtfError> {
        let prototype = self.resolve(prototype)?;
        let argument = |index: usize| {
            let id = read_u32(self.data, prototype.at + TYPE_HEADER_BYTES + index * 8 + 4)?;
            self.type_name(id, MAX_DEPTH)
        };
        (0..prototype.members()).map(argument).collect()
    }

    /// A type in C's words, without qualifiers; names of typedefs stay.
    fn type_name(&self, id: u32, depth: u32) -> Result<String, BtfError> {
        if id == 0 || depth == 0 {
            return Ok("void".to_owned());
        }
        let entry = self.entry(id)?;
        let name = String::from_utf8_lossy(self.string(entry.name)?).into_owned();
        Ok(match entry.kind() {
            kind::PTR => format!("{} *", self.type_name(entry.size_or_type, depth - 1)?).replace("* *", "**"),
            kind::STRUCT | kind::FWD => format!("struct {name}"),
            kind::UNION => format!("union {name}"),
            kind::ENUM | kind::ENUM64 => format!("enum {name}"),
            kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                self.type_name(entry.size_or_type, depth - 1)?
            }
            _ => name,
        })
    }

    fn entry(&self, id: u32) -> Result<Type, BtfError> {
        let at = *self.types.get(id as usize).ok_or(BtfError::Malformed(id as usize))?;
        self.type_at(at as usize)
    }

    fn find(&self, id: u32, name: &[u8], depth: u32) -> Result<Option<Place>, BtfError> {
        let entry = self.resolve(id)?;
        if !entry.is_composite() || depth == 0 {
            return Ok(None);
        }
        let bitfields = entry.info >> 31 == 1;
        for index in 0..entry.members() {
            let at = entry.at + TYPE_HEADER_BYTES + index * 12;
            let member_type = read_u32(self.data, at + 4)?;
            let raw = read_u32(self.data, at + 8)?;
            let bits = if bitfields { raw & 0x00ff_ffff } else { raw };
            let member = self.string(read_u32(self.data, at)?)?;
            if member == name {
                return Ok(Some(Place { offset: bits / 8, type_id: member_type }));
            }
            if member.is_empty()
                && let Some(inner) = self.find(member_type, name, depth - 1)?
            {
                return Ok(Some(Place { offset: bits / 8 + inner.offset, type_id: inner.type_id }));
            }
        }
        Ok(None)
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Result<Type, BtfError> {
        for _ in 0..MAX_DEPTH {
            let entry = self.entry(id)?;
            if !entry.is_modifier() {
                return Ok(entry);
            }
            id = entry.size_or_type;
        }
        Err(BtfError::Malformed(id as usize))
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        Ok(Type {
            at,
            name: read_u32(self.data, at)?,
            info: read_u32(self.data, at + 4)?,
            size_or_type: read_u32(self.data, at + 8)?,
        })
    }

    fn string(&self, offset: u32) -> Result<&'a [u8], BtfError> {
        let start = self.strings.saturating_add(offset as usize);
        let rest = self.data.get(start..).ok_or(BtfError::Malformed(start))?;
        let end = rest.iter().position(|&byte| byte == 0).ok_or(BtfError::Malformed(start))?;
        Ok(&rest[..end])
    }
}

fn read_u16(data: &[u8], at: usize) -> Result<u16, BtfError> {
    let bytes = data.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u16::from_le_bytes).ok_or(BtfError::Malformed(at))
}

fn read_u32(data: &[u8], at: usize) -> Result<u32, BtfError> {
    let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or(BtfError::Malformed(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF file with the given types and strings; names are offsets into `strings`.
    fn file(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut data = vec![0x9f, 0xeb, 1, 0];
        let length = u32::try_from(types.len()).unwrap();
        for word in [24, 0, length, length, u32::try_from(strings.len()).unwrap()] {
            data.extend(word.to_le_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    const STRINGS: &[u8] = b"\0outer\0a\0b\0inner\0";

    /// `struct outer { int a; struct { int b; }; struct outer *inner; }`
    fn sample() -> Vec<u8> {
        let structure = |name: u32, members: u32, size: u32| [name, kind::STRUCT << 24 | members, size];
        let int = [0, kind::INT << 24, 4, 32];
        let outer = structure(1, 3, 16);
        let anonymous = structure(0, 1, 4);
        file(
            &[
                &int,
                &outer,
                &[7, 1, 0],
                &[0, 3, 32],
                &[11, 4, 64],
                &anonymous,
                &[9, 1, 0],
                &[0, kind::PTR << 24, 2],
            ],
            STRINGS,
        )
    }

    #[test]
    fn members_are_found_also_inside_anonymous_ones() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.member("outer", "a").unwrap().offset, 0);
        assert_eq!(btf.member("outer", "b").unwrap().offset, 4);
        let inner = btf.member("outer", "inner").unwrap();
        assert_eq!((inner.offset, btf.width(inner).unwrap()), (8, Some(8)));
        assert_eq!(btf.pointee(inner).unwrap(), "outer");
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.member("other", "a").unwrap_err(), BtfError::NoStructure("other".into()));
        let missing = btf.member("outer", "zz").unwrap_err();
        assert_eq!(missing.to_string(), "struct outer has no member zz");
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_and_never_panics() {
        let data = sample();
        for end in 0..data.len() {
            if let Ok(btf) = Btf::parse(&data[..end]) {
                let _ = btf.member("outer", "b");
            }
        }
    }
}
