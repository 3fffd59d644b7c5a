//! `POST /v1/runs/{id}/pause|resume` and `POST /v1/functions/{module}/{function}/pause|resume`.

use axum::extract::{Path, State};
use dormouse_core::FunctionName;
use serde::Serialize;

use super::envelope::{Answer, data};
use super::query::{self, Params};
use super::runs::commanded;
use crate::app::App;
use crate::problem::Problem;

#[derive(Serialize)]
struct FunctionPause {
    function_id: FunctionName,
    paused: bool,
    /// Whether this request made it so.
    changed: bool,
}

/// Pauses a run.
pub(super) async fn pause(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let run_id = query::run_id(&id)?;
    let state = app.pause(run_id).await?;
    Ok(commanded(&app, run_id, state))
}

/// Resumes a run.
pub(super) async fn resume(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let run_id = query::run_id(&id)?;
    let state = app.resume(run_id).await?;
    Ok(commanded(&app, run_id, state))
}

/// Pauses a function.
pub(super) async fn pause_function(
    State(app): State<App>,
    Path((module, function)): Path<(String, String)>,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let function_id = name(&module, &function)?;
    let changed = app.pause_function(&function_id).await?;
    Ok(data(
        app.now(),
        FunctionPause {
            function_id,
            paused: true,
            changed,
        },
    ))
}

/// Resumes a function.
pub(super) async fn resume_function(
    State(app): State<App>,
    Path((module, function)): Path<(String, String)>,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let function_id = name(&module, &function)?;
    let changed = app.resume_function(&function_id).await?;
    Ok(data(
        app.now(),
        FunctionPause {
            function_id,
            paused: false,
            changed,
        },
    ))
}

fn name(module: &str, function: &str) -> Result<FunctionName, Problem> {
    FunctionName::new(module, function).map_err(|error| Problem::new(400, "invalid-name", error.to_string()))
}
