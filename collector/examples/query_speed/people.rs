//! People who ask.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use buildtrail_proto::v1::{
    AggregateRequest, Bucket, GetJobRequest, HostsRequest, ListJobsRequest, SearchEventsRequest,
    query_client::QueryClient,
};
use tonic::transport::Channel;

use super::{
    history::{History, REPOSITORIES, mix},
    sending::Site,
};

/// Between an answer and the next question, on average.
const THINKING: u64 = 1000;

/// How long each kind of question took.
#[derive(Default)]
pub(crate) struct Asked(BTreeMap<&'static str, Vec<f64>>);

impl Asked {
    pub(crate) fn percentile(&mut self, percent: usize) -> f64 {
        percentile(self.0.values().flatten().copied().collect(), percent)
    }

    pub(crate) fn print(&mut self) {
        for (question, times) in &self.0 {
            let of = |percent| percentile(times.clone(), percent);
            println!(
                "    {question:<28} p50 {:>7.1} ms  p95 {:>7.1} ms  ({} asked)",
                of(50),
                of(95),
                times.len()
            );
        }
        let count: usize = self.0.values().map(Vec::len).sum();
        println!(
            "    {:<28} p50 {:>7.1} ms  p95 {:>7.1} ms  ({count} asked)",
            "all",
            self.percentile(50),
            self.percentile(95)
        );
    }
}

fn percentile(mut times: Vec<f64>, percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Says whether a figure is below its bound.
pub(crate) fn verdict(what: &str, value: f64, bound: f64, unit: &str) -> bool {
    let reached = value < bound;
    let words = if reached { "within" } else { "MISSES" };
    println!("    {what}: {:.1} {unit} ({words} the goal of {:.0} {unit})", value.abs(), bound.abs());
    reached
}

/// Lets people ask for a while.
pub(crate) async fn ask(site: &Site, _: &History, people: usize, seconds: u64) -> Asked {
    let mut asking = Vec::new();
    for number in 0..people {
        let reader = site.reader().await;
        let seed = mix(number as u64 + 1_000_000);
        asking.push(tokio::spawn(one(reader, seed, Duration::from_secs(seconds))));
    }
    let mut asked = Asked::default();
    for one in asking {
        for (question, times) in one.await.unwrap().0 {
            asked.0.entry(question).or_default().extend(times);
        }
    }
    asked
}

async fn one(mut reader: QueryClient<Channel>, seed: u64, time: Duration) -> Asked {
    let (start, mut asked, mut random) = (Instant::now(), Asked::default(), seed);
    let mut job = String::new();
    while start.elapsed() < time {
        random = mix(random);
        tokio::time::sleep(Duration::from_millis(random % (2 * THINKING))).await;
        let began = Instant::now();
        let question = question(&mut reader, random, &mut job).await;
        asked.0.entry(question).or_default().push(began.elapsed().as_secs_f64() * 1000.0);
    }
    asked
}

async fn question(reader: &mut QueryClient<Channel>, random: u64, job: &mut String) -> &'static str {
    let (one, two) = (random / 64, random / 4096);
    let repository = one % REPOSITORIES;
    let secret = two % 60;
    let searched = match random % 20 {
        0 => {
            Some(("search secret, repo", format!("repo=org-{}/* secret~\"credentials {secret}\"", one % 12)))
        }
        1 => Some(("search destination", format!("dest=*.service-{repository}.example.net port=443"))),
        2 => Some(("search kind", "kind=secret.access".to_owned())),
        3 => Some(("search actor, kind", format!("actor=dev-{} kind=connection.closed", one % 120))),
        4 => Some((
            "search program, day",
            format!("exe=*/curl kind=process.exec since=2026-11-{:02}", 1 + one % 20),
        )),
        5 => Some(("search network", format!("address=198.51.{}.0/24", one % 200))),
        6 => Some(("search free text", format!("\"module_{}\"", one % 400))),
        7 => Some(("search everything", String::new())),
        _ => None,
    };
    if let Some((name, text)) = searched {
        let search = Some(buildtrail_query::parse(&text).unwrap());
        let request = SearchEventsRequest { search, limit: 100, ..SearchEventsRequest::default() };
        reader.search_events(request).await.unwrap();
        return name;
    }
    let counted = match random % 20 {
        8 => {
            Some(("secrets, last day", "kind=secret.access since=2026-11-21", "secret", Bucket::Unspecified))
        }
        9 => Some(("destinations, last week", "since=2026-11-15", "dest", Bucket::Unspecified)),
        10 | 11 => Some(("overview, kinds by the hour", "since=2026-11-21", "kind", Bucket::Hour)),
        12 => Some(("repositories of a family", "family=aws", "repo", Bucket::Unspecified)),
        13 => Some(("secrets, whole month", "", "secret", Bucket::Unspecified)),
        _ => None,
    };
    if let Some((name, text, by, over_time)) = counted {
        let request = AggregateRequest {
            search: Some(buildtrail_query::parse(text).unwrap()),
            by: vec![by.into()],
            over_time: over_time.into(),
            limit: 100,
            ..AggregateRequest::default()
        };
        reader.aggregate(request).await.unwrap();
        return name;
    }
    match random % 20 {
        14 if !job.is_empty() => {
            reader.get_job(GetJobRequest { job_id: job.clone() }).await.unwrap();
            "one job"
        }
        15 => {
            reader.list_hosts(HostsRequest {}).await.unwrap();
            "hosts"
        }
        16 => {
            let text = format!("secret~\"credentials {secret}\" dest=cdn-{}.example.com", one % 6);
            jobs(reader, &text, job).await;
            "jobs by secret, destination"
        }
        17 => {
            jobs(reader, &format!("repo=org-*/service-{repository}"), job).await;
            "jobs of a repository"
        }
        _ => {
            jobs(reader, "", job).await;
            "jobs, newest"
        }
    }
}

async fn jobs(reader: &mut QueryClient<Channel>, text: &str, job: &mut String) {
    let search = Some(buildtrail_query::parse(text).unwrap());
    let request = ListJobsRequest { search, limit: 50, ..ListJobsRequest::default() };
    let found = reader.list_jobs(request).await.unwrap().into_inner().jobs;
    if let Some(found) = found.into_iter().next_back().and_then(|summary| summary.job) {
        *job = found.job_id;
    }
}
