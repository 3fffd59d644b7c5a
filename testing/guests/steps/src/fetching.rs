//! Functions that have the host send requests.

use std::time::Duration;

use super::*;

/// One request, as the data says; answers with the response or with the failure.
#[dormouse::function(
    id = "fetch",
    on(event = "steps/fetch"),
    backoff(initial = "10s", factor = 1, max = "10s")
)]
pub(crate) async fn fetch(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<Value> {
    let data = &event.data;
    let mut url = data["url"].as_str().unwrap_or_default().to_owned();
    let mut body = data["body"].as_str().unwrap_or_default().to_owned();
    let mut headers = Vec::new();
    if let Some(name) = data["secret"].as_str() {
        let secret = match context.secret_placeholder(name) {
            Ok(secret) => secret,
            Err(error) => return Ok(json!({ "code": error.get_code() })),
        };
        url = format!("{url}?key={secret}");
        body = format!("{body}{secret}");
        headers.push(("authorization", format!("Bearer {secret}")));
    }
    if let Some(header) = data["header"].as_str() {
        headers.push((header, "x".to_owned()));
    }
    let method = data["method"].as_str().unwrap_or("POST");
    let mut request = dormouse::http::request(method, url).body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut fetch = step.fetch("request", request);
    if let Some(attempts) = data["attempts"].as_u64() {
        fetch = fetch.attempts(u32::try_from(attempts).unwrap_or(u32::MAX));
    }
    if let Some(millis) = data["timeout_ms"].as_u64() {
        fetch = fetch.timeout(Duration::from_millis(millis));
    }
    Ok(match fetch.await {
        Ok(response) => json!({
            "status": response.status(), "bytes": response.bytes().len(),
            "body": String::from_utf8_lossy(response.bytes()).chars().take(200).collect::<String>(),
        }),
        Err(error) => json!({
            "code": error.code(), "message": error.message(), "details": error.details(),
        }),
    })
}

/// Three requests beside a sleep and a body that fails once, then one more.
#[dormouse::function(
    id = "fetch-beside",
    on(event = "steps/fetch-beside"),
    backoff(initial = "10s", factor = 1, max = "10s")
)]
pub(crate) async fn fetch_beside(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let url = event.data["url"].as_str().unwrap_or_default();
    let get = |name: &str| step.fetch(name, dormouse::http::post(url).body(name));
    let failing = step.run_with("failing", |attempt| match attempt.number() {
        2 => Ok(2),
        _ => Err(Error::retryable("not yet")),
    });
    let (a, b, c, (), attempts) = try_join!(
        get("a"),
        get("b"),
        get("c"),
        step.sleep("nap", Duration::from_secs(5)),
        failing,
    )?;
    let won = select! {
        _ = step.fetch("refused", dormouse::http::post(url).body("refused")) => "fetch",
        _ = step.sleep("short", Duration::from_secs(25)) => "sleep",
    };
    let statuses = [a.status(), b.status(), c.status()];
    Ok(json!({ "statuses": statuses, "attempts": attempts, "won": won }))
}
