//! Times, numbers and names in words.

use buildtrail_proto::Timestamp;

/// `2026-11-22 09:00:00–09:14:07 UTC`; the date is repeated when it differs.
pub(super) fn time_span(first: &Timestamp, last: &Timestamp) -> String {
    let (first, last) = (utc(first), utc(last));
    let (first_day, last_day) = (first.split(' ').next(), last.split(' ').next());
    let last = match (first_day == last_day, last.split_once(' ')) {
        (true, Some((_, time))) => time,
        _ => &last,
    };
    format!("{first}–{last} UTC")
}

/// `2026-11-22 09:00:00`, to the second, in UTC.
pub(super) fn utc(time: &Timestamp) -> String {
    match jiff::Timestamp::from_second(time.seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{} s after 1970", time.seconds),
    }
}

/// A name for people: control characters escaped, cut at 128 characters.
pub(super) fn printable(name: &str) -> String {
    name.chars()
        .take(128)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// `batch 3` or `batches 3–4`.
pub(super) fn range(one: &str, many: &str, first: u64, last: u64) -> String {
    if first == last { format!("{one} {first}") } else { format!("{many} {first}–{last}") }
}

/// `1 event` or `5 events`.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}
