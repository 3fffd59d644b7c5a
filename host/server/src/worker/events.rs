//! The events that a run starts with: one, or those of its batch.

use dormouse_core::Json;
use dormouse_store::schedule::ClaimedRun;

use super::{Program, Worker};

impl Worker {
    /// All events of a run, as an array. None: the node stops.
    pub(super) async fn events(&self, run: &ClaimedRun, program: &Program) -> Option<Json> {
        let alone = || Json::trusted(format!("[{}]", run.event));
        // Only runs of functions that say so may have several, so no others are asked about.
        if program.function.batch_events.is_none() {
            return Some(alone());
        }
        loop {
            match self.store.batch(run.id).await {
                Ok(events) if events.is_empty() => return Some(alone()),
                Ok(events) => {
                    let payloads: Vec<&str> = events.iter().map(|event| event.payload.as_str()).collect();
                    return Some(Json::trusted(format!("[{}]", payloads.join(","))));
                }
                Err(error) => {
                    if !self.pause(&error).await {
                        return None;
                    }
                }
            }
        }
    }
}
