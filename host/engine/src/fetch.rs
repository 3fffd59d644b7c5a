//! A request that the host sends for a run: checked as a body's is, the response in memory as a whole, and bounded.
//!
//! Deliberately absent: redirects (an answer like any other: where it leads to would have to be granted, and must not be
//! told what was meant for the first host), retries, and secrets, which are the caller's.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::Error;

use crate::connect;
use crate::policy::HttpPolicy;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// An absolute `http` or `https` URL.
    pub url: String,
    /// Header fields, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse {
    /// Its status.
    pub status: u16,
    /// Header fields, in order; those that are not UTF-8 are left out.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The request is not one.
    #[error("the request is not valid: {0}")]
    Invalid(&'static str),
    /// The module was not granted the host.
    #[error("the module is not granted the host {0}")]
    NotGranted(String),
    /// The host's addresses are not public, and no grant names it itself.
    #[error("{0} leads to an address that is not public, which only a grant of that very host allows")]
    NotPublic(String),
    /// The response is larger than it may be.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    /// It took too long.
    #[error("no whole response within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Something went wrong on the way.
    #[error("{0}")]
    Trouble(String),
}

/// Fields that belong to the connection, which is the host's.
const NOT_THE_GUESTS: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Sends a request and takes in the whole response, of at most `response_max` bytes, within `limit`.
///
/// # Errors
/// Why there is no response. No message has the URL's path, a header or the body in it.
pub async fn fetch(
    policy: &HttpPolicy,
    request: FetchRequest,
    limit: Duration,
    response_max: usize,
) -> Result<FetchResponse, FetchError> {
    let request = prepare(request)?;
    let host = request
        .uri()
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default();
    let exchange = async {
        let (response, connection) = connect::send(policy, request, None)
            .await
            .map_err(|error| explain(error, &host))?;
        let (head, body) = response.into_parts();
        let mut body = pin!(collect(body, response_max, &host));
        let mut connection = pin!(connection);
        let mut ended = false;
        // Nobody else drives the connection; what ends it shows in the body.
        let body = loop {
            tokio::select! {
                body = &mut body => break body?,
                _ = &mut connection, if !ended => ended = true,
            }
        };
        let headers = head
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        Ok(FetchResponse {
            status: head.status.as_u16(),
            headers,
            body,
        })
    };
    tokio::time::timeout(limit, exchange)
        .await
        .map_err(|_| FetchError::Timeout(limit))?
}

fn prepare(request: FetchRequest) -> Result<http::Request<wasmtime_wasi_http::WasiBody>, FetchError> {
    let method = http::Method::from_bytes(request.method.as_bytes())
        .map_err(|_| FetchError::Invalid("its method is not one"))?;
    if method == http::Method::CONNECT {
        return Err(FetchError::Invalid("its method is not one"));
    }
    let uri: http::Uri = request
        .url
        .parse()
        .map_err(|_| FetchError::Invalid("its URL is not one"))?;
    if uri.authority().is_none() {
        return Err(FetchError::Invalid("its URL is not absolute"));
    }
    let body = Full::new(request.body)
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut prepared = http::Request::new(body);
    *prepared.method_mut() = method;
    *prepared.uri_mut() = uri;
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| FetchError::Invalid("a header's name is not one"))?;
        if NOT_THE_GUESTS.contains(&name.as_str()) {
            return Err(FetchError::Invalid("a header is one that the host sets itself"));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| FetchError::Invalid("a header's value has characters that it may not have"))?;
        prepared.headers_mut().append(name, value);
    }
    Ok(prepared)
}

async fn collect(body: connect::ResponseBody, max: usize, host: &str) -> Result<Bytes, FetchError> {
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| explain(error, host))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > max {
                return Err(FetchError::TooLarge(max));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}

fn explain(error: Error, host: &str) -> FetchError {
    match error {
        Error::HttpRequestDenied => FetchError::NotGranted(host.to_owned()),
        Error::DestinationIpProhibited => FetchError::NotPublic(host.to_owned()),
        Error::HttpRequestUriInvalid => FetchError::Invalid("its URL is not http or https, or names a user"),
        error => FetchError::Trouble(format!("{host}: {error}")),
    }
}
