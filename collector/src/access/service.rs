//! The same for programs: `access.proto`.

use std::sync::Arc;

use buildtrail_proto::{
    Timestamp,
    v1::{
        ApiToken, CreateApiTokenRequest, CreateApiTokenResponse, ListApiTokensRequest, ListApiTokensResponse,
        RevokeApiTokenRequest, RevokeApiTokenResponse, RevokePersonRequest, RevokePersonResponse,
        WhoAmIRequest, WhoAmIResponse, access_server,
    },
};
use buildtrail_query::{RepositoryGlob, Scope};
use tonic::{Request, Response, Status};

use super::{
    Access, Action, Person, Role,
    people::{Problem, WantedToken},
    person,
    records::TokenRow,
};

impl Access {
    fn caller<T>(&self, request: &Request<T>, action: Action) -> Result<Arc<Person>, Status> {
        person(request, action, self.health())
    }
}

#[tonic::async_trait]
impl access_server::Access for Access {
    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let person = self.caller(&request, Action::Read)?;
        let (everything, repositories) = scope_message(&person.scope);
        let (name, role) = (person.name.clone(), person.role.to_string());
        Ok(Response::new(WhoAmIResponse { name, role, repositories, everything }))
    }

    async fn create_api_token(
        &self,
        request: Request<CreateApiTokenRequest>,
    ) -> Result<Response<CreateApiTokenResponse>, Status> {
        let person = self.caller(&request, Action::Read)?;
        let CreateApiTokenRequest { name, role, repositories, lifetime_seconds } = request.into_inner();
        let role = match &*role {
            "" => None,
            named => Some(Role::parse(named).ok_or_else(|| {
                Status::invalid_argument("the roles are viewer, analyst, responder, auditor and admin")
            })?),
        };
        let globs: Result<Vec<RepositoryGlob>, _> = repositories.iter().map(|text| text.parse()).collect();
        let globs = globs.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let scope = (!globs.is_empty()).then_some(Scope::Repositories(globs));
        let wanted = WantedToken { name, role, scope, lifetime: lifetime_seconds };
        let (token, row) = self.create_token(&person, wanted).await?;
        Ok(Response::new(CreateApiTokenResponse { token, about: Some(token_message(row)) }))
    }

    async fn list_api_tokens(
        &self,
        request: Request<ListApiTokensRequest>,
    ) -> Result<Response<ListApiTokensResponse>, Status> {
        let all = request.get_ref().all;
        let person = self.caller(&request, if all { Action::Administer } else { Action::Read })?;
        let tokens = self.tokens(&person, all).await?;
        Ok(Response::new(ListApiTokensResponse { tokens: tokens.into_iter().map(token_message).collect() }))
    }

    async fn revoke_api_token(
        &self,
        request: Request<RevokeApiTokenRequest>,
    ) -> Result<Response<RevokeApiTokenResponse>, Status> {
        let person = self.caller(&request, Action::Read)?;
        let id = request.into_inner().id;
        self.revoke_token(&person, &id, person.may(Action::Administer)).await?;
        Ok(Response::new(RevokeApiTokenResponse {}))
    }

    async fn revoke_person(
        &self,
        request: Request<RevokePersonRequest>,
    ) -> Result<Response<RevokePersonResponse>, Status> {
        let by = self.caller(&request, Action::Administer)?;
        let RevokePersonRequest { person, reason } = request.into_inner();
        Self::revoke_person(self, &by, &person, &reason).await?;
        Ok(Response::new(RevokePersonResponse {}))
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let text = problem.to_string();
        match problem {
            Problem::Invalid(_) => Self::invalid_argument(text),
            Problem::Missing(_) => Self::not_found(text),
            Problem::Unavailable => Self::unavailable(text),
        }
    }
}

fn scope_message(scope: &Scope) -> (bool, Vec<String>) {
    match scope {
        Scope::Everything => (true, Vec::new()),
        Scope::Repositories(globs) => (false, globs.iter().map(ToString::to_string).collect()),
    }
}

fn token_message(row: TokenRow) -> ApiToken {
    let (everything, repositories) = scope_message(&row.rights.scope);
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    ApiToken {
        id: row.id,
        name: row.name,
        owner: row.owner,
        role: row.rights.role.to_string(),
        repositories,
        everything,
        created: time(row.created),
        expires: time(row.expires),
        used: if row.used == 0 { None } else { time(row.used) },
        revoked: row.revoked,
    }
}
