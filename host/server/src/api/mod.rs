//! The API: events in, everything else under `/v1`, all as JSON.
//!
//! | room | what it owns |
//! |---|---|
//! | [`events`] | `POST /e/{key}`: the contract of Inngest's clients |
//! | [`history`] | events received |
//! | [`runs`], [`stream`] | runs: lists, one run, its journal and logs, cancel, wake; and one live |
//! | [`pausing`] | pausing and resuming runs and functions |
//! | [`reruns`] | a run once more |
//! | [`versions`] | which version a single run is on |
//! | [`cancellations`] | cancelling many runs |
//! | [`modules`] | modules, versions, functions, invoke |
//! | [`schedules`] | when functions start by the clock |
//! | [`node`] | `/health`, `/ready`, `/metrics`, `/dev`, nodes |
//! | [`openapi`] | `/openapi.json`: all of these described |
//! | [`absent`] | what a later release brings, answered as data |
//! | [`view`], [`steps`] | what is shown of a run: pure |
//! | [`envelope`], [`query`], [`body`], [`guard`] | shapes, parameters, bodies, other sites |
//!
//! Absent on purpose: decisions (the commands of [`App`]), pages ([`crate::ui`]) and keys.

mod absent;
mod body;
mod cancellations;
mod envelope;
mod events;
mod guard;
mod history;
mod modules;
mod node;
mod openapi;
mod pausing;
mod preflight;
mod query;
mod reruns;
mod runs;
mod schedules;
mod signals;
mod steps;
mod stream;
mod triggers;
mod versions;
mod view;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tower_http::cors::{Any, CorsLayer};

use crate::app::App;
use crate::problem::Problem;

pub(crate) use envelope::Failed;
pub(crate) use guard::same_site;
pub(crate) use query::{Params, run_id};
pub(crate) use steps::{AttemptView, StepView};
pub(crate) use view::{LogView, RunView};

pub(crate) use runs::{list as list_runs, log_page, whole as whole_run};

/// What Inngest's clients look at to tell a development server from its cloud.
const SERVER_KIND: HeaderName = HeaderName::from_static("x-inngest-server-kind");

/// The routes of the API, and the answer to what no route has.
pub fn routes(app: App) -> Router {
    // What happens before the first look at /metrics counts too.
    crate::telemetry::Metrics::install();
    let v1 = Router::new()
        .route("/events", get(history::list))
        .route("/events/{id}", get(history::one))
        .route("/events/{id}/runs", get(history::runs))
        .route("/events/{id}/triggers", get(triggers::triggers))
        .route("/runs", get(runs::page))
        .route("/runs/{id}", get(runs::one).delete(runs::cancel))
        .route("/runs/{id}/journal", get(runs::journal))
        .route("/runs/{id}/logs", get(runs::logs))
        .route("/runs/{id}/stream", get(stream::stream))
        .route("/runs/{id}/wake", post(runs::wake))
        .route("/runs/{id}/rerun", post(reruns::rerun))
        .route("/runs/{id}/pause", post(pausing::pause))
        .route("/runs/{id}/resume", post(pausing::resume))
        .route("/runs/{id}/migrate", post(versions::migrate))
        .route("/runs/{id}/pin", post(versions::pin))
        .route("/runs/{id}/follow", post(versions::follow))
        .route("/functions", get(modules::functions))
        .route(
            "/functions/{module}/{function}/pause",
            post(pausing::pause_function),
        )
        .route(
            "/functions/{module}/{function}/resume",
            post(pausing::resume_function),
        )
        .route("/modules", get(modules::list))
        .route("/modules/{name}", put(modules::upload))
        .route("/modules/{name}/versions", get(modules::versions))
        .route("/modules/{name}/versions/{digest}", delete(modules::delete))
        .route("/modules/{name}/activate", post(modules::activate))
        .route("/modules/{name}/preflight", post(preflight::preflight))
        .route("/nodes", get(node::nodes))
        .route("/nodes/{node}/drain", post(node::drain))
        .route(
            "/cancellations",
            get(cancellations::list).post(cancellations::create),
        )
        .route("/cancellations/{id}", delete(cancellations::delete))
        .route("/signals", post(signals::send))
        .route("/keys", get(absent::keys).post(absent::keys))
        .route("/grants", get(absent::grants).put(absent::grants))
        .route("/audit", get(absent::audit))
        .route("/schedules", get(schedules::list));
    let guarded = Router::new()
        .nest("/v1", v1)
        .route("/invoke/{module}/{function}", post(modules::invoke))
        .route("/dev", get(node::dev))
        .route("/health", get(node::health))
        .route("/ready", get(node::ready))
        .route("/metrics", get(node::metrics))
        .route("/openapi.json", get(openapi::document))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(guard::same_site));
    let open = Router::new()
        .route("/e/{key}", post(events::send))
        .method_not_allowed_fallback(wrong_method_for_events)
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods([Method::POST, Method::OPTIONS])
                .allow_headers(Any)
                .expose_headers([SERVER_KIND]),
        );
    guarded.merge(open).fallback(no_route).with_state(app)
}

/// Every answer says what kind of server this is, and is nobody's to keep or to guess at unless it says otherwise.
///
/// It is put on where requests are served, around all routes, since each layer of a router costs every request a few
/// allocations.
pub(crate) fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(SERVER_KIND, HeaderValue::from_static("dev"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What is said when answering panicked.
pub(crate) fn panicked() -> Response {
    Failed(Problem::internal()).into_response()
}

async fn no_route(request: Request) -> Response {
    let path = request.uri().path();
    let problem = Problem::new(404, "no-route", format!("there is nothing at {path}"))
        .help("the API is under /v1, events go to /e/{key}, the pages begin at /");
    if wants_page(request.headers()) && !path.starts_with("/v1/") {
        return crate::ui::problem_page(&problem);
    }
    Failed(problem).into_response()
}

/// Whether who asks looks at pages: a browser names `text/html` first, programs don't.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accept.trim_start().starts_with("text/html")
}

/// axum adds the `Allow` header to what this answers.
pub(crate) async fn wrong_method(request: Request) -> Response {
    Failed(no_method(&request)).into_response()
}

async fn wrong_method_for_events(request: Request) -> Response {
    events::refuse(&no_method(&request))
}

fn no_method(request: &Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(405, "wrong-method", format!("{path} does not take {method}"))
        .help("the Allow header of this answer names the methods it takes")
}

/// A text that is not JSON.
fn text(media: &'static str, text: String) -> Response {
    ([(CONTENT_TYPE, media)], text).into_response()
}
