//! Working off cancellations of many runs: in batches, as a loop over what the store holds. Whoever ends half way is no
//! loss; two nodes that do the same batch cancel each run once.

use std::time::Duration;

use dormouse_core::condition::{Condition, Scope};
use dormouse_store::Error;
use dormouse_store::cancellation::{Batch, Candidate, Examined};

use super::Scheduler;
use super::loops::trouble;
use crate::clock::Clock as _;

/// How many runs are looked at for one commit,
const BATCH: u32 = 500;
/// How often it is looked without being told: what another node's end may cost.
const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn cancelling(scheduler: Scheduler) {
    loop {
        match batch(&scheduler).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                if !trouble(&scheduler, "cancel runs", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = scheduler.0.cancellations.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Does one batch. False: there is nothing to do.
async fn batch(scheduler: &Scheduler) -> Result<bool, Error> {
    let Some(batch) = scheduler.0.store.next_cancellation(BATCH).await? else {
        return Ok(false);
    };
    let examined = Examined {
        id: batch.cancellation.id,
        runs: meant(&batch),
        last: batch.last,
        now: scheduler.0.clock.now(),
    };
    let done = examined.last.is_none();
    let cancelled = scheduler.0.store.cancel_examined(examined).await?;
    if !cancelled.is_empty() {
        // What they leave of their throttles' lines may let others begin earlier.
        scheduler.look_ahead();
        // What they have invoked may be given up by that.
        scheduler.orphaned();
        scheduler.ended();
    }
    for run in cancelled {
        metrics::counter!("dormouse_runs_total", "status" => "Cancelled").increment(1);
        scheduler.cancelled(run);
        scheduler.0.feed.run(run);
    }
    if done {
        tracing::info!(id = %batch.cancellation.id, function = %batch.cancellation.function, "a cancellation is done");
    }
    Ok(true)
}

/// Which of a batch's runs are to be cancelled.
fn meant(batch: &Batch) -> Vec<dormouse_core::RunId> {
    let condition = batch.cancellation.condition.as_ref();
    // It was checked when it was asked for; one that this release does not read holds for nothing.
    let condition = condition.map(|source| Condition::compile(source, Scope::Trigger).ok());
    let holds = |candidate: &&Candidate| match &condition {
        None => true,
        Some(None) => false,
        Some(Some(condition)) => {
            let event = candidate.event.as_ref().and_then(|event| event.read().ok());
            event.is_some_and(|event| condition.holds(&event, None))
        }
    };
    batch
        .candidates
        .iter()
        .filter(holds)
        .map(|candidate| candidate.run)
        .collect()
}
