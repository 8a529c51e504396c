//! `buildtrail enrol …`

use anyhow::Result;
use buildtrail_proto::v1::{
    CancelTokenRequest, CreateTokenRequest, EnrolledHost, HostState, ListHostsRequest, ListTokensRequest,
    RevokeHostRequest, Token,
};

use super::Context;
use crate::{
    args::Enrol,
    connect::{administration, explain},
    display,
    list::{List, titles},
    time,
};

const TOKEN_COLUMNS: [(&str, usize); 6] =
    [("TOKEN", 16), ("STATE", 10), ("EXPIRES", 24), ("LEFT", 8), ("HOSTS", 30), ("MADE BY", 20)];
const HOST_COLUMNS: [(&str, usize); 6] = [
    ("HOST", 36),
    ("NAME", 30),
    ("STATE", 10),
    ("CONNECTED", 9),
    ("LAST SEEN", 24),
    ("CERTIFICATE UNTIL", 24),
];

pub(super) async fn run(context: &mut Context, order: Enrol) -> Result<u8> {
    match order {
        Enrol::Create { ttl, uses, pattern } => {
            let request = CreateTokenRequest { lifetime_seconds: ttl.seconds(), uses, name_pattern: pattern };
            create(context, request).await?;
        }
        Enrol::List => list(context).await?,
        Enrol::Cancel { token } => {
            let request = CancelTokenRequest { id: token.clone() };
            let mut client = administration(&context.connection).await?;
            let answer = client.cancel_token(request).await.map_err(|status| explain(&status))?;
            if context.is_json()? {
                context.out.json(&answer.into_inner())?;
            } else {
                context.out.line(format_args!("Cancelled {}.", display::safe(&token, false)))?;
            }
        }
        Enrol::Hosts => hosts(context).await?,
        Enrol::Revoke { host } => revoke(context, host).await?,
    }
    Ok(0)
}

async fn create(context: &mut Context, request: CreateTokenRequest) -> Result<()> {
    let mut client = administration(&context.connection).await?;
    let made = client.create_token(request).await.map_err(|status| explain(&status))?.into_inner();
    if context.is_json()? {
        return Ok(context.out.json(&made)?);
    }
    let about = made.about.unwrap_or_default();
    let out = &mut context.out;
    out.line(display::safe(&made.token, false))?;
    let hosts = match (about.uses, about.name_pattern.as_str()) {
        (1, "") => "one host".to_owned(),
        (uses, "") => format!("{uses} hosts"),
        (1, pattern) => format!("one host named {}", display::safe(pattern, false)),
        (uses, pattern) => format!("{uses} hosts named {}", display::safe(pattern, false)),
    };
    out.line(format_args!(
        "\nShown this once; good until {} for {hosts}.",
        time::utc(about.expires.as_ref())
    ))?;
    out.line("On the host, with the token in a file that only root can read:")?;
    out.line(format_args!(
        "  buildtrail-agent enrol --collector https://HOST:PORT --token-file FILE --ca-pin {}",
        display::safe(&made.ca_pin, false)
    ))?;
    Ok(())
}

async fn list(context: &mut Context) -> Result<()> {
    let mut client = administration(&context.connection).await?;
    let answer = client.list_tokens(ListTokensRequest {}).await.map_err(|status| explain(&status))?;
    let tokens = answer.into_inner().tokens;
    let list = List {
        name: "tokens",
        columns: TOKEN_COLUMNS.to_vec(),
        row: |token| token_cells(token).iter().map(|cell| display::safe(cell, false)).collect(),
        titles: titles(["token", "state", "expires", "left", "hosts", "made_by"]),
        cells: token_cells,
        nothing: "No join tokens.",
    };
    Ok(list.print(&mut context.out, context.shape, &tokens)?)
}

fn token_cells(token: &Token) -> Vec<String> {
    let now = jiff::Timestamp::now().as_second();
    let expired = token.expires.as_ref().is_none_or(|expires| expires.seconds <= now);
    let state = match (token.cancelled, token.uses_left, expired) {
        (true, ..) => "cancelled",
        (_, 0, _) => "used up",
        (_, _, true) => "expired",
        _ => "valid",
    };
    let pattern = if token.name_pattern.is_empty() { "*" } else { &token.name_pattern };
    vec![
        token.id.clone(),
        state.to_owned(),
        time::utc(token.expires.as_ref()),
        format!("{}/{}", token.uses_left, token.uses),
        pattern.to_owned(),
        token.created_by.clone(),
    ]
}

async fn hosts(context: &mut Context) -> Result<()> {
    let mut client = administration(&context.connection).await?;
    let answer = client.list_hosts(ListHostsRequest {}).await.map_err(|status| explain(&status))?;
    let hosts = answer.into_inner().hosts;
    let list = List {
        name: "hosts",
        columns: HOST_COLUMNS.to_vec(),
        row: |host| host_cells(host).iter().map(|cell| display::safe(cell, false)).collect(),
        titles: titles(["host", "name", "state", "connected", "last_seen", "certificate_expires"]),
        cells: host_cells,
        nothing: "No hosts.",
    };
    Ok(list.print(&mut context.out, context.shape, &hosts)?)
}

fn host_cells(host: &EnrolledHost) -> Vec<String> {
    let state = match host.state() {
        HostState::Active => "active",
        HostState::Cloned => "cloned",
        HostState::Revoked => "revoked",
        HostState::Unspecified => "unknown",
    };
    vec![
        host.host_id.clone(),
        host.name.clone(),
        state.to_owned(),
        if host.connected { "yes" } else { "no" }.to_owned(),
        time::utc(host.last_seen.as_ref()),
        time::utc(host.certificate_expires.as_ref()),
    ]
}

async fn revoke(context: &mut Context, host: String) -> Result<()> {
    let mut client = administration(&context.connection).await?;
    let answer = client.revoke_host(RevokeHostRequest { host }).await.map_err(|status| explain(&status))?;
    let answer = answer.into_inner();
    if context.is_json()? {
        return Ok(context.out.json(&answer)?);
    }
    let (name, id) = (display::safe(&answer.name, false), display::safe(&answer.host_id, false));
    Ok(context.out.line(format_args!(
        "Revoked {name} ({id}).\n\
        Its streams are cut. If a join token is still in its hands, cancel that too."
    ))?)
}
