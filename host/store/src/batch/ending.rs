//! What may end runs from outside by itself: how it stands in the rows of waits, and what becomes of deadlines. The same on
//! every database.

use std::collections::HashMap;
use std::time::Duration;

use dormouse_core::ending::{Clock, Deadline, Due};
use dormouse_core::{EventId, RunId, Seq, Timestamp};

use super::execute::Look;
use super::ingest::{Creation, Small};
use super::runs::Work;
use super::waits::kind;
use crate::command::Commanded;
use crate::error::{Error, Result};
use crate::ingest::NewEvent;

/// The first operation of these rows, counted downwards: no journal gets there.
const LAST: Seq = Seq::MAX;
/// The first of those for deadlines.
const LAST_DEADLINE: Seq = LAST - 16;

/// A row of `waits` that may end its run.
pub(crate) struct Row<'i> {
    pub(crate) run: RunId,
    pub(crate) operation: Seq,
    pub(crate) kind: i64,
    pub(crate) name: &'i str,
    pub(crate) path: String,
    pub(crate) key: &'i str,
    pub(crate) condition: Option<&'i str>,
    pub(crate) until: Option<Timestamp>,
}

/// The rows that new runs come with.
pub(crate) fn rows<'i>(creations: &[Creation<'i>]) -> Vec<Row<'i>> {
    let mut rows = Vec::new();
    for creation in creations {
        let run = creation.run;
        for (number, cancels) in (0..).zip(&run.ends.cancel_on) {
            rows.push(Row {
                run: run.id,
                operation: LAST - number,
                kind: kind::CANCELS,
                name: &cancels.event,
                path: cancels.path.clone(),
                key: &cancels.key,
                condition: cancels.condition.as_deref(),
                until: cancels.until,
            });
        }
        for (number, deadline) in (0..).zip(&run.ends.deadlines) {
            rows.push(Row {
                run: run.id,
                operation: LAST_DEADLINE - number,
                kind: kind::DEADLINE,
                name: deadline.clock.as_str(),
                path: deadline.period.as_millis().to_string(),
                key: "",
                condition: None,
                until: Some(deadline.due),
            });
        }
    }
    rows
}

/// The names and paths of events that cancel new runs, of those that are not known yet: each once, in order.
pub(crate) fn new_paths(small: &impl Small, creations: &[Creation<'_>]) -> Vec<(String, String)> {
    let cancels = creations.iter().flat_map(|creation| &creation.run.ends.cancel_on);
    let mut paths: Vec<(String, String)> = cancels
        .filter(|cancels| !small.wait_paths(&cancels.event).contains(&cancels.path))
        .map(|cancels| (cancels.event.clone(), cancels.path.clone()))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// The places of events in a batch.
pub(crate) type Places = HashMap<EventId, usize>;

/// Where the events of a batch stand: of two with one id, the first.
pub(crate) fn places<'i>(events: impl Iterator<Item = &'i NewEvent>) -> Places {
    let mut places = Places::new();
    for (place, event) in events.enumerate() {
        places.entry(event.id).or_insert(place);
    }
    places
}

/// New runs that events may cancel: behind which place. One whose event is not among the batch's is cancelled by none of
/// them.
pub(crate) fn born(creations: &[Creation<'_>], places: &Places) -> HashMap<RunId, usize> {
    let may_end = creations
        .iter()
        .filter(|creation| !creation.run.ends.cancel_on.is_empty());
    may_end
        .map(|creation| {
            let place = places.get(&creation.run.event_id).copied();
            (creation.run.id, place.unwrap_or(usize::MAX))
        })
        .collect()
}

/// A run that an event cancels.
pub(crate) struct Cancelled {
    pub(crate) run: RunId,
    pub(crate) event: Option<EventId>,
    pub(crate) reason: String,
    pub(crate) at: Timestamp,
}

/// Cancels runs that are loaded. Answers with those that had not ended.
pub(crate) async fn cancel(
    look: &mut impl Look,
    work: &mut Work,
    cancels: Vec<Cancelled>,
) -> Result<Vec<Cancelled>> {
    let mut cancelled = Vec::with_capacity(cancels.len());
    for one in cancels {
        let reason = Some(one.reason.clone());
        if let Commanded::Done(_) = super::command::cancel(look, work, one.run, reason, one.at).await? {
            cancelled.push(one);
        }
    }
    Ok(cancelled)
}

/// Runs that events have cancelled, and when: for what is kept beside the events.
pub(crate) fn by_events(cancelled: &[Cancelled]) -> Vec<(EventId, RunId, Timestamp)> {
    let by_events = cancelled
        .iter()
        .filter_map(|one| Some((one.event?, one.run, one.at)));
    by_events.collect()
}

/// A deadline as it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) run: RunId,
    pub(crate) operation: Seq,
    pub(crate) deadline: Deadline,
}

impl Stored {
    /// From its cells.
    pub(crate) fn read(run: RunId, operation: Seq, name: &str, path: &str, due: Timestamp) -> Result<Stored> {
        let corrupt = || Error::Corrupt(format!("run {run} has the deadline {name:?} {path:?}"));
        Ok(Stored {
            run,
            operation,
            deadline: Deadline {
                clock: Clock::parse(name).ok_or_else(corrupt)?,
                period: Duration::from_millis(path.parse().map_err(|_| corrupt())?),
                due,
            },
        })
    }
}

/// What becomes of deadlines that are due.
#[derive(Default)]
pub(crate) struct Settled {
    /// Rows to drop: they were kept.
    pub(crate) kept: Vec<(RunId, Seq)>,
    /// Rows that are looked at again.
    pub(crate) later: Vec<(RunId, Seq, Timestamp)>,
    /// Runs that are cancelled.
    pub(crate) over: Vec<Cancelled>,
}

/// Decides about deadlines of runs that are loaded.
pub(crate) fn settle(work: &Work, due: &[Stored], now: Timestamp) -> Settled {
    let mut settled = Settled::default();
    for stored in due {
        let row = work.get(stored.run);
        let decided = row.map_or(Due::Kept, |row| {
            stored.deadline.decide(row.state.status, row.started_at, now)
        });
        match decided {
            Due::Kept => settled.kept.push((stored.run, stored.operation)),
            Due::Later(at) => settled.later.push((stored.run, stored.operation, at)),
            Due::Over if settled.over.iter().any(|over| over.run == stored.run) => {}
            Due::Over => settled.over.push(Cancelled {
                run: stored.run,
                event: None,
                reason: stored.deadline.reason(),
                at: now,
            }),
        }
    }
    settled
}
