//! `/v1/cancellations`: cancelling many runs with one command.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use dormouse_core::{FunctionName, Timestamp};
use dormouse_store::cancellation::{Cancellation, CancellationId};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::body;
use super::envelope::{Answer, data};
use super::query::{self, Params};
use crate::app::App;
use crate::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `module/function`.
    #[serde(default)]
    function: Option<String>,
    /// The module, under Inngest's name.
    #[serde(default)]
    app_id: Option<String>,
    /// The function, under Inngest's name; with its module, if `app_id` is not given.
    #[serde(default)]
    function_id: Option<String>,
    #[serde(default)]
    started_after: Option<Timestamp>,
    #[serde(default)]
    started_before: Option<Timestamp>,
    #[serde(default, rename = "if")]
    condition: Option<String>,
}

#[derive(Serialize)]
struct CancellationView {
    id: CancellationId,
    function_id: FunctionName,
    started_after: Option<Timestamp>,
    started_before: Option<Timestamp>,
    #[serde(rename = "if")]
    condition: Option<String>,
    created_at: Timestamp,
    /// When the last run was examined.
    done_at: Option<Timestamp>,
    /// How many runs it has cancelled so far.
    cancelled: u64,
}

impl CancellationView {
    fn of(cancellation: Cancellation) -> CancellationView {
        CancellationView {
            id: cancellation.id,
            function_id: cancellation.function,
            started_after: cancellation.started_after,
            started_before: cancellation.started_before,
            condition: cancellation.condition,
            created_at: cancellation.created_at,
            done_at: cancellation.done_at,
            cancelled: cancellation.cancelled,
        }
    }
}

#[derive(Serialize)]
struct DeletedView {
    id: CancellationId,
    ok: bool,
}

/// `POST`: 201 once the command is durable.
pub(super) async fn create(State(app): State<App>, params: Params, headers: HeaderMap, body: Body) -> Answer {
    params.only(&[])?;
    let wanted: Wanted = body::json(&headers, body, None).await?;
    let function = function(&wanted)?;
    let cancellation = app
        .cancel_many(
            function,
            wanted.started_after,
            wanted.started_before,
            wanted.condition,
        )
        .await?;
    let view = CancellationView::of(cancellation);
    Ok((StatusCode::CREATED, data(app.now(), view)).into_response())
}

fn function(wanted: &Wanted) -> Result<FunctionName, Problem> {
    let name = match (&wanted.function, &wanted.app_id, &wanted.function_id) {
        (Some(name), None, None) | (None, None, Some(name)) => name.clone(),
        (None, Some(module), Some(function)) => format!("{module}/{function}"),
        _ => {
            let message =
                "name the function: \"function\": \"MODULE/FUNCTION\", or \"app_id\" and \"function_id\"";
            return Err(Problem::new(400, "invalid-cancellation", message));
        }
    };
    let Some((module, function)) = name.split_once('/') else {
        let message = format!("\"{name}\" does not name a function: give MODULE/FUNCTION");
        return Err(Problem::new(400, "invalid-name", message));
    };
    query::function(module, function)
}

/// `GET`: the newest.
pub(super) async fn list(State(app): State<App>, params: Params) -> Answer {
    params.only(&["limit"])?;
    let found = app.store().cancellations(params.limit()?).await?;
    let views: Vec<CancellationView> = found.into_iter().map(CancellationView::of).collect();
    Ok(data(app.now(), views))
}

/// `DELETE /{id}`: what it has not cancelled yet, it does not.
pub(super) async fn delete(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let id = id
        .parse()
        .map_err(|error| Problem::new(400, "invalid-id", format!("cancellation id: {error}")))?;
    app.delete_cancellation(id).await?;
    Ok(data(app.now(), DeletedView { id, ok: true }))
}
