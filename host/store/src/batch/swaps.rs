//! Going over to another version, or not, with an append. The same on every database.

use dormouse_core::run::{Event, Phase, RunError};
use dormouse_core::swap::Policy;
use dormouse_core::{RunId, Seq, Timestamp};

use super::ingest::Small;
use super::runs::Work;
use crate::command::Commanded;
use crate::error::{Error, Result};
use crate::execute::{Append, Then};
use crate::swap::{Asked, Swapped};

/// A row of `swaps`.
#[derive(Clone, Debug)]
pub(crate) struct SwapRow {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    pub(crate) from_id: i64,
    pub(crate) to_id: i64,
    pub(crate) stayed: Option<RunError>,
    pub(crate) restarted: bool,
}

impl SwapRow {
    /// What it adds to the run's own row.
    pub(crate) fn flag(&self) -> i64 {
        let stayed = self.stayed.is_some();
        Swapped {
            moved: !stayed,
            stayed,
        }
        .bits()
    }

    /// Why it stayed, as stored. A run error is texts and JSON: it always serialises.
    pub(crate) fn error(&self) -> Option<String> {
        let stayed = self.stayed.as_ref()?;
        serde_json::to_string(stayed).ok()
    }
}

/// The number of the version that an append's swap is about, if it has one.
///
/// # Errors
/// [`Error::StaleRegistry`] when it was decided on another generation.
pub(crate) fn target(small: &impl Small, append: &Append) -> Result<Option<i64>> {
    let Some(swap) = &append.swap else {
        return Ok(None);
    };
    if swap.generation != small.generation() {
        return Err(Error::StaleRegistry);
    }
    // One that was deleted was so before this generation.
    let id = small.version_id(&swap.module, swap.to);
    id.map(Some).ok_or(Error::StaleRegistry)
}

/// Gives a run that is loaded, and whose lease was proven, its other version, or remembers why not. `seq` is the number that
/// the append's first entry has or would have.
pub(crate) fn apply(work: &mut Work, append: &Append, to_id: i64, seq: Seq) -> Result<()> {
    let id = append.run;
    let from_id = work.get(id).map_or(to_id, |row| row.version_id);
    let stayed = append.swap.as_ref().and_then(|swap| swap.stays.clone());
    if from_id == to_id {
        return Ok(());
    }
    match stayed {
        // Its own version has not failed yet.
        Some(_) => work.advance(id, |row| row.host_traps = 0)?,
        None => work.change(id, |row| {
            row.version_id = to_id;
            row.host_traps = 0;
            Ok(())
        })?,
    }
    work.swap(
        id,
        SwapRow {
            seq,
            at: append.now,
            from_id,
            to_id,
            stayed,
            restarted: matches!(append.then, Then::Restart),
        },
    );
    Ok(())
}

/// The number of the version that a person wants a run on.
///
/// # Errors
/// [`Error::StaleRegistry`] when the module does not have it.
pub(crate) fn asked(small: &impl Small, asked: Option<&Asked>) -> Result<Option<i64>> {
    let id = |asked: &Asked| {
        small
            .version_id(&asked.module, asked.version)
            .ok_or(Error::StaleRegistry)
    };
    asked.map(id).transpose()
}

/// Lets a run that is loaded go by what was asked for: one that is blocked is tried again.
pub(crate) fn ask(work: &mut Work, run: RunId, now: Timestamp) -> Result<Commanded> {
    let Some(row) = work.get(run) else {
        return Ok(Commanded::NotFound);
    };
    match row.state.phase {
        None => return Ok(Commanded::Refused(row.state)),
        Some(Phase::Blocked) => super::command::unblock(work, run, now)?,
        Some(_) => {}
    }
    let state = work.get(run).map(|row| row.state);
    Ok(state.map_or(Commanded::NotFound, Commanded::Done))
}

/// Makes runs that are loaded ready, to begin again.
pub(crate) fn wake_to_restart(work: &mut Work, runs: &[RunId], now: Timestamp) -> Result<()> {
    for run in runs {
        work.change(*run, |row| row.ready(Event::Wake, now))?;
    }
    Ok(())
}

/// A policy from its number on disk.
pub(crate) fn policy(number: i64) -> Result<Policy> {
    Policy::from_number(number).ok_or_else(|| Error::Corrupt(format!("{number} is not a policy")))
}

/// Rows of one batch, each once.
pub(crate) fn once(rows: &mut Vec<(RunId, SwapRow)>) {
    rows.sort_by_key(|(run, row)| (*run, row.seq, row.at, row.to_id));
    rows.dedup_by_key(|(run, row)| (*run, row.seq, row.at, row.to_id));
}
