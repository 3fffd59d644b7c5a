//! Each request is held against the table before anything else is done with it.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;

use axum::body::Body;
use axum::extract::{FromRequestParts as _, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::{FutureExt as _, StreamExt as _};
use http::Method;
use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::table::{About, Needs, Rule, rule};
use super::{Access, audit, credentials};
use crate::api::{self, Failed};
use crate::app::App;
use crate::problem::Problem;

/// Where a request comes from, as this server sees it. What a proxy says about others is not believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The address of a request.
pub(crate) fn address(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(|peer| peer.0.ip())
}

/// Lets a request through that comes from here and whose key is good enough, and writes down what it has done.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let path = parts.extensions.get::<MatchedPath>();
    let rule = rule(&parts.method, path.map_or("", MatchedPath::as_str));
    if let Err(problem) = super::origin::check(&parts) {
        return answer(&parts, &problem);
    }
    let Needs::Role(role) = rule.needs else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let access = match access(&app, rule, &parts).await {
        Ok(access) => access,
        Err(problem) => return answer(&parts, &problem),
    };
    let recorded = rule.action.filter(|action| audit::records(action, &access));
    // Nobody else looks at it, and it costs.
    let target = match recorded.is_some() || access.modules().is_some() {
        true => target(&mut parts).await,
        false => Ok(Target::new()),
    };
    let target = match target {
        Ok(target) => target,
        Err(problem) => return answer(&parts, &problem),
    };
    let permitted = match access.at_least(role) {
        Ok(()) => permit(&app, rule, &access, &target).await,
        refused => refused,
    };
    let command =
        recorded.map(|action| audit::Command::new(action, &access, address(&parts.extensions), &target));
    let refused = permitted.err().map(|problem| answer(&parts, &problem));
    parts.extensions.insert(access.clone());
    let request = Request::from_parts(parts, body);
    match (command, refused) {
        (None, Some(refused)) => refused,
        (None, None) => while_it_lives(app, access, next.run(request).await),
        (Some(command), refused) => recorded_to_the_end(app, command, refused, request, next).await,
    }
}

/// Does a command, unless it is refused, and records it, even if whoever asks goes away meanwhile.
async fn recorded_to_the_end(
    app: App,
    command: audit::Command,
    refused: Option<Response>,
    request: Request,
    next: Next,
) -> Response {
    let doing = tokio::spawn(async move {
        let done = match refused {
            Some(refused) => Ok(refused),
            None => AssertUnwindSafe(next.run(request)).catch_unwind().await,
        };
        let record = command.came_to(&app, done.as_ref().ok());
        audit::record(&app, record).await;
        done
    });
    match doing.await {
        Ok(Ok(response)) => response,
        // Told, as any other.
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => {
            tracing::error!(%error, "a command ended early");
            Failed(Problem::internal()).into_response()
        }
    }
}

/// Who asks.
async fn access(app: &App, rule: &Rule, parts: &Parts) -> Result<Access, Problem> {
    let keys = &app.inner().keys;
    let (shown, from) = (credentials::shown(&parts.headers), address(&parts.extensions));
    match rule.path {
        // What tells of an outage has to be there during one.
        "/metrics" => keys.access_or_known(shown, from).await,
        _ => keys.access(shown, from).await,
    }
}

/// The path's parameters.
type Target = Vec<(String, String)>;

async fn target(parts: &mut Parts) -> Result<Target, Problem> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params =
        params.map_err(|_| Problem::new(400, "invalid-request", "the path has what is not UTF-8 in it"))?;
    let owned = params
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(owned.collect())
}

/// Whether what the request is about is the key's.
async fn permit(app: &App, rule: &Rule, access: &Access, target: &Target) -> Result<(), Problem> {
    if rule.payloads {
        access.sees_payloads()?;
    }
    if access.modules().is_none() {
        return Ok(());
    }
    let value = |name: &str| {
        let mut named = target.iter().filter(|(own, _)| own == name);
        named.next().map_or("", |(_, value)| value.as_str())
    };
    match rule.about {
        About::Chosen => Ok(()),
        About::Everything => access.whole(),
        About::Module(name) => access.module(value(name)),
        About::Run => {
            // What is no id is answered by the route.
            let Ok(id) = value("id").parse() else {
                return Ok(());
            };
            match app.store().run(id).await? {
                // As if it were not there: that it is, is its module's affair.
                Some(run) if !access.sees(run.function.module()) => Err(Problem::not_found("run", id)),
                _ => Ok(()),
            }
        }
    }
}

/// A problem in the form that whoever asks understands.
fn answer(parts: &Parts, problem: &Problem) -> Response {
    if api::wants_page(&parts.headers) && !parts.uri.path().starts_with("/v1/") {
        if problem.status == 401 && parts.method == Method::GET {
            let asked = parts.uri.path_and_query().map_or("/", |asked| asked.as_str());
            return crate::ui::signing::redirect(asked);
        }
        return crate::ui::problem_page(problem);
    }
    Failed(problem.clone()).into_response()
}

/// A stream ends when its key is revoked or expires.
fn while_it_lives(app: App, access: Access, response: Response) -> Response {
    let media = response.headers().get(CONTENT_TYPE);
    if media.is_none_or(|media| media.as_bytes() != b"text/event-stream") {
        return response;
    }
    response.map(|body| {
        let over = async move { app.inner().keys.over(&access).await };
        Body::from_stream(body.into_data_stream().take_until(Box::pin(over)))
    })
}
