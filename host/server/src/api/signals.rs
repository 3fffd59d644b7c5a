//! `POST /v1/signals`: ends the wait of the one run that waits for a signal.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse as _;
use dormouse_core::{Json, RunId};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::body;
use super::envelope::{Answer, data};
use super::query::Params;
use crate::access::audit::Note;
use crate::app::App;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signal {
    signal: String,
    #[serde(default)]
    data: Option<Json>,
}

#[derive(Serialize)]
struct SignalledView {
    run_id: RunId,
}

pub(super) async fn send(State(app): State<App>, params: Params, headers: HeaderMap, body: Body) -> Answer {
    params.only(&[])?;
    let Signal { signal, data: sent } = body::json(&headers, body, None).await?;
    let run_id = app.signal(signal, sent.unwrap_or_else(Json::null)).await?;
    let note = Note::on(run_id);
    Ok((Extension(note), data(app.now(), SignalledView { run_id })).into_response())
}
