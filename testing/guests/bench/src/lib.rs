//! What the benches measure: trivial steps, and sleeps.

use std::time::{Duration, UNIX_EPOCH};

use dormouse::prelude::*;

/// One trivial step.
#[dormouse::function(id = "one", on(event = "bench/one"))]
async fn one(step: Step) -> dormouse::Result<u32> {
    Ok(step.run("step", || Ok(1)).await?)
}

/// Ten trivial steps, one after the other.
#[dormouse::function(id = "ten", on(event = "bench/ten"))]
async fn ten(step: Step) -> dormouse::Result<u32> {
    count(step, 10).await
}

#[derive(Deserialize)]
struct Steps {
    n: u32,
}

/// As many trivial steps as the event says: `{"n": 1000}`.
#[dormouse::function(id = "steps", on(event = "bench/steps"))]
async fn steps(event: Event<Steps>, step: Step) -> dormouse::Result<u32> {
    count(step, event.data.n).await
}

async fn count(step: Step, steps: u32) -> dormouse::Result<u32> {
    let mut sum = 0;
    for number in 0..steps {
        sum += step.run("step", || Ok(number)).await?;
    }
    Ok(sum)
}

#[derive(Deserialize)]
struct Nap {
    ms: u64,
}

/// One sleep as long as the event says: `{"ms": 1000}`. The output is the length.
#[dormouse::function(id = "sleeper", on(event = "bench/sleeper"))]
async fn sleeper(event: Event<Nap>, step: Step) -> dormouse::Result<u64> {
    step.sleep("sleep", Duration::from_millis(event.data.ms)).await?;
    Ok(event.data.ms)
}

#[derive(Deserialize)]
struct Moment {
    /// Unix milliseconds.
    at: u64,
}

/// One sleep until a moment that many runs may share: `{"at": 1790000000000}`. The output is the moment.
#[dormouse::function(id = "until", on(event = "bench/until"))]
async fn until(event: Event<Moment>, step: Step) -> dormouse::Result<u64> {
    step.sleep_until("until", UNIX_EPOCH + Duration::from_millis(event.data.at))
        .await?;
    Ok(event.data.at)
}

#[derive(Deserialize)]
struct Resumed {
    n: u32,
    /// Unix milliseconds.
    at: u64,
}

/// As many trivial steps as the event says, then a sleep: what coming back to a run with a long journal costs.
#[dormouse::function(id = "resumed", on(event = "bench/resumed"))]
async fn resumed(event: Event<Resumed>, step: Step) -> dormouse::Result<u32> {
    let sum = count(step, event.data.n).await?;
    step.sleep_until("until", UNIX_EPOCH + Duration::from_millis(event.data.at))
        .await?;
    Ok(sum)
}

dormouse::module!(one, ten, steps, sleeper, until, resumed);
