//! Runs: lists, one run, what its record holds, and what can be asked of it.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use dormouse_core::journal::Entry;
use dormouse_core::manifest::{Function, Manifest};
use dormouse_core::run::{State as RunState, Status};
use dormouse_core::swap::Swap;
use dormouse_core::system;
use dormouse_core::{RunId, Timestamp};
use dormouse_store::execute::LogLine;
use dormouse_store::read::{Run, RunFilter};
use dormouse_store::swap::Swapped;
use serde::Serialize;
use tokio::time::Instant;

use super::envelope::{Answer, data, page as page_of};
use super::query::{self, Params};
use super::steps::Steps;
use super::stream::Nudges;
use super::view::{EntryView, LogView, MigrationView, RunView, SwapView};
use crate::app::App;
use crate::problem::Problem;

/// The longest that a request may wait for a run's end; who wants longer asks again.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Log lines per page.
const LOG_LINES: u32 = 1_000;
/// And at most.
const LOG_LINES_MAX: u32 = 10_000;

/// `GET /v1/runs`, newest first.
pub(super) async fn page(State(app): State<App>, params: Params) -> Answer {
    params.only(&[
        "status", "function", "module", "phase", "parent", "limit", "cursor",
    ])?;
    let (runs, cursor) = list(&app, &params).await?;
    Ok(page_of(app.now(), runs, cursor))
}

/// A page of runs as the parameters ask for it, and what asks for the next.
///
/// # Errors
/// `invalid-query`, or the store's trouble.
pub(crate) async fn list(app: &App, params: &Params) -> Result<(Vec<RunView>, Option<String>), Problem> {
    let limit = params.limit()?;
    let (module, function) = params.function()?;
    let filter = RunFilter {
        status: params.statuses()?,
        phase: params.phase()?,
        module,
        function,
        event: None,
        parent: params.read("parent")?,
        before: params.read("cursor")?,
        // One more than asked for tells whether there is another page.
        limit: limit + 1,
    };
    let mut runs = app.store().runs(filter).await?;
    let more = runs.len() > limit as usize;
    runs.truncate(limit as usize);
    let cursor = runs.last().filter(|_| more).map(|run| run.id.to_string());
    Ok((runs.iter().map(RunView::of).collect(), cursor))
}

/// `GET /v1/runs/{id}`; with `wait`, once it has ended or the time is over.
pub(super) async fn one(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&["wait"])?;
    let id = query::run_id(&id)?;
    if let Some(wait) = params.wait()? {
        ended_within(&app, id, wait.min(WAIT_MAX)).await?;
    }
    Ok(data(app.now(), whole(&app, id).await?))
}

/// A run with its steps.
///
/// # Errors
/// `not-found`, or the store's trouble.
pub(crate) async fn whole(app: &App, id: RunId) -> Result<RunView, Problem> {
    let run = find(app, id).await?;
    let steps = Steps::of(id, entries(app, &run, 0).await?);
    let mut view = RunView::with_steps(&run, &steps);
    // Most runs have none of what follows, and what is known of their version says so without a read. Of one that cannot be
    // read any more it is looked up.
    let module = run.function.module();
    let manifest = app.inner().registry.manifest(module, run.version).await.ok();
    let function = |manifest: &Manifest| manifest.function(run.function.function()).cloned();
    let function = manifest.as_deref().map(function);
    let may_have = |option: fn(&Function) -> bool| match &function {
        Some(function) => function.as_ref().is_some_and(option),
        None => true,
    };
    let is_a_handler = manifest.as_deref().is_none_or(|manifest| {
        let mut functions = manifest.functions.iter();
        functions.any(|other| other.on_failure.as_deref() == Some(run.function.function()))
    });
    if is_a_handler {
        let event = app.store().event(run.event_id).await?;
        view.failed_run_id = event.and_then(|event| system::is_handler(id, &event.payload));
    }
    if let (Status::Failed, Some(at)) = (run.state.status, run.ended_at)
        && may_have(|function| function.on_failure.is_some())
    {
        let handler = app.store().run(system::handler(id, at)).await?;
        view.on_failure_run_id = handler.map(|handler| handler.id);
    }
    // What the version says that a run has gone over to tells nothing of how it began.
    if run.swapped.moved || may_have(|function| function.batch_events.is_some()) {
        let events = app.store().batch(id).await?;
        view.event_ids = (!events.is_empty()).then(|| events.iter().map(|event| event.id).collect());
    }
    let swaps = swaps(app, &run).await?;
    let active = app.registry().snapshot().active(&run.function);
    view.migration = MigrationView::of(&run, active, &swaps);
    view.swaps = swaps.iter().map(SwapView::of).collect();
    Ok(view)
}

/// A run's swaps, oldest first. Most runs have none, and their rows say so.
async fn swaps(app: &App, run: &Run) -> Result<Vec<Swap>, Problem> {
    match run.swapped == Swapped::default() {
        true => Ok(Vec::new()),
        false => Ok(app.store().swaps(run.id).await?),
    }
}

/// `GET /v1/runs/{id}/journal`, from an entry on.
pub(super) async fn journal(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&["from"])?;
    let run = find(&app, query::run_id(&id)?).await?;
    let from = params.read("from")?.unwrap_or(0);
    let swaps = swaps(&app, &run).await?;
    let views: Vec<EntryView> = entries(&app, &run, from)
        .await?
        .into_iter()
        .map(|entry| EntryView::written(entry, &run, &swaps))
        .collect();
    Ok(data(app.now(), views))
}

/// `GET /v1/runs/{id}/logs`, from a line on.
pub(super) async fn logs(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&["limit", "cursor"])?;
    let run = find(&app, query::run_id(&id)?).await?;
    let limit = params.limit_within(LOG_LINES, LOG_LINES_MAX)?;
    let from: u32 = params.read("cursor")?.unwrap_or(0);
    let lines = app.store().logs(run.id, from, limit).await?;
    // A full page may be the last; asking once more is cheap.
    let cursor = lines
        .last()
        .filter(|_| lines.len() == limit as usize)
        .map(|line| (line.number + 1).to_string());
    Ok(page_of(app.now(), views(lines), cursor))
}

/// The first log lines of a run, for its page, and whether there are more.
///
/// # Errors
/// The store's trouble.
pub(crate) async fn log_page(app: &App, id: RunId) -> Result<(Vec<LogView>, bool), Problem> {
    let lines = app.store().logs(id, 0, LOG_LINES).await?;
    let more = lines.len() == LOG_LINES as usize;
    Ok((views(lines), more))
}

#[derive(Serialize)]
struct Commanded {
    run_id: RunId,
    status: &'static str,
    phase: Option<&'static str>,
    at: Timestamp,
}

/// What came of a command on a run.
pub(super) fn commanded(app: &App, run_id: RunId, state: RunState) -> Response {
    let at = app.now();
    data(
        at,
        Commanded {
            run_id,
            status: state.status.as_str(),
            phase: state.phase.map(|phase| phase.as_str()),
            at,
        },
    )
}

/// `DELETE /v1/runs/{id}`: ends it.
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let run_id = query::run_id(&id)?;
    let state = app.cancel(run_id).await?;
    Ok(commanded(&app, run_id, state))
}

/// `POST /v1/runs/{id}/wake`: ends its wait for a time now, or tries a blocked run again.
pub(super) async fn wake(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let run_id = query::run_id(&id)?;
    let state = app.wake(run_id).await?;
    Ok(commanded(&app, run_id, state))
}

/// A run's row.
pub(super) async fn find(app: &App, id: RunId) -> Result<Run, Problem> {
    app.store()
        .run(id)
        .await?
        .ok_or_else(|| Problem::not_found("run", id))
}

/// A run's journal from an entry on, read.
pub(super) async fn entries(app: &App, run: &Run, from: u32) -> Result<Vec<Entry>, Problem> {
    let records = app.store().journal(run.id, from.max(run.journal_base)).await?;
    records
        .into_iter()
        .map(|record| {
            Entry::decode(record).map_err(|error| Problem::new(500, "store-corrupt", error.to_string()))
        })
        .collect()
}

/// Log lines as they are shown.
pub(super) fn views(lines: Vec<LogLine>) -> Vec<LogView> {
    lines.into_iter().map(LogView::of).collect()
}

/// Returns when the run has ended or the time is over.
async fn ended_within(app: &App, id: RunId, wait: Duration) -> Result<(), Problem> {
    let until = Instant::now() + wait;
    // Listening begins before looking, so that nothing falls between.
    let mut nudges = Nudges::new(app, id);
    loop {
        if find(app, id).await?.state.status.is_terminal() {
            return Ok(());
        }
        match tokio::time::timeout_at(until, nudges.next()).await {
            // Over, or the node stops: the caller sees how far it is.
            Err(_) | Ok(false) => return Ok(()),
            Ok(true) => {}
        }
    }
}
