//! Hunts: the body is the file of indicators.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use buildtrail_proto::v1::HuntRequest;
use buildtrail_words::{columns, formats};
use http_body_util::{BodyExt as _, Limited};
use tokio_stream::StreamExt as _;

use super::{
    Api,
    answer::{self, List, NDJSON, Shape},
    parameters::{Described, FILE_FORMAT, Parameters, SINCE, UNTIL},
    problem::Problem,
};
use crate::{
    access::Person,
    hunt::{self, MAX_FILE_BYTES, Replies},
};

pub(super) const OF_HUNT: &[Described] = &[FILE_FORMAT, SINCE, UNTIL];

pub(super) async fn hunt(
    State(api): State<Api>,
    person: Person,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // A browser sends its cookie with any form; what only our own pages can send is the check's token.
    if person.csrf.is_some() {
        let detail =
            "send a token (`Authorization: Bearer …`): browsers hunt from the page of the web interface";
        return Err(Problem { status: StatusCode::FORBIDDEN, detail: detail.into() });
    }
    let shape = Shape::wanted(&headers)?;
    let asked = Parameters::read(query.as_deref(), OF_HUNT)?;
    let request = HuntRequest {
        indicators: read(body).await?,
        format: asked.file_format().into(),
        since: asked.time("since"),
        until: asked.time("until"),
    };
    let replies = api.hunts.start(&person, &request)?;
    if shape == Shape::NdJson {
        return Ok(streamed(replies));
    }
    let found = hunt::result(replies).await?;
    let titles = columns::INDICATOR_TITLES.to_vec();
    let list = List { items: &found.indicators, titles, cells: columns::indicator, next_cursor: "" };
    Ok(answer::list(shape, &found, &list))
}

async fn read(body: Body) -> Result<String, Problem> {
    let read = Limited::new(body, MAX_FILE_BYTES).collect().await.map_err(|_| Problem {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        detail: format!(
            "the indicators broke off, or are longer than {MAX_FILE_BYTES} bytes; split the file"
        ),
    })?;
    String::from_utf8(read.to_bytes().into())
        .map_err(|_| Problem::bad("the indicators must be UTF-8 text: the file itself is the body"))
}

/// Progress and result, one document per line; a refusal is the last.
fn streamed(replies: Replies) -> Response {
    let lines = replies.map(|reply| {
        let mut line = Vec::new();
        let written = match reply {
            Ok(reply) => formats::json(&mut line, &reply),
            Err(status) => {
                let Problem { status, detail } = status.into();
                let problem =
                    serde_json::json!({ "problem": { "status": status.as_u16(), "detail": detail } });
                formats::json(&mut line, &problem)
            }
        };
        if let Err(error) = written {
            tracing::error!(%error, "a hunt's reply cannot be written as JSON");
            line.clear();
        }
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}
