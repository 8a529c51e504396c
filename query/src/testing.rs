//! For tests: events whose every text does what it can to whoever shows or stores it.

use buildtrail_proto::{DESCRIPTORS, Timestamp, v1::AuditEvent};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// 2026-11-22 09:00:00 UTC.
const NINE: i64 = 1_795_338_000;

/// Texts that do something to HTML, SQL, spreadsheets, terminals, eyes, C programs and buffers.
#[must_use]
pub fn hostile_texts() -> Vec<String> {
    [
        "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;{{7*7}}",
        "'; DROP TABLE events; -- \" OR 1=1 %_\\",
        "=cmd|' /C calc'!A0",
        "+1+1\",=2\r\n@SUM(A1:A9)",
        "-2+3\t=1",
        "\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\u{8}\u{7f}\r",
        "gpj.\u{202e}exe\u{2066}a\u{2069}\u{200b}\u{feff}\u{e0041}e\u{301}",
        "nul\0nul\n\ndata: x\n\nevent: end",
    ]
    .map(str::to_owned)
    .into_iter()
    .collect()
}

/// 64 KiB and a control character.
#[must_use]
pub fn long_text() -> String {
    format!("{}\u{1b}", "A".repeat(64 << 10))
}

/// For each hostile text an event of each kind, all of whose texts are that text; and for each text of each kind one
/// event in which it is [`long_text`]. Host, boot and sequence are valid, so
/// that it can be stored; times differ.
///
/// # Panics
/// The compiled `.proto` files are not those that this was built with.
#[must_use]
#[expect(clippy::expect_used, reason = "for tests, which report by panicking")]
pub fn hostile_events() -> Vec<AuditEvent> {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the descriptors are those of this build");
    let event = pool.get_message_by_name("buildtrail.v1.AuditEvent").expect("there are events");
    let body = event.oneofs().find(|oneof| oneof.name() == "body").expect("events have bodies");
    let mut events = Vec::new();
    let mut messages = Vec::new();
    for kind in body.fields() {
        for text in hostile_texts() {
            let mut message = filled(&event, &text);
            message.set_field(&kind, one(&kind, &text));
            messages.push(message);
        }
        // More than one of these is more than an event may hold.
        let of_kind = kind.kind();
        for field in of_kind.as_message().into_iter().flat_map(MessageDescriptor::fields) {
            if matches!(field.kind(), Kind::String) && !field.is_map() {
                let mut holding = filled(&event, "x");
                let value = one(&field, &long_text());
                let value = if field.is_list() { Value::List(vec![value]) } else { value };
                let Value::Message(mut inner) = one(&kind, "x") else { continue };
                inner.set_field(&field, value);
                holding.set_field(&kind, Value::Message(inner));
                messages.push(holding);
            }
        }
    }
    for message in messages {
        let mut event = AuditEvent::decode(&message.encode_to_vec()[..]).expect("events decode");
        let number = events.len() as u64 + 1;
        "h".clone_into(&mut event.host_id);
        "b1".clone_into(&mut event.boot_id);
        event.sequence = number;
        let seconds = NINE.saturating_add(i64::try_from(number).unwrap_or_default());
        event.time = Some(Timestamp { seconds, nanos: 0 });
        events.push(event);
    }
    events
}

/// A message whose every text is this one; of each choice nothing.
fn filled(descriptor: &MessageDescriptor, text: &str) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields().filter(|field| field.containing_oneof().is_none()) {
        let value = match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                let value = one(&entry.map_entry_value_field(), text);
                Value::Map([(MapKey::String(text.to_owned()), value)].into())
            }
            _ if field.is_list() => Value::List(vec![one(&field, text)]),
            _ => one(&field, text),
        };
        message.set_field(&field, value);
    }
    message
}

fn one(field: &FieldDescriptor, text: &str) -> Value {
    match field.kind() {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => Value::Bytes(text.as_bytes().to_vec().into()),
        Kind::Bool => Value::Bool(false),
        Kind::Double => Value::F64(7.0),
        Kind::Float => Value::F32(7.0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(7),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(7),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(7),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(7),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(message) => Value::Message(filled(&message, text)),
    }
}

#[cfg(test)]
mod tests {
    use buildtrail_proto::EVENT_KINDS;

    use super::*;

    #[test]
    fn every_kind_comes_with_every_text() {
        let events = hostile_events();
        for kind in EVENT_KINDS.into_iter().filter(|kind| *kind != "unknown") {
            let of_kind = events.iter().filter(|event| event.kind() == kind).count();
            assert!(of_kind >= hostile_texts().len(), "{kind}: {of_kind}");
        }
        let job = events[0].job.as_ref().unwrap();
        assert!(job.actor.contains("<script>") && job.job_id.contains("<script>"));
    }
}
