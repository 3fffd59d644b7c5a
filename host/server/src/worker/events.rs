//! The events that a run starts with: one, or those of its batch.

use dormouse_core::Json;
use dormouse_store::read::BatchEvent;
use dormouse_store::schedule::ClaimedRun;

use super::Worker;
use super::swapping::Chosen;

/// All events of a run, as an array: those of its batch, or else the one that started it.
pub(crate) fn all(run: &ClaimedRun, batch: &[BatchEvent]) -> Json {
    if batch.is_empty() {
        return Json::trusted(format!("[{}]", run.event));
    }
    let payloads: Vec<&str> = batch.iter().map(|event| event.payload.as_str()).collect();
    Json::trusted(format!("[{}]", payloads.join(",")))
}

impl Worker {
    /// All events of a run, as an array. None: the node stops.
    pub(super) async fn events(&self, run: &ClaimedRun, chosen: &Chosen) -> Option<Json> {
        // Only runs of functions that say so may have several, so no others are asked about. What the version says that a run
        // has gone over to tells nothing of how it began.
        let began_here = chosen.trial.is_none() && !run.swapped.moved;
        if began_here && chosen.program.function.batch_events.is_none() {
            return Some(all(run, &[]));
        }
        loop {
            match self.store.batch(run.id).await {
                Ok(events) => return Some(all(run, &events)),
                Err(error) => {
                    if !self.pause(&error).await {
                        return None;
                    }
                }
            }
        }
    }
}
