//! What hosts ask: a first certificate, the next one, and answers to challenges.

use buildtrail_evidence::id::is_valid_id;
use buildtrail_proto::v1::{
    AnswerRequest, AnswerResponse, EnrolRequest, EnrolResponse, RenewRequest, RenewResponse,
    enrolment_server::Enrolment as Calls,
};
use tonic::{Request, Response, Status};

use super::{
    Authority, Enrolment, Machine, Reason,
    authority::{AuthorityError, requested_key},
    control::{Applicant, ControlError},
    ensure_active, internal, now, refuse,
    token::JoinToken,
};
use crate::{health::Refusal, peer};

/// Seconds between two renewals of one host, at least: each is an entry in the log.
const RENEWAL_PAUSE: i64 = 60;

#[tonic::async_trait]
impl Calls for Enrolment {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let address = peer::address(&request);
        let EnrolRequest { token, certificate_request, name, machine } = request.into_inner();
        self.authority()?;
        let wrong = |what: &'static str| {
            self.0.health.refuse(Refusal::Garbage, &address, what);
            Status::invalid_argument(what)
        };
        let Some(key) = requested_key(&certificate_request) else {
            return Err(wrong("the certificate request is not one of an Ed25519 key that signed it"));
        };
        let Some(machine) = Machine::parse(&machine) else {
            return Err(wrong("the machine is not 64 hexadecimal digits"));
        };
        if !is_valid_id(&name) || name.len() > 64 {
            return Err(wrong("a host's name is 1 to 64 letters, digits, '.', '_', ':' or '-'"));
        }
        let Some(token) = JoinToken::parse(token.trim()) else {
            return Err(self.refused(Reason::Token, &address, "not a token"));
        };
        let (token_id, given) = (token.id(), name.clone());
        let this = self.clone();
        let enrolled = self
            .with_control(move |control| {
                let applicant = Applicant { token: &token, name: &given, key, machine: &machine };
                Ok(control.enrol(&applicant, now(), |id| {
                    let issued = this.0.authority.as_ref().map(|authority| authority.issue(id, &given, &key));
                    issued
                        .unwrap_or_else(|| Err(AuthorityError::Issue("enrolment is off".into())))
                        .map_err(Failure::from)
                }))
            })
            .await?;
        let enrolled = match enrolled {
            Ok(Ok(enrolled)) => enrolled,
            Ok(Err(unfit)) => {
                return Err(self.refused(
                    unfit.into(),
                    &address,
                    format_args!("token {token_id}: {unfit:?}"),
                ));
            }
            Err(failure) => return Err(internal(&failure)),
        };
        tracing::info!(host = %enrolled.id, name, token = token_id, %address, "enrolled");
        self.record_enrolment(&enrolled, &name, &token_id, &address);
        Ok(Response::new(EnrolResponse {
            host_id: enrolled.id.to_string(),
            certificate: enrolled.issued.certificate,
            authorities: self.authorities(),
        }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let address = peer::address(&request);
        let host = peer::host_even_expired(&request, &self.0.health)?;
        self.authority()?;
        let grace = i64::try_from(self.0.grace).unwrap_or(i64::MAX);
        if host.expires.saturating_add(grace) < now() {
            self.0.health.refuse(
                Refusal::Expired,
                &host.id,
                "its certificate expired longer ago than enrol.grace",
            );
            return Err(refuse(Reason::Expired));
        }
        let who = host.clone();
        let state = self.with_control(move |control| control.meet(&who, now())).await?;
        ensure_active(state, &host, &self.0.health)?;
        let issued =
            self.authority()?.issue(&host.id, &host.name, &host.key).map_err(|error| internal(&error))?;
        let (id, expires) = (host.id.clone(), issued.expires);
        let pause = RENEWAL_PAUSE.min(i64::try_from(self.0.lifetime / 4).unwrap_or(i64::MAX));
        if !self.with_control(move |control| control.renewed(&id, expires, now(), pause)).await? {
            self.0.health.refuse(Refusal::Busy, &host.id, "its certificate was renewed a moment ago");
            return Err(Status::resource_exhausted(
                "the certificate was renewed a moment ago; try again later",
            ));
        }
        tracing::info!(host = %host.id, name = host.name, "certificate renewed");
        self.record_renewal(&host, &issued, &address);
        Ok(Response::new(RenewResponse { certificate: issued.certificate, authorities: self.authorities() }))
    }

    async fn answer(&self, request: Request<AnswerRequest>) -> Result<Response<AnswerResponse>, Status> {
        let host = peer::host(&request, &self.0.health)?;
        self.answered(&host, &request.into_inner().challenge)?;
        Ok(Response::new(AnswerResponse {}))
    }
}

impl Enrolment {
    pub(super) fn authority(&self) -> Result<&Authority, Status> {
        self.0.authority.as_ref().ok_or_else(|| refuse(Reason::Off))
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        self.0.authorities.iter().map(|authority| authority.to_vec()).collect()
    }

    fn refused(&self, why: Reason, address: &str, detail: impl std::fmt::Display) -> Status {
        let count = match why {
            Reason::Cloned => Refusal::Cloned,
            Reason::Revoked => Refusal::Revoked,
            _ => Refusal::Token,
        };
        self.0.health.refuse(count, address, detail);
        refuse(why)
    }
}

/// Enrolling failed through no fault of the host.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}
