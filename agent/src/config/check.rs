//! Bounds of single values and rules over several, each with the sentence that the operator reads.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    path::{Component, Path},
};

use buildtrail_evidence::id::is_valid_id;
use buildtrail_settings::Invalid;
use globset::Glob;
use tonic::transport::Uri;

use super::{Catalog, Collector, Config, Enrol, Runners, Sensor, Spool, TrustMode};
use crate::job::platform;

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
    enrol(&config.enrol)?;
    spool(&config.spool)?;
    catalog(&config.catalog)?;
    sensor(&config.sensor)?;
    platforms(config)?;
    within("runners.job_idle_seconds", config.runners.job_idle_seconds, &(1..=3600))?;
    absolute("hooks.socket", &config.hooks.socket)?;
    for (index, program) in config.runners.programs.iter().enumerate() {
        absolute(&format!("runners.programs.{index}.executable"), &program.executable)?;
        let mut known = platform::built_in_names();
        known.extend(config.platform.iter().map(|rule| rule.name.as_str()));
        if !known.contains(&program.platform.as_str()) {
            let problem =
                format!("unknown platform \"{}\": expected one of {}", program.platform, known.join(", "));
            return Err(Invalid::new(format!("runners.programs.{index}.platform"), problem));
        }
    }
    Ok(())
}

fn platforms(config: &Config) -> Result<(), Invalid> {
    let rules = &config.platform;
    if rules.len() > platform::check::MAX_PLATFORMS {
        let problem = format!("more than {} platforms", platform::check::MAX_PLATFORMS);
        return Err(Invalid::new("platform", problem));
    }
    for (index, rule) in rules.iter().enumerate() {
        platform::check::rule(rule, &format!("platform.{index}."))?;
        if rules[..index].iter().any(|earlier| earlier.name == rule.name) {
            let problem = format!("\"{}\" is there twice", rule.name);
            return Err(Invalid::new(format!("platform.{index}.name"), problem));
        }
    }
    trusted_runners(&config.runners)
}

fn trusted_runners(runners: &Runners) -> Result<(), Invalid> {
    for (index, trusted) in runners.trusted.iter().enumerate() {
        let key = |name: &str| format!("runners.trusted.{index}{name}");
        if trusted.unit.is_none() && trusted.executable.is_none() && trusted.user.is_none() {
            return Err(Invalid::new(key(""), "expected unit, executable or user, or several of them"));
        }
        if let Some(unit) = &trusted.unit {
            Glob::new(unit)
                .map_err(|error| Invalid::new(key(".unit"), format!("wrong wildcard: {}", error.kind())))?;
        }
        if let Some(executable) = &trusted.executable {
            absolute(&key(".executable"), executable)?;
        }
    }
    if runners.trust == TrustMode::Declared && runners.trusted.is_empty() {
        let rule = "\"declared\" without any [[runners.trusted]]: no job would be known";
        return Err(Invalid::new("runners.trust", rule));
    }
    Ok(())
}

fn collector(collector: &Collector) -> Result<(), Invalid> {
    if collector.addresses.is_empty() {
        return Err(Invalid::new("collector.addresses", "expected at least one address"));
    }
    for (index, address) in collector.addresses.iter().enumerate() {
        if !is_url(address, "https") {
            return Err(Invalid::new(
                format!("collector.addresses.{index}"),
                format!("expected https://HOST:PORT, found \"{address}\""),
            ));
        }
    }
    let files = [
        ("collector.ca", &collector.ca),
        ("collector.certificate", &collector.certificate),
        ("collector.private_key", &collector.private_key),
    ];
    let given = files.iter().filter(|(_, path)| path.is_some()).count();
    for (key, path) in files {
        match path {
            Some(path) => absolute(key, path)?,
            None if given > 0 => {
                let rule = "ca, certificate and private_key are given together, or none of them";
                return Err(Invalid::new("collector", rule));
            }
            None => {}
        }
    }
    if collector.server_name.as_ref().is_some_and(String::is_empty) {
        return Err(Invalid::new("collector.server_name", "must not be empty; leave the key out instead"));
    }
    proxy(collector)?;
    match collector.max_bytes_per_second {
        0 => Ok(()),
        bound => within("collector.max_bytes_per_second", bound, &(8 * KIB..=TIB)),
    }
}

fn proxy(collector: &Collector) -> Result<(), Invalid> {
    let with_port = |url: &str| url.parse::<Uri>().is_ok_and(|uri| uri.port().is_some());
    match &collector.proxy {
        Some(url) if !is_url(url, "http") || !with_port(url) => {
            return Err(Invalid::new(
                "collector.proxy",
                format!("expected http://HOST:PORT, found \"{url}\""),
            ));
        }
        None if collector.proxy_credentials.is_some() => {
            return Err(Invalid::new("collector.proxy_credentials", "collector.proxy is missing"));
        }
        _ => {}
    }
    collector.proxy_credentials.as_ref().map_or(Ok(()), |path| absolute("collector.proxy_credentials", path))
}

/// A scheme, a host, perhaps a port, and nothing else.
fn is_url(text: &str, scheme: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        let plain = uri.path() == "/" && uri.query().is_none() && !text.contains('@');
        uri.scheme_str() == Some(scheme) && uri.host().is_some_and(|host| !host.is_empty()) && plain
    })
}

fn enrol(enrol: &Enrol) -> Result<(), Invalid> {
    match (&enrol.token_file, &enrol.ca_pin) {
        (Some(path), Some(_)) => absolute("enrol.token_file", path)?,
        (None, None) => {}
        _ => return Err(Invalid::new("enrol", "token_file and ca_pin are given together, or none of them")),
    }
    match &enrol.name {
        Some(name) if !is_valid_id(name) || name.len() > 64 => {
            Err(Invalid::new("enrol.name", "expected 1 to 64 letters, digits, '.', '_', ':' or '-'"))
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
    sensor.pin_directory.as_deref().map_or(Ok(()), |directory| absolute("sensor.pin_directory", directory))
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
