//! Events apart into what they share with others and the rest.

/// The tags of `host_id`, `boot_id` and `job` in an `AuditEvent`.
const SHARED: [u64; 3] = [1, 2, 6];

/// The shared fields of an encoded event, and the others. One behind the other they are the event again.
pub(super) fn split(encoded: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut shared, mut rest) = (Vec::new(), Vec::with_capacity(encoded.len()));
    let mut at = 0;
    while let Some((tag, length)) = field(&encoded[at..]) {
        let part = &encoded[at..at + length];
        if SHARED.contains(&tag) {
            shared.extend(part);
        } else {
            rest.extend(part);
        }
        at += length;
    }
    rest.extend(&encoded[at..]);
    (shared, rest)
}

/// Tag and length of the first field; `None` where there is no whole one.
fn field(bytes: &[u8]) -> Option<(u64, usize)> {
    let (key, mut length) = varint(bytes)?;
    match key & 7 {
        0 => length += varint(&bytes[length..])?.1,
        1 => length += 8,
        2 => {
            let (size, digits) = varint(&bytes[length..])?;
            length = length.checked_add(digits)?.checked_add(usize::try_from(size).ok()?)?;
        }
        5 => length += 4,
        _ => return None,
    }
    (length <= bytes.len()).then_some((key >> 3, length))
}

fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::v1::{AuditEvent, Heartbeat, Job, Process, audit_event::Body};
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_parts_of_an_event_are_the_event() {
        let event = AuditEvent {
            host_id: "h".into(),
            boot_id: "b".into(),
            sequence: u64::MAX,
            job: Some(Job { job_id: "j".repeat(300), ..Job::default() }),
            process: Some(Process { pid: 7, ..Process::default() }),
            truncated: true,
            body: Some(Body::Heartbeat(Heartbeat { events_lost: 300, ..Heartbeat::default() })),
            ..AuditEvent::default()
        };
        let (shared, rest) = split(&event.encode_to_vec());
        assert_eq!(AuditEvent::decode(&[&shared[..], &rest].concat()[..]).unwrap(), event);
        let shared = AuditEvent::decode(&shared[..]).unwrap();
        let expected = AuditEvent {
            host_id: "h".into(),
            boot_id: "b".into(),
            job: event.job.clone(),
            ..AuditEvent::default()
        };
        assert_eq!(shared, expected);
        assert!(AuditEvent::decode(&rest[..]).unwrap().job.is_none());
    }

    #[test]
    fn what_is_no_event_is_kept() {
        for bytes in [&[0xff; 12][..], &[0x0a, 5, 1], &[0x0b]] {
            assert_eq!(split(bytes), (vec![], bytes.to_vec()));
        }
    }
}
