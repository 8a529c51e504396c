//! The live tail as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use buildtrail_proto::v1::AuditEvent;
use buildtrail_words::describe;
use tokio_stream::StreamExt as _;
use tonic::Status;

use super::{
    Visit, Web,
    pages::events,
    text::{sentence, short},
    zone::Zone,
};
use crate::access::Action;

/// How often a silent stream says that it is alive.
const ALIVE: Duration = Duration::from_secs(15);

/// `GET /tail/events`.
pub(super) async fn tail(State(web): State<Web>, visit: Visit) -> Result<Response, Response> {
    visit.person.require(Action::Analyse).map_err(|forbidden| visit.failed(forbidden.into()))?;
    let search = buildtrail_query::parse(visit.view.address.get("where"))
        .map_err(|mistake| visit.refused(&Status::invalid_argument(mistake.to_string())))?;
    let live = web.queries.tail(&visit.person, search).await.map_err(|error| visit.failed(error))?;
    let zone = visit.view.zone.clone();
    let messages = live.timeout_repeating(tokio::time::interval(ALIVE)).map(move |item| {
        Ok::<_, Infallible>(Bytes::from(match item {
            Ok(Ok(event)) => message(&event, &zone),
            // Texts of a status are ours, and end at a line's end.
            Ok(Err(status)) => {
                format!("event: end\ndata: {}\n\n", status.message().replace(['\r', '\n'], " "))
            }
            Err(_) => ":\n\n".to_owned(),
        }))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(messages)).into_response())
}

/// One row; JSON has no line ends of its own.
fn message(event: &AuditEvent, zone: &Zone) -> String {
    let job =
        event.job.as_ref().map_or_else(|| "outside jobs".to_owned(), |job| short(&job.repository).plain());
    let row = serde_json::json!({
        "link": events::address(event),
        "time": event.time.as_ref().map(|time| zone.exact_text(time)),
        "kind": event.kind(),
        "job": job,
        "process": sentence(&describe::process(event, false)).plain(),
        "what": sentence(&describe::what(event)).plain(),
    });
    format!("data: {row}\n\n")
}
