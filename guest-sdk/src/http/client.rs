//! The client over `wasi:http`. A component that does not reach this module does not import it.

use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme,
};
use wasip2::io::streams::StreamError;

use super::{RESPONSE_BYTES_MAX, Request, Response};
use crate::error::{Error, Result};

/// What one blocking write takes, by the definition of `wasi:io`.
const WRITE_BYTES_MAX: usize = 4096;

pub(super) fn send(request: &Request) -> Result<Response> {
    let outgoing = outgoing(request)?;
    let body = outgoing
        .body()
        .map_err(|()| invalid(request, "its body was taken already"))?;
    let future = outgoing_handler::handle(outgoing, Some(options(request.timeout)))
        .map_err(|code| failed(request, &code))?;
    write_body(request, body)?;

    future.subscribe().block();
    let response = match future.get() {
        Some(Ok(outcome)) => outcome.map_err(|code| failed(request, &code))?,
        Some(Err(())) | None => return Err(broken(request, "the host gave no response")),
    };
    let status = response.status();
    let headers = response.headers().entries();
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()));
    Ok(Response {
        status,
        headers: headers.collect(),
        body: read_body(request, response)?,
    })
}

fn outgoing(request: &Request) -> Result<OutgoingRequest> {
    let (scheme, rest) = request.url.split_once("://").ok_or_else(|| {
        invalid(
            request,
            "the URL must be absolute, such as https://example.com/path",
        )
    })?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(invalid(request, "the URL must be http or https")),
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };

    let mut fields = Vec::with_capacity(request.headers.len() + 1);
    for (name, value) in &request.headers {
        fields.push((name.clone(), value.clone().into_bytes()));
    }
    let named = |name: &str| {
        request
            .headers
            .iter()
            .any(|(field, _)| field.eq_ignore_ascii_case(name))
    };
    if let Some(body) = request.body.as_ref().filter(|_| !named("content-length")) {
        fields.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
    }
    let headers = Fields::from_list(&fields)
        .map_err(|error| invalid(request, &format!("a header field is not allowed: {error:?}")))?;

    let outgoing = OutgoingRequest::new(headers);
    let method = match request.method.to_ascii_uppercase().as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    };
    outgoing
        .set_method(&method)
        .map_err(|()| invalid(request, "the method is not valid"))?;
    outgoing
        .set_scheme(Some(&scheme))
        .map_err(|()| invalid(request, "the scheme is not valid"))?;
    outgoing
        .set_authority(Some(authority))
        .map_err(|()| invalid(request, "the host of the URL is not valid"))?;
    outgoing
        .set_path_with_query(Some(&path))
        .map_err(|()| invalid(request, "the path of the URL is not valid"))?;
    Ok(outgoing)
}

fn options(timeout: Duration) -> RequestOptions {
    let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let options = RequestOptions::new();
    // A host that does not know one of them says so; its own limits then stand.
    let _ = options.set_connect_timeout(Some(nanos));
    let _ = options.set_first_byte_timeout(Some(nanos));
    let _ = options.set_between_bytes_timeout(Some(nanos));
    options
}

fn write_body(request: &Request, body: OutgoingBody) -> Result<()> {
    if let Some(bytes) = &request.body {
        let stream = body
            .write()
            .map_err(|()| broken(request, "the host takes no body"))?;
        for chunk in bytes.chunks(WRITE_BYTES_MAX) {
            match stream.blocking_write_and_flush(chunk) {
                Ok(()) => {}
                // The server needs no more of it: its response, or the reason why there is none, is still to come.
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(broken(request, &error.to_debug_string()));
                }
            }
        }
    }
    match OutgoingBody::finish(body, None) {
        Ok(()) | Err(ErrorCode::HttpRequestBodySize(_)) => Ok(()),
        Err(code) => Err(failed(request, &code)),
    }
}

fn read_body(request: &Request, response: IncomingResponse) -> Result<Vec<u8>> {
    let body: IncomingBody = response
        .consume()
        .map_err(|()| broken(request, "the host gave no body"))?;
    let stream = body
        .stream()
        .map_err(|()| broken(request, "the host gave no body"))?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(broken(request, &error.to_debug_string()));
            }
        }
        if bytes.len() > RESPONSE_BYTES_MAX {
            let message = format!(
                "{}: the response is larger than {RESPONSE_BYTES_MAX} bytes",
                what(request)
            );
            return Err(Error::non_retriable(message).code("http-response-too-large"));
        }
    }
}

fn what(request: &Request) -> String {
    format!("{} {}", request.method, request.url)
}

fn invalid(request: &Request, reason: &str) -> Error {
    Error::non_retriable(format!("{}: {reason}", what(request))).code("invalid-request")
}

fn broken(request: &Request, reason: &str) -> Error {
    Error::retryable(format!("{}: {reason}", what(request))).code("http-failed")
}

fn failed(request: &Request, code: &ErrorCode) -> Error {
    let what = what(request);
    match code {
        ErrorCode::HttpRequestDenied => {
            let message =
                format!("{what}: the host has refused it: the module has no grant for this address");
            Error::non_retriable(message).code("http-denied")
        }
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestMethodInvalid => {
            invalid(request, &format!("{code:?}"))
        }
        ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout
        | ErrorCode::DnsTimeout => {
            Error::retryable(format!("{what}: no answer in time ({code:?})")).code("http-timeout")
        }
        ErrorCode::TlsCertificateError => broken(
            request,
            "its certificate is not for this name, or of no authority that the host trusts; the host's log says more",
        ),
        _ => Error::retryable(format!("{what}: {code:?}")).code("http-failed"),
    }
}
