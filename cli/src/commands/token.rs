//! `buildtrail token …`

use anyhow::Result;
use buildtrail_proto::v1::{ApiToken, CreateApiTokenRequest, ListApiTokensRequest, RevokeApiTokenRequest};

use super::Context;
use crate::{
    args::Token,
    connect::{access, explain},
    display,
    list::{List, titles},
    time,
};

const COLUMNS: [(&str, usize); 7] = [
    ("TOKEN", 16),
    ("FOR", 24),
    ("OWNER", 20),
    ("ALLOWS", 40),
    ("STATE", 8),
    ("EXPIRES", 24),
    ("LAST USED", 24),
];

pub(super) async fn run(context: &mut Context, order: Token) -> Result<u8> {
    match order {
        Token::Create { name, role, repositories, ttl } => {
            let role = role.unwrap_or_default();
            let lifetime_seconds = ttl.seconds();
            let request = CreateApiTokenRequest { name, role, repositories, lifetime_seconds };
            create(context, request).await?;
        }
        Token::List { all } => list(context, all).await?,
        Token::Revoke { token } => revoke(context, token).await?,
    }
    Ok(0)
}

async fn create(context: &mut Context, request: CreateApiTokenRequest) -> Result<()> {
    let mut client = access(&context.connection).await?;
    let made = client.create_api_token(request).await.map_err(|status| explain(&status))?.into_inner();
    if context.is_json()? {
        return Ok(context.out.json(&made)?);
    }
    let about = made.about.unwrap_or_default();
    context.out.line(display::safe(&made.token, false))?;
    context.out.line(format_args!(
        "\nShown this once; good until {} for {}.",
        time::utc(about.expires.as_ref()),
        display::safe(&allows(&about), false)
    ))?;
    Ok(())
}

async fn list(context: &mut Context, all: bool) -> Result<()> {
    let mut client = access(&context.connection).await?;
    let answer = client.list_api_tokens(ListApiTokensRequest { all }).await;
    let tokens = answer.map_err(|status| explain(&status))?.into_inner().tokens;
    let list = List {
        name: "tokens",
        columns: COLUMNS.to_vec(),
        row: |token| cells(token).iter().map(|cell| display::safe(cell, false)).collect(),
        titles: titles(["token", "for", "owner", "allows", "state", "expires", "used"]),
        cells,
        nothing: "No tokens.",
    };
    Ok(list.print(&mut context.out, context.shape, &tokens)?)
}

async fn revoke(context: &mut Context, token: String) -> Result<()> {
    let mut client = access(&context.connection).await?;
    let request = RevokeApiTokenRequest { id: token.clone() };
    let answer = client.revoke_api_token(request).await.map_err(|status| explain(&status))?;
    if context.is_json()? {
        return Ok(context.out.json(&answer.into_inner())?);
    }
    Ok(context.out.line(format_args!("Revoked {}.", display::safe(&token, false)))?)
}

fn allows(token: &ApiToken) -> String {
    let scope = if token.everything { "everything".to_owned() } else { token.repositories.join(", ") };
    format!("{} of {scope}", token.role)
}

fn cells(token: &ApiToken) -> Vec<String> {
    let now = jiff::Timestamp::now().as_second();
    let over = token.expires.as_ref().is_none_or(|expires| expires.seconds <= now);
    let state = match (token.revoked, over) {
        (true, _) => "revoked",
        (_, true) => "over",
        _ => "valid",
    };
    let used = token.used.as_ref().map_or_else(|| "never".to_owned(), |used| time::utc(Some(used)));
    vec![
        token.id.clone(),
        token.name.clone(),
        token.owner.clone(),
        allows(token),
        state.to_owned(),
        time::utc(token.expires.as_ref()),
        used,
    ]
}
