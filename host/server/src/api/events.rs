//! `POST /e/{key}`: the door events come in by, with the wire contract of Inngest's clients.
//!
//! A client judges the body: `"status":200` and no `error`. Anything else makes it try again, so a refusal says the same
//! each time and costs little. Until there are keys, every key is as good as another. From then on it must be an event key,
//! or an API key that may start any function; it stands in the path, as clients send it, or in `Authorization`, which keeps
//! it out of the logs of whatever is in between.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dormouse_core::event::Seed;
use dormouse_core::{EventId, limit};
use http::header::CONTENT_TYPE;
use http::{Extensions, HeaderMap};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::body::{self, Limit};
use super::envelope::{status, with_headers};
use crate::access::{credentials, guard};
use crate::app::{App, Sent};
use crate::problem::Problem;

/// The contract's success.
#[derive(Serialize)]
struct Accepted {
    ids: Vec<EventId>,
    status: u16,
}

/// The contract's refusal, with our code and help. Nothing was stored, so there are no ids.
#[derive(Serialize)]
struct Refused<'a> {
    ids: [EventId; 0],
    status: u16,
    error: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

const LIMIT: Limit = Limit {
    bytes: limit::EVENT_REQUEST_BYTES_MAX,
    code: "request-too-large",
    what: "the request of events",
};

pub(super) async fn send(
    State(app): State<App>,
    Path(key): Path<String>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(problem) = admit(&app, &key, &extensions, &headers).await {
        // A client that still writes would not read the answer.
        body::discard(body.into_data_stream()).await;
        return refuse(&problem);
    }
    match accept(app, &headers, body).await {
        Ok(sent) => Json(Accepted {
            ids: sent.ids,
            status: 200,
        })
        .into_response(),
        Err(problem) => refuse(&problem),
    }
}

/// An answer in the contract's shape.
pub(super) fn refuse(problem: &Problem) -> Response {
    let body = Refused {
        ids: [],
        status: problem.status,
        error: &problem.message,
        code: problem.code,
        help: problem.help.as_deref(),
    };
    with_headers(problem, (status(problem), Json(body)).into_response())
}

/// Whether whoever sends may send events.
async fn admit(app: &App, path: &str, extensions: &Extensions, headers: &HeaderMap) -> Result<(), Problem> {
    let shown = credentials::header(headers).unwrap_or(path);
    let keys = &app.inner().keys;
    let access = keys.access(Some(shown), guard::address(extensions)).await?;
    access.sends_events()
}

async fn accept(app: App, headers: &HeaderMap, body: Body) -> Result<Sent, Problem> {
    let seed = headers
        .get("x-inngest-event-id-seed")
        .and_then(|value| seed(value.to_str().ok()?));
    let bytes = body::read(headers, body, LIMIT).await?;
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("multipart/form-data") {
        let event = from_multipart(media, bytes).await?;
        return app.send_events(&[&event], seed).await;
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| body::malformed(format!("it is not UTF-8: {error}")))?
        .trim_start_matches('\u{feff}')
        .trim();
    // What curl says of anything, so JSON comes under this name as well.
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") && !text.starts_with(['{', '[']) {
        let event = from_urlencoded(bytes.clone()).await?;
        return app.send_events(&[&event], seed).await;
    }
    let texts = split(text)?;
    if texts.is_empty() {
        return Ok(Sent {
            ids: Vec::new(),
            runs: Vec::new(),
        });
    }
    app.send_events(&texts, seed).await
}

/// The texts of the events in a body: one object, or an array of them. Each stays as it was written.
fn split(text: &str) -> Result<Vec<&str>, Problem> {
    if text.is_empty() {
        return Err(body::malformed(
            "it is empty; send one event or an array of events as JSON",
        ));
    }
    if !text.starts_with('[') {
        let one: &RawValue = serde_json::from_str(text).map_err(body::malformed)?;
        return Ok(vec![one.get()]);
    }
    let many: Vec<&RawValue> = serde_json::from_str(text).map_err(body::malformed)?;
    if many.len() > limit::EVENTS_PER_REQUEST_MAX {
        let message = format!(
            "{} events in one request, more than the limit of {}",
            many.len(),
            limit::EVENTS_PER_REQUEST_MAX
        );
        return Err(Problem::new(400, "too-many-events", message).help("send them in several requests"));
    }
    Ok(many.into_iter().map(RawValue::get).collect())
}

/// A form as an event: `name`, `id`, `v` and `ts` are the event's own, every other field is data, an array of strings.
#[derive(Default)]
struct Form {
    event: Map<String, Value>,
    data: Map<String, Value>,
}

impl Form {
    fn add(&mut self, name: String, value: String) -> Result<(), Problem> {
        match name.as_str() {
            "name" | "id" | "v" => {
                self.event.insert(name, value.into());
            }
            "ts" => {
                let ts: i64 = value
                    .parse()
                    .map_err(|_| body::malformed(format!("ts: \"{value}\" is not a number")))?;
                self.event.insert(name, ts.into());
            }
            _ => {
                let values = self
                    .data
                    .entry(name)
                    .or_insert_with(|| Vec::<Value>::new().into());
                if let Some(values) = values.as_array_mut() {
                    values.push(value.into());
                }
            }
        }
        Ok(())
    }

    fn text(mut self) -> String {
        self.event.insert("data".to_owned(), self.data.into());
        Value::Object(self.event).to_string()
    }
}

async fn from_urlencoded(bytes: Bytes) -> Result<String, Problem> {
    let mut form = Form::default();
    for (name, value) in body::pairs(bytes).await? {
        form.add(name, value)?;
    }
    Ok(form.text())
}

/// Files are refused: an event's data is JSON, and what would become of a file in it is anybody's guess.
async fn from_multipart(media: &str, bytes: Bytes) -> Result<String, Problem> {
    let boundary = multer::parse_boundary(media).map_err(body::malformed)?;
    let whole = futures::stream::once(async move { Ok::<_, std::convert::Infallible>(bytes) });
    let mut fields = multer::Multipart::new(whole, boundary);
    let mut form = Form::default();
    while let Some(field) = fields.next_field().await.map_err(body::malformed)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(body::malformed("a part of the form has no name"));
        }
        if field.file_name().is_some() {
            return Err(body::malformed(format!(
                "\"{name}\" is a file, and events have none"
            )));
        }
        let value = field.bytes().await.map_err(body::malformed)?;
        let value = String::from_utf8(value.into())
            .map_err(|error| body::malformed(format!("\"{name}\" is not UTF-8: {error}")))?;
        form.add(name, value)?;
    }
    Ok(form.text())
}

/// A seed as clients write it: `<millis>,<base 64 of 10 bytes>`. One that cannot be read is ignored, as Inngest does: the
/// events then get fresh ids, and only a repetition of the request would notice.
fn seed(text: &str) -> Option<Seed> {
    let (millis, entropy) = text.split_once(',')?;
    let millis: i64 = millis
        .trim()
        .parse()
        .ok()
        .filter(|millis| (0..1 << 48).contains(millis))?;
    Some(Seed::new(millis, base64(entropy.trim())?))
}

/// Ten bytes from base 64, in either alphabet, padded or not.
fn base64(text: &str) -> Option<[u8; 10]> {
    let digits = text.trim_end_matches('=');
    if digits.len() != 14 || text.len() > 16 {
        return None;
    }
    let mut bits: u128 = 0;
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u128::from(value);
    }
    // 14 digits are 84 bits; the last four are padding.
    let bytes = (bits >> 4).to_be_bytes();
    bytes[6..].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_stay_as_they_were_written() {
        let text = r#"[ {"name":"a","data":{"n":12345678901234567890123}} , {"name":"b"} ]"#;
        assert_eq!(
            split(text),
            Ok(vec![
                r#"{"name":"a","data":{"n":12345678901234567890123}}"#,
                r#"{"name":"b"}"#
            ])
        );
        assert_eq!(split("[]"), Ok(vec![]));
        for bad in ["", "{", "[{}", "{} {}", "[{},]", "nonsense"] {
            assert_eq!(
                split(bad).map_err(|problem| problem.code),
                Err("invalid-body"),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_most_events_are_taken_and_one_more_is_not() {
        let most = format!("[{}]", vec!["{}"; limit::EVENTS_PER_REQUEST_MAX].join(","));
        assert_eq!(
            split(&most).map(|texts| texts.len()),
            Ok(limit::EVENTS_PER_REQUEST_MAX)
        );
        let more = format!("[{}]", vec!["{}"; limit::EVENTS_PER_REQUEST_MAX + 1].join(","));
        assert_eq!(
            split(&more).map_err(|problem| problem.code),
            Err("too-many-events")
        );
    }

    #[test]
    fn seeds_are_read_in_every_common_writing_and_otherwise_ignored() {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7, 251, 255];
        let expected = Some(Seed::new(1_790_000_000_000, bytes));
        for text in [
            "1790000000000,AAECAwQFBgf7/w==",
            "1790000000000,AAECAwQFBgf7/w",
            "1790000000000,AAECAwQFBgf7_w==",
            " 1790000000000, AAECAwQFBgf7/w== ",
        ] {
            assert_eq!(seed(text), expected, "{text}");
        }
        for text in [
            "",
            "1790000000000",
            "x,AAECAwQFBgf7/w==",
            "-1,AAECAwQFBgf7/w==",
            "1,AAEC",
            "1,AAECAwQFBgf7!w==",
            "1,AAECAwQFBgf7/w==AA",
        ] {
            assert_eq!(seed(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_form_is_an_event_with_arrays_of_strings_as_data() {
        let form = Bytes::from_static(b"name=shop%2Forder&ts=1790000000000&item=a&item=b+c&x=");
        let event: serde_json::Value =
            serde_json::from_str(&from_urlencoded(form).await.expect("a form")).expect("JSON");
        let expected = serde_json::json!({
            "name": "shop/order", "ts": 1_790_000_000_000_i64, "data": {"item": ["a", "b c"], "x": [""]}
        });
        assert_eq!(event, expected);
    }

    #[tokio::test]
    async fn a_form_in_parts_is_an_event_too_and_has_no_files() {
        let media = "multipart/form-data; boundary=\"x y\"";
        let parts = |parts: &[(&str, &str)]| -> Bytes {
            let mut text = String::new();
            for (head, body) in parts {
                text += &format!("--x y\r\ncontent-disposition: form-data; {head}\r\n\r\n{body}\r\n");
            }
            (text + "--x y--\r\n").into()
        };
        let whole = parts(&[
            ("name=\"name\"", "shop/order"),
            ("name=\"item\"", "a\r\nb"),
            ("name=\"item\"", "✓"),
        ]);
        let event: Value =
            serde_json::from_str(&from_multipart(media, whole.clone()).await.expect("a form")).expect("JSON");
        let expected = serde_json::json!({"name": "shop/order", "data": {"item": ["a\r\nb", "✓"]}});
        assert_eq!(event, expected);

        let file = parts(&[("name=\"name\"", "a"), ("name=\"f\"; filename=\"f.txt\"", "x")]);
        let cut = whole.slice(..whole.len() - 20);
        for (media, bytes) in [
            (media, file),
            (media, cut),
            (media, Bytes::from_static(b"nonsense")),
            (media, parts(&[("nameless", "x")])),
            ("multipart/form-data", whole),
        ] {
            let refused = from_multipart(media, bytes.clone())
                .await
                .map_err(|problem| problem.code);
            assert_eq!(refused, Err("invalid-body"), "{media} {bytes:?}");
        }
    }
}
