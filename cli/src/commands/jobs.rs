//! `buildtrail jobs`

use anyhow::Result;
use buildtrail_proto::v1::{JobSummary, ListJobsRequest};

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
    let request = ListJobsRequest {
        limit: jobs.limit,
        repository: jobs.repository.unwrap_or_default(),
        since: jobs.period.since,
        until: jobs.period.until,
    };
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
