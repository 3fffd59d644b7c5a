//! Letting on what the pause of a function held, once it is resumed: in batches, as a loop over what the store holds, so
//! that a million held runs don't come at once and a node that dies half way is no loss.

use std::time::Duration;

use super::Scheduler;
use super::loops::trouble;
use crate::clock::Clock as _;

/// How many runs are let on in one commit.
const BATCH: u32 = 500;
/// How often it is looked without being told: what another node's end may cost.
const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn releasing(scheduler: Scheduler) {
    loop {
        let now = scheduler.0.clock.now();
        match scheduler.0.store.release_held(BATCH, now).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "runs of a resumed function are let on");
                scheduler.nudge();
                scheduler.look_ahead();
                scheduler.0.feed.elsewhere();
                continue;
            }
            Err(error) => {
                if !trouble(&scheduler, "let held runs on", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = scheduler.0.resumed.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}
