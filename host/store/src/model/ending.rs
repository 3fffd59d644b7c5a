//! What may end runs from outside by itself, in the model.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_core::ending::{Due, cancelled_by, has_cancelled};
use dormouse_core::flow::Decision;
use dormouse_core::{EventId, FunctionName, RunId, Timestamp};

use super::World;
use super::waits::read;
use crate::command::Commanded;
use crate::ends::Expired;
use crate::error::Result;
use crate::read::Decided;

impl World {
    /// The runs that an event cancels, of those that stand before it.
    pub(super) fn cancelled_by(
        &self,
        event: EventId,
        place: usize,
        before: &BTreeMap<RunId, usize>,
    ) -> Vec<RunId> {
        let Some(event) = self.events.get(&event) else {
            return Vec::new();
        };
        let payload = read(&event.payload);
        let runs = self.runs.iter().filter(|(id, run)| {
            let mut cancels = run.ends.cancel_on.iter();
            before.get(*id).is_none_or(|own| place > *own)
                && cancels.any(|cancels| {
                    cancels.event == event.name
                        && cancels.by(&payload, event.received_at, &self.started_by(**id))
                })
        });
        runs.map(|(id, _)| *id).collect()
    }

    pub(super) fn cancel_by(
        &mut self,
        event: EventId,
        place: usize,
        before: &BTreeMap<RunId, usize>,
    ) -> Result<()> {
        let runs = self.cancelled_by(event, place, before);
        let Some(event) = self.events.get(&event) else {
            return Ok(());
        };
        let (reason, at) = (cancelled_by(&event.name, event.id), event.received_at);
        let id = event.id;
        let mut of_function: BTreeMap<FunctionName, Vec<RunId>> = BTreeMap::new();
        for run in runs {
            if let Commanded::Done(_) = self.cancel_for(run, Some(reason.clone()), at)? {
                let function = self.of(run)?.shown.function.clone();
                of_function.entry(function).or_default().push(run);
            }
        }
        for (function, runs) in of_function {
            let decided = Decided {
                function: function.clone(),
                decision: Decision::Cancelled,
                at,
                run: runs.first().copied(),
                detail: has_cancelled(runs.len()),
            };
            self.decisions.entry((id, function)).or_insert(decided);
        }
        Ok(())
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let deadlines = self.runs.values().flat_map(|run| &run.ends.deadlines);
        deadlines.map(|deadline| deadline.due).min()
    }

    pub(super) fn expire(&mut self, limit: u32, now: Timestamp) -> Result<Expired> {
        let mut due: BTreeSet<(Timestamp, RunId, usize)> = BTreeSet::new();
        for (id, run) in &self.runs {
            let deadlines = run.ends.deadlines.iter().enumerate();
            due.extend(
                deadlines
                    .filter(|(_, deadline)| deadline.due <= now)
                    .map(|(number, deadline)| (deadline.due, *id, number)),
            );
        }
        // As many deadlines as asked for, and then all of these runs that are due.
        let runs: BTreeSet<RunId> = due.iter().take(limit as usize).map(|(_, id, _)| *id).collect();
        let ids: Vec<RunId> = runs.iter().copied().collect();
        let waited = self.waiting(&ids);
        let mut expired = Expired {
            looked: runs.len() as u32,
            ..Expired::default()
        };
        for id in runs {
            let run = self.of(id)?;
            let (status, started_at) = (run.shown.state.status, run.shown.started_at);
            let mut over = None;
            run.ends.deadlines.retain_mut(|deadline| {
                if deadline.due > now {
                    return true;
                }
                match deadline.decide(status, started_at, now) {
                    Due::Kept => false,
                    Due::Later(at) => {
                        deadline.due = at;
                        true
                    }
                    Due::Over => {
                        over = over.take().or(Some((deadline.due, deadline.reason())));
                        true
                    }
                }
            });
            if let Some((_, reason)) = over
                && let Commanded::Done(_) = self.cancel_for(id, Some(reason), now)?
            {
                expired.cancelled.push(id);
            }
        }
        self.left(waited, Some(now))?;
        Ok(expired)
    }
}
