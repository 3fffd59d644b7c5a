//! The shapes every answer has: `{"data","metadata"}` and, when something is wrong,
//! `{"error","status","code","help","data":null}`.

use axum::Json;
use axum::response::{IntoResponse, Response};
use dormouse_core::{EventId, RunId, Timestamp};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::access::audit::Code;
use crate::problem::Problem;

/// What a handler answers.
pub(super) type Answer = Result<Response, Failed>;

/// A problem as an answer.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) Problem);

impl<E: Into<Problem>> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed(error.into())
    }
}

#[derive(Serialize)]
struct Data<T> {
    data: T,
    metadata: Metadata,
}

#[derive(Serialize)]
struct Metadata {
    fetched_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(flatten)]
    origin: Origin,
}

/// What a run was started with and for, as far as that is more than an event.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Origin {
    /// All events that started it, if it was started by several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_ids: Option<Vec<EventId>>,
    /// The run whose failure it handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed_run_id: Option<RunId>,
}

#[derive(Serialize)]
struct Error<'a> {
    error: &'a str,
    status: u16,
    code: &'a str,
    help: Option<&'a str>,
    data: (),
}

/// 200 with data.
pub(super) fn data<T: Serialize>(now: Timestamp, data: T) -> Response {
    page(now, data, None)
}

/// 200 with a page of data; `cursor` asks for the next, and is absent on the last.
pub(super) fn page<T: Serialize>(now: Timestamp, data: T, cursor: Option<String>) -> Response {
    let metadata = Metadata {
        fetched_at: now,
        cursor,
        origin: Origin::default(),
    };
    Json(Data { data, metadata }).into_response()
}

/// 200 with what is recorded of a run.
pub(super) fn record<T: Serialize>(now: Timestamp, data: T, origin: Origin) -> Response {
    let metadata = Metadata {
        fetched_at: now,
        cursor: None,
        origin,
    };
    Json(Data { data, metadata }).into_response()
}

/// The status a problem answers with.
pub(super) fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Adds what a client should know of trying again, and what records should know of the error.
pub(crate) fn with_headers(problem: &Problem, mut response: Response) -> Response {
    if let Some(seconds) = problem.retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.status == 401 {
        response.headers_mut().insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"dormouse\""),
        );
    }
    response.extensions_mut().insert(Code(problem.code));
    response
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let problem = &self.0;
        if problem.status >= 500 && problem.status != 501 {
            tracing::warn!(code = problem.code, "{problem}");
        }
        let body = Error {
            error: &problem.message,
            status: problem.status,
            code: problem.code,
            help: problem.help.as_deref(),
            data: (),
        };
        with_headers(problem, (status(problem), Json(body)).into_response())
    }
}
