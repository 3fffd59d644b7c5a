//! Runs that steps of other runs have invoked: their end is the step's outcome, in the same commit. The same on every
//! database.
//!
//! The step's wait is the one link that decides: whoever closes the step takes it away, so an end that comes later finds
//! nobody. Absent on purpose: cancelling the runs that were given up, which takes commits of its own (`command`).

use dormouse_core::{Outcome, RunId, Seq, Timestamp, invoke};

use super::execute::Look;
use super::runs::Work;
use super::waits::complete;
use crate::error::Result;
use crate::execute::{Completion, Then};
use crate::wait::WaitOn;

/// What a run's end is to the step that waits for it, if it is one.
pub(crate) fn outcome(then: &Then) -> Option<Outcome> {
    match then {
        Then::Complete { output } => Some(Ok(output.clone())),
        Then::Fail { error } => Some(Err(invoke::failed(error))),
        _ => None,
    }
}

/// A run has ended: completes the step that waits for it.
pub(crate) async fn ended(
    look: &mut impl Look,
    work: &mut Work,
    child: RunId,
    outcome: Outcome,
    now: Timestamp,
) -> Result<()> {
    match work.get(child).and_then(|row| row.parent) {
        Some(parent) => tell(look, work, (parent, child), outcome, now).await,
        None => Ok(()),
    }
}

/// Completes the step of a run that waits for another, if it does.
pub(crate) async fn tell(
    look: &mut impl Look,
    work: &mut Work,
    (parent, child): (RunId, RunId),
    outcome: Outcome,
    now: Timestamp,
) -> Result<()> {
    // Its row first: only then nobody closes the step meanwhile.
    look.load(work, parent).await?;
    if work.get(parent).is_none() {
        return Ok(());
    }
    let Some(operation) = caller(look, work, parent, child).await? else {
        return Ok(());
    };
    let completion = Completion {
        operation,
        at: now,
        outcome,
    };
    let woken = complete(work, vec![(parent, completion)])?;
    work.woke |= woken;
    Ok(())
}

/// The operation that waits for a run, after what the batch has done so far.
async fn caller(look: &mut impl Look, work: &Work, parent: RunId, child: RunId) -> Result<Option<Seq>> {
    let new = work
        .new_waits()
        .iter()
        .find(|(run, wait)| matches!(&wait.on, WaitOn::Child(on) if *run == parent && on.child == child));
    if let Some((_, wait)) = new {
        return Ok(Some(wait.operation));
    }
    let stored = look.caller(parent, child).await?;
    Ok(stored.filter(|operation| !work.is_over(parent, *operation)))
}
