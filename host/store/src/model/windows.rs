//! Events that start runs together, in the model: a window is open as long as its run waits for the time that the window
//! says.

use std::collections::HashMap;

use dormouse_core::flow::singleton::Turn;
use dormouse_core::flow::{Gate, Gathered, Gathering, Held, Standing, Window};
use dormouse_core::run::{Phase, Status};
use dormouse_core::{EventId, FunctionName, RunId, Timestamp};

use super::World;
use super::run::ModelRun;
use super::singletons::Consequences;
use crate::error::{Error, Result};
use crate::ingest::NewRun;
use crate::read::BatchEvent;

/// What limits remember.
pub(super) type Limits = HashMap<(FunctionName, Gate, String), Standing>;

impl ModelRun {
    fn collects(&self) -> bool {
        self.shown.state.status == Status::Scheduled
            && match self.shown.state.phase {
                Some(Phase::Limited | Phase::Sleeping) => true,
                Some(Phase::Paused) => self.held,
                _ => false,
            }
    }

    /// Its window closes then.
    fn closes(&mut self, at: Timestamp, reason: String) {
        self.shown.queued_at = at;
        if self.shown.state.phase != Some(Phase::Paused) {
            self.set_due(Some(at));
            self.shown.reason = Some(reason);
        }
    }
}

impl World {
    /// An event comes to its window. Answers with the window's run, when that starts, and how many events it has.
    pub(super) fn gather(
        &mut self,
        run: &NewRun,
        gathering: &Gathering,
        (limits, consequences): (&mut Limits, &mut Consequences),
        (bytes, now): (u64, Timestamp),
    ) -> Result<(RunId, Timestamp, String)> {
        let key = (run.function.clone(), gathering.gate(), gathering.key.clone());
        let found = limits.get(&key).and_then(|standing| {
            let closes = Timestamp::from_millis(standing.used_until / 1_000);
            let of = self.runs.get(&standing.run)?;
            let collected = self.batches.get(&standing.run);
            let collects = of.collects() && !consequences.displaces(standing.run);
            (collects && of.shown.queued_at == closes).then_some(Window {
                run: standing.run,
                closes,
                events: collected.map_or(0, |events| events.len() as u32),
                bytes: collected.map_or(0, |events| events.iter().map(|(_, bytes)| bytes).sum()),
            })
        });
        let (of, closes) = match gathering.decide(found, bytes, now) {
            Gathered::Joins { closes } => (found.map_or(run.id, |window| window.run), closes),
            Gathered::Opens { closes, instead } => {
                if let Some(window) = found.filter(|_| instead) {
                    let reason = gathering.reason(now, window.events);
                    self.of(window.run)?.closes(now, reason);
                }
                (run.id, closes)
            }
        };
        let is_batch = gathering.gate() == Gate::Batch;
        let opened = of == run.id;
        if opened && self.runs.contains_key(&of) {
            return Err(Error::Corrupt("a run is stored twice".to_owned()));
        }
        if is_batch {
            self.batches.entry(of).or_default().push((run.event_id, bytes));
        }
        let events = match (is_batch, found.filter(|_| !opened)) {
            (true, _) => self.batches.get(&of).map_or(0, Vec::len) as u32,
            (false, Some(_)) => 2,
            (false, None) => 1,
        };
        let held = Held {
            until: closes,
            turn: false,
            reason: gathering.reason(closes, events),
        };
        if opened {
            self.opens(run, limits, consequences);
            self.create(run.clone(), None, Some(held), now)?;
        } else {
            let there = self.of(of)?;
            there.shown.version = run.version;
            there.config_revision = run.config_revision;
            if !is_batch {
                there.shown.event_id = run.event_id;
            }
            there.closes(closes, held.reason);
            if run.held && there.shown.state.phase != Some(Phase::Paused) {
                there.held = true;
                there.hold_for_function()?;
            }
        }
        let used_until = closes.as_millis() * 1_000;
        limits.insert(key, Standing { used_until, run: of });
        Ok((of, closes, gathering.detail(of, events)))
    }

    /// Of the runs of its key there is one at a time: the one that opens a window takes the place of the last.
    fn opens(&self, run: &NewRun, limits: &mut Limits, consequences: &mut Consequences) {
        let Some(singleton) = &run.admission.singleton else {
            return;
        };
        let key = (run.function.clone(), Gate::Singleton, singleton.key.clone());
        let before = limits.get(&key).map(|standing| standing.run);
        let living = before.filter(|before| self.lives_on(*before, consequences));
        if let Turn::Displaces(other) = singleton.decide(living, run.parent) {
            consequences.displaced.push((other, singleton.reason(run.id)));
        }
        let used_until = Standing::WHILE_IT_LIVES;
        limits.insert(
            key,
            Standing {
                used_until,
                run: run.id,
            },
        );
    }

    pub(super) fn batch(&self, run: RunId) -> Vec<BatchEvent> {
        let events = self.batches.get(&run).into_iter().flatten();
        events
            .filter_map(|(id, _)| self.events.get(id))
            .map(|event| BatchEvent {
                id: event.id,
                payload: event.payload.clone(),
            })
            .collect()
    }

    /// Whether a run starts with an event, among others.
    pub(super) fn is_of(&self, run: RunId, event: EventId) -> bool {
        let events = self.batches.get(&run);
        events.is_some_and(|events| events.iter().any(|(of, _)| *of == event))
    }
}
