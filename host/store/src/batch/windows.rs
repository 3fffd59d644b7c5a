//! Windows: events that start one run together. The same on every database.
//!
//! A window's row is among the limits: until when it is open, and its run. Its run waits with a timer that is due then, and
//! says by when it was queued for whether it still is the window's: whatever lets it begin, ends it or takes a turn for it
//! in a throttle's line closes the window, and no row of the window need know.

use std::collections::{BTreeMap, HashMap};

use dormouse_core::flow::{Gate, Gathered, Gathering, Held, Standing, Window};
use dormouse_core::run::{Event, Phase, Status};
use dormouse_core::{EventId, RunId, Timestamp};

use super::ingest::{Additions, Known, Small};
use super::limits::{LimitKey, Limits};
use super::pausing;
use super::runs::{Hold, RunRow, Work};
use crate::error::Result;
use crate::ingest::{Created, Ingest, NewRun};

/// The run of a window, as stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Collected {
    /// The event it starts with: of a batch, the first.
    pub(crate) event: EventId,
    /// How many events a batch has.
    pub(crate) events: u32,
    /// Their bytes together.
    pub(crate) bytes: u64,
    /// For when it is queued, if it still is a window's.
    pub(crate) queued_at: Option<Timestamp>,
    /// It is created in this commit.
    new: bool,
}

impl Collected {
    /// From its cells, beside its row.
    pub(crate) fn stored(row: &RunRow, event: EventId, last: Option<(u32, u64)>) -> Collected {
        let (events, bytes) = last.map_or((0, 0), |(position, bytes)| (position + 1, bytes));
        Collected {
            event,
            events,
            bytes,
            queued_at: collects(row).then_some(row.queued_at),
            new: false,
        }
    }
}

/// Whether a run may be that of an open window.
fn collects(row: &RunRow) -> bool {
    row.state.status == Status::Scheduled
        && match row.state.phase {
            Some(Phase::Limited | Phase::Sleeping) => true,
            Some(Phase::Paused) => row.hold == Hold::Function,
            _ => false,
        }
}

/// Runs of windows.
pub(crate) type Windows = HashMap<RunId, Collected>;

/// What becomes of a window's run that was there.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) version_id: i64,
    pub(crate) config_revision: i64,
    /// The event it starts with.
    pub(crate) event: EventId,
    moved: Moved,
}

/// When a window's run starts from now on.
#[derive(Clone, Debug)]
struct Moved {
    closes: Timestamp,
    reason: String,
    /// The last event came while the function was paused.
    paused: bool,
    /// Why the run waits while that is so.
    held: String,
}

impl Moved {
    fn apply(self, row: &mut RunRow) -> Result<()> {
        row.queued_at = self.closes;
        if row.state.phase == Some(Phase::Paused) {
            row.reason = Some(self.held);
        } else if self.paused {
            row.on(Event::Pause, Some(self.held))?;
            row.hold = Hold::Function;
        } else {
            row.due = Some(self.closes);
            row.reason = Some(self.reason);
        }
        Ok(())
    }
}

/// An event of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) run: RunId,
    pub(crate) position: u32,
    pub(crate) event: EventId,
    /// The bytes of the batch up to this one.
    pub(crate) bytes: u64,
}

/// What a commit does to windows.
#[derive(Default)]
pub(crate) struct Gatherings {
    /// Runs that were there and have another event, by their ids.
    pub(crate) changed: BTreeMap<RunId, Changed>,
    /// Runs that were there and start, because their windows have no room.
    full: Vec<(RunId, Moved)>,
    /// Events of batches.
    pub(crate) members: Vec<Member>,
    /// Events that runs start with no more.
    pub(crate) superseded: Vec<EventId>,
    /// Reruns, and the runs whose events they have, too.
    pub(crate) copies: Vec<(RunId, RunId)>,
}

/// Whether a limit is a window.
pub(crate) fn is_window(key: &LimitKey) -> bool {
    matches!(key.1, Gate::Debounce | Gate::Batch)
}

/// Windows that close later may be open for one of some requests: in microseconds since the epoch, as limits have it.
pub(crate) fn open_from(requests: &[&Ingest]) -> i64 {
    let earliest = requests.iter().map(|request| request.now).min();
    earliest.unwrap_or_default().as_millis().saturating_mul(1_000)
}

/// The runs of the windows among some limits, as far as these may be open, in order.
pub(crate) fn runs(limits: &Limits, keys: &[LimitKey], requests: &[&Ingest]) -> Vec<RunId> {
    let from = open_from(requests);
    let windows = keys.iter().filter(|key| is_window(key));
    let mut runs: Vec<RunId> = windows
        .filter_map(|key| limits.get(key))
        .filter(|standing| standing.used_until > from)
        .map(|standing| standing.run)
        .collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// What an event does to its window. Some: it is in it, and nothing else is to be created. Otherwise the run is that of a
/// window, and held back until that closes.
pub(crate) fn gather<'i>(
    small: &impl Small,
    request: &Ingest,
    run: &'i NewRun,
    gathering: &Gathering,
    known: &mut Known,
    additions: &mut Additions<'i>,
) -> Result<(Created, Option<Held>)> {
    let now = request.now;
    let function_id = small.function_id(&run.function)?;
    let key: LimitKey = (function_id, gathering.gate(), gathering.key.clone());
    let bytes = known.sizes.get(&run.event_id).copied().unwrap_or_default();
    let standing = known.limits.get(&key);
    let found = standing.and_then(|standing| {
        let collected = known.windows.get(&standing.run)?;
        let closes = Timestamp::from_millis(standing.used_until / 1_000);
        (collected.queued_at == Some(closes)).then_some(Window {
            run: standing.run,
            closes,
            events: collected.events,
            bytes: collected.bytes,
        })
    });
    let (of, closes, opened) = match (gathering.decide(found, bytes, now), found) {
        (Gathered::Joins { closes }, Some(window)) => (window.run, closes, false),
        (Gathered::Joins { closes } | Gathered::Opens { closes, .. }, None) => (run.id, closes, true),
        (Gathered::Opens { closes, instead }, Some(window)) => {
            if instead {
                let moved = Moved {
                    closes: now,
                    reason: gathering.reason(now, window.events),
                    paused: false,
                    held: pausing::held(&run.function),
                };
                close(window.run, moved, known, additions);
            }
            (run.id, closes, true)
        }
    };
    let standing = Standing {
        used_until: closes.as_millis().saturating_mul(1_000),
        run: of,
    };
    known.limits.insert(key.clone(), standing);
    additions.limits.insert(key, standing);
    let before = known.windows.get(&of).copied().filter(|_| !opened);
    let is_batch = gathering.gate() == Gate::Batch;
    let after = Collected {
        event: match before {
            Some(before) if is_batch => before.event,
            _ => run.event_id,
        },
        events: before.map_or(0, |before| before.events) + 1,
        bytes: before.map_or(0, |before| before.bytes) + bytes,
        queued_at: Some(closes),
        new: before.is_none_or(|before| before.new),
    };
    known.windows.insert(of, after);
    if is_batch {
        additions.gatherings.members.push(Member {
            run: of,
            position: after.events - 1,
            event: run.event_id,
            bytes: after.bytes,
        });
    } else if let Some(before) = before {
        additions.gatherings.superseded.push(before.event);
    }
    let detail = gathering.detail(of, after.events);
    let reason = (gathering.decision(), now, Some(of), detail);
    additions.decisions.add(run.event_id, function_id, reason);
    let held = Held {
        until: closes,
        turn: false,
        reason: gathering.reason(closes, after.events),
    };
    if !opened {
        let version_id = small
            .version_id(run.function.module(), run.version)
            .unwrap_or_default();
        if after.new {
            // A run of this commit, of the same registry or of another request's.
            let creations = additions.runs.iter_mut();
            for creation in creations.filter(|creation| creation.run.id == of) {
                creation.version_id = version_id;
                creation.config_revision = run.config_revision;
                creation.event_id = after.event;
                creation.paused |= run.held;
                creation.held = Some(held.clone());
            }
        } else {
            let changed = Changed {
                version_id,
                config_revision: run.config_revision,
                event: after.event,
                moved: Moved {
                    closes,
                    reason: held.reason.clone(),
                    paused: run.held,
                    held: pausing::held(&run.function),
                },
            };
            additions.gatherings.changed.insert(of, changed);
        }
    }
    let created = Created::Gathered {
        run: of,
        until: closes,
    };
    Ok((created, opened.then_some(held)))
}

/// A window whose run starts now, because it has no room for what comes.
fn close(run: RunId, moved: Moved, known: &mut Known, additions: &mut Additions<'_>) {
    let Some(collected) = known.windows.get_mut(&run) else {
        return;
    };
    collected.queued_at = None;
    if collected.new {
        let creations = additions.runs.iter_mut();
        for creation in creations.filter(|creation| creation.run.id == run) {
            if let Some(held) = &mut creation.held {
                held.until = moved.closes;
                held.reason.clone_from(&moved.reason);
            }
        }
    } else if let Some(changed) = additions.gatherings.changed.get_mut(&run) {
        changed.moved.closes = moved.closes;
        changed.moved.reason = moved.reason;
    } else {
        additions.gatherings.full.push((run, moved));
    }
}

impl Gatherings {
    /// Whether runs that were there change.
    pub(crate) fn moves(&self) -> bool {
        !self.changed.is_empty() || !self.full.is_empty()
    }

    /// Changes runs that are loaded.
    pub(crate) fn apply(&mut self, work: &mut Work) -> Result<()> {
        for (run, changed) in &self.changed {
            work.change(*run, |row| {
                row.version_id = changed.version_id;
                changed.moved.clone().apply(row)
            })?;
        }
        for (run, moved) in std::mem::take(&mut self.full) {
            work.change(run, |row| moved.apply(row))?;
        }
        Ok(())
    }
}

/// The sizes of a request's events, if any of its runs asks for them.
pub(crate) fn sizes(request: &Ingest) -> HashMap<EventId, u64> {
    let gathers = request.runs.iter().any(|run| run.admission.gathering.is_some());
    let events = request.events.iter().filter(|_| gathers);
    events
        .map(|event| (event.id, event.payload.len() as u64))
        .collect()
}
