//! `buildtrail hosts`

use anyhow::Result;
use buildtrail_proto::v1::{HostSummary, HostsRequest};

use super::Context;
use crate::{
    columns,
    connect::explain,
    display,
    list::{List, titles},
    time,
};

const COLUMNS: [(&str, usize); 12] = [
    ("NAME", 24),
    ("HOST", 36),
    ("STATE", 6),
    ("TIER", 7),
    ("LAST HEARD", 24),
    ("LAG", 8),
    ("CAPTURED", 12),
    ("LOST", 8),
    ("SPOOL", 12),
    ("AGENT", 12),
    ("CERTIFICATE UNTIL", 24),
    ("NOT SEEN", usize::MAX),
];

pub(super) async fn run(context: &mut Context) -> Result<u8> {
    let answer = context.client().await?.list_hosts(HostsRequest {}).await;
    let hosts = answer.map_err(|status| explain(&status))?.into_inner().hosts;
    let list = List {
        name: "hosts",
        columns: COLUMNS.to_vec(),
        row,
        titles: titles(columns::HOST_TITLES),
        cells: columns::host,
        nothing: "No hosts.",
    };
    list.print(&mut context.out, context.shape, &hosts)?;
    Ok(0)
}

fn row(host: &HostSummary) -> Vec<String> {
    let safe = |text: &str| display::safe(text, false);
    let heard = host.last_heard.as_ref().or(host.last_event.as_ref());
    vec![
        safe(&host.name),
        safe(&host.host_id),
        if host.dark { "dark" } else { "ok" }.to_owned(),
        columns::tier(host.tier()).to_owned(),
        time::utc(heard),
        time::duration(i128::from(host.lag_ms) * 1_000_000),
        host.events_captured.to_string(),
        host.events_lost.to_string(),
        host.spool_bytes.to_string(),
        safe(&host.agent_version),
        time::utc(host.certificate_expires.as_ref()),
        safe(&host.gaps.join(" ")),
    ]
}
