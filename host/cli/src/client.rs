//! Talks to a server: requests, the envelope of its answers, and its errors as failures with exit codes.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::cli::Global;
use crate::failure::{Exit, Failure, Outcome};

/// Where a server listens when nobody says otherwise.
pub(crate) const URL_DEFAULT: &str = "http://127.0.0.1:8288";

/// For how long an ordinary answer is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For how long a connection is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server to talk to.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<String>,
}

impl Client {
    /// The server that the command line or the environment names, else the project's, else the default.
    pub(crate) fn new(global: &Global, project_url: Option<&str>) -> Outcome<Client> {
        let given = global.url.as_deref().or(project_url).unwrap_or(URL_DEFAULT);
        let base = parse_url(given)?;
        // The first call counts; later ones find it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("dormouse-cli/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT);
        // A proxy for the outside world must not be asked for this machine.
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|error| Failure::new(Exit::Bug, format!("cannot set up HTTP: {}", chain(&error))))?;
        Ok(Client {
            http,
            base,
            key: global.key.clone(),
        })
    }

    /// The server's address, without a slash at its end.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The key, if one was given.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// A request to a path, given as its segments.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> Request<'_> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("a http address has a path")
            .pop_if_empty()
            .extend(path);
        let place = format!("{method} {url}");
        let mut builder = self.http.request(method, url);
        if let Some(key) = &self.key {
            builder = builder.bearer_auth(key);
        }
        Request {
            client: self,
            builder,
            place,
            timeout: Some(ANSWER_TIMEOUT),
        }
    }

    /// Reads a resource: what is under `data`.
    pub(crate) async fn get(&self, path: &[&str]) -> Outcome<Value> {
        self.request(Method::GET, path).data().await
    }
}

/// A request that has not been sent.
pub(crate) struct Request<'a> {
    client: &'a Client,
    builder: RequestBuilder,
    place: String,
    timeout: Option<Duration>,
}

impl Request<'_> {
    /// Adds a query parameter, unless there is no value.
    #[must_use]
    pub(crate) fn query(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.builder = self.builder.query(&[(name, value.to_string())]);
        }
        self
    }

    /// Adds a JSON body.
    #[must_use]
    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    /// Changes the request in the ways this type has no method for.
    #[must_use]
    pub(crate) fn with(mut self, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Self {
        self.builder = change(self.builder);
        self
    }

    /// For how long to wait for the whole answer; none for a stream.
    #[must_use]
    pub(crate) fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it; an answer that is an error is a failure.
    pub(crate) async fn send(self) -> Outcome<Response> {
        let mut builder = self.builder;
        if let Some(timeout) = self.timeout {
            builder = builder.timeout(timeout);
        }
        let response = builder
            .send()
            .await
            .map_err(|error| unreachable(self.client, &self.place, &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        Err(refusal(status, &body, &self.place))
    }

    /// Sends it and reads the JSON answer.
    pub(crate) async fn answer(self) -> Outcome<Value> {
        let place = self.place.clone();
        let client = self.client;
        let response = self.send().await?;
        let body = response
            .text()
            .await
            .map_err(|error| unreachable(client, &place, &error))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&body).map_err(|_| not_dormouse("with something that is not JSON").at(place))
    }

    /// Sends it and reads what the answer has under `data`.
    pub(crate) async fn data(self) -> Outcome<Value> {
        Ok(self.answer().await?["data"].take())
    }
}

fn parse_url(given: &str) -> Outcome<Url> {
    let full = if given.contains("://") {
        given.to_owned()
    } else {
        format!("http://{given}")
    };
    let wrong = |why: &str| {
        Failure::usage(format!("\"{given}\" is not a server's address: {why}"))
            .help(format!("give it as {URL_DEFAULT}, with --url or DORMOUSE_URL"))
    };
    let url = Url::parse(&full).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("only http and https are spoken"));
    }
    Ok(url)
}

/// The server did not answer, or not to the end.
fn unreachable(client: &Client, place: &str, error: &reqwest::Error) -> Failure {
    let address = client.address();
    let (message, help) = if error.is_connect() {
        let help = "start one with `dormouse start`, or say where it is with --url or DORMOUSE_URL";
        (format!("no server answers at {address}: {}", chain(error)), help)
    } else if error.is_timeout() {
        (
            format!("the server at {address} did not answer in time"),
            "look at the server's log, then try again",
        )
    } else {
        (
            format!("the connection to {address} broke: {}", chain(error)),
            "look at the server's log, then try again",
        )
    };
    Failure::new(Exit::Unavailable, message).at(place).help(help)
}

/// The innermost cause says most; what is around it only repeats the address.
fn chain(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn not_dormouse(how: &str) -> Failure {
    Failure::new(
        Exit::Unavailable,
        format!("something answered {how}, so it is no Dormouse server"),
    )
    .help("check the address: --url or DORMOUSE_URL")
}

/// The server's error as a failure.
fn refusal(status: StatusCode, body: &str, place: &str) -> Failure {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |member: &str| {
        body[member]
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let Some(message) = text("error").or_else(|| text("message")) else {
        return not_dormouse(&format!("with {status} and no reason")).at(place);
    };
    let exit = match status.as_u16() {
        404 | 410 => Exit::NotFound,
        401 | 403 => Exit::NotAllowed,
        408 | 429 | 502 | 503 | 504 => Exit::Unavailable,
        500 => Exit::Bug,
        _ => Exit::Refused,
    };
    let help = text("help").or_else(|| match exit {
        Exit::NotAllowed => Some("give a key with DORMOUSE_KEY or --key".to_owned()),
        Exit::Bug => Some("look at the server's log; this is a bug in Dormouse, please report it".to_owned()),
        _ => None,
    });
    Failure {
        exit,
        message,
        place: Some(place.to_owned()),
        code: text("code"),
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_scheme() {
        assert_eq!(
            parse_url("127.0.0.1:9").expect("valid").as_str(),
            "http://127.0.0.1:9/"
        );
        assert_eq!(
            parse_url("https://a.example/x").expect("valid").as_str(),
            "https://a.example/x"
        );
        for wrong in ["ftp://a", "http://", "a b"] {
            assert_eq!(parse_url(wrong).expect_err(wrong).exit, Exit::Usage);
        }
    }

    #[test]
    fn every_status_has_its_exit_code() {
        let body = r#"{"error":"no","status":0,"code":"c","help":"do"}"#;
        for (status, exit) in [
            (400, Exit::Refused),
            (401, Exit::NotAllowed),
            (403, Exit::NotAllowed),
            (404, Exit::NotFound),
            (409, Exit::Refused),
            (413, Exit::Refused),
            (429, Exit::Unavailable),
            (500, Exit::Bug),
            (501, Exit::Refused),
            (503, Exit::Unavailable),
        ] {
            let failure = refusal(StatusCode::from_u16(status).expect("valid"), body, "GET x");
            assert_eq!(failure.exit, exit, "{status}");
            assert_eq!(
                (failure.code.as_deref(), failure.help.as_deref()),
                (Some("c"), Some("do"))
            );
        }
        let failure = refusal(StatusCode::NOT_FOUND, "<html>", "GET x");
        assert_eq!(
            failure.exit,
            Exit::Unavailable,
            "a 404 of another server says nothing about ours"
        );
    }
}
