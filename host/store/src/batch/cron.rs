//! What a tick leaves on its schedule. The same on every database.

use std::collections::HashSet;

use dormouse_core::cron::Previous;
use dormouse_core::flow::Decision;
use dormouse_core::{RunId, Timestamp};

use super::ingest::{Small, check_carried};
use crate::cron::{LastTick, SkippedTick, Tick};
use crate::error::{Error, Result};
use crate::ingest::{Created, Ingest};

/// What a schedule remembers of a tick, beside where it stands: what it has started, what it has left out.
pub(crate) fn left(tick: &Tick, created: Option<Created>) -> (Option<LastTick>, Option<SkippedTick>) {
    let skipped = |(at, reason): (Timestamp, String)| SkippedTick {
        tick: at,
        at: tick.now,
        reason,
    };
    let Some(start) = &tick.start else {
        return (None, tick.skipped.clone().map(skipped));
    };
    let dropped = match created {
        Some(Created::Dropped {
            decision, until, run, ..
        }) => not_started(decision, until, run),
        Some(Created::Duplicate(run)) => format!("run {run} was started for it before"),
        Some(Created::New { .. } | Created::Held { .. } | Created::Gathered { .. }) | None => {
            let run = start.ingest.runs.first();
            let last = run.map(|run| LastTick {
                tick: start.tick,
                run: run.id,
            });
            return (last, tick.skipped.clone().map(skipped));
        }
    };
    (None, Some(skipped((start.tick, dropped))))
}

/// Why a tick's run was not started, for a person.
pub(crate) fn not_started(decision: Decision, until: Option<Timestamp>, run: Option<RunId>) -> String {
    let next = match (until, run) {
        (Some(until), _) => format!("the next one may start at {until}"),
        (None, Some(run)) => format!("run {run} has not ended"),
        (None, None) => "another may start later".to_owned(),
    };
    format!("its run was not started ({}); {next}", decision.as_str())
}

/// What would make a tick fail, before anything of it is written.
pub(crate) fn check(small: &impl Small, tick: &Tick) -> Result<()> {
    if tick.generation != small.generation() {
        return Err(Error::StaleRegistry);
    }
    match &tick.start {
        Some(start) => check_carried(small, &start.ingest),
        None => Ok(()),
    }
}

/// What ticks that are started bring.
pub(crate) fn ingests<'r>(ticks: &[(usize, &'r Tick)]) -> impl Iterator<Item = &'r Ingest> {
    ticks
        .iter()
        .filter_map(|(_, tick)| tick.start.as_ref().map(|start| &start.ingest))
}

/// What became of the last tick's run, from its row: whether it is there, whether it lives, when it ended.
pub(crate) fn previous(there: bool, live: bool, ended: Option<Timestamp>) -> Previous {
    match (there, live, ended) {
        (true, true, _) => Previous::Live,
        (true, false, Some(at)) => Previous::Ended(at),
        _ => Previous::None,
    }
}

/// The last tick from its cells.
pub(crate) fn last(tick: Option<Timestamp>, run: Option<RunId>) -> Result<Option<LastTick>> {
    match (tick, run) {
        (Some(tick), Some(run)) => Ok(Some(LastTick { tick, run })),
        (None, None) => Ok(None),
        _ => Err(Error::Corrupt("a schedule has half of its last tick".to_owned())),
    }
}

/// The last tick that was left out, from its cells.
pub(crate) fn skipped(
    tick: Option<Timestamp>,
    at: Option<Timestamp>,
    reason: Option<String>,
) -> Result<Option<SkippedTick>> {
    match (tick, at, reason) {
        (Some(tick), Some(at), Some(reason)) => Ok(Some(SkippedTick { tick, at, reason })),
        (None, None, None) => Ok(None),
        _ => Err(Error::Corrupt(
            "a schedule has a part of the tick it left out".to_owned(),
        )),
    }
}

/// A stored schedule's key.
pub(crate) type ScheduleKey = (i64, String);

/// What makes the stored schedules of some modules the wanted ones: those to remove and those to add.
pub(crate) fn changes(
    stored: Vec<ScheduleKey>,
    wanted: Vec<(ScheduleKey, Timestamp)>,
) -> (Vec<ScheduleKey>, Vec<(ScheduleKey, Timestamp)>) {
    let kept: HashSet<&ScheduleKey> = wanted.iter().map(|(key, _)| key).collect();
    let removed: Vec<ScheduleKey> = stored.iter().filter(|key| !kept.contains(key)).cloned().collect();
    let stored: HashSet<ScheduleKey> = stored.into_iter().collect();
    let added = wanted
        .into_iter()
        .filter(|(key, _)| !stored.contains(key))
        .collect();
    (removed, added)
}
