//! Waits in the model: every event is held against every wait.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use dormouse_core::wait::{EventWait, signal_replaced, signal_taken};
use dormouse_core::{EventId, Json, Outcome, RunId, Seq, Timestamp, limit};
use serde_json::Value;

use super::World;
use crate::command::{Commanded, Orphans};
use crate::error::Result;
use crate::execute::Completion;
use crate::wait::{NewWait, WaitOn};

impl World {
    pub(super) fn register(&mut self, run: RunId, wait: NewWait, now: Timestamp) -> Result<()> {
        match &wait.on {
            WaitOn::Event(on) => {
                if let Some(event) = self.look_back(run, on) {
                    return self.of(run)?.complete(Completion {
                        operation: wait.operation,
                        at: now,
                        outcome: Ok(event),
                    });
                }
            }
            WaitOn::Child(_) => {}
            WaitOn::Nothing(failure) => {
                return self.of(run)?.complete(Completion {
                    operation: wait.operation,
                    at: now,
                    outcome: Err(failure.clone()),
                });
            }
            WaitOn::Signal(on) => {
                let failed = |operation, failure| Completion {
                    operation,
                    at: now,
                    outcome: Err(failure),
                };
                match self.holder(&on.signal) {
                    None => {}
                    Some((other, operation)) if on.replace => {
                        let failure = signal_replaced(&on.signal, run);
                        self.of(other)?.complete(failed(operation, failure))?;
                    }
                    Some((other, _)) => {
                        let failure = signal_taken(&on.signal, other);
                        return self.of(run)?.complete(failed(wait.operation, failure));
                    }
                }
            }
        }
        self.of(run)?.waits.insert(wait.operation, wait);
        Ok(())
    }

    /// Who waits for a signal.
    fn holder(&self, signal: &str) -> Option<(RunId, Seq)> {
        self.runs.iter().find_map(|(id, run)| {
            let holds = |wait: &&NewWait| matches!(&wait.on, WaitOn::Signal(on) if on.signal == signal);
            run.waits.values().find(holds).map(|wait| (*id, wait.operation))
        })
    }

    pub(super) fn signal(&mut self, signal: &str, data: Json, now: Timestamp) -> Result<Option<RunId>> {
        let Some((run, operation)) = self.holder(signal) else {
            return Ok(None);
        };
        self.of(run)?.complete(Completion {
            operation,
            at: now,
            outcome: Ok(data),
        })?;
        Ok(Some(run))
    }

    /// The latest event that ends a wait, of those that it looks back to.
    fn look_back(&self, run: RunId, on: &EventWait) -> Option<Json> {
        let from = on.lookback_from?;
        {
            let mut received: Vec<_> = self
                .events
                .values()
                .filter(|event| event.name == on.event && event.received_at >= from)
                .collect();
            received.sort_by_key(|event| Reverse((event.received_at, event.id)));
            received.truncate(limit::LOOKBACK_EVENTS_MAX as usize);
            let started_by = self.started_by(run);
            received
                .into_iter()
                .find(|event| on.ends_by(&read(&event.payload), &started_by))
                .map(|event| event.payload.clone())
        }
    }

    /// An event was stored: ends the waits that it ends.
    pub(super) fn end_waits(&mut self, event: EventId, cancelled: &BTreeSet<RunId>) -> Result<()> {
        let Some(event) = self.events.get(&event).cloned() else {
            return Ok(());
        };
        let payload = read(&event.payload);
        let mut ended: Vec<(RunId, Seq)> = Vec::new();
        for (id, run) in self.runs.iter().filter(|(id, _)| !cancelled.contains(id)) {
            for (operation, wait) in &run.waits {
                if let WaitOn::Event(on) = &wait.on
                    && on.event == event.name
                    && on.ends_by(&payload, &self.started_by(*id))
                {
                    ended.push((*id, *operation));
                }
            }
        }
        for (run, operation) in ended {
            self.of(run)?.complete(Completion {
                operation,
                at: event.received_at,
                outcome: Ok(event.payload.clone()),
            })?;
        }
        Ok(())
    }

    /// A run has ended: whoever waits for that has its outcome.
    pub(super) fn child_ended(&mut self, child: RunId, outcome: Outcome, now: Timestamp) -> Result<()> {
        let parent = self.of(child)?.shown.parent;
        let Some(parent) = parent.and_then(|parent| self.runs.get_mut(&parent)) else {
            return Ok(());
        };
        let waits = |wait: &&NewWait| matches!(&wait.on, WaitOn::Child(on) if on.child == child);
        let Some(operation) = parent.waits.values().find(waits).map(|wait| wait.operation) else {
            return Ok(());
        };
        parent.complete(Completion {
            operation,
            at: now,
            outcome,
        })
    }

    /// Takes note of whom a run has given up.
    pub(super) fn adopt(&mut self, run: RunId) -> Result<()> {
        let orphans = std::mem::take(&mut self.of(run)?.orphans);
        self.orphans.extend(orphans);
        Ok(())
    }

    pub(super) fn cancel_orphans(&mut self, limit: u32, now: Timestamp) -> Result<Orphans> {
        let mut orphans = Orphans::default();
        // Those that these leave behind are for the next call.
        let taken: Vec<RunId> = self.orphans.iter().take(limit as usize).copied().collect();
        let waited = self.waiting(&taken);
        for orphan in taken {
            self.orphans.remove(&orphan);
            orphans.taken += 1;
            if let Commanded::Done(_) = self.cancel_one(orphan, now)? {
                orphans.cancelled.push(orphan);
            }
        }
        self.left(waited, Some(now))?;
        Ok(orphans)
    }

    /// The event that started a run.
    pub(super) fn started_by(&self, run: RunId) -> Value {
        let event = self
            .runs
            .get(&run)
            .and_then(|run| self.events.get(&run.shown.event_id));
        event.map(|event| read(&event.payload)).unwrap_or_default()
    }
}

pub(super) fn read(json: &Json) -> Value {
    json.read().unwrap_or_default()
}
