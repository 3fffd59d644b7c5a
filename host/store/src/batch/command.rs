//! What cancel, wake and unblock do to a run. The same on every database.

use dormouse_core::run::{Event, Phase, Status};
use dormouse_core::{Json, RunId, Seq, Timestamp, invoke};

use super::children;
use super::execute::{Look, is_open};
use super::runs::{Hold, Work};
use crate::command::{Commanded, Orphans};
use crate::error::Result;
use crate::execute::Completion;

/// Ends a run that is loaded, if it is there, and tells the step that waits for it.
pub(crate) async fn cancel(
    look: &mut impl Look,
    work: &mut Work,
    run: RunId,
    reason: Option<String>,
    now: Timestamp,
) -> Result<Commanded> {
    let commanded = end(work, run, reason, now)?;
    if let Commanded::Done(_) = commanded {
        children::ended(look, work, run, Err(invoke::cancelled(run)), now).await?;
    }
    Ok(commanded)
}

/// Ends orphans that are loaded: nobody waits for them.
pub(crate) fn cancel_orphans(work: &mut Work, orphans: &[RunId], now: Timestamp) -> Result<Orphans> {
    let mut cancelled = Vec::new();
    for run in orphans {
        if let Commanded::Done(_) = end(work, *run, None, now)? {
            cancelled.push(*run);
        }
    }
    Ok(Orphans {
        taken: orphans.len() as u32,
        cancelled,
    })
}

fn end(work: &mut Work, run: RunId, reason: Option<String>, now: Timestamp) -> Result<Commanded> {
    let Some(row) = work.get(run) else {
        return Ok(Commanded::NotFound);
    };
    if row.state.status.is_terminal() {
        return Ok(Commanded::Refused(row.state));
    }
    let state = work.change(run, |row| {
        row.on(Event::Cancel, reason)?;
        row.owner = None;
        row.hold = Hold::None;
        row.epoch += 1;
        row.ended_at = Some(now);
        Ok(row.state)
    })?;
    work.clear_completions(run);
    work.clear_waits(run);
    work.ended(run);
    Ok(Commanded::Done(state))
}

/// Ends those of some runs that are loaded, are there and have not ended, and tells the steps that wait for them. Answers
/// with those it has ended.
pub(crate) async fn cancel_all(
    look: &mut impl Look,
    work: &mut Work,
    runs: &[RunId],
    now: Timestamp,
) -> Result<Vec<RunId>> {
    let mut cancelled = Vec::with_capacity(runs.len());
    for run in runs {
        if let Commanded::Done(_) = cancel(look, work, *run, None, now).await? {
            cancelled.push(*run);
        }
    }
    Ok(cancelled)
}

/// Wakes a run that is loaded, if it is there.
pub(crate) async fn wake(
    look: &mut impl Look,
    work: &mut Work,
    run: RunId,
    operation: Option<Seq>,
    now: Timestamp,
) -> Result<Commanded> {
    let Some(row) = work.get(run) else {
        return Ok(Commanded::NotFound);
    };
    let (state, may_be_woken) = (row.state, row.may_be_woken());
    let Some(phase) = state.phase else {
        return Ok(Commanded::Refused(state));
    };
    match phase {
        Phase::Paused => return Ok(Commanded::Refused(state)),
        Phase::Blocked => unblock(work, run, now)?,
        Phase::Queued
        | Phase::Executing
        | Phase::Sleeping
        | Phase::Waiting
        | Phase::BackingOff
        | Phase::Limited => {
            match operation {
                // A completion of an operation that is no longer open would never be taken away.
                Some(operation) if !is_open(look, run, operation).await? => {
                    return Ok(Commanded::Refused(state));
                }
                Some(operation) => {
                    let outcome = Ok(Json::null());
                    work.complete(
                        run,
                        Completion {
                            operation,
                            at: now,
                            outcome,
                        },
                    );
                }
                // One that waits for a slot would only lose its place.
                None if !may_be_woken => return Ok(Commanded::Refused(state)),
                None => {}
            }
            if may_be_woken {
                work.change(run, |row| {
                    row.ready(Event::Wake, now)?;
                    // A delayed run that is begun early begins now.
                    if row.state.status == Status::Scheduled {
                        row.queued_at = now;
                    }
                    Ok(())
                })?;
            }
        }
    }
    let state = work.get(run).map_or(state, |row| row.state);
    Ok(Commanded::Done(state))
}

/// Makes a blocked run that is loaded ready again.
pub(crate) fn unblock(work: &mut Work, run: RunId, now: Timestamp) -> Result<()> {
    work.change(run, |row| {
        row.ready(Event::Unblock, now)?;
        row.claims = 0;
        row.host_traps = 0;
        Ok(())
    })
}
