//! "Verify" and "Download evidence": the real thing, from what is on disk.

use axum::{
    extract::{FromRequest as _, Path, Request, State},
    http::{Extensions, header},
    response::{IntoResponse as _, Response},
};
use buildtrail_evidence::verify::{Report, Trust, verify_bundle};
use buildtrail_proto::v1::{ExportFormat, ExportJobRequest, export_server::Export as _};
use tokio_stream::StreamExt as _;
use tonic::{Status, metadata::MetadataMap};

use super::{
    Visit, Web,
    pages::verdict::{Of, show},
};
use crate::access::CsrfChecked;

/// `POST /jobs/{id}/verify`: the job's evidence, as it would be taken away, is checked against the log's key.
pub(super) async fn job(
    State(web): State<Web>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let (visit, extensions) = asked(request).await?;
    let report = job_report(&web, id, extensions).await.map_err(|status| visit.refused(&status))?;
    let (id, report) = report;
    Ok(show(&visit.view, &Of::Job(&id), &report))
}

/// `POST /integrity/verify`: the whole log.
pub(super) async fn log(State(web): State<Web>, request: Request) -> Result<Response, Response> {
    let (visit, _) = asked(request).await?;
    let report = web.query.verify_log(&visit.person).await.map_err(|status| visit.refused(&status))?;
    Ok(show(&visit.view, &Of::Log, &report))
}

async fn asked(request: Request) -> Result<(Visit, Extensions), Response> {
    let (parts, body) = request.into_parts();
    let kept = parts.clone();
    let form = CsrfChecked::from_request(Request::from_parts(parts, body), &()).await?;
    let extensions = kept.extensions.clone();
    Ok((Visit::of(form.person, &kept), extensions))
}

/// `GET /jobs/{id}/evidence`: the bundle, for `buildtrail verify --bundle`.
pub(super) async fn evidence(
    State(web): State<Web>,
    Path(id): Path<String>,
    visit: Visit,
    request: Request,
) -> Result<Response, Response> {
    let bundle = bundle(&web, id, request.extensions().clone()).await;
    let bundle = bundle.map_err(|status| visit.refused(&status))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"job.evidence\""),
    ];
    Ok((headers, bundle).into_response())
}

/// The export decides by the request's person whether they may.
async fn bundle(web: &Web, job_id: String, extensions: Extensions) -> Result<Vec<u8>, Status> {
    let message = ExportJobRequest { job_id, format: ExportFormat::Bundle.into() };
    let request = tonic::Request::from_parts(MetadataMap::new(), extensions, message);
    let mut pieces = web.export.export_job(request).await?.into_inner();
    let mut bundle = Vec::new();
    while let Some(piece) = pieces.next().await {
        bundle.extend(piece?.data);
    }
    Ok(bundle)
}

async fn job_report(web: &Web, job_id: String, extensions: Extensions) -> Result<(String, Report), Status> {
    let bundle = bundle(web, job_id, extensions).await?;
    let trust = Trust { log_key: Some(web.query.tree.log_key.clone()), ..Trust::default() };
    let checked = tokio::task::spawn_blocking(move || verify_bundle(&bundle, &trust)).await;
    let found = checked
        .map_err(|_| Status::internal("verifying failed; see the collector's own log"))?
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok((found.header.job_id, found.report))
}
