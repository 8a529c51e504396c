//! `buildtrail export`

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
};

use anyhow::{Context as _, Result};
use buildtrail_proto::v1::{ExportFormat, ExportJobRequest};

use super::Context;
use crate::{
    args::{Export, Format},
    connect::{self, explain},
    display,
};

pub(super) async fn run(context: &mut Context, asked: Export) -> Result<u8> {
    let path = asked.bundle;
    let shown = path.display().to_string();
    let opened = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file =
        opened.with_context(|| format!("cannot make {shown}; name a file that does not exist yet"))?;
    let written = write(context, asked.job, asked.format, &mut file).await;
    if written.is_err() {
        // The error says more than a file that cannot be removed.
        let _ = fs::remove_file(&path);
    }
    let bytes = written?;
    if context.is_json()? {
        context.out.json(&serde_json::json!({ "file": shown, "bytes": bytes }))?;
    } else {
        let text = format!("{bytes} bytes in {shown}; `buildtrail verify --bundle {shown}` checks it");
        context.out.line(display::safe(&text, true))?;
    }
    Ok(0)
}

async fn write(context: &Context, job_id: String, format: Format, file: &mut fs::File) -> Result<u64> {
    let format = match format {
        Format::Bundle => ExportFormat::Bundle,
        Format::InToto => ExportFormat::InToto,
    };
    let mut client = connect::export(&context.connection).await?;
    let request = ExportJobRequest { job_id, format: format.into() };
    let mut pieces = client.export_job(request).await.map_err(|status| explain(&status))?.into_inner();
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await.map_err(|status| explain(&status))? {
        file.write_all(&piece.data)?;
        bytes += piece.data.len() as u64;
    }
    file.sync_all()?;
    Ok(bytes)
}
