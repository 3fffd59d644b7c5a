//! `/v1/cancellations`: cancelling many runs with one command.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use dormouse_core::{FunctionName, Timestamp};
use dormouse_store::cancellation::{Cancellation, CancellationFilter, CancellationId};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::body;
use super::envelope::{Answer, data};
use super::query::{self, Params};
use crate::access::Access;
use crate::access::audit::Note;
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
pub(super) async fn create(
    State(app): State<App>,
    access: Access,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    params.only(&[])?;
    let wanted: Wanted = body::json(&headers, body, None).await?;
    let function = function(&wanted)?;
    access.function(&function)?;
    let cancellation = app
        .cancel_many(
            function,
            wanted.started_after,
            wanted.started_before,
            wanted.condition,
        )
        .await?;
    let note = Note {
        target: Some(cancellation.function.to_string()),
        detail: Some(cancellation.id.to_string()),
    };
    let view = CancellationView::of(cancellation);
    Ok((StatusCode::CREATED, Extension(note), data(app.now(), view)).into_response())
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
pub(super) async fn list(State(app): State<App>, access: Access, params: Params) -> Answer {
    params.only(&["limit"])?;
    let filter = CancellationFilter {
        modules: access.only(),
        ..CancellationFilter::newest(params.limit()?)
    };
    let found = app.store().cancellations(filter).await?;
    let mut views: Vec<CancellationView> = found.into_iter().map(CancellationView::of).collect();
    if !access.payloads() {
        // Somebody's data may stand in it.
        views.iter_mut().for_each(|view| view.condition = None);
    }
    Ok(data(app.now(), views))
}

/// `DELETE /{id}`: what it has not cancelled yet, it does not.
pub(super) async fn delete(
    State(app): State<App>,
    access: Access,
    Path(id): Path<String>,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let id = id
        .parse()
        .map_err(|error| Problem::new(400, "invalid-id", format!("cancellation id: {error}")))?;
    if let Some(modules) = access.only() {
        let filter = CancellationFilter {
            id: Some(id),
            modules: Some(modules),
            limit: 1,
        };
        if app.store().cancellations(filter).await?.is_empty() {
            return Err(Problem::not_found("cancellation", id).into());
        }
    }
    app.delete_cancellation(id).await?;
    Ok(data(app.now(), DeletedView { id, ok: true }))
}
