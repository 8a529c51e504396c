//! From a request to its page: what is asked, and of whom.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use buildtrail_proto::{
    Timestamp, now, unix_nanos,
    v1::{
        AggregateRequest, AggregateRow, AggregateSort, AuditEvent, Coverage, HostSummary, Job, JobSummary,
        ListActsRequest, ListJobsRequest, Order, Search, SearchEventsRequest, audit_event::Body,
    },
};
use buildtrail_query::{Field, MAX_VALUE_BYTES, exactly};

use super::{
    Visit, Web,
    ask::{Asking, Scale, and, searched, within},
    pages::{
        self,
        integrity::Integrity,
        job::{History, Page as JobPage, TELLING, Touched},
        jobs::Jobs,
        overview::{Overview, Site},
        search::{Found, Listed},
        subjects::{List, One, Subject},
        tail::Tail,
    },
};
use crate::{access::Action, query::QueryError};

/// Rows of one page.
const ROWS: u32 = 100;
/// Programs of a job that are shown.
const PROCESSES: u32 = 2000;
/// Rows of small tables.
const FEW: u32 = 10;
/// Acts that concern whether the log is whole.
const ABOUT_THE_LOG: [&str; 8] = [
    "log.damaged",
    "bodies.removed",
    "chain.fork",
    "host.cloned",
    "witness.missing",
    "witness.back",
    "disk.full",
    "disk.back",
];
/// Acts that are detections.
const DETECTIONS: [&str; 4] = ["host.cloned", "chain.fork", "host.dark", "log.damaged"];

type Shown = Result<Response, Response>;

pub(super) async fn overview(State(web): State<Web>, visit: Visit) -> Shown {
    let asking = visit.asking(&web);
    let shown = overview_of(&asking, &visit).await.map_err(|error| visit.failed(error))?;
    Ok(pages::overview::show(&visit.view, &shown))
}

async fn overview_of(asking: &Asking<'_>, visit: &Visit) -> Result<Overview, QueryError> {
    let (day, scale, zone) = (within("24h"), Scale::of("24h"), &visit.view.zone);
    let of = |kinds: &[&str]| and(day.clone(), "kind", kinds);
    let telling = || of(&TELLING);
    let (all, hours, secrets, secret_hours, telling_total, telling_events) = tokio::join!(
        asking.total(of(&["job.started"])),
        asking.over_time(of(&["job.started"]), scale),
        asking.total(of(&["secret.access"])),
        asking.over_time(of(&["secret.access"]), scale),
        asking.total(telling()),
        asking.events(telling(), FEW),
    );
    let (new_destinations, new_secrets, recent, everything, site) = tokio::join!(
        asking.new_names(Field::Dest),
        asking.new_names(Field::Secret),
        asking.jobs(Search::default(), 8),
        asking.total(day.clone()),
        site(asking, &day),
    );
    let (secrets, all) = (secrets?.unwrap_or_default(), all?.unwrap_or_default());
    Ok(Overview {
        jobs: all.jobs,
        events: everything?.unwrap_or_default().events,
        secret_jobs: secrets.jobs,
        secret_events: secrets.events,
        new_destinations: new_destinations?,
        new_secrets: new_secrets?,
        telling: telling_events?,
        telling_count: telling_total?.map_or(0, |row| row.events),
        recent: recent?,
        jobs_over_time: scale.bars(zone, &hours?, |row| row.jobs),
        secrets_over_time: scale.bars(zone, &secret_hours?, |row| row.events),
        axis: scale.axis(zone),
        site: site?,
    })
}

async fn site(asking: &Asking<'_>, day: &Search) -> Result<Option<Site>, QueryError> {
    if !asking.may(Action::ReadHosts) {
        return Ok(None);
    }
    let noticed = ListActsRequest {
        kinds: DETECTIONS.map(str::to_owned).to_vec(),
        since: day.since,
        limit: FEW,
        ..ListActsRequest::default()
    };
    let hosts = asking.queries.hosts(asking.person).await?.hosts;
    let losses = asking.total(and(day.clone(), "kind", &["loss"])).await?.map_or(0, |row| row.events);
    Ok(Some(Site { hosts, acts: asking.acts(noticed).await?, losses }))
}

pub(super) async fn jobs(State(web): State<Web>, visit: Visit) -> Shown {
    let (text, span) = (visit.view.address.get("where"), span(&visit, "7d"));
    let answer = match searched(text, span) {
        Err(mistake) => Err(mistake),
        Ok(search) => {
            let cursor = visit.view.address.get("cursor").to_owned();
            let request =
                ListJobsRequest { search: Some(search), limit: 50, cursor, ..ListJobsRequest::default() };
            Ok(web.queries.jobs(&visit.person, request).await.map_err(|error| visit.failed(error))?)
        }
    };
    Ok(pages::jobs::show(&visit.view, &Jobs { text, span, answer }))
}

/// The span of time that the address asks for.
fn span<'a>(visit: &'a Visit, otherwise: &'a str) -> &'a str {
    let asked = visit.view.address.get("span");
    if super::parts::SPANS.iter().any(|(span, _)| *span == asked) { asked } else { otherwise }
}

pub(super) async fn job(State(web): State<Web>, Path(id): Path<String>, visit: Visit) -> Shown {
    let shown = job_of(&visit.asking(&web), &id).await.map_err(|error| visit.failed(error))?;
    Ok(pages::job::show(&visit.view, &shown))
}

async fn job_of(asking: &Asking<'_>, id: &str) -> Result<JobPage, QueryError> {
    let answer = asking.queries.job(asking.person, id).await?;
    let summary = answer.summary.unwrap_or_default();
    let job = summary.job.clone().unwrap_or_default();
    let of_job = and(Search::default(), "job", &[&job.job_id]);
    let executed = SearchEventsRequest {
        search: Some(and(of_job.clone(), "kind", &["process.exec"])),
        limit: PROCESSES,
        order: Order::OldestFirst.into(),
        ..SearchEventsRequest::default()
    };
    let (processes, secrets, credentials, destinations, history, host_name) = tokio::join!(
        asking.queries.search(asking.person, executed),
        touched(asking, &summary, &of_job, Field::Secret),
        touched(asking, &summary, &of_job, Field::Credential),
        touched(asking, &summary, &of_job, Field::Dest),
        known_since(asking, &job),
        host_name(asking, &summary.host_id),
    );
    let processes = processes?;
    let has_history = is_before(history?.as_ref(), summary.first_event.as_ref());
    Ok(JobPage {
        history: if has_history { History::Known } else { History::FirstRun },
        host_name: host_name?,
        steps: answer.steps,
        timeline: answer.timeline,
        timeline_more: answer.more,
        processes: processes.events,
        processes_more: !processes.next_cursor.is_empty(),
        secrets: secrets?,
        credentials: credentials?,
        destinations: destinations?,
        may_export: asking.may(Action::Export),
        summary,
    })
}

/// The runs of the job's workflow; `None`: it has no name that can be searched for.
fn of_workflow(job: &Job) -> Option<Search> {
    let sane = |text: &str| exactly(text).len() <= MAX_VALUE_BYTES;
    let named = !job.repository.is_empty() && sane(&job.repository) && sane(&job.workflow);
    named.then(|| and(and(Search::default(), "repo", &[&job.repository]), "workflow", &[&job.workflow]))
}

/// Since when runs of the job's workflow are known.
async fn known_since(asking: &Asking<'_>, job: &Job) -> Result<Option<Timestamp>, QueryError> {
    let Some(runs) = of_workflow(job) else { return Ok(None) };
    Ok(asking.total(runs).await?.and_then(|row| row.first))
}

fn is_before(time: Option<&Timestamp>, other: Option<&Timestamp>) -> bool {
    time.zip(other).is_some_and(|(time, other)| unix_nanos(time) < unix_nanos(other))
}

/// What a job touched of one field, and which of it no earlier run of the workflow did.
async fn touched(
    asking: &Asking<'_>,
    summary: &JobSummary,
    of_job: &Search,
    field: Field,
) -> Result<Vec<Touched>, QueryError> {
    let job = summary.job.clone().unwrap_or_default();
    let rows = asking.aggregate(of_job.clone(), &[field], AggregateSort::Events, 500).await?.rows;
    let rows: Vec<AggregateRow> =
        rows.into_iter().filter(|row| row.values.first().is_some_and(|value| !value.is_empty())).collect();
    let Some(runs) = of_workflow(&job).filter(|_| !rows.is_empty()) else {
        return Ok(rows.into_iter().map(|row| Touched { row, new: false }).collect());
    };
    let ever = asking.aggregate(runs, &[field], AggregateSort::Events, 10_000).await?.rows;
    let touched = rows.into_iter().map(|row| {
        let known = ever.iter().find(|known| known.values == row.values);
        let new = known.is_none_or(|known| !is_before(known.first.as_ref(), summary.first_event.as_ref()));
        Touched { row, new }
    });
    Ok(touched.collect())
}

async fn host_name(asking: &Asking<'_>, id: &str) -> Result<String, QueryError> {
    if !asking.may(Action::ReadHosts) {
        return Ok(id.to_owned());
    }
    let hosts = asking.queries.hosts(asking.person).await?.hosts;
    Ok(hosts.into_iter().find(|host| host.host_id == id).map_or_else(|| id.to_owned(), |host| host.name))
}

pub(super) async fn secrets(State(web): State<Web>, visit: Visit) -> Shown {
    let list = list(&web, &visit, &[Subject::Secret, Subject::Credential]).await?;
    Ok(pages::subjects::secrets(&visit.view, &list))
}

pub(super) async fn destinations(State(web): State<Web>, visit: Visit) -> Shown {
    let list = list(&web, &visit, &[Subject::Destination]).await?;
    Ok(pages::subjects::destinations(&visit.view, &list))
}

async fn list<'a>(web: &Web, visit: &'a Visit, subjects: &[Subject]) -> Result<List<'a>, Response> {
    let (text, span) = (visit.view.address.get("where"), span(visit, "7d"));
    let search = match searched(text, span) {
        Err(mistake) => return Ok(List { text, span, answer: Err(mistake) }),
        Ok(search) => search,
    };
    let mut tables = Vec::new();
    for subject in subjects {
        let rows = visit.asking(web).names(search.clone(), subject.field()).await;
        tables.push((*subject, rows.map_err(|error| visit.failed(error))?));
    }
    Ok(List { text, span, answer: Ok(tables) })
}

pub(super) async fn secret(State(web): State<Web>, visit: Visit) -> Shown {
    one(&web, &visit, Subject::Secret).await
}

pub(super) async fn credential(State(web): State<Web>, visit: Visit) -> Shown {
    one(&web, &visit, Subject::Credential).await
}

pub(super) async fn destination(State(web): State<Web>, visit: Visit) -> Shown {
    one(&web, &visit, Subject::Destination).await
}

async fn one(web: &Web, visit: &Visit, subject: Subject) -> Shown {
    let shown = one_of(&visit.asking(web), visit, subject).await.map_err(|error| visit.failed(error))?;
    Ok(pages::subjects::one(&visit.view, &shown))
}

async fn one_of<'a>(asking: &Asking<'_>, visit: &'a Visit, subject: Subject) -> Result<One<'a>, QueryError> {
    let (name, span, zone) = (visit.view.address.get("name"), span(visit, "7d"), &visit.view.zone);
    let scale = Scale::of(span);
    let search = || and(within(span), subject.field().name(), &[name]);
    let ever = and(Search::default(), subject.field().name(), &[name]);
    let (total, ever, hours, recent) = tokio::join!(
        asking.total(search()),
        asking.total(ever),
        asking.over_time(search(), scale),
        asking.events(search(), 20),
    );
    let by = |fields: &'static [Field]| asking.aggregate(search(), fields, AggregateSort::Jobs, ROWS);
    let (workflows, actors, programs) =
        tokio::join!(by(&[Field::Repo, Field::Workflow]), by(&[Field::Actor]), by(&[Field::Exe]));
    let yesterday = now().seconds - 86_400;
    let first = ever?.and_then(|row| row.first);
    Ok(One {
        subject,
        name,
        span,
        total: total?,
        workflows: workflows?.rows,
        actors: actors?.rows,
        programs: programs?.rows,
        over_time: scale.bars(zone, &hours?, |row| row.events),
        axis: scale.axis(zone),
        recent: recent?,
        new: first.is_some_and(|first| first.seconds >= yesterday),
    })
}

pub(super) async fn hosts(State(web): State<Web>, visit: Visit) -> Shown {
    let hosts = web.queries.hosts(&visit.person).await.map_err(|error| visit.failed(error))?.hosts;
    Ok(pages::hosts::list(&visit.view, &hosts, &now()))
}

pub(super) async fn host(State(web): State<Web>, Path(id): Path<String>, visit: Visit) -> Shown {
    let asking = visit.asking(&web);
    match host_of(&asking, &id).await.map_err(|error| visit.failed(error))? {
        Some(host) => Ok(pages::hosts::one(&visit.view, &host, &now())),
        None => Err(pages::errors::page(&visit.view, StatusCode::NOT_FOUND, "there is no such host")),
    }
}

async fn host_of(asking: &Asking<'_>, id: &str) -> Result<Option<pages::hosts::Host>, QueryError> {
    let hosts = asking.queries.hosts(asking.person).await?.hosts;
    let is_it = |host: &HostSummary| host.host_id == id || host.name == id;
    let Some(summary) = hosts.into_iter().find(is_it) else { return Ok(None) };
    let of_host = and(Search::default(), "host", &[&summary.host_id]);
    let acts =
        ListActsRequest { host_id: summary.host_id.clone(), limit: ROWS, ..ListActsRequest::default() };
    let (said, jobs, acts) = tokio::join!(
        asking.events(and(of_host.clone(), "kind", &["coverage"]), 1),
        asking.jobs(of_host.clone(), FEW),
        asking.acts(acts),
    );
    let coverage = said?.into_iter().find_map(coverage);
    Ok(Some(pages::hosts::Host { summary, coverage, acts: acts?, jobs: jobs? }))
}

fn coverage(event: AuditEvent) -> Option<Coverage> {
    match event.body {
        Some(Body::Coverage(coverage)) => Some(coverage),
        _ => None,
    }
}

pub(super) async fn integrity(State(web): State<Web>, visit: Visit) -> Shown {
    visit.person.require(Action::ReadActs).map_err(|forbidden| visit.failed(forbidden.into()))?;
    let asking = visit.asking(&web);
    let about = ListActsRequest {
        kinds: ABOUT_THE_LOG.map(str::to_owned).to_vec(),
        limit: 50,
        ..ListActsRequest::default()
    };
    let events = asking.acts(about).await.map_err(|error| visit.failed(error))?;
    web.queries.asked(&visit.person, "GetCheckpoint", "");
    let tree = &web.query.tree;
    let (latest, witnessed) = {
        let heads = tree.published.borrow();
        (heads.latest.checkpoint().size, heads.witnessed.as_ref().map(|head| head.checkpoint().size))
    };
    let shown = Integrity {
        checkpoint: tree.checkpoint(),
        sizes: (latest, witnessed),
        last: web.query.last_verification(),
        events,
        may_verify: visit.person.may(Action::Verify),
    };
    Ok(pages::integrity::show(&visit.view, &shown))
}

pub(super) async fn search(State(web): State<Web>, visit: Visit) -> Shown {
    let (text, span) = (visit.view.address.get("where"), span(&visit, "24h"));
    let by = Field::parse(visit.view.address.get("by")).filter(|field| field.is_indexed());
    let answer = match searched(text, span) {
        Err(mistake) => Err(mistake),
        Ok(search) => {
            Ok(found(&visit.asking(&web), &visit, search, by).await.map_err(|error| visit.failed(error))?)
        }
    };
    Ok(pages::search::show(&visit.view, &pages::search::Search { text, span, by, answer }))
}

async fn found(
    asking: &Asking<'_>,
    visit: &Visit,
    search: Search,
    by: Option<Field>,
) -> Result<Found, QueryError> {
    let (zone, scale) = (&visit.view.zone, Scale::of(span(visit, "24h")));
    let over_time = asking.over_time(search.clone(), scale);
    let list = async {
        if let Some(field) = by {
            asking.person.require(Action::Analyse)?;
            let request = AggregateRequest {
                search: Some(search.clone()),
                by: vec![field.name().to_owned()],
                limit: ROWS,
                ..AggregateRequest::default()
            };
            return Ok(Listed::Rows(asking.queries.aggregate(asking.person, request).await?));
        }
        let request = SearchEventsRequest {
            search: Some(search.clone()),
            limit: ROWS,
            cursor: visit.view.address.get("cursor").to_owned(),
            ..SearchEventsRequest::default()
        };
        Ok::<_, QueryError>(Listed::Events(asking.queries.search(asking.person, request).await?))
    };
    let (rows, list) = tokio::join!(over_time, list);
    Ok(Found { over_time: scale.bars(zone, &rows?, |row| row.events), axis: scale.axis(zone), list: list? })
}

pub(super) async fn event(State(web): State<Web>, visit: Visit) -> Shown {
    let address = &visit.view.address;
    let at = address.get("at").parse::<i128>().ok().filter(|at| (0..i128::from(i64::MAX)).contains(at));
    let number = address.get("number").parse::<u64>().ok();
    let (Some(at), Some(number)) = (at, number) else { return Ok(nothing(visit).await) };
    let time = |nanos| Some(buildtrail_proto::timestamp_from_unix_nanos(nanos));
    let moment = Search { since: time(at), until: time(at + 1), ..Search::default() };
    let search = and(moment, "host", &[address.get("host")]);
    let events = visit.asking(&web).events(search, 1000).await.map_err(|error| visit.failed(error))?;
    let is_it = |event: &&AuditEvent| event.sequence == number && event.boot_id == address.get("boot");
    match events.iter().find(is_it) {
        Some(event) => Ok(pages::event::show(&visit.view, event)),
        None => Err(pages::errors::page(&visit.view, StatusCode::NOT_FOUND, "there is no such event")),
    }
}

pub(super) async fn tail(State(web): State<Web>, visit: Visit) -> Shown {
    visit.person.require(Action::Analyse).map_err(|forbidden| visit.failed(forbidden.into()))?;
    let text = visit.view.address.get("where");
    let answer = match searched(text, "24h") {
        Err(mistake) => Err(mistake),
        Ok(search) => Ok(visit.asking(&web).events(search, 50).await.map_err(|error| visit.failed(error))?),
    };
    Ok(pages::tail::show(&visit.view, &Tail { text, answer }))
}

pub(super) async fn help(visit: Visit) -> Response {
    pages::help::show(&visit.view)
}

pub(super) async fn nothing(visit: Visit) -> Response {
    pages::errors::page(&visit.view, StatusCode::NOT_FOUND, "")
}
