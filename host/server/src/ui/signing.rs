//! `/sign-in`, `/sign-out`: a key for somebody who looks at pages, in a cookie that no script reads and no other site sends.
//!
//! The cookie holds the key and ends with the browser's session, or when the key is revoked. Commands that come with it are
//! held against where they come from like all others.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dormouse_core::key::Role;
use http::header::{LOCATION, ORIGIN, SET_COOKIE};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use maud::{Markup, html};

use super::layout;
use crate::access::credentials::COOKIE_NAME;
use crate::access::guard;
use crate::api::{self, Params};
use crate::app::App;
use crate::problem::Problem;

/// Where whoever may not see a page is sent, to come back to it.
pub(crate) fn redirect(path: &str) -> Response {
    see(&format!("/sign-in?to={}", super::runs::escaped(path)))
}

pub(super) async fn page(params: Params) -> Markup {
    form(local(params.get("to").unwrap_or_default()), None)
}

pub(super) async fn sign_in(
    State(app): State<App>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let pairs = match api::form(&headers, body).await {
        Ok(pairs) => pairs,
        Err(problem) => return super::problem_page(&problem),
    };
    let field = |name: &str| {
        let found = pairs.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value.trim())
    };
    let (key, to) = (field("key"), local(field("to")));
    let keys = &app.inner().keys;
    let access = keys.access(Some(key), guard::address(&extensions)).await;
    let admitted = access.and_then(|access| access.at_least(Role::Viewer));
    if let Err(problem) = admitted {
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::UNAUTHORIZED);
        return api::with_headers(&problem, (status, form(to, Some(&problem))).into_response());
    }
    // What a browser says of its own page: it came by https.
    let https = headers
        .get(ORIGIN)
        .is_some_and(|origin| origin.as_bytes().starts_with(b"https:"));
    let secure = if https { "; Secure" } else { "" };
    // On a server that asks for no key, anything will do, and is not kept.
    let cookie = match keys.closed() {
        true => format!("{COOKIE_NAME}={key}; Path=/; HttpOnly; SameSite=Strict{secure}"),
        false => GONE.to_owned(),
    };
    with_cookie(see(to), &cookie)
}

/// A cookie that ends the one before.
const GONE: &str = "dormouse_key=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0";

pub(super) async fn sign_out() -> Response {
    with_cookie(see("/sign-in"), GONE)
}

fn see(place: &str) -> Response {
    let location = HeaderValue::try_from(place).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response()
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    // A key that was let in is of letters, digits and underscores.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// A place of this server's, for whatever was asked for: nobody is sent elsewhere.
fn local(place: &str) -> &str {
    let ours = place.starts_with('/')
        && !place.starts_with("//")
        && place.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if ours { place } else { "/" }
}

fn form(to: &str, problem: Option<&Problem>) -> Markup {
    let body = html! {
        h1 { "Sign in" }
        @if let Some(problem) = problem {
            p.problem role="alert" { (problem.message) "." }
        }
        form.sign-in method="post" action="/sign-in" {
            input type="hidden" name="to" value=(to);
            label { "API key" input type="password" name="key" required autofocus autocomplete="current-password"; }
            button type="submit" { "Sign in" }
        }
        p.muted { "An admin makes keys: " code { "dormouse keys create" } }
    };
    layout::page("Sign in", layout::Tab::None, None, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for place in ["/", "/runs?status=Failed&x=%2F", "/runs/01ARZ"] {
            assert_eq!(local(place), place);
        }
        for place in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nset-cookie: x",
            "javascript:x",
        ] {
            assert_eq!(local(place), "/", "{place}");
        }
    }
}
