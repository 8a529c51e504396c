//! What administrators ask: tokens, the list of hosts, revocation.

use buildtrail_evidence::id::HostId;
use buildtrail_proto::v1::{
    CancelTokenRequest, CancelTokenResponse, CreateTokenRequest, CreateTokenResponse, EnrolledHost,
    HostState, ListHostsRequest, ListHostsResponse, ListTokensRequest, ListTokensResponse, RevokeHostRequest,
    RevokeHostResponse, Token, administration_server::Administration,
};
use globset::Glob;
use tonic::{Request, Response, Status};

use super::{
    Ended, Enrolment,
    control::{HostRow, State, TokenRow},
    internal, now, timestamp,
    token::JoinToken,
};
use crate::access::{Action, person};

const LIFETIME: std::ops::RangeInclusive<u64> = 60..=30 * 86_400;
const USES: std::ops::RangeInclusive<u32> = 1..=10_000;
const MAX_PATTERN: usize = 200;

impl Enrolment {
    /// The name of whoever asks, who may do this.
    fn allowed<T>(&self, request: &Request<T>, action: Action) -> Result<String, Status> {
        Ok(person(request, action, &self.0.health)?.name.clone())
    }
}

#[tonic::async_trait]
impl Administration for Enrolment {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let by = self.allowed(&request, Action::Administer)?;
        let ca_pin = self.authority()?.pin().to_string();
        let CreateTokenRequest { lifetime_seconds, uses, name_pattern } = request.into_inner();
        check(lifetime_seconds, uses, &name_pattern)?;
        let token = JoinToken::generate().map_err(|_| internal(&"the system gives no random numbers"))?;
        let created = now();
        let about = TokenRow {
            id: token.id(),
            created_by: by,
            created,
            expires: created.saturating_add(i64::try_from(lifetime_seconds).unwrap_or(i64::MAX)),
            uses,
            uses_left: uses,
            name_pattern,
            cancelled: false,
        };
        let (shown, row) = (token.reveal(), about.clone());
        let added = self.with_control(move |control| control.add_token(&token, &row, created)).await?;
        if added.is_none() {
            return Err(Status::resource_exhausted(
                "there are 10000 tokens already; give them shorter lives",
            ));
        }
        tracing::info!(token = about.id, by = about.created_by, "join token made");
        self.record_token(&about);
        Ok(Response::new(CreateTokenResponse { token: shown, about: Some(token_message(about)), ca_pin }))
    }

    async fn list_tokens(
        &self,
        request: Request<ListTokensRequest>,
    ) -> Result<Response<ListTokensResponse>, Status> {
        self.allowed(&request, Action::Administer)?;
        let tokens = self.with_control(|control| control.tokens()).await?;
        Ok(Response::new(ListTokensResponse { tokens: tokens.into_iter().map(token_message).collect() }))
    }

    async fn cancel_token(
        &self,
        request: Request<CancelTokenRequest>,
    ) -> Result<Response<CancelTokenResponse>, Status> {
        let by = self.allowed(&request, Action::Administer)?;
        let id = request.into_inner().id;
        let wanted = id.clone();
        if !self.with_control(move |control| control.cancel_token(&wanted)).await? {
            return Err(Status::not_found("no such token; `buildtrail enrol list` shows their ids"));
        }
        tracing::info!(token = id, by, "join token cancelled");
        self.record_cancelled_token(&id, &by);
        Ok(Response::new(CancelTokenResponse {}))
    }

    async fn list_hosts(
        &self,
        request: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        self.allowed(&request, Action::Administer)?;
        let hosts = self.with_control(|control| control.hosts()).await?;
        let hosts = hosts.into_iter().map(|host| {
            let (connected, seen) = self.0.sessions.presence(&host.id);
            host_message(HostRow { seen: host.seen.max(seen), ..host }, connected)
        });
        Ok(Response::new(ListHostsResponse { hosts: hosts.collect() }))
    }

    async fn revoke_host(
        &self,
        request: Request<RevokeHostRequest>,
    ) -> Result<Response<RevokeHostResponse>, Status> {
        let by = self.allowed(&request, Action::RevokeHost)?;
        let wanted = request.into_inner().host;
        let mut found = self.with_control(move |control| control.find_hosts(&wanted)).await?;
        let Some(host) = found.pop() else {
            return Err(Status::not_found(
                "no such host; `buildtrail enrol hosts` shows their ids and names",
            ));
        };
        if !found.is_empty() {
            return Err(Status::invalid_argument("several hosts have this name; give the host id"));
        }
        let id = HostId::parse(&host.id).map_err(|error| internal(&error))?;
        self.end_identity(&id, State::Revoked, Ended::Revoked).await?;
        tracing::info!(host = %id, name = host.name, by, "host revoked");
        self.record_revocation(&id, &by);
        Ok(Response::new(RevokeHostResponse { host_id: host.id, name: host.name }))
    }
}

fn check(lifetime_seconds: u64, uses: u32, name_pattern: &str) -> Result<(), Status> {
    if !LIFETIME.contains(&lifetime_seconds) {
        return Err(Status::invalid_argument("a token lives from one minute to 30 days"));
    }
    if !USES.contains(&uses) {
        return Err(Status::invalid_argument("a token is good for 1 to 10000 hosts"));
    }
    if name_pattern.len() > MAX_PATTERN || Glob::new(name_pattern).is_err() {
        return Err(Status::invalid_argument(
            "the name pattern is not one: use *, ? and [a-z] as in file names",
        ));
    }
    Ok(())
}

fn token_message(token: TokenRow) -> Token {
    Token {
        id: token.id,
        created_by: token.created_by,
        created: Some(timestamp(token.created)),
        expires: Some(timestamp(token.expires)),
        uses: token.uses,
        uses_left: token.uses_left,
        name_pattern: token.name_pattern,
        cancelled: token.cancelled,
    }
}

fn host_message(host: HostRow, connected: bool) -> EnrolledHost {
    let state = match host.state {
        State::Active => HostState::Active,
        State::Cloned => HostState::Cloned,
        State::Revoked => HostState::Revoked,
    };
    EnrolledHost {
        host_id: host.id,
        name: host.name,
        state: state.into(),
        token_id: host.token,
        enrolled: Some(timestamp(host.enrolled)),
        certificate_expires: Some(timestamp(host.expires)),
        last_seen: Some(timestamp(host.seen)),
        connected,
    }
}
