//! Pausing and resuming runs, and letting on what a function's pause held. The same on every database.
//!
//! A run that a node drives is not taken from it: that somebody has asked is noted on its row, and the next append does
//! it. A body that is open is recorded so, and nothing is done twice.

use dormouse_core::run::{Event, Phase, State, Status};
use dormouse_core::{FunctionName, RunId, Timestamp};

use super::runs::{Hold, RunRow, Work};
use super::throttles::{Held, Throttled};
use crate::command::Commanded;
use crate::error::Result;
use crate::execute::{Append, Then};

/// Why a run that a person paused does nothing.
pub(crate) const PAUSED: &str = "paused: resume it to let it on";
/// Why a run that is about to be paused still executes.
const PAUSES: &str = "will be paused when what it does now is recorded";

/// Why a run whose function is paused does nothing.
pub(crate) fn held(function: &FunctionName) -> String {
    format!("the function {function} is paused: the run begins when it is resumed")
}

/// Why a run that begins later sleeps.
pub(crate) fn delayed(start_at: Timestamp) -> String {
    format!("starts at {start_at}")
}

/// Pauses a run that is loaded, if it is there, or notes that it is to be.
pub(crate) fn pause(work: &mut Work, run: RunId) -> Result<Commanded> {
    let Some(row) = work.get(run) else {
        return Ok(Commanded::NotFound);
    };
    let state = row.state;
    match state.phase {
        None | Some(Phase::Blocked) => return Ok(Commanded::Refused(state)),
        // A run that its function's pause held is from now on held for itself, too.
        Some(Phase::Paused) => work.change(run, |row| {
            row.hold = Hold::Person;
            row.reason = Some(PAUSED.to_owned());
            Ok(())
        })?,
        Some(Phase::Executing) => work.change(run, |row| {
            row.hold = Hold::Asked;
            row.reason = Some(PAUSES.to_owned());
            Ok(())
        })?,
        Some(Phase::Queued | Phase::Sleeping | Phase::Waiting | Phase::BackingOff | Phase::Limited) => {
            work.change(run, RunRow::hold)?;
        }
    }
    Ok(Commanded::Done(work.get(run).map_or(state, |row| row.state)))
}

/// Lets a run that is loaded on, if it is there and paused or about to be. One that its throttle has yet to let on takes its
/// turn.
pub(crate) fn resume(work: &mut Work, run: RunId, throttled: &Held, now: Timestamp) -> Result<Commanded> {
    let Some(row) = work.get(run) else {
        return Ok(Commanded::NotFound);
    };
    let state = row.state;
    match (state.phase, row.hold) {
        (Some(Phase::Paused), _) => work.change(run, |row| let_on(row, throttled.get(&run), now))?,
        (Some(Phase::Executing), Hold::Asked) => work.change(run, |row| {
            row.hold = Hold::None;
            row.reason = None;
            Ok(())
        })?,
        _ => return Ok(Commanded::Refused(state)),
    }
    Ok(Commanded::Done(work.get(run).map_or(state, |row| row.state)))
}

/// Lets runs that are loaded and were held by their functions on.
pub(crate) fn release(work: &mut Work, runs: &[RunId], throttled: &Held, now: Timestamp) -> Result<()> {
    for run in runs {
        work.change(*run, |row| {
            if row.state.phase == Some(Phase::Paused) {
                return let_on(row, throttled.get(run), now);
            }
            // An older release has moved it on, and knows nothing of who holds a run.
            row.hold = Hold::None;
            Ok(())
        })?;
    }
    Ok(())
}

/// Of some runs that are loaded, those that are paused and that throttles may have yet to let on.
pub(crate) fn may_be_throttled(work: &Work, runs: &[RunId]) -> Vec<RunId> {
    let state = State::live(Status::Scheduled, Phase::Paused);
    let paused = |id: &RunId| work.get(*id).is_some_and(|row| row.state == state);
    runs.iter().copied().filter(paused).collect()
}

fn let_on(row: &mut RunRow, throttled: Option<&Throttled>, now: Timestamp) -> Result<()> {
    row.hold = Hold::None;
    if let Some(throttled) = throttled.filter(|_| row.state.status == Status::Scheduled) {
        let held = throttled.throttle.later(row.queued_at.max(now));
        row.on(Event::Throttle, Some(held.reason))?;
        row.due = Some(held.until);
        row.queued_at = held.until;
        return Ok(());
    }
    if row.state.status == Status::Scheduled && row.queued_at > now {
        row.on(Event::Delay, Some(delayed(row.queued_at)))?;
        row.due = Some(row.queued_at);
        return Ok(());
    }
    row.ready(Event::Resume, now)
}

/// Whether an append's run is to be paused and can be now, instead of what it would do next. Then it is.
pub(crate) fn takes(work: &mut Work, append: &Append) -> Result<bool> {
    let asked = work.get(append.run).is_some_and(|row| row.hold == Hold::Asked);
    if !asked || !matches!(append.then, Then::Continue | Then::Suspend { .. }) {
        return Ok(false);
    }
    work.change(append.run, |row| {
        row.hold()?;
        row.claims = 0;
        Ok(())
    })?;
    Ok(true)
}
