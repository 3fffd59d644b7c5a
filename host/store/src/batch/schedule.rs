//! What claiming, firing and taking over do to runs. The same on every database.

use dormouse_core::run::Event;
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Timestamp};

use super::runs::{RunRow, Work};
use super::throttles::Throttles;
use crate::error::{Error, Result};
use crate::schedule::{ClaimedRun, FireTimers, Fired, crash_loop};
use crate::swap::Swapped;

/// Fires the timers of runs that are loaded, in order, but for those that their throttles hold back. Answers with those
/// that are leased, and the rest of the answer. `digest` knows the versions of these runs by their numbers.
pub(crate) fn fire(
    work: &mut Work,
    ids: &[RunId],
    throttles: &mut Throttles,
    fire: &FireTimers,
    digest: impl Fn(i64) -> Result<Digest>,
) -> Result<(Vec<RunId>, Fired)> {
    let mut fired = Fired {
        fired: ids.len() as u32,
        ..Fired::default()
    };
    let mut claimed = Vec::new();
    for id in ids {
        let due = work.get(*id).and_then(|row| row.due).unwrap_or(fire.now);
        if let Some(held) = throttles.due(*id, due, fire.now) {
            work.change(*id, |row| {
                row.due = Some(held.until);
                row.queued_at = held.until;
                row.reason = Some(held.reason);
                Ok(())
            })?;
            fired.held.push(held.until);
            continue;
        }
        let asked_for = match (&fire.versions, work.get(*id)) {
            (Some(versions), Some(row)) => versions.contains(&digest(row.version_id)?),
            _ => true,
        };
        // Slots are taken by claims alone.
        let needs_slots = work.get(*id).is_some_and(|row| row.needs_slots);
        if !asked_for || needs_slots || claimed.len() >= fire.claim_limit as usize {
            work.change(*id, |row| row.ready(Event::Wake, fire.now))?;
            fired.readied += 1;
        } else if work.change(*id, |row| row.claim(fire.node, fire.now))? {
            claimed.push(*id);
        } else {
            work.outcome(*id, None, Some(crash_loop()));
            fired.blocked.push(*id);
        }
    }
    Ok((claimed, fired))
}

/// Takes a run that is loaded from its owner.
pub(crate) fn take_over(work: &mut Work, id: RunId, now: Timestamp) -> Result<()> {
    work.change(id, |row| {
        row.ready(Event::Release, now)?;
        row.epoch += 1;
        Ok(())
    })
}

/// What a claimed run has beside its row.
pub(crate) struct Details {
    pub(crate) function: FunctionName,
    pub(crate) version: Digest,
    pub(crate) config_revision: i64,
    pub(crate) event_id: EventId,
    pub(crate) depth: u32,
    pub(crate) seed: [u8; 32],
    pub(crate) continued: Option<Json>,
    pub(crate) event: Option<Json>,
    /// When its journal began, where that is not when it was queued.
    pub(crate) began: Option<Timestamp>,
    pub(crate) swapped: Swapped,
    pub(crate) asked: Option<Digest>,
}

/// A claimed run with all that a node needs to drive it.
pub(crate) fn claimed_run(row: &RunRow, details: Details) -> Result<ClaimedRun> {
    Ok(ClaimedRun {
        id: row.id,
        epoch: row.epoch,
        function: details.function,
        version: details.version,
        config_revision: details.config_revision,
        event_id: details.event_id,
        event: details
            .event
            .ok_or_else(|| Error::Corrupt(format!("run {}: its event is not stored", row.id)))?,
        continued: details.continued,
        seed: details.seed,
        parent: row.parent,
        depth: details.depth,
        queued_at: details.began.unwrap_or(row.queued_at),
        journal_base: row.journal_base,
        journal_next: row.journal_next,
        log_lines: row.log_lines,
        journal_bytes: row.journal_bytes,
        host_traps: row.host_traps,
        swapped: details.swapped,
        asked: details.asked,
    })
}
