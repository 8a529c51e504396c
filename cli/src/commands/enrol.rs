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
    display, time,
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
            if context.json {
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
    if context.json {
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
    if context.json {
        for token in &tokens {
            context.out.json(token)?;
        }
    } else if tokens.is_empty() {
        context.out.line("No join tokens.")?;
    } else {
        let now = jiff::Timestamp::now().as_second();
        let rows: Vec<_> = tokens.iter().map(|token| token_row(token, now)).collect();
        context.out.table(&TOKEN_COLUMNS, &rows)?;
    }
    Ok(())
}

fn token_row(token: &Token, now: i64) -> Vec<String> {
    let expired = token.expires.as_ref().is_none_or(|expires| expires.seconds <= now);
    let state = match (token.cancelled, token.uses_left, expired) {
        (true, ..) => "cancelled",
        (_, 0, _) => "used up",
        (_, _, true) => "expired",
        _ => "valid",
    };
    let pattern = if token.name_pattern.is_empty() { "*" } else { &token.name_pattern };
    vec![
        display::safe(&token.id, false),
        state.to_owned(),
        time::utc(token.expires.as_ref()),
        format!("{}/{}", token.uses_left, token.uses),
        display::safe(pattern, false),
        display::safe(&token.created_by, false),
    ]
}

async fn hosts(context: &mut Context) -> Result<()> {
    let mut client = administration(&context.connection).await?;
    let answer = client.list_hosts(ListHostsRequest {}).await.map_err(|status| explain(&status))?;
    let hosts = answer.into_inner().hosts;
    if context.json {
        for host in &hosts {
            context.out.json(host)?;
        }
    } else if hosts.is_empty() {
        context.out.line("No hosts.")?;
    } else {
        context.out.table(&HOST_COLUMNS, &hosts.iter().map(host_row).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn host_row(host: &EnrolledHost) -> Vec<String> {
    let state = match host.state() {
        HostState::Active => "active",
        HostState::Cloned => "cloned",
        HostState::Revoked => "revoked",
        HostState::Unspecified => "unknown",
    };
    vec![
        display::safe(&host.host_id, false),
        display::safe(&host.name, false),
        state.to_owned(),
        if host.connected { "yes".to_owned() } else { "no".to_owned() },
        time::utc(host.last_seen.as_ref()),
        time::utc(host.certificate_expires.as_ref()),
    ]
}

async fn revoke(context: &mut Context, host: String) -> Result<()> {
    let mut client = administration(&context.connection).await?;
    let answer = client.revoke_host(RevokeHostRequest { host }).await.map_err(|status| explain(&status))?;
    let answer = answer.into_inner();
    if context.json {
        return Ok(context.out.json(&answer)?);
    }
    let (name, id) = (display::safe(&answer.name, false), display::safe(&answer.host_id, false));
    Ok(context.out.line(format_args!(
        "Revoked {name} ({id}).\n\
        Its streams are cut. If a join token is still in its hands, cancel that too."
    ))?)
}
