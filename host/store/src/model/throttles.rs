//! Throttles in the model: lines are looked up among all runs.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_core::flow::{Gate, Limited, Line, Standing};
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{FunctionName, RunId, Timestamp};

use super::World;
use super::run::ModelRun;
use crate::error::Result;

/// A throttle: whose, and the key's value.
pub(super) type Throttle = (FunctionName, Gate, String);

/// Lines in which timers fire.
pub(super) type Lines = BTreeMap<Throttle, Line>;

impl ModelRun {
    /// What may hold it back: while it waits for that, and neither for its time nor for a person.
    fn waits(&self) -> Option<&(Limited, Option<Timestamp>)> {
        let state = State::live(Status::Scheduled, Phase::Limited);
        self.throttle.as_ref().filter(|_| self.shown.state == state)
    }

    fn line(&self, throttle: &Limited) -> Throttle {
        (self.shown.function.clone(), Gate::Throttle, throttle.key.clone())
    }

    /// Puts it at a place in its line.
    fn turns(&mut self, at: Timestamp, throttle: Limited) {
        let held = throttle.held(at);
        self.throttle = Some((throttle, Some(at)));
        self.shown.reason = Some(held.reason);
        self.shown.queued_at = at;
        self.set_due(Some(at));
    }
}

impl World {
    fn used_until(&self, of: &Throttle) -> i64 {
        self.limits.get(of).map_or(0, |standing| standing.used_until)
    }

    /// The first in a line, without some.
    fn first(&self, of: &Throttle, without: &BTreeSet<RunId>) -> Option<(Timestamp, RunId)> {
        let others = self.runs.iter().filter(|(id, _)| !without.contains(*id));
        let turns = others.filter_map(|(id, run)| {
            let (throttle, turn) = run.waits()?;
            (run.line(throttle) == *of).then_some(((*turn)?, *id))
        });
        turns.min()
    }

    /// The lines of runs whose timers are due.
    pub(super) fn lines(&self, fired: &BTreeSet<RunId>) -> Lines {
        let mut lines = Lines::new();
        for run in fired.iter().filter_map(|id| self.runs.get(id)) {
            if let Some((throttle, _)) = run.waits() {
                let key = run.line(throttle);
                let line = Line::new(self.used_until(&key), self.first(&key, fired));
                lines.insert(key, line);
            }
        }
        lines
    }

    /// A run's timer is due: until when its throttle holds it back further.
    pub(super) fn hold_back(
        &mut self,
        lines: &mut Lines,
        id: RunId,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let run = self.of(id)?;
        let due = run.due.unwrap_or(now);
        let Some((throttle, turn)) = run.waits().cloned() else {
            return Ok(None);
        };
        let key = run.line(&throttle);
        let Some(line) = lines.get_mut(&key) else {
            return Ok(None);
        };
        let Some(held) = line.due(id, &throttle, due, turn.is_some(), now) else {
            run.throttle = None;
            return Ok(None);
        };
        run.turns(held.until, throttle);
        Ok(Some(held.until))
    }

    /// All have fired. Answers with the turns of those that moved up.
    pub(super) fn settle(&mut self, lines: Lines) -> Result<Vec<Timestamp>> {
        let mut turns = Vec::new();
        for (key, line) in lines {
            turns.extend(self.moves(key, line)?);
        }
        Ok(turns)
    }

    fn moves(&mut self, of: Throttle, line: Line) -> Result<Option<Timestamp>> {
        let settled = line.settle();
        if let Some(used_until) = settled.used_until {
            let run = RunId::from_bytes([0; 16]);
            self.limits.insert(of, Standing { used_until, run });
        }
        let Some((run, turn)) = settled.moved else {
            return Ok(None);
        };
        let run = self.of(run)?;
        if let Some((throttle, _)) = run.throttle.take() {
            run.turns(turn, throttle);
        }
        Ok(Some(turn))
    }

    /// Of some runs, to which something is about to be done, those that may be in line.
    pub(super) fn waiting(&self, ids: &[RunId]) -> Vec<RunId> {
        let waits = |id: &RunId| self.runs.get(id).is_some_and(|run| run.waits().is_some());
        ids.iter().copied().filter(waits).collect()
    }

    /// What was done: those that waited and do so no more leave their turns to the others.
    pub(super) fn left(&mut self, waited: Vec<RunId>, now: Option<Timestamp>) -> Result<()> {
        let wait = self.waiting(&waited);
        let mut lines = Lines::new();
        for id in waited.into_iter().filter(|id| !wait.contains(id)) {
            let run = self.of(id)?;
            let Some((throttle, turn)) = run.throttle.take() else {
                continue;
            };
            let key = run.line(&throttle);
            if run.shown.state.phase == Some(Phase::Paused) {
                if turn.is_some() {
                    run.shown.queued_at = id.time();
                }
                run.throttle = Some((throttle.clone(), None));
            }
            if let Some(turn) = turn {
                let line = Line::new(self.used_until(&key), self.first(&key, &BTreeSet::new()));
                lines.entry(key).or_insert(line).leaves(&throttle, turn, now);
            }
        }
        self.settle(lines)?;
        Ok(())
    }
}
