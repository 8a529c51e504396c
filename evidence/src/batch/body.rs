//! A batch's body: its events, and the hashes of those that are no longer there.
//!
//! In: the bytes of a `BatchBody`. Out: one [`Slot`] per event of the batch. There is one way to write a body down:
//! hashes cover the events, not what frames them, so any other way is refused.

use buildtrail_proto::v1::Withheld;
use prost::Message as _;

use super::{BatchError, MAX_EVENT_BYTES};
use crate::{
    digest::Digest,
    merkle::{Frontier, leaf_hash},
};

const EVENT_TAG: u8 = 0x0a;
const WITHHELD_TAG: u8 = 0x12;

/// What stands at one position of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot<'a> {
    /// An encoded event.
    Event(&'a [u8]),
    /// The leaf hash of one that is not here.
    Withheld(Digest),
}

impl Slot<'_> {
    pub(crate) fn leaf_hash(&self) -> Digest {
        match self {
            Self::Event(encoded) => leaf_hash(encoded),
            Self::Withheld(hash) => *hash,
        }
    }
}

/// The root over the slots' leaf hashes.
pub(crate) fn root(slots: &[Slot<'_>]) -> Digest {
    let mut frontier = Frontier::default();
    for slot in slots {
        frontier.push(slot.leaf_hash());
    }
    frontier.root()
}

/// Reads a body of exactly `count` events, withheld ones included.
pub(crate) fn parse(body: &[u8], count: usize) -> Result<Vec<Slot<'_>>, BatchError> {
    let mut fields = Fields { rest: body };
    let (mut events, mut withheld) = (Vec::new(), Vec::new());
    while let Some((tag, value)) = fields.next()? {
        match tag {
            EVENT_TAG if withheld.is_empty() => events.push(value),
            WITHHELD_TAG => withheld.push(parse_withheld(value, withheld.last(), count)?),
            _ => return Err(BatchError::Body("it holds something other than events")),
        }
        if events.len() + withheld.len() > count {
            break;
        }
    }
    if events.len() + withheld.len() != count {
        return Err(BatchError::Body("it holds another number of events than the header says"));
    }
    Ok(interleave(&events, &withheld, count))
}

/// Indexes ascend and are below the count, and the numbers add up: so every position is filled exactly once.
fn interleave<'a>(events: &[&'a [u8]], withheld: &[(usize, Digest)], count: usize) -> Vec<Slot<'a>> {
    let (mut events, mut withheld) = (events.iter(), withheld.iter().peekable());
    let slot = |position| match withheld.next_if(|(index, _)| *index == position) {
        Some((_, hash)) => Some(Slot::Withheld(*hash)),
        None => events.next().map(|event| Slot::Event(event)),
    };
    (0..count).map_while(slot).collect()
}

fn parse_withheld(
    value: &[u8],
    before: Option<&(usize, Digest)>,
    count: usize,
) -> Result<(usize, Digest), BatchError> {
    let malformed = || BatchError::Body("what it says about a withheld event is malformed");
    let entry = Withheld::decode(value).map_err(|_| malformed())?;
    let index = usize::try_from(entry.index).map_err(|_| malformed())?;
    let hash = Digest::try_from(&entry.leaf_hash[..]).map_err(|_| malformed())?;
    let ascends = before.is_none_or(|(before, _)| index > *before);
    if !ascends || index >= count || entry.encode_to_vec() != value {
        return Err(malformed());
    }
    Ok((index, hash))
}

/// Writes slots down as the bytes of a body.
pub(crate) fn encode(slots: &[Slot<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for slot in slots {
        if let Slot::Event(encoded) = slot {
            push_field(&mut body, EVENT_TAG, encoded);
        }
    }
    for (index, slot) in (0..).zip(slots) {
        if let Slot::Withheld(hash) = slot {
            let entry = Withheld { index, leaf_hash: hash.as_bytes().to_vec() };
            push_field(&mut body, WITHHELD_TAG, &entry.encode_to_vec());
        }
    }
    body
}

fn push_field(body: &mut Vec<u8>, tag: u8, value: &[u8]) {
    body.push(tag);
    let mut length = value.len();
    while length >= 0x80 {
        body.push(low_bits(length) | 0x80);
        length >>= 7;
    }
    body.push(low_bits(length));
    body.extend_from_slice(value);
}

fn low_bits(value: usize) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Length-delimited fields with one-byte tags, lengths written as short as they can be.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, BatchError> {
        let malformed = || BatchError::Body("it does not decode");
        let Some((&tag, mut rest)) = self.rest.split_first() else { return Ok(None) };
        let before = rest.len();
        let length = prost::decode_length_delimiter(&mut rest).map_err(|_| malformed())?;
        if before - rest.len() != prost::length_delimiter_len(length) {
            return Err(malformed());
        }
        if length > MAX_EVENT_BYTES {
            return Err(BatchError::Body("it holds an event of more than 256 KiB"));
        }
        let (value, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(Some((tag, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: Digest = Digest([7; 32]);

    #[test]
    fn slots_round_trip_in_their_places() {
        let long = vec![5; 300];
        let slots = [Slot::Withheld(HASH), Slot::Event(b"one"), Slot::Withheld(HASH), Slot::Event(&long)];
        for count in 0..=slots.len() {
            let body = encode(&slots[..count]);
            assert_eq!(parse(&body, count).unwrap(), slots[..count]);
            assert!(parse(&body, count + 1).is_err());
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_body_down() {
        let entry = |index| Withheld { index, leaf_hash: vec![7; 32] }.encode_to_vec();
        let field = |tag, value: &[u8]| {
            let mut body = Vec::new();
            push_field(&mut body, tag, value);
            body
        };
        let event = field(EVENT_TAG, b"e");
        let second = field(WITHHELD_TAG, &entry(1));
        assert!(parse(&[event.clone(), second.clone()].concat(), 2).is_ok());
        for (what, body) in [
            ("withheld before events", [second.clone(), event.clone()].concat()),
            ("a position twice", [second.clone(), second.clone()].concat()),
            ("a position that is not there", [event.clone(), field(WITHHELD_TAG, &entry(2))].concat()),
            ("another field", [event.clone(), field(0x1a, b"x")].concat()),
            ("a length longer than needed", [&event[..], &[EVENT_TAG, 0x81, 0x00, b'e']].concat()),
            ("a hash too short", [&event[..], &field(WITHHELD_TAG, &entry(1)[..20])].concat()),
            (
                "an explicit zero",
                [event.clone(), field(WITHHELD_TAG, &[&[8, 0][..], &entry(0)].concat())].concat(),
            ),
            ("cut off", [&event[..], &second[..second.len() - 1]].concat()),
        ] {
            assert!(parse(&body, 2).is_err(), "{what}");
        }
    }

    #[test]
    fn countless_empty_events_are_refused_without_reading_them_all() {
        let body = [EVENT_TAG, 0].repeat(2_000_000);
        assert!(parse(&body, 3).is_err());
    }
}
