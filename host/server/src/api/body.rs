//! Reading request bodies: never more than a limit, never for longer than a client may take.
//!
//! Absent on purpose: what the bytes mean.

use std::time::Duration;

use axum::Form;
use axum::body::{Body, BodyDataStream};
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderValue, Method};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use crate::problem::Problem;

/// A client that sends nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// However slowly it comes, a body has this long.
const TOTAL_MAX: Duration = Duration::from_secs(300);

/// A JSON body of a command.
const JSON_BYTES_MAX: usize = 8 << 20;

/// A form of a page.
const FORM_BYTES_MAX: usize = 16 << 10;

/// How much of a body that is too big is read and thrown away, so that the client gets to read why. A connection that
/// is closed while the client still writes loses the answer.
const DISCARD_BYTES_MAX: u64 = 256 << 20;

/// And for how long.
const DISCARD_MAX: Duration = Duration::from_secs(10);

/// The most that a body may be, and what it is called when it is more.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// In bytes.
    pub(super) bytes: usize,
    /// The problem's code.
    pub(super) code: &'static str,
    /// What the body is: "the request", "the component".
    pub(super) what: &'static str,
}

/// Reads a whole body.
///
/// # Errors
/// 413 when it is more than the limit, 408 when it comes too slowly, 400 when it ends early.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: Limit) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(declared) = declared.filter(|declared| *declared > limit.bytes as u64) {
        // A client that asks first has sent nothing yet.
        if !headers.contains_key(EXPECT) && declared <= DISCARD_BYTES_MAX {
            discard(stream).await;
        }
        return Err(too_big(limit, Some(declared)));
    }
    let deadline = Instant::now() + TOTAL_MAX;
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let until = deadline.min(Instant::now() + SILENCE_MAX);
        let chunk = match timeout_at(until, stream.next()).await {
            Err(_) => return Err(slow()),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(Problem::new(
                    400,
                    "body-incomplete",
                    format!("the request's body ended early: {error}"),
                ));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        let length = first.as_ref().map_or(0, Bytes::len) + rest.len();
        if length + chunk.len() > limit.bytes {
            discard(stream).await;
            return Err(too_big(limit, None));
        }
        // Most bodies are one chunk: then nothing is copied.
        match &first {
            None => first = Some(chunk),
            Some(head) => {
                if rest.is_empty() {
                    rest.reserve(declared.map_or(0, |declared| declared as usize));
                    rest.extend_from_slice(head);
                    first = Some(Bytes::new());
                }
                rest.extend_from_slice(&chunk);
            }
        }
    }
    Ok(if rest.is_empty() {
        first.unwrap_or_default()
    } else {
        rest.freeze()
    })
}

/// Reads a command's JSON body. An empty one is the type's default, if it says so by `empty`.
///
/// # Errors
/// As [`read`], and 400 with the place when it is not the JSON that is expected.
pub(super) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    empty: Option<T>,
) -> Result<T, Problem> {
    let limit = Limit {
        bytes: JSON_BYTES_MAX,
        code: "request-too-large",
        what: "the request's body",
    };
    let bytes = read(headers, body, limit).await?;
    if let Some(empty) = empty
        && bytes.iter().all(u8::is_ascii_whitespace)
    {
        return Ok(empty);
    }
    // A struct would also be read from an array.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        return Err(malformed("it must be a JSON object"));
    }
    serde_json::from_slice(&bytes).map_err(malformed)
}

/// Reads the form of a page.
///
/// # Errors
/// As [`read`], and 400 when it is none.
pub(crate) async fn form(headers: &HeaderMap, body: Body) -> Result<Vec<(String, String)>, Problem> {
    let limit = Limit {
        bytes: FORM_BYTES_MAX,
        code: "request-too-large",
        what: "the form",
    };
    pairs(read(headers, body, limit).await?).await
}

/// The fields of an urlencoded form, whose size was checked when it was read.
///
/// # Errors
/// 400 when it is none.
pub(super) async fn pairs(bytes: Bytes) -> Result<Vec<(String, String)>, Problem> {
    let mut request = Request::new(Body::from(bytes));
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    DefaultBodyLimit::disable().apply(&mut request);
    let form = Form::<Vec<(String, String)>>::from_request(request, &()).await;
    form.map(|Form(pairs)| pairs).map_err(malformed)
}

/// 400: not the JSON that is expected.
pub(super) fn malformed(reason: impl std::fmt::Display) -> Problem {
    Problem::new(
        400,
        "invalid-body",
        format!("the request's body cannot be read: {reason}"),
    )
}

fn too_big(limit: Limit, size: Option<u64>) -> Problem {
    let Limit { bytes, code, what } = limit;
    let size = size.map_or_else(String::new, |size| format!("{size} bytes, "));
    Problem::new(
        413,
        code,
        format!("{what} is {size}more than the limit of {bytes} bytes"),
    )
}

fn slow() -> Problem {
    Problem::new(408, "body-too-slow", "the request's body came too slowly").help(format!(
        "send it without a pause of {} s, in {} s in all",
        SILENCE_MAX.as_secs(),
        TOTAL_MAX.as_secs()
    ))
}

/// Reads and throws away what is left of a body, within bounds, so that the client gets to read the answer.
pub(super) async fn discard(mut stream: BodyDataStream) {
    let deadline = Instant::now() + DISCARD_MAX;
    let mut left = DISCARD_BYTES_MAX;
    while let Ok(Some(Ok(chunk))) = timeout_at(deadline, stream.next()).await {
        left = left.saturating_sub(chunk.len() as u64);
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    const LIMIT: Limit = Limit {
        bytes: 8,
        code: "request-too-large",
        what: "the request",
    };

    fn chunks(chunks: &[&'static [u8]]) -> Body {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn chunks_are_put_together_in_order() {
        for (body, whole) in [
            (chunks(&[]), &b""[..]),
            (chunks(&[b"abc"]), b"abc"),
            (chunks(&[b"ab", b"c", b"", b"defgh"]), b"abcdefgh"),
            (chunks(&[b"", b"ab", b"c"]), b"abc"),
        ] {
            assert_eq!(
                read(&HeaderMap::new(), body, LIMIT)
                    .await
                    .expect("small")
                    .as_ref(),
                whole
            );
        }
    }

    #[tokio::test]
    async fn one_byte_too_many_is_refused_with_the_limit() {
        let problem = read(&HeaderMap::new(), chunks(&[b"abcdefgh", b"i"]), LIMIT)
            .await
            .expect_err("too big");
        assert_eq!((problem.status, problem.code), (413, "request-too-large"));
        assert!(problem.message.contains("8 bytes"), "{problem}");

        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, "9".parse().expect("a value"))]);
        let problem = read(&headers, chunks(&[b"abcdefghi"]), LIMIT)
            .await
            .expect_err("too big");
        assert!(problem.message.contains("is 9 bytes"), "{problem}");
    }

    #[tokio::test]
    async fn a_vanished_client_is_told_apart_from_an_empty_body() {
        let parts: Vec<Result<Bytes, std::io::Error>> = vec![
            Ok(Bytes::from_static(b"ab")),
            Err(std::io::ErrorKind::ConnectionReset.into()),
        ];
        let problem = read(&HeaderMap::new(), Body::from_stream(stream::iter(parts)), LIMIT)
            .await
            .expect_err("gone");
        assert_eq!(problem.code, "body-incomplete");
    }
}
