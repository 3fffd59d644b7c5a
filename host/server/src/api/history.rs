//! Events as they were received, and what they started.

use axum::extract::{Path, State};
use dormouse_store::read::{EventFilter, RunFilter};

use super::envelope::{Answer, data, page};
use super::query::{self, Params};
use super::view::{EventView, RunView};
use crate::access::Access;
use crate::app::App;
use crate::problem::Problem;

/// The most runs that one event's list shows: one for each function it could start.
pub(super) const RUNS_MAX: u32 = 1_000;

/// `GET /v1/events`, newest first.
pub(super) async fn list(State(app): State<App>, access: Access, params: Params) -> Answer {
    params.only(&["limit", "cursor", "name", "received_after", "received_before"])?;
    let limit = params.limit()?;
    let filter = EventFilter {
        name: params.get("name").map(str::to_owned),
        received_after: params.time("received_after")?,
        received_before: params.time("received_before")?,
        before: params.read("cursor")?,
        // One more than asked for tells whether there is another page.
        limit: limit + 1,
    };
    let mut events = app.store().events(filter).await?;
    let more = events.len() > limit as usize;
    events.truncate(limit as usize);
    let cursor = events.last().filter(|_| more).map(|event| event.id.to_string());
    let views: Vec<EventView> = events
        .into_iter()
        .map(|event| EventView::of(event, &access))
        .collect();
    Ok(page(app.now(), views, cursor))
}

/// `GET /v1/events/{id}`.
pub(super) async fn one(
    State(app): State<App>,
    access: Access,
    Path(id): Path<String>,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let id = query::event_id(&id)?;
    let event = app
        .store()
        .event(id)
        .await?
        .ok_or_else(|| Problem::not_found("event", id))?;
    Ok(data(app.now(), EventView::of(event, &access)))
}

/// `GET /v1/events/{id}/runs`.
pub(super) async fn runs(
    State(app): State<App>,
    access: Access,
    Path(id): Path<String>,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let id = query::event_id(&id)?;
    let runs = app
        .store()
        .runs(RunFilter {
            event: Some(id),
            modules: access.only(),
            limit: RUNS_MAX,
            ..RunFilter::default()
        })
        .await?;
    if runs.is_empty() && app.store().event(id).await?.is_none() {
        return Err(Problem::not_found("event", id).into());
    }
    let views: Vec<RunView> = runs.iter().map(|run| RunView::of(run, &access)).collect();
    Ok(data(app.now(), views))
}
