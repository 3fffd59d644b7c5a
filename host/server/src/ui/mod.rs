//! The pages: rendered here, readable without a script, live with one.
//!
//! | room | what it owns |
//! |---|---|
//! | [`overview`] | `/` |
//! | [`runs`] | `/runs`: the list, with its filters in the URL |
//! | [`run`] | `/runs/{id}`: one run, live, and its two buttons |
//! | [`signing`] | `/sign-in`, `/sign-out` |
//! | [`layout`] | what all pages share: frame, status, times, durations |
//! | [`payload`] | JSON as people read it |
//! | [`live`] | the stream that tells a list that something changed |
//! | [`assets`] | style and script, in the binary |
//!
//! Absent on purpose: anything that is fetched from elsewhere, scripts in the page, and writing tables: buttons call the
//! same commands as the API.

mod assets;
mod layout;
mod live;
mod overview;
mod payload;
mod run;
mod runs;
pub(crate) mod signing;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_FRAME_OPTIONS};
use http::{HeaderValue, StatusCode};
use maud::html;

use crate::access::guard::guard;
use crate::api;
use crate::app::App;
use crate::problem::Problem;

/// Nothing from elsewhere, nothing inline, nobody's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
);

/// The routes of the pages.
pub fn routes(app: App) -> Router {
    Router::new()
        .route("/", get(overview::page))
        .route("/overview/fragment", get(overview::fragment))
        .route("/overview/stream", get(live::stream))
        .route("/runs", get(runs::page))
        .route("/runs/{id}", get(run::page))
        .route("/runs/{id}/fragment", get(run::fragment))
        .route("/runs/{id}/cancel", post(run::cancel))
        .route("/runs/{id}/wake", post(run::wake))
        .route("/sign-in", get(signing::page).post(signing::sign_in))
        .route("/sign-out", post(signing::sign_out))
        .route("/assets/{name}", get(assets::asset))
        .method_not_allowed_fallback(api::wrong_method)
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(map_response(finish))
        .with_state(app)
}

async fn finish(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A problem as a page.
#[derive(Debug)]
struct Failed(Problem);

impl<E: Into<Problem>> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        problem_page(&self.0)
    }
}

/// What went wrong, for someone who looks at pages.
pub(crate) fn problem_page(problem: &Problem) -> Response {
    let title = match problem.status {
        404 => "Not found",
        401 | 403 => "Not allowed",
        400..=499 => "That did not work",
        _ => "Something is wrong",
    };
    let body = html! {
        section.problem {
            h1 { (title) }
            p { (problem.message) }
            @if let Some(help) = &problem.help {
                p.help { (help) }
            }
            p.muted { "Code " code { (problem.code) } }
            p { a href="/" { "Overview" } " · " a href="/runs" { "Runs" } }
        }
    };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, layout::page(title, layout::Tab::None, None, &body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    api::with_headers(problem, response)
}
