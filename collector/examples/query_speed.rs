//! How fast questions are answered over a large trail while hosts go on sending: `cargo xtask bench query`.
//!
//! A collector in this process, with TLS and its real disk, is filled by several hosts with jobs as a month of a mid-sized
//! company has them, the same each time. Then people ask, each about once a second, and hosts send. It is no test: it
//! prints figures and the goals that they reach or miss.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "figures for people"
)]

mod query_speed {
    pub(crate) mod history;
    pub(crate) mod people;
    pub(crate) mod sending;
}

use std::{env, path::PathBuf, time::Instant};

use query_speed::{history::History, people, sending::Site};

/// Events that arrive per second while people ask.
const INGEST: u64 = 20_000;
const PEOPLE: usize = 50;
const SECONDS: u64 = 60;

#[tokio::main]
async fn main() {
    let mut arguments = env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("a directory"));
    let events: u64 = arguments.next().expect("a number of events").parse().unwrap();
    let site = Site::start(&directory).await;
    let history = History::new(events);

    let started = Instant::now();
    site.fill(&history).await;
    let seconds = started.elapsed().as_secs_f64();
    println!("    filled        {:>9.0} events/s, {events} events indexed", events as f64 / seconds);
    println!(
        "    on disk       {:>9.0} bytes/event (index), {:.0} (log)",
        site.bytes("index.sqlite") / events as f64,
        site.bytes("log") / events as f64
    );

    let sending = site.send_on(&history, INGEST, SECONDS);
    let asked = people::ask(&site, &history, PEOPLE, SECONDS);
    let (sent, mut asked) = tokio::join!(sending, asked);
    asked.print();
    let reached = [
        people::verdict("answers p95", asked.percentile(95), 150.0, "ms"),
        people::verdict("ingest meanwhile, least", -sent, -(INGEST as f64 * 0.99), "events/s"),
    ];
    site.stop().await;
    std::process::exit(i32::from(!reached.iter().all(|reached| *reached)));
}
