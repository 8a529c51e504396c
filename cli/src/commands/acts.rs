//! `buildtrail acts`: what the collector did and noticed itself.

use anyhow::Result;
use buildtrail_proto::v1::{ListActsRequest, RecordedAct};
use buildtrail_words::acts::what;

use super::Context;
use crate::{
    args::Acts,
    columns,
    connect::explain,
    display,
    list::{List, titles},
    time,
};

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
    let list = List {
        name: "acts",
        columns: COLUMNS.to_vec(),
        row,
        titles: titles(["time", "record", "kind", "what"]),
        cells,
        nothing: "No acts.",
    };
    let mut printer = list.begin(&mut context.out, context.shape)?;
    printer.page(&mut context.out, &answer.acts)?;
    printer.end(&mut context.out, &[("more", answer.more.into())])?;
    if answer.more {
        context.out.flush()?;
        eprintln!("buildtrail: more acts match: these are the newest {}; raise --limit", answer.acts.len());
    }
    Ok(0)
}

fn cells(act: &RecordedAct) -> Vec<String> {
    let entry = act.entry.clone().unwrap_or_default();
    vec![columns::utc(entry.time.as_ref()), act.record.to_string(), act.kind.clone(), what(&entry)]
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
