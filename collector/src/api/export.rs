//! A job's evidence as a file.

use axum::{
    body::Body,
    extract::{Path, Request, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use buildtrail_proto::v1::{ExportFormat, ExportJobRequest, export_server::Export as _};
use tokio_stream::StreamExt as _;
use tonic::metadata::MetadataMap;

use super::{
    Api,
    parameters::{Described, EXPORT_FORMAT, Parameters},
    problem::Problem,
};

pub(super) const OF_EXPORT: &[Described] = &[EXPORT_FORMAT];

/// Who asks, and whether they may, the export itself decides: it is the call of gRPC.
pub(super) async fn job(
    State(api): State<Api>,
    Path(job_id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let asked = Parameters::read(parts.uri.query(), OF_EXPORT)?;
    let (format, name) = match asked.text("format") {
        "in-toto" => (ExportFormat::InToto, "job.intoto.jsonl"),
        _ => (ExportFormat::Bundle, "job.evidence"),
    };
    let message = ExportJobRequest { job_id, format: format.into() };
    let request = tonic::Request::from_parts(MetadataMap::new(), parts.extensions, message);
    let pieces = api.export.export_job(request).await?.into_inner();
    let body = Body::from_stream(pieces.map(|piece| piece.map(|piece| piece.data)));
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, body).into_response())
}
