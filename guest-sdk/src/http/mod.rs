//! A blocking HTTP client for bodies.
//!
//! ```
//! # use dormouse::prelude::*;
//! # async fn f(step: Step) -> dormouse::Result<()> {
//! let rate: f64 = step
//!     .run("look up rate", || {
//!         dormouse::http::get("https://rates.example/eur")
//!             .header("accept", "application/json")
//!             .send()?
//!             .success()?
//!             .json()
//!     })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! Only inside bodies, and only to hosts that the module was granted. A whole response is held in memory: 16 MiB of it at
//! the most. Deliberately absent: redirects (a granted host could lead to any other), cookies, connection settings,
//! streaming.

#[cfg(target_family = "wasm")]
mod client;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::function::to_json;

/// The largest response body, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// How long to wait for the connection, for the first byte, and between bytes, each, when nothing is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// A request: built up, then sent by [`send`](Request::send) in a body or performed by
/// [`Step::fetch`](crate::Step::fetch) outside of one.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// What was wrong while it was built: said when it is sent.
    broken: Option<Error>,
}

/// A `GET` of an absolute `http` or `https` URL.
pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

/// A `POST`.
pub fn post(url: impl Into<String>) -> Request {
    request("POST", url)
}

/// A `PUT`.
pub fn put(url: impl Into<String>) -> Request {
    request("PUT", url)
}

/// A `PATCH`.
pub fn patch(url: impl Into<String>) -> Request {
    request("PATCH", url)
}

/// A `DELETE`.
pub fn delete(url: impl Into<String>) -> Request {
    request("DELETE", url)
}

/// A request with any method.
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    Request {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: None,
        timeout: TIMEOUT_DEFAULT,
        broken: None,
    }
}

impl Request {
    /// Adds a header field. Fields of the same name are all sent.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// Sets the body to a value as JSON, and says so in `content-type`.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Request {
        match to_json(value) {
            Ok(json) => self.header("content-type", "application/json").body(json),
            Err(error) => {
                self.broken = Some(error.context("the request's body"));
                self
            }
        }
    }

    /// How long to wait for the connection, for the first byte, and between bytes, each: 30 s when nothing is said. The
    /// step's own timeout bounds the whole.
    pub fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = timeout;
        self
    }

    /// Sends it and waits for the whole response. Any status is a response: [`Response::success`] tells.
    ///
    /// # Errors
    /// `http-outside-body`, not tried again: it was called outside of a body. `invalid-request`, not tried again.
    /// `http-denied`, not tried again: the host of the URL was not granted. `http-timeout`, `http-failed`: no response;
    /// these are worth trying again. `http-response-too-large`, not tried again.
    pub fn send(self) -> Result<Response> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        if !crate::step::in_body() {
            return Err(Error::non_retriable(format!(
                "{} {} outside of a step: make requests inside step.run, or use step.fetch",
                self.method, self.url
            ))
            .code("http-outside-body"));
        }
        send(&self)
    }
}

#[cfg(target_family = "wasm")]
use client::send;

#[cfg(not(target_family = "wasm"))]
use crate::host::http_send as send;

/// A response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A response, for tests.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// The status, such as 200.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The value of a header field, the first if there are several. Names are compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self
            .headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.map(|(_, value)| value.as_str())
    }

    /// All header fields, in order.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        Ok(std::str::from_utf8(&self.body)?)
    }

    /// The body's JSON as a value.
    ///
    /// # Errors
    /// It is not JSON, or not of this type: `invalid-response`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let start = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
            Error::retryable(format!(
                "the response (status {}) can't be read: {error}; it begins: {start}",
                self.status
            ))
            .code("invalid-response")
        })
    }

    /// The response itself when its status is 2xx.
    ///
    /// # Errors
    /// `http-status` for any other. Trying again is of no use for 4xx but 408, 425 and 429; `retry-after` in seconds is
    /// heeded.
    pub fn success(self) -> Result<Response> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let start = String::from_utf8_lossy(&self.body[..self.body.len().min(200)]);
        let message = format!("the server answered with status {}: {start}", self.status);
        let wait = self
            .header("retry-after")
            .and_then(|seconds| seconds.trim().parse().ok());
        let error = match (self.status, wait) {
            (408 | 425 | 429 | 500.., Some(seconds)) => {
                Error::retry_after(Duration::from_secs(seconds), message)
            }
            (408 | 425 | 429, None) => Error::retryable(message),
            (400..=499, _) => Error::non_retriable(message),
            _ => Error::retryable(message),
        };
        Err(error.code("http-status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_a_body_nothing_is_sent() {
        let error = get("http://example.com").send().expect_err("refused");
        assert_eq!(error.get_code(), Some("http-outside-body"));
        assert!(error.is_non_retriable());
    }

    #[test]
    fn the_status_says_whether_to_try_again() {
        for (status, non_retriable) in [
            (404, true),
            (400, true),
            (429, false),
            (408, false),
            (500, false),
            (302, false),
        ] {
            let error = Response::new(status, "why").success().expect_err("not 2xx");
            assert_eq!(error.is_non_retriable(), non_retriable, "{status}");
            assert!(error.message().contains("why"), "{error}");
        }
        assert!(Response::new(204, "").success().is_ok());
        let mut busy = Response::new(503, "");
        busy.headers.push(("Retry-After".to_owned(), "7".to_owned()));
        let failure = busy.success().expect_err("503").into_failure();
        assert_eq!(failure.retry, crate::error::Retry::After(7_000));
    }

    #[test]
    fn what_is_no_json_shows_its_beginning() {
        let error = Response::new(200, "<html>").json::<u8>().expect_err("html");
        assert!(error.message().contains("<html>"), "{error}");
    }
}
