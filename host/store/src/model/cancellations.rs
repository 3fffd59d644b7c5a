//! Cancelling many runs in the model.

use dormouse_core::RunId;

use super::World;
use crate::cancellation::{Batch, Cancellation, CancellationFilter, Candidate, Examined, NewCancellation};
use crate::command::Commanded;
use crate::error::Result;

/// A cancellation and the last run that was examined.
#[derive(Clone)]
pub(super) struct ModelCancellation {
    shown: Cancellation,
    cursor: Option<RunId>,
}

impl World {
    pub(super) fn put_cancellation(&mut self, new: NewCancellation) -> Cancellation {
        let shown = Cancellation {
            id: new.id,
            function: new.function,
            started_after: new.started_after,
            started_before: new.started_before,
            condition: new.condition,
            created_at: new.now,
            done_at: None,
            cancelled: 0,
        };
        let stored = ModelCancellation {
            shown: shown.clone(),
            cursor: None,
        };
        self.cancellations.insert(new.id, stored);
        shown
    }

    pub(super) fn cancellations(&self, filter: &CancellationFilter) -> Vec<Cancellation> {
        let meant = |shown: &Cancellation| {
            filter.id.is_none_or(|id| shown.id == id)
                && (filter.modules.as_ref())
                    .is_none_or(|modules| modules.iter().any(|module| module == shown.function.module()))
        };
        let newest = self.cancellations.values().rev();
        newest
            .map(|cancellation| cancellation.shown.clone())
            .filter(meant)
            .take(filter.limit as usize)
            .collect()
    }

    pub(super) fn next_cancellation(&self, limit: u32) -> Option<Batch> {
        let next = self
            .cancellations
            .values()
            .find(|cancellation| cancellation.shown.done_at.is_none())?;
        let shown = &next.shown;
        let meant = self.runs.iter().filter(|(id, run)| {
            run.shown.function == shown.function
                && next.cursor.is_none_or(|cursor| **id > cursor)
                && id.to_bytes() < shown.id.to_bytes()
                && shown.started_after.is_none_or(|after| id.time() >= after)
                && shown.started_before.is_none_or(|before| id.time() < before)
        });
        let looked: Vec<_> = meant.take(limit as usize).collect();
        let candidates = looked
            .iter()
            .filter(|(_, run)| !run.shown.state.status.is_terminal())
            .map(|(id, run)| Candidate {
                run: **id,
                event: shown
                    .condition
                    .as_ref()
                    .and_then(|_| self.events.get(&run.shown.event_id))
                    .map(|event| event.payload.clone()),
            });
        Some(Batch {
            cancellation: shown.clone(),
            candidates: candidates.collect(),
            last: looked.last().map(|(id, _)| **id),
        })
    }

    pub(super) fn cancel_examined(&mut self, examined: Examined) -> Result<Vec<RunId>> {
        if !self.cancellations.contains_key(&examined.id) {
            return Ok(Vec::new());
        }
        let mut cancelled = Vec::new();
        let waited = self.waiting(&examined.runs);
        for run in &examined.runs {
            if let Commanded::Done(_) = self.cancel_one(*run, examined.now)? {
                cancelled.push(*run);
            }
        }
        self.left(waited, Some(examined.now))?;
        if let Some(cancellation) = self.cancellations.get_mut(&examined.id) {
            cancellation.cursor = cancellation.cursor.max(examined.last);
            cancellation.shown.cancelled += cancelled.len() as u64;
            if examined.last.is_none() {
                cancellation.shown.done_at = cancellation.shown.done_at.or(Some(examined.now));
            }
        }
        Ok(cancelled)
    }
}
