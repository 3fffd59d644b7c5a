//! `POST /v1/runs/{id}/rerun`: the run once more, from the beginning or from a step on.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use dormouse_core::rerun::FromStep;
use dormouse_core::{EventId, Json, RunId};
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::body;
use super::envelope::{Answer, data};
use super::query::{self, Params};
use crate::access::audit::Note;
use crate::app::App;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The first step to be done anew: its name, or the number of its entry.
    #[serde(default)]
    from_step: Option<FromStep>,
    /// The event's data, when it is to be another.
    #[serde(default)]
    input: Option<Json>,
}

#[derive(Serialize)]
struct RerunView {
    run_id: RunId,
    event_id: EventId,
    rerun_of: RunId,
}

/// 202 once it is durable. An empty body is an empty object.
pub(super) async fn rerun(
    State(app): State<App>,
    Path(id): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&[])?;
    let rerun_of = query::run_id(&id)?;
    let Wanted { from_step, input } = body::json(&headers, body, Some(Wanted::default())).await?;
    let (run_id, event_id) = app.rerun(rerun_of, from_step, input).await?;
    let view = RerunView {
        run_id,
        event_id,
        rerun_of,
    };
    let note = Note::detail(run_id);
    let mut response: Response =
        (StatusCode::ACCEPTED, Extension(note), data(app.now(), view)).into_response();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/runs/{run_id}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}
