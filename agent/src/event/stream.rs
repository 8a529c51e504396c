//! DNS messages over TCP, put together from pieces of the stream (RFC 1035, 4.2.2).

use std::collections::HashMap;

use crate::sensor::records::{Dns, Piece, SocketId};

/// Streams of all jobs that are followed at the same time.
const MAX_STREAMS: usize = 1024;
/// Messages are shorter than this, by their length of two bytes.
const MAX_BUFFER: usize = 2 + u16::MAX as usize;

#[derive(Debug, Default)]
struct Stream {
    next: Option<u32>,
    buffer: Vec<u8>,
}

/// The streams to and from resolvers.
#[derive(Debug, Default)]
pub struct DnsStreams(HashMap<(SocketId, bool), Stream>);

impl DnsStreams {
    /// Takes a piece; returns the messages that are whole now. A stream that misses a piece is given up.
    pub fn add(&mut self, piece: Piece, message: &Dns) -> Vec<Dns> {
        if self.0.len() >= MAX_STREAMS {
            self.0.clear();
        }
        let stream = self.0.entry((piece.socket, message.incoming)).or_default();
        let expected = stream.next.unwrap_or(piece.sequence);
        // Sequence numbers wrap: what lies behind is a repetition.
        let ahead = piece.sequence.wrapping_sub(expected).cast_signed();
        let known = usize::try_from(-i64::from(ahead)).unwrap_or(usize::MAX);
        if ahead > 0 {
            // A hole. What follows cannot be split into messages.
            stream.buffer.clear();
            return Vec::new();
        }
        let Some(new) = message.payload.get(known..) else { return Vec::new() };
        let length = u32::try_from(new.len()).unwrap_or(u32::MAX);
        stream.next = Some(expected.wrapping_add(length));
        if stream.buffer.len() + new.len() <= MAX_BUFFER {
            stream.buffer.extend_from_slice(new);
        }
        stream.messages(message)
    }

    /// The connection ended.
    pub fn forget(&mut self, socket: SocketId) {
        self.0.remove(&(socket, true));
        self.0.remove(&(socket, false));
    }
}

impl Stream {
    fn messages(&mut self, of: &Dns) -> Vec<Dns> {
        let mut messages = Vec::new();
        while let Some((length, rest)) = self.buffer.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(payload) = rest.get(..length) else { break };
            messages.push(Dns { stream: None, payload: payload.to_vec(), truncated: false, ..of.clone() });
            self.buffer.drain(..2 + length);
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(streams: &mut DnsStreams, sequence: u32, bytes: &[u8]) -> Vec<Vec<u8>> {
        let message = Dns {
            resolver: [127, 0, 0, 1].into(),
            incoming: true,
            stream: None,
            payload: bytes.to_vec(),
            truncated: false,
        };
        let piece = Piece { socket: SocketId(1), sequence };
        streams.add(piece, &message).into_iter().map(|message| message.payload).collect()
    }

    #[test]
    fn messages_are_found_wherever_the_stream_is_split() {
        let stream = [&[0, 3, 1, 2, 3][..], &[0, 1, 9], &[0, 0]].concat();
        let whole: Vec<Vec<u8>> = vec![vec![1, 2, 3], vec![9], vec![]];
        for at in 0..=stream.len() {
            let mut streams = DnsStreams::default();
            // Near the end of the sequence numbers.
            let first = u32::MAX - 3;
            let mut found = add(&mut streams, first, &stream[..at]);
            found.extend(add(&mut streams, first, &stream[..at]));
            found.extend(add(&mut streams, first.wrapping_add(u32::try_from(at).unwrap()), &stream[at..]));
            assert_eq!(found, whole, "split at {at}");
        }
    }

    #[test]
    fn a_stream_with_a_hole_is_given_up() {
        let mut streams = DnsStreams::default();
        assert!(add(&mut streams, 10, &[0, 3, 1]).is_empty());
        assert!(add(&mut streams, 99, &[0, 1, 7]).is_empty());
    }
}
