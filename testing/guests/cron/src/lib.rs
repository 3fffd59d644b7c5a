//! For the tests of crons: one function for each way in which ticks may overlap or be missed.

use std::time::Duration;

use dormouse::prelude::*;

dormouse::module!(
    hourly, skips, queues, allows, catches_up, forgets, limited, jittered, renamed
);

const NINETY_MINUTES: Duration = Duration::from_secs(5_400);

/// Takes what a tick is by its type.
#[dormouse::function(id = "hourly", on(cron = "TZ=Europe/Paris 0 * * * *"))]
async fn hourly(event: Event<ScheduledTimer>) -> dormouse::Result<Value> {
    Ok(json!({"timer": event.data, "ts": event.ts, "name": event.name}))
}

#[dormouse::function(id = "skips", on(cron = "0 * * * *"))]
async fn skips(step: Step) -> dormouse::Result<()> {
    step.sleep("ninety minutes", NINETY_MINUTES).await?;
    Ok(())
}

#[dormouse::function(id = "queues", on(cron = "0 * * * *", overlap = "queue", catch_up = "none"))]
async fn queues(step: Step) -> dormouse::Result<()> {
    step.sleep("ninety minutes", NINETY_MINUTES).await?;
    Ok(())
}

#[dormouse::function(id = "allows", on(cron = "0 * * * *", overlap = "allow"))]
async fn allows(step: Step) -> dormouse::Result<()> {
    step.sleep("ninety minutes", NINETY_MINUTES).await?;
    Ok(())
}

#[dormouse::function(
    id = "catches-up",
    on(cron = "0 * * * *", overlap = "queue", catch_up = "all")
)]
async fn catches_up() -> dormouse::Result<()> {
    Ok(())
}

#[dormouse::function(id = "forgets", on(cron = "0 * * * *", catch_up = "none"))]
async fn forgets() -> dormouse::Result<()> {
    Ok(())
}

#[dormouse::function(
    id = "limited",
    on(cron = "0 * * * *"),
    rate_limit(limit = 1, period = "2h", burst = 1)
)]
async fn limited() -> dormouse::Result<()> {
    Ok(())
}

#[dormouse::function(id = "jittered", on(cron = "0 * * * *", jitter = "5m", overlap = "allow"))]
async fn jittered() -> dormouse::Result<()> {
    Ok(())
}

/// The next version has another cron.
#[dormouse::function(id = "renamed", on(cron = "30 * * * *"))]
async fn renamed() -> dormouse::Result<()> {
    Ok(())
}
