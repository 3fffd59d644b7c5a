//! For the tests of how runs end: functions that end in every way, and functions that listen to that.

use std::time::Duration;

use dormouse::prelude::*;

dormouse::module!(
    order,
    order_failed,
    careless,
    careless_failed,
    hears_finished,
    hears_failed,
    hears_cancelled,
    hears_invoked,
    awaits_end,
    invokes,
    cancellable,
    throttled,
    begins_anew,
    sends,
    hasty,
    queued_too_long,
    renews,
    brief
);

#[derive(Serialize, Deserialize)]
struct Order {
    #[serde(default)]
    fails: bool,
    #[serde(default)]
    sleeps_ms: u64,
}

/// Ends as its event says.
#[dormouse::function(
    id = "order",
    on(event = "shop/ordered"),
    retries = 0,
    on_failure = order_failed
)]
async fn order(event: Event<Order>, step: Step) -> dormouse::Result<&'static str> {
    if event.data.sleeps_ms > 0 {
        step.sleep("a while", Duration::from_millis(event.data.sleeps_ms))
            .await?;
    }
    let fails = event.data.fails;
    step.run("ship", move || match fails {
        true => Err(Error::non_retriable("out of stock").code("out-of-stock")),
        false => Ok(()),
    })
    .await?;
    Ok("shipped")
}

/// Durable like any other.
#[dormouse::function(id = "order-failed")]
async fn order_failed(event: Event<RunEnded>, step: Step) -> dormouse::Result<Value> {
    let started_by = event.data.started_by::<Order>()?;
    step.sleep("a moment", Duration::from_millis(1)).await?;
    let refunded = step.run("refund", || Ok(true)).await?;
    Ok(json!({
        "refunded": refunded,
        "run": event.data.run_id,
        "function": event.data.function_id,
        "error": event.data.error,
        "order": started_by.map(|event| json!({"name": event.name, "data": event.data})),
    }))
}

/// Its failures are handled by one that fails, too.
#[dormouse::function(id = "careless", on(event = "shop/careless"), retries = 0, on_failure = careless_failed)]
async fn careless() -> dormouse::Result<()> {
    Err(Error::non_retriable("oh"))
}

#[dormouse::function(id = "careless-failed", retries = 0, on_failure = order_failed)]
async fn careless_failed() -> dormouse::Result<()> {
    Err(Error::non_retriable("oh, no"))
}

/// Hears of its own end, too, which must not start it again.
#[dormouse::function(id = "hears-finished", on(event = "inngest/function.finished"))]
async fn hears_finished(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(json!({"name": event.name, "data": event.data}))
}

#[dormouse::function(
    id = "hears-failed",
    on(
        event = "dormouse/function.failed",
        if = "event.data.function_id == 'ends/order'"
    )
)]
async fn hears_failed(event: Event<RunEnded>) -> dormouse::Result<RunEnded> {
    Ok(event.data)
}

#[dormouse::function(id = "hears-cancelled", on(event = "inngest/function.cancelled"))]
async fn hears_cancelled(event: Event<RunEnded>) -> dormouse::Result<RunEnded> {
    Ok(event.data)
}

/// What it invokes itself it must not hear of.
#[dormouse::function(id = "hears-invoked", on(event = "dormouse/function.invoked"))]
async fn hears_invoked(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let order: Value = step.invoke("an order of its own", "order", json!({})).await?;
    Ok(json!({"data": event.data, "order": order}))
}

#[derive(Deserialize)]
struct Awaited {
    run: String,
}

/// Waits for another run's end, by Inngest's name for it.
#[dormouse::function(id = "awaits-end", on(event = "test/await"))]
async fn awaits_end(event: Event<Awaited>, step: Step) -> dormouse::Result<Option<RunEnded>> {
    let _ = &event.data.run;
    let told = step
        .wait_for_event("its end", "inngest/function.finished")
        .when("async.data.run_id == event.data.run")
        .timeout(Duration::from_secs(3_600))
        .await?;
    let told: Option<Event<RunEnded>> = told;
    Ok(told.map(|event| event.data))
}

#[dormouse::function(id = "invokes", on(event = "test/invoke"))]
async fn invokes(step: Step) -> dormouse::Result<Value> {
    let shipped: Value = step.invoke("an order", "order", json!({})).await?;
    Ok(shipped)
}

#[derive(Serialize, Deserialize)]
struct Cancellable {
    #[serde(default)]
    id: Value,
    /// What it does.
    #[serde(default)]
    does: String,
}

/// Does what its event says until an event cancels it: one with the same id, or one that says that it means all.
#[dormouse::function(
    id = "cancellable",
    on(event = "test/cancellable"),
    cancel_on(event = "test/cancel", match = "data.id"),
    cancel_on(
        event = "test/cancel.all",
        if = "async.data.sure && event.data.does != 'nothing'"
    ),
    cancel_on(
        event = "test/cancel.soon",
        if = "async.data.order == event.data.id",
        timeout = "1m"
    )
)]
async fn cancellable(event: Event<Cancellable>, step: Step) -> dormouse::Result<Value> {
    match event.data.does.as_str() {
        "wait" => {
            let told: Option<Event<Value>> = step.wait_for_event("something", "test/nothing").await?;
            return Ok(json!(told.is_some()));
        }
        "invoke" => {
            let shipped: Value = step
                .invoke("an order", "order", json!({"sleeps_ms": 3_600_000}))
                .await?;
            return Ok(shipped);
        }
        "fail" => {
            step.run("never works", || Err::<(), _>(Error::retryable("not yet")))
                .await?;
        }
        "spin" => {
            // Until it is cancelled or a limit ends it.
            step.run("work", || {
                std::thread::sleep(Duration::from_secs(30));
                Ok(())
            })
            .await?;
        }
        _ => {}
    }
    step.sleep("a day", Duration::from_secs(86_400)).await?;
    Ok(json!("slept"))
}

/// One an hour, or none when an event says so meanwhile.
#[dormouse::function(
    id = "throttled",
    on(event = "test/throttled"),
    throttle(limit = 1, period = "1h"),
    cancel_on(event = "test/cancel", match = "data.id"),
    timeouts(start = "3h")
)]
async fn throttled() -> dormouse::Result<()> {
    Ok(())
}

/// Goes on under its id for ever.
#[dormouse::function(
    id = "begins-anew",
    on(event = "test/anew"),
    cancel_on(event = "test/cancel", match = "data.id")
)]
async fn begins_anew(turn: Continued<u32>, step: Step) -> dormouse::Result<Continue<u32>> {
    let turn = turn.0.unwrap_or_default();
    step.sleep("an hour", Duration::from_secs(3_600)).await?;
    Ok(Continue::With(turn + 1))
}

/// Sends an event that cancels others.
#[dormouse::function(id = "sends", on(event = "test/sends"))]
async fn sends(event: Event<Cancellable>, step: Step) -> dormouse::Result<()> {
    let id = &event.data.id;
    step.send_events("cancel", [json!({"name": "test/cancel", "data": {"id": id}})])
        .await?;
    Ok(())
}

/// Must begin within a minute of when it may, and end within ten.
#[dormouse::function(
    id = "hasty",
    on(event = "test/hasty"),
    timeouts(start = "1m", finish = "10m"),
    on_failure = order_failed
)]
async fn hasty(event: Event<Order>, step: Step) -> dormouse::Result<()> {
    step.sleep("a while", Duration::from_millis(event.data.sleeps_ms))
        .await?;
    Ok(())
}

/// One a day: the second has not begun after an hour.
#[dormouse::function(
    id = "queued-too-long",
    on(event = "test/queued"),
    throttle(limit = 1, period = "24h"),
    timeouts(start = "1h")
)]
async fn queued_too_long() -> dormouse::Result<()> {
    Ok(())
}

/// A new one takes the place of the old one with the same id.
#[dormouse::function(
    id = "renews",
    on(event = "test/renew"),
    cancel_on(event = "test/renew", match = "data.id")
)]
async fn renews(step: Step) -> dormouse::Result<()> {
    step.sleep("a day", Duration::from_secs(86_400)).await?;
    Ok(())
}

/// For servers that are killed: it has a second, and wants a day.
#[dormouse::function(id = "brief", on(event = "test/brief"), timeouts(finish = "1s"))]
async fn brief(step: Step) -> dormouse::Result<()> {
    step.sleep("a day", Duration::from_secs(86_400)).await?;
    Ok(())
}
