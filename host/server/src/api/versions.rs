//! `POST /v1/runs/{id}/migrate|pin|follow`: which version a single run is on.

use axum::body::Body;
use axum::extract::{Path, State};
use http::HeaderMap;
use serde::Deserialize;

use super::body;
use super::envelope::Answer;
use super::query::{self, Params};
use super::runs::commanded;
use crate::app::App;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The version; none: the active one.
    #[serde(default)]
    version: Option<String>,
}

/// Has a run go over to a version. An empty body is an empty object.
pub(super) async fn migrate(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&[])?;
    let run_id = query::run_id(&id)?;
    let Wanted { version } = body::json(&headers, body, Some(Wanted::default())).await?;
    let version = version.as_deref().map(query::digest).transpose()?;
    let state = app.migrate(run_id, version).await?;
    Ok(commanded(&app, run_id, state))
}

/// Has a run stay on its version.
pub(super) async fn pin(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let run_id = query::run_id(&id)?;
    let state = app.pin(run_id).await?;
    Ok(commanded(&app, run_id, state))
}

/// Has a run go by what deploys say again.
pub(super) async fn follow(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let run_id = query::run_id(&id)?;
    let state = app.follow(run_id).await?;
    Ok(commanded(&app, run_id, state))
}
