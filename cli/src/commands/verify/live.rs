//! A live collector's log, downloaded and verified here.

use anyhow::{Context as _, Result};
use buildtrail_evidence::{
    digest::Digest,
    records::RecordIndex,
    tlog::note::NoteKey,
    verify::{Question, Report, Trust, Verifier},
};
use buildtrail_proto::v1::{GetCheckpointRequest, LogRecord, ReadLogRequest};

use super::seen::Seen;
use crate::{
    commands::Context,
    connect::{self, explain},
};

pub(super) async fn verify(context: &Context, mut trust: Trust, question: Question) -> Result<Report> {
    let profile = connect::profile_directory(&context.connection);
    let seen = profile.as_deref().map(Seen::read).transpose()?;
    if let Some(seen) = &seen {
        trust.log_key = trust.log_key.or_else(|| seen.log_key.clone());
        trust.seen = trust.seen.or_else(|| seen.checkpoint.clone());
    }
    let answer = context.client().await?.get_checkpoint(GetCheckpointRequest {}).await;
    let answer = answer.map_err(|status| explain(&status))?.into_inner();
    let shown: NoteKey = answer.log_key.parse().context("the collector shows no valid key of its log")?;
    let newest = trust.open(answer.checkpoint.as_bytes(), Some(&shown));

    let mut verifier = Verifier::new(question, trust.expected(newest.as_ref().ok()), None);
    match &newest {
        Ok(checkpoint) => verifier.judge(&trust, checkpoint),
        Err(problem) => verifier.problem(problem.clone()),
    }
    let mut client = connect::export(&context.connection).await?;
    let records = client.read_log(ReadLogRequest { first_record: 0 }).await;
    let mut records = records.map_err(|status| explain(&status))?.into_inner();
    while let Some(record) = records.message().await.map_err(|status| explain(&status))? {
        take(&mut verifier, record);
    }
    let mut report = verifier.finish();
    if let (true, Ok(checkpoint), Some(seen)) = (report.is_intact(), &newest, &seen)
        && let Err(error) = seen.write(&shown, checkpoint)
    {
        report.notes.push(format!("The checkpoint could not be remembered in the profile: {error}."));
    }
    Ok(report)
}

fn take(verifier: &mut Verifier, record: LogRecord) {
    let index = RecordIndex(record.index);
    if record.record.is_empty() {
        let hash = Digest::try_from(&record.leaf_hash[..]).ok();
        let what = format!("the collector says that it is damaged: {}", record.damage);
        verifier.damaged(index, hash, &what);
    } else {
        verifier.record(index, record.record);
    }
}
