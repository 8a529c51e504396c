//! The stylesheet and the script, each under a name that holds its digest, so that browsers may keep it for ever.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use buildtrail_evidence::digest::Digest;

/// Digits of the digest in a name.
const DIGITS: usize = 16;
const FOR_EVER: &str = "public, max-age=31536000, immutable";

struct Asset {
    name: String,
    kind: &'static str,
    content: &'static str,
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("css", "text/css; charset=utf-8", include_str!("app.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("js", "text/javascript; charset=utf-8", include_str!("app.js")));

impl Asset {
    fn new(ending: &str, kind: &'static str, content: &'static str) -> Self {
        let digest = Digest::of(content.as_bytes()).to_string();
        let digits: String = digest.chars().take(DIGITS).collect();
        Self { name: format!("app.{digits}.{ending}"), kind, content }
    }
}

/// Address of the stylesheet.
pub(crate) fn style() -> String {
    format!("/assets/{}", STYLE.name)
}

/// Address of the script.
pub(crate) fn script() -> String {
    format!("/assets/{}", SCRIPT.name)
}

/// `GET /assets/{name}`.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let asset = [&*STYLE, &*SCRIPT].into_iter().find(|asset| asset.name == name);
    asset.map_or_else(
        || (StatusCode::NOT_FOUND, "this file is of another version; reload the page\n").into_response(),
        |asset| {
            let headers = [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, FOR_EVER)];
            (headers, asset.content).into_response()
        },
    )
}
