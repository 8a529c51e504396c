//! Answers in the form that was asked for.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use buildtrail_words::formats;
use serde::Serialize;

use super::problem::Problem;

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = "application/x-ndjson";
pub(super) const CSV: &str = "text/csv";
/// Where the next page of CSV and NDJSON begins, which have no place for it.
pub(super) const NEXT_CURSOR: &str = "buildtrail-next-cursor";

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Json,
    NdJson,
    Csv,
}

impl Shape {
    /// The first of a request's wishes that can be met; JSON where it has none.
    ///
    /// # Errors
    /// Only other forms are accepted.
    pub(super) fn wanted(headers: &HeaderMap) -> Result<Self, Problem> {
        let accepted = headers.get_all(header::ACCEPT);
        let mut wishes = accepted.iter().filter_map(|value| value.to_str().ok()).flat_map(|it| it.split(','));
        let mut any = false;
        let found = wishes.find_map(|wish| {
            any = true;
            match wish.split(';').next().unwrap_or_default().trim() {
                JSON | "*/*" | "application/*" => Some(Self::Json),
                NDJSON => Some(Self::NdJson),
                CSV | "text/*" => Some(Self::Csv),
                _ => None,
            }
        });
        match found {
            Some(shape) => Ok(shape),
            None if !any => Ok(Self::Json),
            None => Err(Problem {
                status: StatusCode::NOT_ACCEPTABLE,
                detail: format!("answers are {JSON}, {NDJSON} or {CSV}; accept one of these"),
            }),
        }
    }
}

/// A list of items within a document.
pub(super) struct List<'a, T> {
    pub(super) items: &'a [T],
    pub(super) titles: Vec<&'a str>,
    pub(super) cells: fn(&T) -> Vec<String>,
    /// Empty: there is no further page.
    pub(super) next_cursor: &'a str,
}

/// A whole document in JSON, or its list in the other forms.
pub(super) fn list<T: Serialize>(shape: Shape, document: &impl Serialize, list: &List<'_, T>) -> Response {
    let mut body = Vec::new();
    let written = match shape {
        Shape::Json => return json(document),
        Shape::NdJson => list.items.iter().try_for_each(|item| {
            formats::json(&mut body, item)?;
            body.push(b'\n');
            Ok(())
        }),
        Shape::Csv => formats::csv_line(&mut body, &list.titles).and_then(|()| {
            list.items.iter().try_for_each(|item| formats::csv_line(&mut body, (list.cells)(item)))
        }),
    };
    if written.is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = if shape == Shape::Csv { "text/csv; charset=utf-8; header=present" } else { NDJSON };
    let mut response = ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response();
    if let Ok(cursor) = HeaderValue::from_str(list.next_cursor)
        && !list.next_cursor.is_empty()
    {
        response.headers_mut().insert(NEXT_CURSOR, cursor);
    }
    response
}

/// One JSON document.
pub(super) fn json(document: &impl Serialize) -> Response {
    let mut body = Vec::new();
    match formats::json(&mut body, document) {
        Ok(()) => ([(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Problem { status: StatusCode::INTERNAL_SERVER_ERROR, detail: "the answer is no JSON".into() }
                .into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wish_that_can_be_met_is() {
        let wanted = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            Shape::wanted(&headers)
        };
        assert_eq!(Shape::wanted(&HeaderMap::new()).unwrap(), Shape::Json);
        for (accept, shape) in [
            ("*/*", Shape::Json),
            ("text/html, text/csv;q=0.9, */*", Shape::Csv),
            ("application/x-ndjson", Shape::NdJson),
            ("application/json; charset=utf-8", Shape::Json),
        ] {
            assert_eq!(wanted(accept).unwrap(), shape, "{accept}");
        }
        assert_eq!(wanted("text/html").unwrap_err().status, StatusCode::NOT_ACCEPTABLE);
    }
}
