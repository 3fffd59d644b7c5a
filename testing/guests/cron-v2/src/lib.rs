//! The next version of the guest `cron`: one cron is as it was, one has changed, and the others are gone.

use dormouse::prelude::*;

dormouse::module!(hourly, renamed);

#[dormouse::function(id = "hourly", on(cron = "TZ=Europe/Paris 0 * * * *"))]
async fn hourly(event: Event<ScheduledTimer>) -> dormouse::Result<Value> {
    Ok(json!({"timer": event.data, "version": 2}))
}

#[dormouse::function(id = "renamed", on(cron = "45 * * * *"))]
async fn renamed() -> dormouse::Result<()> {
    Ok(())
}
