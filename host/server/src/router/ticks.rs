//! From a tick to its run: the event, the run and the schedule that moves on are one commit.
//!
//! The event's id follows from the function, its expression and the tick, so a tick has one event, whichever node starts
//! it and however often it is tried. Absent on purpose: which ticks are started, which is the core's to say.

use dormouse_core::cron::{self, Move};
use dormouse_core::{EventId, Json, Timestamp, event};
use dormouse_store::Error;
use dormouse_store::cron::{StartTick, Tick, Ticked};
use dormouse_store::ingest::Ingest;
use serde_json::json;

use super::{Planned, Routed, Router, SentEvent, stored};
use crate::registry::{ActiveSchedule, Snapshot};

/// What came of a step of a schedule.
pub(crate) enum Stepped {
    /// It was made; the run of the tick that it has started, if it has started one.
    Made(Option<Box<Routed>>),
    /// Somebody else was first.
    Lost,
}

impl Router {
    /// Makes a step of a schedule, decided on a snapshot.
    pub(crate) async fn step(
        &self,
        snapshot: &Snapshot,
        active: &ActiveSchedule,
        from: Timestamp,
        step: Move,
        now: Timestamp,
    ) -> Result<Stepped, Error> {
        let mut planned = None;
        let mut start = None;
        if let Some(tick) = step.start {
            let event = tick_event(active, tick)?;
            let run: Planned = self.new_run(&active.function, active.version, &event, snapshot, now);
            let ingest = Ingest {
                events: vec![stored(&event, now)],
                runs: vec![run.run.clone()],
                generation: snapshot.generation,
                now,
            };
            start = Some(StartTick { tick, ingest });
            planned = Some(run);
        }
        let tick = Tick {
            function: active.function.clone(),
            cron: active.cron.clone(),
            from,
            to: step.next,
            start,
            skipped: step
                .skipped
                .map(|skipped| (skipped.tick, skipped.reason.to_string())),
            generation: snapshot.generation,
            now,
        };
        Ok(match self.store.tick(tick).await? {
            Ticked::Lost => Stepped::Lost,
            Ticked::Done(created) => {
                let routed = planned.zip(created);
                Stepped::Made(routed.map(|(planned, created)| Box::new(planned.created(created))))
            }
        })
    }
}

/// The event of a tick. It happened when the expression says, whenever it is stored.
fn tick_event(active: &ActiveSchedule, tick: Timestamp) -> Result<SentEvent, Error> {
    let function = &active.function;
    let parts = [cron::EVENT, function.module(), function.function(), &active.cron];
    let id = EventId::derived(tick, &parts.map(str::as_bytes));
    let data = Json::from_value(&json!({ "cron": active.cron, "scheduled_at": tick }))
        .map_err(|error| Error::Corrupt(error.to_string()))?;
    let accepted = event::internal(cron::EVENT, data, id, tick)
        .map_err(|error| Error::Corrupt(format!("the event of a tick is refused: {error}")))?;
    Ok(SentEvent {
        id,
        accepted,
        dedupe: None,
    })
}
