//! The collector's own acts.

use buildtrail_proto::{
    ACT_KINDS,
    v1::{ListActsRequest, ListActsResponse},
};
use tonic::Status;

use super::{DEFAULT_EVENTS, MAX_ANSWER_BYTES, MAX_EVENTS, Service, bounded, filter, words};
use crate::{
    access::Person,
    store::{ActSelection, Bounds},
};

pub(super) async fn list(
    service: &Service,
    reader: &Person,
    request: ListActsRequest,
) -> Result<ListActsResponse, Status> {
    if let Some(unknown) = request.kinds.iter().find(|kind| !ACT_KINDS.contains(&kind.as_str())) {
        let message = format!("there is no kind of act {unknown:?}; the kinds are {}", ACT_KINDS.join(", "));
        return Err(Status::invalid_argument(message));
    }
    if request.kinds.len() > ACT_KINDS.len() {
        return Err(Status::invalid_argument("a kind is named twice"));
    }
    service.questions.asked(&reader.name, "ListActs", &words::acts(&request));
    let (since, until) = filter::span(request.since.as_ref(), request.until.as_ref());
    let selection = ActSelection { kinds: request.kinds, host_id: request.host_id, since, until };
    let bounds =
        Bounds { events: bounded(request.limit, DEFAULT_EVENTS, MAX_EVENTS), bytes: MAX_ANSWER_BYTES };
    let (mut acts, more) = service
        .reader
        .ask(service.limit, move |asked| Ok::<_, Status>(asked.acts(&selection, bounds)?))
        .await?;
    acts.reverse();
    Ok(ListActsResponse { acts, more })
}
