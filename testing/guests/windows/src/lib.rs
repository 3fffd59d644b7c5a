//! For the tests of what starts one run for several events.

use std::time::Duration;

use dormouse::prelude::*;

dormouse::module!(debounced, hurried, batched, relay, slow_batch);

/// Gives the data of the event that it starts with.
#[dormouse::function(
    id = "debounced",
    on(event = "windows/debounced"),
    debounce(period = "10s", key = "event.data.user")
)]
async fn debounced(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    step.sleep("a while", Duration::from_secs(1)).await?;
    Ok(event.data)
}

#[dormouse::function(
    id = "hurried",
    on(event = "windows/hurried"),
    debounce(period = "10s", timeout = "25s"),
    throttle(limit = 1, period = "1m")
)]
async fn hurried(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(event.data)
}

/// Gives the numbers of all its events, before and after a sleep that is named for how many they are.
#[dormouse::function(
    id = "batched",
    on(event = "windows/batched"),
    batch_events(
        max_size = 3,
        timeout = "20s",
        key = "event.data.shop",
        if = "event.data.n >= 0"
    )
)]
async fn batched(events: Events<Value>, context: Context, step: Step) -> dormouse::Result<Value> {
    let numbers: Vec<Value> = events.iter().map(|event| event.data["n"].clone()).collect();
    step.sleep(format!("a while for {}", numbers.len()), Duration::from_secs(1))
        .await?;
    let first = context.event()["data"]["n"].clone();
    let all = context.events();
    let again: Vec<Value> = all
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| event["data"]["n"].clone())
        .collect();
    Ok(json!({"first": first, "numbers": numbers, "again": again}))
}

/// Sends as many events as it is told to, at once.
#[dormouse::function(id = "relay", on(event = "windows/relay"))]
async fn relay(event: Event<Value>, step: Step) -> dormouse::Result<usize> {
    let count = event.data["n"].as_u64().unwrap_or(0);
    let events = (0..count).map(|n| json!({"name": "windows/batched", "data": {"n": n, "shop": "relay"}}));
    Ok(step.send_events("relay", events).await?.ids.len())
}

/// For servers that are killed: the shortest timeout, and many events.
#[dormouse::function(
    id = "slow-batch",
    on(event = "windows/slow"),
    batch_events(max_size = 7, timeout = "2s")
)]
async fn slow_batch(events: Events<Value>) -> dormouse::Result<Value> {
    Ok(events.iter().map(|event| event.data["n"].clone()).collect())
}
