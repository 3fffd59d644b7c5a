//! For the tests of flow control: one function for each way to limit how runs start.

use dormouse::prelude::*;

dormouse::module!(rate_limited, once, throttled, relayed, relay, asks, urgent);

#[dormouse::function(
    id = "rate-limited",
    on(event = "flow/rate"),
    rate_limit(limit = 2, period = "1m", burst = 2, key = "event.data.user")
)]
async fn rate_limited(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}

#[dormouse::function(id = "once", on(event = "flow/once"), idempotency = "event.data.order")]
async fn once(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}

#[dormouse::function(
    id = "throttled",
    on(event = "flow/throttle"),
    throttle(limit = 6, period = "1m", key = "event.data.user")
)]
async fn throttled(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}

#[dormouse::function(
    id = "relayed",
    on(event = "flow/relayed"),
    throttle(limit = 6, period = "1m")
)]
async fn relayed(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}

/// Sends as many events as it is told to.
#[dormouse::function(id = "relay", on(event = "flow/relay"))]
async fn relay(event: Event<Value>, step: Step) -> dormouse::Result<usize> {
    let events = (0..event.data["n"].as_u64().unwrap_or(0)).map(|_| json!({"name": "flow/relayed"}));
    Ok(step.send_events("relay", events).await?.ids.len())
}

/// Invokes a throttled function and gives its output.
#[dormouse::function(id = "asks", on(event = "flow/asks"))]
async fn asks(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    Ok(step
        .invoke::<Value>("ask", "flow/throttled", event.data.clone())
        .await?)
}

#[dormouse::function(
    id = "urgent",
    on(event = "flow/urgent"),
    priority = "event.data.vip ? 60 : 0"
)]
async fn urgent(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}
