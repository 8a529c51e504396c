//! Times: what people type, and what they read (UTC, always).

use buildtrail_proto::{Timestamp, timestamp_from_unix_nanos, unix_nanos};

/// Reads an RFC 3339 time, or how long ago it was: a number and s, m, h, d or w.
///
/// # Errors
/// It is neither; says what is expected.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, jiff::Timestamp::now())
}

fn parse_at(text: &str, now: jiff::Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(timestamp_from_unix_nanos(time.as_nanosecond()));
    }
    let wrong =
        || "expected a time like 2026-11-22T09:00:00Z, or how long ago: 30s, 15m, 2h, 1d, 1w".to_owned();
    let (at, unit) = text.char_indices().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(wrong()),
    };
    let count: u32 = text[..at].parse().map_err(|_| wrong())?;
    let ago = i128::from(count) * seconds * 1_000_000_000;
    Ok(timestamp_from_unix_nanos(now.as_nanosecond() - ago))
}

/// `2026-11-22T09:00:00.123Z`; a dash where there is none.
#[must_use]
pub fn utc(time: Option<&Timestamp>) -> String {
    let time = time.and_then(|time| jiff::Timestamp::from_nanosecond(unix_nanos(time)).ok());
    time.map_or_else(|| "-".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// From `start` to `time`, as `+1.234s`; a dash where one is missing.
#[must_use]
pub fn since(start: Option<&Timestamp>, time: Option<&Timestamp>) -> String {
    match (start, time) {
        (Some(start), Some(time)) => {
            let nanos = unix_nanos(time) - unix_nanos(start);
            let sign = if nanos < 0 { '-' } else { '+' };
            let millis = nanos.unsigned_abs() / 1_000_000;
            format!("{sign}{}.{:03}s", millis / 1000, millis % 1000)
        }
        _ => "-".into(),
    }
}

/// How long something took, for people: `3ms`, `1.2s`, `4m05s`, `2h07m`.
#[must_use]
pub fn duration(nanos: i128) -> String {
    let millis = nanos.max(0) / 1_000_000;
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}.{}s", millis % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long it took from one time to the other; a dash where one is missing.
#[must_use]
pub fn took(first: Option<&Timestamp>, last: Option<&Timestamp>) -> String {
    match (first, last) {
        (Some(first), Some(last)) => duration(unix_nanos(last) - unix_nanos(first)),
        _ => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_relative_to_now() {
        let now: jiff::Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-22T09:00:00Z", "2026-11-22T09:00:00.000Z"),
            ("2026-11-22T10:00:00+01:00", "2026-11-22T09:00:00.000Z"),
            ("30s", "2026-11-22T11:59:30.000Z"),
            ("15m", "2026-11-22T11:45:00.000Z"),
            ("2h", "2026-11-22T10:00:00.000Z"),
            ("1d", "2026-11-21T12:00:00.000Z"),
            ("1w", "2026-11-15T12:00:00.000Z"),
        ] {
            assert_eq!(utc(Some(&parse_at(text, now).unwrap())), expected, "{text}");
        }
        for wrong in ["", "m", "-1h", "1y", "yesterday", "1.5h", "é", "99999999999w"] {
            assert!(parse_at(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_short() {
        let second = 1_000_000_000;
        for (nanos, expected) in [
            (-5, "0ms"),
            (3_999_999, "3ms"),
            (1_290_000_000, "1.2s"),
            (245 * second, "4m05s"),
            (7620 * second, "2h07m"),
        ] {
            assert_eq!(duration(nanos), expected);
        }
        let time = |seconds| Some(Timestamp { seconds, nanos: 5_000_000 });
        assert_eq!(since(time(10).as_ref(), time(11).as_ref()), "+1.000s");
        assert_eq!(since(time(10).as_ref(), time(9).as_ref()), "-1.000s");
        assert_eq!(since(None, time(9).as_ref()), "-");
    }
}
