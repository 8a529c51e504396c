//! Times in the zone that the reader chose.

use buildtrail_proto::{Timestamp, unix_nanos};
use jiff::{Zoned, tz::TimeZone};
use maud::{Markup, html};

/// Remembers the zone between pages.
pub(super) const COOKIE: &str = "tz";
/// Longest name of a zone.
const MAX_NAME: usize = 64;
/// What is offered; every other name of the zone database works as well.
pub(super) const OFFERED: [&str; 30] = [
    "UTC",
    "Africa/Cairo",
    "Africa/Johannesburg",
    "Africa/Lagos",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Mexico_City",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Toronto",
    "Asia/Dubai",
    "Asia/Hong_Kong",
    "Asia/Jakarta",
    "Asia/Kolkata",
    "Asia/Seoul",
    "Asia/Shanghai",
    "Asia/Singapore",
    "Asia/Tokyo",
    "Australia/Perth",
    "Australia/Sydney",
    "Europe/Amsterdam",
    "Europe/Berlin",
    "Europe/Helsinki",
    "Europe/London",
    "Europe/Madrid",
    "Europe/Paris",
    "Europe/Warsaw",
    "Europe/Zurich",
    "Pacific/Auckland",
];

/// A time zone.
#[derive(Debug, Clone)]
pub(crate) struct Zone {
    name: String,
    zone: TimeZone,
}

impl Zone {
    pub(super) fn utc() -> Self {
        Self { name: "UTC".into(), zone: TimeZone::UTC }
    }

    /// The zone of this name, if there is one.
    pub(super) fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("utc") {
            return Some(Self::utc());
        }
        let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(sane) {
            return None;
        }
        let zone = TimeZone::get(name).ok()?;
        let name = zone.iana_name().unwrap_or(name).to_owned();
        Some(Self { name, zone })
    }

    /// `Europe/Berlin`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn local(&self, time: &Timestamp) -> Option<Zoned> {
        let time = jiff::Timestamp::from_nanosecond(unix_nanos(time)).ok()?;
        Some(time.to_zoned(self.zone.clone()))
    }

    /// `2026-11-22 10:00:00`; hovering tells all of it.
    pub(super) fn time(&self, time: Option<&Timestamp>) -> Markup {
        self.shown(time, "%Y-%m-%d %H:%M:%S")
    }

    /// With milliseconds, where order matters.
    pub(super) fn exact(&self, time: Option<&Timestamp>) -> Markup {
        self.shown(time, "%Y-%m-%d %H:%M:%S%.3f")
    }

    /// The same without markup.
    pub(super) fn exact_text(&self, time: &Timestamp) -> String {
        self.local(time).map_or_else(String::new, |local| local.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string())
    }

    /// With the zone, where a time stands alone.
    pub(super) fn full(&self, time: Option<&Timestamp>) -> Markup {
        self.shown(time, "%Y-%m-%d %H:%M:%S %Z")
    }

    /// For the axis of a chart.
    pub(super) fn axis(&self, time: &Timestamp, days: bool) -> String {
        let format = if days { "%b %-d" } else { "%H:%M" };
        self.local(time).map_or_else(String::new, |time| time.strftime(format).to_string())
    }

    fn shown(&self, time: Option<&Timestamp>, format: &str) -> Markup {
        let Some(local) = time.and_then(|time| self.local(time)) else {
            return html! { span.none { "–" } };
        };
        let machine = local.timestamp().to_string();
        let full = format!("{} ({machine})", local.strftime("%A %Y-%m-%d %H:%M:%S%.6f %Z"));
        html! { time datetime=(machine) title=(full) { (local.strftime(format)) } }
    }

    /// `3 min ago`, with the time itself behind it.
    pub(super) fn ago(&self, time: Option<&Timestamp>, now: &Timestamp) -> Markup {
        let Some(local) = time.and_then(|time| self.local(time)) else {
            return html! { span.none { "never" } };
        };
        let seconds = now.seconds - local.timestamp().as_second();
        let words = match seconds {
            ..0 => "in the future".to_owned(),
            0..60 => format!("{seconds} s ago"),
            60..3600 => format!("{} min ago", seconds / 60),
            3600..172_800 => format!("{} h ago", seconds / 3600),
            _ => format!("{} days ago", seconds / 86_400),
        };
        html! { time datetime=(local.timestamp()) title=(local.strftime("%Y-%m-%d %H:%M:%S %Z")) { (words) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_come_by_name_and_nonsense_does_not() {
        let time = Timestamp { seconds: 1_795_338_000, nanos: 5_000_000 };
        let berlin = Zone::named("Europe/Berlin").unwrap();
        assert!(berlin.full(Some(&time)).into_string().contains(">2026-11-22 10:00:00 CET<"));
        assert!(Zone::utc().exact(Some(&time)).into_string().contains(">2026-11-22 09:00:00.005<"));
        assert_eq!(Zone::named("utc").unwrap().name(), "UTC");
        for wrong in ["", "Europe/Nowhere", "../../etc/passwd", "<b>", &"x".repeat(100)] {
            assert!(Zone::named(wrong).is_none(), "{wrong}");
        }
        for name in OFFERED {
            assert!(Zone::named(name).is_some(), "{name}");
        }
    }
}
