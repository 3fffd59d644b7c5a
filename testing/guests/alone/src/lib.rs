//! For the tests of functions of which one run is there at a time.

use std::time::Duration;

use dormouse::prelude::*;

dormouse::module!(skipping, latest, settled, only, caller, sender, inward);

/// Gives its data, after ten seconds or as long as it is told.
#[dormouse::function(
    id = "skipping",
    on(event = "alone/skipping"),
    singleton(key = "event.data.user", mode = "skip")
)]
async fn skipping(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let millis = event.data["sleeps_ms"].as_u64().unwrap_or(10_000);
    step.sleep("a while", Duration::from_millis(millis)).await?;
    Ok(event.data)
}

/// The same, where the last one stays.
#[dormouse::function(
    id = "latest",
    on(event = "alone/latest"),
    singleton(key = "event.data.user", mode = "cancel")
)]
async fn latest(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let millis = event.data["sleeps_ms"].as_u64().unwrap_or(10_000);
    step.sleep("a while", Duration::from_millis(millis)).await?;
    Ok(event.data)
}

/// The last one, when no more come.
#[dormouse::function(
    id = "settled",
    on(event = "alone/settled"),
    debounce(period = "5s", key = "event.data.user"),
    singleton(key = "event.data.user", mode = "cancel")
)]
async fn settled(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    step.sleep("a while", Duration::from_secs(10)).await?;
    Ok(event.data)
}

/// By the clock and by events, one at all.
#[dormouse::function(
    id = "only",
    on(event = "alone/only"),
    on(cron = "0 * * * *"),
    singleton(mode = "skip")
)]
async fn only(step: Step) -> dormouse::Result<()> {
    step.sleep("half an hour", Duration::from_secs(1_800)).await?;
    Ok(())
}

/// Invokes the function that it is told to. Gives what came of it.
#[dormouse::function(id = "caller", on(event = "alone/caller"))]
async fn caller(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let function = event.data["function"].as_str().unwrap_or("skipping");
    let invoked = step.invoke::<Value>("other", function, &event.data["data"]);
    Ok(match invoked.await {
        Ok(output) => json!({ "output": output }),
        Err(error) => json!({ "code": error.code() }),
    })
}

/// Sends the same event as often as it is told to, at once.
#[dormouse::function(id = "sender", on(event = "alone/sender"))]
async fn sender(event: Event<Value>, step: Step) -> dormouse::Result<usize> {
    let count = event.data["n"].as_u64().unwrap_or(0);
    let name = event.data["name"].as_str().unwrap_or("alone/skipping");
    let events = (0..count).map(|n| json!({"name": name, "data": {"user": "sent", "n": n}}));
    Ok(step.send_events("send", events).await?.ids.len())
}

/// Invokes itself.
#[dormouse::function(id = "inward", on(event = "alone/inward"), singleton(mode = "cancel"))]
async fn inward(step: Step) -> dormouse::Result<Value> {
    let invoked = step.invoke::<Value>("myself", "inward", json!({}));
    Ok(match invoked.await {
        Ok(output) => output,
        Err(error) => json!({ "code": error.code() }),
    })
}
