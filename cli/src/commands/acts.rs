//! `buildtrail acts`: what the collector did and noticed itself.

use anyhow::Result;
use buildtrail_proto::v1::{ListActsRequest, RecordedAct};
use buildtrail_words::acts::what;

use super::Context;
use crate::{args::Acts, connect::explain, display, time};

const COLUMNS: [(&str, usize); 4] = [("TIME", 24), ("RECORD", 12), ("KIND", 19), ("WHAT", usize::MAX)];

pub(super) async fn run(context: &mut Context, acts: Acts) -> Result<u8> {
    let request = ListActsRequest {
        kinds: acts.kinds,
        host_id: acts.host.unwrap_or_default(),
        since: acts.period.since,
        until: acts.period.until,
        limit: acts.limit,
    };
    let answer = context.client().await?.list_acts(request).await.map_err(|status| explain(&status))?;
    let answer = answer.into_inner();
    if context.json {
        for act in &answer.acts {
            context.out.json(act)?;
        }
    } else if answer.acts.is_empty() {
        context.out.line("No acts.")?;
    } else {
        context.out.table(&COLUMNS, &answer.acts.iter().map(row).collect::<Vec<_>>())?;
    }
    if answer.more {
        context.out.flush()?;
        eprintln!("buildtrail: more acts match: these are the newest {}; raise --limit", answer.acts.len());
    }
    Ok(0)
}

fn row(act: &RecordedAct) -> Vec<String> {
    let entry = act.entry.clone().unwrap_or_default();
    vec![
        time::utc(entry.time.as_ref()),
        act.record.to_string(),
        display::safe(&act.kind, false),
        display::safe(&what(&entry), false),
    ]
}
