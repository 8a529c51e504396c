//! `buildtrail jobs`

use anyhow::Result;
use buildtrail_proto::v1::{JobSort, JobSummary, ListJobsRequest};

use super::{Context, Pages, count};
use crate::{
    args::{JobOrder, Jobs},
    columns,
    connect::explain,
    describe, display,
    list::{List, titles},
    time,
};

const COLUMNS: [(&str, usize); 11] = [
    ("JOB", 12),
    ("STARTED", 24),
    ("TOOK", 8),
    ("REPOSITORY", 30),
    ("RUN", 14),
    ("ACTOR", 16),
    ("SECRETS", 8),
    ("CREDENTIALS", 12),
    ("CONNECTIONS", 12),
    ("BYTES OUT", 14),
    ("WORKFLOW / JOB", 40),
];
/// Most jobs in one answer of the collector.
const PAGE: usize = 1000;

pub(super) async fn run(context: &mut Context, jobs: Jobs) -> Result<u8> {
    let search = jobs.which.search(Some(jobs.period))?;
    let sort = match jobs.sort {
        JobOrder::Started => JobSort::Started,
        JobOrder::Duration => JobSort::Duration,
        JobOrder::Events => JobSort::Events,
        JobOrder::BytesOut => JobSort::BytesOut,
    };
    let list = List {
        name: "jobs",
        columns: COLUMNS.to_vec(),
        row,
        titles: titles(columns::JOB_TITLES),
        cells: columns::job,
        nothing: "No jobs.",
    };
    let mut client = context.client().await?;
    let mut printer = list.begin(&mut context.out, context.shape)?;
    let mut pages = Pages::new(jobs.paging, jobs.limit);
    while let Some(limit) = pages.next(printer.printed(), PAGE) {
        let request = ListJobsRequest {
            search: Some(search.clone()),
            limit,
            cursor: pages.cursor().to_owned(),
            sort: sort.into(),
            reversed: jobs.reverse,
        };
        let answer = client.list_jobs(request).await.map_err(|status| explain(&status))?.into_inner();
        printer.page(&mut context.out, &answer.jobs)?;
        pages.reached(answer.next_cursor);
    }
    context.end(printer, &pages, "jobs")
}

fn row(summary: &JobSummary) -> Vec<String> {
    let job = summary.job.clone().unwrap_or_default();
    let safe = |text: &str| display::safe(text, false);
    let took = time::took(summary.first_event.as_ref(), summary.last_event.as_ref());
    vec![
        describe::short_job(Some(&job)),
        time::utc(summary.first_event.as_ref()),
        if summary.finished { took } else { "running".into() },
        safe(&job.repository),
        safe(&job.run_id),
        safe(&job.actor),
        count(&summary.counts, "secret.access"),
        count(&summary.counts, "credential.use"),
        count(&summary.counts, "connection.opened"),
        summary.bytes_out.to_string(),
        format!("{} / {}", safe(&job.workflow), safe(&job.name)),
    ]
}
