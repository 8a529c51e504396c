//! The `OpenAPI` 3.1 document of the API: paths and parameters as the handlers read them, answers as the `.proto` files
//! define them.

use std::sync::OnceLock;

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};

use super::{
    answer::{CSV, JSON, NDJSON, NEXT_CURSOR},
    events::{OF_ACTS, OF_EVENTS, OF_JOBS},
    export::OF_EXPORT,
    hunt::OF_HUNT,
    parameters::{Described, Kind},
    problem,
    rows::{OF_AGGREGATE, OF_RANKING},
    schema::Definitions,
    tail::OF_TAIL,
};

/// A path of the API.
struct Path {
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: &'static [Described],
    answer: Answer,
}

enum Answer {
    /// A message, and the message of its list's items.
    Message(&'static str, &'static str),
    /// Server-sent events.
    Events,
    /// A file.
    File,
    /// Answers a file of indicators.
    Hunt,
}

const PATHS: [Path; 11] = [
    Path {
        path: "/jobs",
        id: "listJobs",
        summary: "Jobs, a page at a time.",
        parameters: OF_JOBS,
        answer: Answer::Message("ListJobsResponse", "JobSummary"),
    },
    Path {
        path: "/jobs/{id}",
        id: "getJob",
        summary: "One job, its steps, and what it did; its events as CSV and NDJSON.",
        parameters: &[],
        answer: Answer::Message("GetJobResponse", "AuditEvent"),
    },
    Path {
        path: "/jobs/{id}/export",
        id: "exportJob",
        summary: "A job's evidence, to be verified without the collector.",
        parameters: OF_EXPORT,
        answer: Answer::File,
    },
    Path {
        path: "/events",
        id: "searchEvents",
        summary: "Events, a page at a time.",
        parameters: OF_EVENTS,
        answer: Answer::Message("SearchEventsResponse", "AuditEvent"),
    },
    Path {
        path: "/aggregate",
        id: "aggregate",
        summary: "How many events and jobs, by the values of fields and over time.",
        parameters: OF_AGGREGATE,
        answer: Answer::Message("AggregateResponse", "AggregateRow"),
    },
    Path {
        path: "/secrets",
        id: "listSecrets",
        summary: "Secrets and credentials that were used: rows of `secret` or `credential`, and its name.",
        parameters: OF_RANKING,
        answer: Answer::Message("AggregateResponse", "AggregateRow"),
    },
    Path {
        path: "/destinations",
        id: "listDestinations",
        summary: "Where jobs connected to: rows of a name, or of an address without one.",
        parameters: OF_RANKING,
        answer: Answer::Message("AggregateResponse", "AggregateRow"),
    },
    Path {
        path: "/hosts",
        id: "listHosts",
        summary: "Every host: what it covers, what it lost, when it was there last.",
        parameters: &[],
        answer: Answer::Message("HostsResponse", "HostSummary"),
    },
    Path {
        path: "/acts",
        id: "listActs",
        summary: "What the collector and its people did.",
        parameters: OF_ACTS,
        answer: Answer::Message("ListActsResponse", "RecordedAct"),
    },
    Path {
        path: "/tail",
        id: "tail",
        summary: "Events as they are stored, each as a server-sent event; `end` says why the stream ends.",
        parameters: OF_TAIL,
        answer: Answer::Events,
    },
    Path {
        path: "/hunt",
        id: "hunt",
        summary: "Looks in history for the indicators of a file, and says what to rotate.",
        parameters: OF_HUNT,
        answer: Answer::Hunt,
    },
];

pub(super) async fn serve() -> Response {
    static DOCUMENT: OnceLock<Option<String>> = OnceLock::new();
    match DOCUMENT.get_or_init(|| document().ok().map(|document| document.to_string())) {
        Some(document) => ([(header::CONTENT_TYPE, JSON)], document.as_str()).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn document() -> Result<Value, prost::DecodeError> {
    let definitions = Definitions::read()?;
    let mut paths = Map::new();
    let mut messages = vec!["HuntResult", "HuntReply"];
    for path in &PATHS {
        let method = if matches!(path.answer, Answer::Hunt) { "post" } else { "get" };
        paths.insert(path.path.to_owned(), json!({ method: operation(path) }));
        if let Answer::Message(message, _) = path.answer {
            messages.push(message);
        }
    }
    let own = json!({ "get": {
        "operationId": "openapi", "summary": "This document.", "security": [],
        "responses": { "200": { "description": "The document.", "content": { JSON: { "schema": { "type": "object" } } } } },
    }});
    paths.insert("/openapi.json".into(), own);
    let mut schemas = definitions.schemas(&messages);
    schemas.insert("Problem".into(), problem_schema());
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Buildtrail collector",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The audit trail of build machines. Searches are explained in docs/query.md. \
                Answers hold only what the asker's scope reaches.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/api/v1" }],
        "security": [{ "token": [] }, { "certificate": [] }, { "session": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
                "session": { "type": "apiKey", "in": "cookie", "name": "session" },
            },
        },
    }))
}

fn operation(path: &Path) -> Value {
    let mut parameters: Vec<Value> = path.parameters.iter().map(parameter).collect();
    if path.path.contains("{id}") {
        let words = "Job id, or the beginning of one.";
        let schema = json!({ "type": "string" });
        parameters.push(
            json!({ "name": "id", "in": "path", "required": true, "description": words, "schema": schema }),
        );
    }
    let mut operation = json!({
        "operationId": path.id,
        "summary": path.summary,
        "parameters": parameters,
        "responses": {
            "200": answer(path),
            "default": {
                "description": "Why not, and what to do.",
                "content": { problem::MEDIA_TYPE: { "schema": reference("Problem") } },
            },
        },
    });
    if matches!(path.answer, Answer::Hunt)
        && let Some(operation) = operation.as_object_mut()
    {
        let content = json!({ "text/plain": { "schema": { "type": "string" } }, JSON: { "schema": {} } });
        let words = "The file: indicators one a line, a STIX 2.1 bundle, or Sigma rules.";
        let body = json!({ "required": true, "description": words, "content": content });
        operation.insert("requestBody".into(), body);
    }
    operation
}

fn parameter((name, kind, words): &Described) -> Value {
    let schema = match kind {
        Kind::Text | Kind::Time => json!({ "type": "string" }),
        Kind::Number(most) => json!({ "type": "integer", "minimum": 1, "maximum": most }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::OneOf(values) => json!({ "type": "string", "enum": values }),
    };
    json!({ "name": name, "in": "query", "description": words, "schema": schema })
}

fn answer(path: &Path) -> Value {
    let list = |whole: &str, item: &str| {
        json!({
            "description": path.summary,
            "headers": { NEXT_CURSOR: {
                "description": "Of CSV and NDJSON: where the next page begins.", "schema": { "type": "string" },
            }},
            "content": {
                JSON: { "schema": reference(whole) },
                NDJSON: { "schema": reference(item) },
                CSV: { "schema": { "type": "string" } },
            },
        })
    };
    match path.answer {
        Answer::Message(whole, item) => list(whole, item),
        Answer::Hunt => list("HuntResult", "HuntReply"),
        Answer::Events => json!({
            "description": path.summary,
            "content": { "text/event-stream": { "schema": { "type": "string" } } },
        }),
        Answer::File => json!({
            "description": path.summary,
            "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } },
        }),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What is wrong, and what to do." },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_refers_to_nothing_that_it_does_not_hold_and_explains_it() {
        let document = document().unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        let described = &schemas["SecretAccess"]["properties"]["path"]["description"];
        assert_eq!(described, "As the host sees it, symbolic links resolved.");
        let counts = &schemas["JobSummary"]["properties"]["counts"];
        assert_eq!(counts["additionalProperties"]["pattern"], "^[0-9]+$");
        let time = &schemas["AuditEvent"]["properties"]["time"];
        assert_eq!(time["format"], "date-time");
    }
}
