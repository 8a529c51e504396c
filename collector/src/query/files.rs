//! The tree's files over HTTPS, for tools that speak C2SP tlog-tiles: `GET /tlog/checkpoint`, `/tlog/tile/…`.

use std::{io, path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    access::{Action, Forbidden, Person},
    acts::Questions,
    health::{Health, Refusal},
};

/// What the files are served with.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) directory: PathBuf,
    pub(crate) questions: Arc<Questions>,
    pub(crate) health: Arc<Health>,
}

pub(crate) fn router(files: Files) -> Router {
    Router::new().route("/tlog/{*path}", get(file)).with_state(files)
}

async fn file(
    person: Person,
    State(files): State<Files>,
    Path(path): Path<String>,
) -> Result<Response, Forbidden> {
    person.require(Action::Verify).inspect_err(|why| files.health.refuse(Refusal::Identity, &person, why))?;
    files.questions.asked(&person.name, "GET", "the tree's files");
    Ok(send(&files.directory, &path).await)
}

async fn send(directory: &std::path::Path, path: &str) -> Response {
    let Some((kind, caching)) = kind(path) else {
        return (StatusCode::NOT_FOUND, "there is no such file in a tree\n").into_response();
    };
    match tokio::fs::read(directory.join(path)).await {
        Ok(bytes) => {
            ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, caching)], bytes).into_response()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (StatusCode::NOT_FOUND, "the tree has no such file now\n").into_response()
        }
        Err(error) => {
            tracing::error!(%error, path, "a file of the tree cannot be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Content type and caching of the files that a tree can have; `None` for every other name.
fn kind(path: &str) -> Option<(&'static str, &'static str)> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if matches!(path, "checkpoint" | "witnessed" | "log.vkey") {
        return Some((TEXT, "no-store"));
    }
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (level, number) = path.strip_prefix("tile/")?.split_once('/')?;
    let (number, width) = number.split_once(".p/").unwrap_or((number, "1"));
    let mut parts: Vec<&str> = number.split('/').collect();
    let last = parts.pop()?;
    let sane = (digits(level) || level == "entries")
        && digits(width)
        && digits(last)
        && parts.iter().all(|part| part.strip_prefix('x').is_some_and(digits));
    sane.then_some(("application/octet-stream", "max-age=31536000, immutable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_tile_format_lead_to_files() {
        for good in
            ["checkpoint", "witnessed", "tile/0/000", "tile/entries/x001/234.p/5", "tile/63/x001/x234/067"]
        {
            assert!(kind(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/../../log-key.pem",
            "../log-key.pem",
            "tile/0/000.new",
            "tile/0/000.p/",
            "tile/0/000.p/5/5",
            "tile/x/000",
            "tile/0/x001",
            "checkpoint.new",
            "tile//000",
            "tile/0/0000",
        ] {
            assert!(kind(bad).is_none(), "{bad}");
        }
    }
}
