//! When functions start by the clock: what is active, and where the store says that it stands.

use std::collections::HashMap;
use std::sync::Arc;

use dormouse_core::cron::{Decision, Standing};
use dormouse_core::{RunId, Timestamp};
use dormouse_store::cron::{LastTick, SkippedTick};

use super::App;
use crate::problem::Problem;
use crate::registry::ActiveSchedule;

/// A cron of an active function, and where it stands.
#[derive(Debug, Clone)]
pub struct ScheduleState {
    /// The cron.
    pub active: Arc<ActiveSchedule>,
    /// Its function is paused: it stands still.
    pub paused: bool,
    /// When its next tick begins, jitter included. None: while it is paused.
    pub next_at: Option<Timestamp>,
    /// The run whose end its next tick waits for.
    pub waits_for: Option<RunId>,
    /// The last tick that has started a run.
    pub last: Option<LastTick>,
    /// The last tick that has started none.
    pub skipped: Option<SkippedTick>,
}

impl App {
    /// The crons of all active functions, by their names.
    ///
    /// # Errors
    /// The store's trouble.
    pub async fn schedules(&self) -> Result<Vec<ScheduleState>, Problem> {
        let snapshot = self.0.registry.snapshot();
        let stored = self.0.store.schedules().await?.into_iter();
        let mut stored: HashMap<_, _> = stored
            .map(|schedule| ((schedule.function.clone(), schedule.cron.clone()), schedule))
            .collect();
        let now = self.now();
        let states = snapshot.schedules.iter().map(|active| {
            let paused = snapshot.paused.contains(&active.function);
            let Some(stands) = stored.remove(&(active.function.clone(), active.cron.clone())) else {
                // It was activated just now.
                let next = active.schedule.next(active.since);
                return ScheduleState {
                    active: Arc::clone(active),
                    paused,
                    next_at: Some(active.schedule.due(next)).filter(|_| !paused),
                    waits_for: None,
                    last: None,
                    skipped: None,
                };
            };
            let standing = Standing {
                next: stands.next,
                previous: stands.previous,
                paused,
            };
            let waits = active.schedule.decide(&standing, now) == Decision::AfterPrevious;
            ScheduleState {
                active: Arc::clone(active),
                paused,
                next_at: Some(active.schedule.due(stands.next)).filter(|_| !paused),
                waits_for: stands.last.map(|last| last.run).filter(|_| waits),
                last: stands.last,
                skipped: stands.skipped,
            }
        });
        Ok(states.collect())
    }
}
