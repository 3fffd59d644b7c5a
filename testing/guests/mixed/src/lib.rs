//! For the test that mixes all limits: one event for functions with each of them. Bodies come to a gate outside, which counts how
//! many are open at once: it is told the function and the key in the URL of the configuration value `gate`.

use dormouse::prelude::*;

dormouse::module!(
    limited, urgent, rated, throttled, once, debounced, batched, single, newest
);

/// `{"key": "a", "number": 7, "once": 3}`
#[derive(Serialize, Deserialize)]
struct Data {
    key: String,
    number: u64,
    once: u64,
}

async fn work(name: &str, key: &str, step: &Step, context: &Context) -> dormouse::Result<()> {
    let gate: String = context.config("gate")?.unwrap_or_default();
    let line = format!("{name} {key} {}", context.run_id());
    step.run("work", || {
        dormouse::http::post(&gate).body(line.clone()).send()?.success()?;
        Ok(())
    })
    .await?;
    Ok(())
}

#[dormouse::function(
    id = "limited",
    on(event = "mixed/all"),
    concurrency = 4,
    concurrency(limit = 1, key = "event.data.key")
)]
async fn limited(event: Event<Data>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("limited", &event.data.key, &step, &context).await?;
    Ok(event.data.number)
}

#[dormouse::function(
    id = "urgent",
    on(event = "mixed/all"),
    concurrency = 2,
    priority = "event.data.number % 7 == 0 ? 60 : 0"
)]
async fn urgent(event: Event<Data>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("urgent", &event.data.key, &step, &context).await?;
    Ok(event.data.number)
}

#[dormouse::function(
    id = "rated",
    on(event = "mixed/all"),
    rate_limit(limit = 5, period = "1s", burst = 2, key = "event.data.key")
)]
async fn rated(event: Event<Data>) -> dormouse::Result<u64> {
    Ok(event.data.number)
}

#[dormouse::function(
    id = "throttled",
    on(event = "mixed/all"),
    throttle(limit = 200, period = "1s", burst = 10)
)]
async fn throttled(event: Event<Data>) -> dormouse::Result<u64> {
    Ok(event.data.number)
}

#[dormouse::function(id = "once", on(event = "mixed/all"), idempotency = "event.data.once")]
async fn once(event: Event<Data>) -> dormouse::Result<u64> {
    Ok(event.data.once)
}

#[dormouse::function(
    id = "debounced",
    on(event = "mixed/all"),
    debounce(period = "1s", timeout = "3s", key = "event.data.key")
)]
async fn debounced(event: Event<Data>) -> dormouse::Result<u64> {
    Ok(event.data.number)
}

#[dormouse::function(
    id = "batched",
    on(event = "mixed/all"),
    batch_events(max_size = 7, timeout = "1s", key = "event.data.key")
)]
async fn batched(events: Events<Data>) -> dormouse::Result<Vec<u64>> {
    Ok(events.iter().map(|event| event.data.number).collect())
}

#[dormouse::function(
    id = "single",
    on(event = "mixed/all"),
    singleton(key = "event.data.key", mode = "skip")
)]
async fn single(event: Event<Data>, step: Step, context: Context) -> dormouse::Result<u64> {
    work("single", &event.data.key, &step, &context).await?;
    Ok(event.data.number)
}

#[dormouse::function(
    id = "newest",
    on(event = "mixed/all"),
    singleton(key = "event.data.key", mode = "cancel")
)]
async fn newest(event: Event<Data>, step: Step) -> dormouse::Result<u64> {
    step.sleep("a moment", std::time::Duration::from_millis(20))
        .await?;
    Ok(event.data.number)
}
