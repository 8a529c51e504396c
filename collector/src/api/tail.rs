//! Live events as server-sent events: each `data` line is one event in protobuf JSON.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use buildtrail_words::formats;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{
    Api,
    parameters::{Described, Parameters, WHERE},
    problem::Problem,
};
use crate::{access::Person, query::LiveStream};

pub(super) const OF_TAIL: &[Described] = &[WHERE];
/// How often something is sent on a quiet stream, so that nobody between takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Events that wait for the reader's network.
const UNREAD: usize = 16;

pub(super) async fn tail(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let asked = Parameters::read(query.as_deref(), OF_TAIL)?;
    let events = api.queries.tail(&person, asked.search()?).await?;
    let (out, stream) = mpsc::channel(UNREAD);
    tokio::spawn(forward(events, out));
    let body = Body::from_stream(ReceiverStream::new(stream).map(Ok::<Bytes, Infallible>));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// Ends when the reader is gone, or with an event `end` that says why.
async fn forward(mut events: LiveStream, out: mpsc::Sender<Bytes>) {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let text = tokio::select! {
            () = out.closed() => return,
            _ = heartbeat.tick() => Bytes::from_static(b": alive\n\n"),
            event = events.next() => match event {
                Some(Ok(event)) => message("event", &event),
                Some(Err(status)) => {
                    let _ = out.send(message("end", &Problem::from(status).detail)).await;
                    return;
                }
                None => return,
            },
        };
        if out.send(text).await.is_err() {
            return;
        }
    }
}

/// JSON has no line breaks, so one `data` line holds all of it.
fn message(name: &str, value: &impl serde::Serialize) -> Bytes {
    let mut text = format!("event: {name}\ndata: ").into_bytes();
    if let Err(error) = formats::json(&mut text, value) {
        tracing::error!(%error, "an event cannot be written as JSON");
        return Bytes::from_static(b": an event that is no JSON\n\n");
    }
    text.extend(b"\n\n");
    text.into()
}
