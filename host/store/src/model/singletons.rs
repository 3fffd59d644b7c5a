//! Functions of which one run is there at a time, in the model.

use std::collections::BTreeSet;

use dormouse_core::flow::singleton;
use dormouse_core::{RunId, Timestamp};

use super::World;
use crate::error::Result;
use crate::execute::Completion;
use crate::wait::{NewWait, WaitOn};

/// What an ingest does to runs, beside what its events do: done at its end.
#[derive(Default)]
pub(super) struct Consequences {
    /// Runs that it creates.
    pub(super) born: BTreeSet<RunId>,
    /// Runs that make room, and why.
    pub(super) displaced: Vec<(RunId, String)>,
    /// Runs whose steps wait for runs that are not created, those runs, and why.
    pub(super) refused: Vec<(RunId, RunId, String)>,
}

impl Consequences {
    /// Whether a run makes room.
    pub(super) fn displaces(&self, run: RunId) -> bool {
        self.displaced.iter().any(|(of, _)| *of == run)
    }
}

impl World {
    /// Whether a run has not ended, as things are within an ingest.
    pub(super) fn lives_on(&self, run: RunId, consequences: &Consequences) -> bool {
        let stored = self.runs.get(&run);
        let lives = stored.is_some_and(|run| !run.shown.state.status.is_terminal());
        (lives || consequences.born.contains(&run)) && !consequences.displaces(run)
    }

    pub(super) fn make_room(&mut self, displaced: Vec<(RunId, String)>, now: Timestamp) -> Result<()> {
        for (run, reason) in displaced {
            self.cancel_for(run, Some(reason), now)?;
        }
        Ok(())
    }

    pub(super) fn refuse(&mut self, refused: Vec<(RunId, RunId, String)>, now: Timestamp) -> Result<()> {
        for (parent, child, detail) in refused {
            let Some(parent) = self.runs.get_mut(&parent) else {
                continue;
            };
            let waits = |wait: &&NewWait| matches!(&wait.on, WaitOn::Child(on) if on.child == child);
            let operation = parent.waits.values().find(waits).map(|wait| wait.operation);
            if let Some(operation) = operation {
                parent.complete(Completion {
                    operation,
                    at: now,
                    outcome: Err(singleton::skipped(&detail)),
                })?;
            }
        }
        Ok(())
    }
}
