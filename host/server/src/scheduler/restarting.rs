//! Making runs ready that are to begin again on the active version of their module, because it was deployed with that policy: in
//! batches, as a loop over what the store holds. Whoever claims them has them begin again; those that execute see it
//! themselves.

use std::time::Duration;

use dormouse_core::swap::Policy;
use dormouse_store::Error;
use dormouse_store::swap::ToRestart;

use super::Scheduler;
use super::loops::trouble;
use crate::clock::Clock as _;

/// How many runs are made ready in one commit.
const BATCH: u32 = 500;
/// How often it is looked without being told: what another node's end may cost.
const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn restarting(scheduler: Scheduler) {
    loop {
        match batch(&scheduler).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, "runs are to begin again on another version");
                scheduler.nudge();
                continue;
            }
            Err(error) => {
                if !trouble(&scheduler, "have runs begin again", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = scheduler.0.restarts.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Does one batch for each module. How many runs that were.
async fn batch(scheduler: &Scheduler) -> Result<u32, Error> {
    let Some(worker) = scheduler.worker() else {
        return Ok(0);
    };
    let snapshot = worker.registry.snapshot();
    let mut count = 0;
    for (module, active) in &snapshot.modules {
        if active.version.policy != Policy::Restart {
            continue;
        }
        let functions = active.manifest.functions.iter();
        let restart = ToRestart {
            module: module.clone(),
            to: active.version.digest,
            functions: functions.map(|function| function.id.clone()).collect(),
            limit: BATCH,
            now: scheduler.0.clock.now(),
        };
        count += scheduler.0.store.wake_to_restart(restart).await?;
    }
    Ok(count)
}
