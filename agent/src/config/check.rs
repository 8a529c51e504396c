//! Bounds of single values and rules over several, each with the sentence that the operator reads.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    path::{Component, Path},
};

use buildtrail_settings::Invalid;
use globset::Glob;
use tonic::transport::Uri;

use super::{Catalog, Collector, Config, Sensor, Spool};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const TIB: u64 = 1024 * 1024 * MIB;

/// Longest name or family in characters.
const MAX_NAME: usize = 100;

/// Ten years.
const MAX_AGE_HOURS: u64 = 87_600;

/// Spool files at least: fewer, and freeing one would free most of the spool.
const MIN_SEGMENTS: u64 = 4;

pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    absolute("host.state_directory", &config.host.state_directory)?;
    collector(&config.collector)?;
    spool(&config.spool)?;
    catalog(&config.catalog)?;
    sensor(&config.sensor)?;
    for (index, program) in config.runners.programs.iter().enumerate() {
        absolute(&format!("runners.programs.{index}.executable"), &program.executable)?;
    }
    Ok(())
}

fn collector(collector: &Collector) -> Result<(), Invalid> {
    let wrong = || {
        Invalid::new(
            "collector.address",
            format!("expected https://HOST:PORT, found \"{}\"", collector.address),
        )
    };
    let uri: Uri = collector.address.parse().map_err(|_| wrong())?;
    let rest_is_empty = uri.path() == "/" && uri.query().is_none();
    if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) || !rest_is_empty {
        return Err(wrong());
    }
    absolute("collector.ca", &collector.ca)?;
    absolute("collector.certificate", &collector.certificate)?;
    absolute("collector.private_key", &collector.private_key)?;
    match &collector.server_name {
        Some(name) if name.is_empty() => {
            Err(Invalid::new("collector.server_name", "must not be empty; leave the key out instead"))
        }
        _ => Ok(()),
    }
}

fn spool(spool: &Spool) -> Result<(), Invalid> {
    within("spool.max_bytes", spool.max_bytes, &(MIB..=TIB))?;
    within("spool.min_free_bytes", spool.min_free_bytes, &(0..=TIB))?;
    within("spool.max_age_hours", spool.max_age_hours, &(1..=MAX_AGE_HOURS))?;
    within("spool.segment_bytes", spool.segment_bytes, &(64 * KIB..=TIB))?;
    if spool.segment_bytes > spool.max_bytes / MIN_SEGMENTS {
        return Err(Invalid::new(
            "spool.segment_bytes",
            format!(
                "{} is more than a quarter of spool.max_bytes ({}): lower it or raise spool.max_bytes",
                spool.segment_bytes, spool.max_bytes
            ),
        ));
    }
    within("spool.batch_events", spool.batch_events, &(1..=1000))?;
    within("spool.batch_interval_ms", spool.batch_interval_ms, &(1..=60_000))
}

fn catalog(catalog: &Catalog) -> Result<(), Invalid> {
    for (index, home) in catalog.homes.iter().enumerate() {
        let key = format!("catalog.homes.{index}");
        if !home.starts_with('/') {
            return Err(Invalid::new(key, format!("expected an absolute path, found \"{home}\"")));
        }
        wildcards_at_the_end(&key, home)?;
    }
    for (index, file) in catalog.files.iter().enumerate() {
        let key = |name: &str| format!("catalog.files.{index}.{name}");
        short_text(key("name"), &file.name)?;
        short_text(key("family"), &file.family)?;
        if !file.path.starts_with('/') && !file.path.starts_with("~/") {
            return Err(Invalid::new(
                key("path"),
                format!("expected an absolute path or one that begins with ~/, found \"{}\"", file.path),
            ));
        }
        wildcards_at_the_end(&key("path"), &file.path)?;
    }
    Ok(())
}

fn sensor(sensor: &Sensor) -> Result<(), Invalid> {
    for (key, size) in [
        ("sensor.critical_ring_bytes", sensor.critical_ring_bytes),
        ("sensor.bulk_ring_bytes", sensor.bulk_ring_bytes),
    ] {
        within(key, u64::from(size), &(64 * KIB..=256 * MIB))?;
        if !size.is_power_of_two() {
            let below = 1_u32 << size.ilog2();
            return Err(Invalid::new(
                key,
                format!("{size} is not a power of two: take {below} or {}", u64::from(below) * 2),
            ));
        }
    }
    Ok(())
}

fn within<N: Copy + PartialOrd + Display>(
    key: &str,
    value: N,
    range: &RangeInclusive<N>,
) -> Result<(), Invalid> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (range.start(), range.end());
    Err(Invalid::new(key, format!("{value} is out of range: from {least} to {most}")))
}

fn absolute(key: &str, path: &Path) -> Result<(), Invalid> {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && !climbs {
        return Ok(());
    }
    Err(Invalid::new(key, format!("expected an absolute path without .., found \"{}\"", path.display())))
}

fn short_text(key: String, text: &str) -> Result<(), Invalid> {
    let length = text.chars().count();
    if length == 0 || length > MAX_NAME || text.chars().any(char::is_control) {
        return Err(Invalid::new(key, format!("expected 1 to {MAX_NAME} printable characters")));
    }
    Ok(())
}

fn wildcards_at_the_end(key: &str, path: &str) -> Result<(), Invalid> {
    let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
    if folder.contains(['*', '?', '[', '{']) {
        return Err(Invalid::new(key, "wildcards are understood in the last component only"));
    }
    if last.is_empty() && path != "/" {
        return Err(Invalid::new(key, "must not end in /"));
    }
    Glob::new(last).map_err(|error| Invalid::new(key, format!("wrong wildcard: {}", error.kind())))?;
    Ok(())
}
