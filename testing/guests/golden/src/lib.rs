//! For the recordings of a release (testing/golden): a function for each thing that a run can be in the middle of.
//!
//! Each begins with a body whose output nobody can guess, and gives that at the end: whether it was run again, or its output
//! lost, shows. What they wait for takes longer than recording does, and is due when a recording is played.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dormouse::prelude::*;

dormouse::module!(
    sleeps, later, waits, listens, invokes, sends, stumbles, races, books, turns, throttled, debounced,
    batched, alone, hasty, fails, mourns, yearly,
);

const PAUSE: Duration = Duration::from_secs(600);

async fn token(step: &Step) -> dormouse::Result<String> {
    let token = step.run("token", || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(since.map_or(0, |since| since.as_nanos()).to_string())
    });
    Ok(token.await?)
}

#[dormouse::function(id = "sleeps", on(event = "golden/sleeps"))]
async fn sleeps(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    step.sleep("a pause", PAUSE).await?;
    let doubled = step
        .run("afterwards", || Ok(event.data["n"].as_u64().unwrap_or(0) * 2))
        .await?;
    Ok(json!({"token": token, "doubled": doubled}))
}

#[dormouse::function(id = "later", on(event = "golden/later"))]
async fn later(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(json!({"n": event.data["n"]}))
}

#[dormouse::function(
    id = "waits",
    on(event = "golden/waits"),
    cancel_on(event = "golden/stop", match = "data.id")
)]
async fn waits(step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    let came: Option<Event<Value>> = step
        .wait_for_event("go", "golden/go")
        .matching("data.id")
        .when("async.data.sure")
        .await?;
    Ok(json!({"token": token, "came": came.map(|event| event.data)}))
}

#[dormouse::function(id = "listens", on(event = "golden/listens"))]
async fn listens(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    let signal = event.data["signal"].as_str().unwrap_or("golden");
    let heard: Option<Value> = step.wait_for_signal("signal", signal).await?;
    Ok(json!({"token": token, "heard": heard}))
}

#[dormouse::function(id = "invokes", on(event = "golden/invokes"))]
async fn invokes(event: Event<Value>, step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    let output: Value = step.invoke("sleeper", "sleeps", &event.data).await?;
    Ok(json!({"token": token, "doubled": output["doubled"]}))
}

#[dormouse::function(id = "sends", on(event = "golden/sends"))]
async fn sends(step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    let sent = step
        .send_events(
            "send",
            [json!({"name": "golden/noise"}), json!({"name": "golden/noise"})],
        )
        .await?;
    step.sleep("a pause", PAUSE).await?;
    Ok(json!({"token": token, "sent": sent.ids.len()}))
}

/// Fails once, and is tried again after a pause.
#[dormouse::function(id = "stumbles", on(event = "golden/stumbles"))]
async fn stumbles(step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    let attempt = step
        .run_with("stumble", |attempt| match attempt.number() {
            1 => Err(Error::retryable("not yet")),
            number => Ok(number),
        })
        .backoff(Backoff::constant(PAUSE))
        .await?;
    Ok(json!({"token": token, "attempt": attempt}))
}

/// A body and a sleep beside a race that an event loses.
#[dormouse::function(id = "races", on(event = "golden/races"))]
async fn races(step: Step) -> dormouse::Result<Value> {
    let nap = async { Ok(step.sleep("half a pause", PAUSE / 2).await?) };
    let race = async {
        Ok(select! {
            _ = step.wait_for_event::<Value>("never", "golden/never") => "event",
            _ = step.sleep("a pause", PAUSE) => "sleep",
        })
    };
    let (token, (), won) = try_join!(token(&step), nap, race)?;
    Ok(json!({"token": token, "won": won}))
}

#[dormouse::function(id = "books", on(event = "golden/books"))]
async fn books(event: Event<Value>, step: Step, context: Context) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    let (id, run) = (event.data["n"].as_u64().unwrap_or(0), context.run_id());
    let insert = "INSERT INTO booking (id, run) VALUES ($1, $2)";
    step.sql("book", "app", insert, params![id, run]).await?;
    step.sleep("a pause", PAUSE).await?;
    let sql = "INSERT INTO booking (id, run) VALUES ($1, $2)";
    step.sql("book again", "app", sql, params![id + 1, run]).await?;
    Ok(json!({"token": token}))
}

/// Goes on under its id twice.
#[dormouse::function(id = "turns", on(event = "golden/turns"))]
async fn turns(turn: Continued<u64>, step: Step) -> dormouse::Result<Continue<Value, u64>> {
    let turn = turn.0.unwrap_or(0);
    let token = token(&step).await?;
    if turn == 0 {
        return Ok(Continue::With(1));
    }
    step.sleep("a pause", PAUSE).await?;
    Ok(Continue::Done(json!({"token": token, "turn": turn})))
}

#[dormouse::function(
    id = "throttled",
    on(event = "golden/throttled"),
    throttle(limit = 1, period = "10m")
)]
async fn throttled(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(json!({"n": event.data["n"]}))
}

#[dormouse::function(
    id = "debounced",
    on(event = "golden/debounced"),
    debounce(period = "10m", key = "event.data.key")
)]
async fn debounced(event: Event<Value>) -> dormouse::Result<Value> {
    Ok(json!({"n": event.data["n"]}))
}

#[dormouse::function(
    id = "batched",
    on(event = "golden/batched"),
    batch_events(max_size = 10, timeout = "1m")
)]
async fn batched(events: Events<Value>, step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    step.sleep("a pause", PAUSE).await?;
    let numbers: Vec<Value> = events.iter().map(|event| event.data["n"].clone()).collect();
    Ok(json!({"token": token, "numbers": numbers}))
}

#[dormouse::function(
    id = "alone",
    on(event = "golden/alone"),
    concurrency(limit = 1, key = "event.data.key"),
    priority = "event.data.n"
)]
async fn alone(step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    step.sleep("a pause", PAUSE).await?;
    Ok(json!({"token": token}))
}

/// Would wait for ever, and may not.
#[dormouse::function(id = "hasty", on(event = "golden/hasty"), timeouts(finish = "10m"))]
async fn hasty(step: Step) -> dormouse::Result<()> {
    token(&step).await?;
    step.wait_for_event::<Value>("never", "golden/never").await?;
    Ok(())
}

#[dormouse::function(id = "fails", on(event = "golden/fails"), retries = 0, on_failure = mourns)]
async fn fails(step: Step) -> dormouse::Result<()> {
    let token = token(&step).await?;
    Err(Error::non_retriable("as asked").details(json!({"token": token})))
}

#[dormouse::function(id = "mourns")]
async fn mourns(event: Event<RunEnded>, step: Step) -> dormouse::Result<Value> {
    let token = token(&step).await?;
    step.sleep("a pause", PAUSE).await?;
    Ok(json!({"token": token, "error": event.data.error}))
}

#[dormouse::function(id = "yearly", on(cron = "0 0 1 1 *", catch_up = "none"))]
async fn yearly() -> dormouse::Result<()> {
    Ok(())
}
