//! Writes a log of events as a real job makes them, then measures how fast it is verified: `cargo xtask bench verify`.
//!
//! Prints one line of figures. The log is in a temporary directory that goes when this ends.

use std::{error::Error, time::Instant};

use buildtrail_evidence::{
    batch::{Build, ChainHead, LossTotals, Sealer},
    id::{BootId, HostId},
    key::HostKey,
    log::{HostRecord, LogEntry},
    records::{Limits, RecordLog},
    verify,
};
use buildtrail_proto::{
    timestamp_from_unix_nanos,
    v1::{
        Assurance, AuditEvent, ConnectionOpened, Job, Process, ProcessExec, Protocol, SecretAccess, Step,
        audit_event::Body,
    },
};

const EVENTS_PER_BATCH: u64 = 256;
const BATCHES_PER_HOST: u64 = 500;
const DEFAULT_EVENTS: u64 = 1_024_000;
/// 2026-11-22 09:00:00 UTC.
const START: i128 = 1_795_338_000_000_000_000;

#[expect(clippy::print_stdout, reason = "the figures are its output")]
fn main() -> Result<(), Box<dyn Error>> {
    let events = std::env::args().nth(1).map_or(Ok(DEFAULT_EVENTS), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let bytes = write(directory.path(), events)?;
    let start = Instant::now();
    let report = verify::verify(directory.path())?;
    let seconds = start.elapsed().as_secs_f64();
    if !report.is_intact() || !report.is_complete() {
        return Err(format!("the log that was just written does not verify: {:?}", report.problems).into());
    }
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (per_second, megabytes) = (report.events as f64 / seconds, bytes as f64 / 1e6);
    println!(
        "{} events in {} batches, {megabytes:.0} MB: {seconds:.2} s, {per_second:.0} events/s",
        report.events, report.batches
    );
    Ok(())
}

fn write(directory: &std::path::Path, events: u64) -> Result<u64, Box<dyn Error>> {
    let (mut log, _) = RecordLog::open(directory, Limits::default())?;
    let mut left = events;
    let mut host = 0_u8;
    while left > 0 {
        host += 1;
        let key = HostKey::from_seed(&[host; 32]);
        let host_id = format!("host-{host}");
        log.append(&LogEntry::Host(introduction(&host_id, &key)?).encode())?;
        let mut sealer = Sealer::new(HostId::parse(&host_id)?, Build::default(), key, ChainHead::default());
        for _ in 0..BATCHES_PER_HOST {
            let count = left.min(EVENTS_PER_BATCH);
            if count == 0 {
                break;
            }
            left -= count;
            let batch = (0..count).map(|number| event(events - left + number)).collect();
            let made = sealer.seal(&BootId::parse("b1")?, batch, LossTotals::default());
            log.append(&LogEntry::Batch(made.batch).encode())?;
        }
    }
    log.sync()?;
    Ok(log.total_bytes())
}

fn introduction(host_id: &str, key: &HostKey) -> Result<HostRecord, Box<dyn Error>> {
    let public_key = key.public().as_bytes().to_vec();
    let certificate = [hex::decode("302a300506032b6570032100")?, public_key.clone()].concat();
    Ok(HostRecord { host_id: host_id.into(), name: host_id.into(), public_key, certificate })
}

fn event(number: u64) -> AuditEvent {
    let body = match number % 4 {
        0 => Body::SecretAccess(SecretAccess {
            secret: "AWS shared credentials".into(),
            family: "aws".into(),
            path: "/home/runner/.aws/credentials".into(),
            device: 0x10_0002,
            inode: 1_048_576 + number,
            operations: vec![1, 2],
            ..Default::default()
        }),
        1 => Body::ConnectionOpened(ConnectionOpened {
            protocol: Protocol::Tcp.into(),
            remote_address: "140.82.121.6".into(),
            remote_port: 443,
            dns_names: vec!["api.github.com".into()],
            ..Default::default()
        }),
        _ => Body::ProcessExec(ProcessExec {
            filename: "/usr/bin/git".into(),
            argv: vec!["git".into(), "rev-parse".into(), "--short".into(), "HEAD".into()],
            working_directory: "/home/runner/work/widgets/widgets".into(),
            device: 0x10_0002,
            inode: 4711,
            ..Default::default()
        }),
    };
    let nanos = number * 1_000_000;
    AuditEvent {
        time: Some(timestamp_from_unix_nanos(START + i128::from(nanos))),
        boot_time_ns: 3_600_000_000_000 + nanos,
        job: Some(Job {
            job_id: format!("{:032x}", number / 4000),
            platform: "github-actions".into(),
            server: "https://github.com".into(),
            repository: "acme/widgets".into(),
            workflow: "release".into(),
            run_id: "9876543210".into(),
            run_attempt: "1".into(),
            name: "build".into(),
            actor: "mallory".into(),
            r#ref: "refs/heads/main".into(),
            sha: "f0c93d0000000000000000000000000000000000".into(),
            trigger: "push".into(),
            runner_name: "runner-7".into(),
            assurance: Assurance::Observed.into(),
            ..Job::default()
        }),
        step: Some(Step { id: "__run_2".into(), index: 2, name: "Build".into(), ..Step::default() }),
        process: Some(Process {
            pid: 4242,
            start_boot_time_ns: 3_600_000_000_000,
            parent_pid: 4200,
            executable: "/usr/bin/bash".into(),
            uid: 1000,
            effective_uid: 1000,
            container: String::new(),
        }),
        body: Some(body),
        ..Default::default()
    }
}
