//! `buildtrail jobs`

use anyhow::Result;
use buildtrail_proto::v1::{Condition, JobSummary, ListJobsRequest, Search};

use super::{Context, count};
use crate::{args::Jobs, connect::explain, describe, display, time};

const COLUMNS: [(&str, usize); 10] = [
    ("JOB", 12),
    ("STARTED", 24),
    ("TOOK", 8),
    ("REPOSITORY", 30),
    ("RUN", 14),
    ("ACTOR", 16),
    ("SECRETS", 8),
    ("CREDENTIALS", 12),
    ("CONNECTIONS", 12),
    ("WORKFLOW / JOB", 40),
];

pub(super) async fn run(context: &mut Context, jobs: Jobs) -> Result<u8> {
    let repository = jobs.repository.map(|repository| Condition {
        field: "repo".into(),
        values: vec![repository],
        ..Condition::default()
    });
    let search = Search {
        r#where: repository.into_iter().collect(),
        since: jobs.period.since,
        until: jobs.period.until,
        ..Search::default()
    };
    let request = ListJobsRequest { search: Some(search), limit: jobs.limit, ..ListJobsRequest::default() };
    let answer = context.client().await?.list_jobs(request).await.map_err(|status| explain(&status))?;
    let found = answer.into_inner().jobs;
    if context.json {
        for job in &found {
            context.out.json(job)?;
        }
    } else if found.is_empty() {
        context.out.line("No jobs.")?;
    } else {
        context.out.table(&COLUMNS, &found.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(0)
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
        format!("{} / {}", safe(&job.workflow), safe(&job.name)),
    ]
}
