//! Runs that throttles hold back: their lines, and who moves up. The same on every database.
//!
//! A run in line has a row of its own with its turn, which is when its timer is due. One that waits for something else
//! first, its time or its function's resumption, has a row without a turn and takes one when it gets there. What becomes of
//! a line in a commit is [`Line`]'s decision.

use std::collections::{BTreeMap, HashMap};

use dormouse_core::flow::{self, Gate, Limited, Line, Rate, Standing};
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{RunId, Timestamp};

use super::ingest::Creation;
use super::limits::{LimitKey, Limits};
use super::runs::{RunRow, Work};
use crate::error::Result;

/// A run that its throttle holds back, as stored.
#[derive(Clone, Debug)]
pub(crate) struct Throttled {
    pub(crate) function_id: i64,
    pub(crate) throttle: Limited,
    /// Its turn, if it is in line.
    pub(crate) turn: Option<Timestamp>,
}

impl Throttled {
    /// From its cells.
    pub(crate) fn stored(
        function_id: i64,
        key: String,
        (limit, period_ms, burst): (u32, i64, u32),
        turn: Option<Timestamp>,
    ) -> Throttled {
        let rate = Rate {
            limit,
            period_ms: period_ms.unsigned_abs(),
            burst,
        };
        Throttled {
            function_id,
            throttle: Limited { rate, key },
            turn,
        }
    }

    fn key(&self) -> LimitKey {
        (self.function_id, Gate::Throttle, self.throttle.key.clone())
    }
}

/// Runs and what holds them back.
pub(crate) type Held = HashMap<RunId, Throttled>;

/// The limits of some runs, in order, and of how many each is.
pub(crate) fn keys(held: &Held) -> BTreeMap<LimitKey, usize> {
    let mut keys = BTreeMap::new();
    for throttled in held.values() {
        *keys.entry(throttled.key()).or_default() += 1;
    }
    keys
}

/// The rows of `throttled` that new runs come with.
pub(crate) fn throttled(creations: &[Creation<'_>]) -> Vec<(RunId, Throttled)> {
    let held = creations.iter().filter_map(|creation| {
        let held = creation.held.as_ref()?;
        let throttled = Throttled {
            function_id: creation.function_id,
            throttle: creation.run.admission.throttle.clone()?,
            turn: held.turn.then_some(held.until),
        };
        Some((creation.run.id, throttled))
    });
    held.collect()
}

/// Whether a run may be in line.
pub(crate) fn waits(row: &RunRow) -> bool {
    row.state == State::live(Status::Scheduled, Phase::Limited) && !row.waits_for_slot()
}

/// Of some runs that are loaded, those that may be in line.
pub(crate) fn waiting(work: &Work, runs: &[RunId]) -> Vec<RunId> {
    let waits = |id: &RunId| work.get(*id).is_some_and(waits);
    runs.iter().copied().filter(waits).collect()
}

/// Lines in which a commit lets runs begin, or from which it takes them.
#[derive(Default)]
pub(crate) struct Throttles {
    held: Held,
    lines: BTreeMap<LimitKey, Line>,
    /// The throttles of those that may move up.
    others: HashMap<RunId, Limited>,
    moved: Vec<(RunId, Timestamp)>,
    /// What the throttles have to remember.
    pub(crate) changed: BTreeMap<LimitKey, Standing>,
    /// Runs that nothing holds back any more.
    pub(crate) gone: Vec<RunId>,
    /// Runs whose turns are others now.
    pub(crate) turned: BTreeMap<RunId, Option<Timestamp>>,
}

impl Throttles {
    /// With these runs, what their limits remember, whose rows are locked, and the first runs in their lines: of each at
    /// least one that is not among these, if there is one.
    pub(crate) fn new(held: Held, limits: &Limits, firsts: Held) -> Throttles {
        let mut lines = BTreeMap::new();
        for throttled in held.values() {
            let key = throttled.key();
            let of_key = firsts
                .iter()
                .filter(|(run, first)| !held.contains_key(run) && first.key() == key);
            let first = of_key.filter_map(|(run, first)| Some((first.turn?, *run))).min();
            let used_until = limits.get(&key).map_or(0, |standing| standing.used_until);
            lines.insert(key, Line::new(used_until, first));
        }
        let others = firsts
            .into_iter()
            .map(|(run, first)| (run, first.throttle))
            .collect();
        Throttles {
            held,
            lines,
            others,
            ..Throttles::default()
        }
    }

    /// A run's timer is due. None: it begins.
    pub(crate) fn due(&mut self, run: RunId, due: Timestamp, now: Timestamp) -> Option<flow::Held> {
        let throttled = self.held.remove(&run)?;
        let line = self.lines.get_mut(&throttled.key())?;
        let held = line.due(run, &throttled.throttle, due, throttled.turn.is_some(), now);
        match &held {
            Some(held) => {
                self.turned.insert(run, Some(held.until));
                self.others.insert(run, throttled.throttle);
            }
            None => self.gone.push(run),
        }
        held
    }

    /// A run that is loaded leaves its line: it has ended, begins out of turn, or is paused.
    fn leaves(&mut self, work: &mut Work, run: RunId, now: Option<Timestamp>) -> Result<()> {
        let Some(throttled) = self.held.remove(&run) else {
            return Ok(());
        };
        let paused = work
            .get(run)
            .is_some_and(|row| row.state.phase == Some(Phase::Paused));
        if let (Some(turn), Some(line)) = (throttled.turn, self.lines.get_mut(&throttled.key())) {
            line.leaves(&throttled.throttle, turn, now);
            if paused {
                // It takes another turn when it is resumed, and need not wait for this one.
                self.turned.insert(run, None);
                work.change(run, |row| {
                    row.queued_at = run.time();
                    Ok(())
                })?;
            }
        }
        if !paused {
            self.gone.push(run);
        }
        Ok(())
    }

    /// Runs that are loaded leave their lines. `now`: the time, if it is known.
    pub(crate) fn left(&mut self, work: &mut Work, runs: &[RunId], now: Option<Timestamp>) -> Result<()> {
        runs.iter().try_for_each(|run| self.leaves(work, *run, now))
    }

    /// Nothing more begins or leaves. Answers with the runs that move up and are to be loaded.
    pub(crate) fn settle(&mut self) -> Vec<RunId> {
        for (key, line) in std::mem::take(&mut self.lines) {
            let settled = line.settle();
            if let Some(used_until) = settled.used_until {
                // Whose turn was the last is of no interest to anybody.
                let run = RunId::from_bytes([0; 16]);
                self.changed.insert(key, Standing { used_until, run });
            }
            self.moved.extend(settled.moved);
        }
        self.moved.iter().map(|(run, _)| *run).collect()
    }

    /// Lets those move up that are loaded. One that is not is in somebody else's hands, and keeps its turn. Answers with the
    /// turns.
    pub(crate) fn advance(&mut self, work: &mut Work) -> Result<Vec<Timestamp>> {
        let mut turns = Vec::new();
        for (run, turn) in std::mem::take(&mut self.moved) {
            let later = |row: &RunRow| waits(row) && row.due.is_some_and(|due| turn < due);
            let (true, Some(throttle)) = (work.get(run).is_some_and(later), self.others.get(&run)) else {
                continue;
            };
            let held = throttle.held(turn);
            work.change(run, |row| {
                row.due = Some(turn);
                row.queued_at = turn;
                row.reason = Some(held.reason);
                Ok(())
            })?;
            self.turned.insert(run, Some(turn));
            turns.push(turn);
        }
        Ok(turns)
    }
}
