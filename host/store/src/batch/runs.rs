//! A batch's runs: loaded together, changed in memory, written back together.
//!
//! What a run's row says decides where else it stands: phase queued means one row in `ready`, a waiting phase with a
//! time means one row in `timers`. [`Work::take`] derives those rows from the change, so that no operation can forget
//! them. Absent on purpose: SQL, and decisions about single operations, which are in their own rooms.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use dormouse_core::journal::Record;
use dormouse_core::run::{Event, Phase, RunError, State, Status};
use dormouse_core::system::Kinds;
use dormouse_core::{FunctionName, Json, RunId, Seq, Timestamp};

use super::swaps::SwapRow;
use crate::error::{Error, Result};
use crate::execute::{Completion, LogLine};
use crate::schedule::Incarnation;
use crate::wait::{NewWait, WaitOn};

/// Payloads longer than this go to `blobs`.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Whether a payload goes to `blobs`.
pub(crate) fn is_large(payload: &Json) -> bool {
    payload.len() > INLINE_BYTES_MAX
}

/// A payload as its own row holds it: nothing when it is in `blobs`.
pub(crate) fn inline(payload: Option<&Json>) -> Option<&str> {
    payload.filter(|payload| !is_large(payload)).map(Json::as_str)
}

/// The one shard there is. The column is there so that queues can be spread over several without a new table.
pub(crate) const SHARD: i64 = 0;

/// Places in `blobs` that are not journal entries.
pub(crate) mod place {
    /// A run's output.
    pub(crate) const OUTPUT: i64 = -1;
    /// What `continue-with` handed on.
    pub(crate) const CONTINUED: i64 = -2;
    /// An event.
    pub(crate) const EVENT: i64 = -3;
}

/// What changes in a run, without what it was created with.
#[derive(Clone, Debug)]
pub(crate) struct RunRow {
    pub(crate) id: RunId,
    pub(crate) version_id: i64,
    pub(crate) state: State,
    pub(crate) owner: Option<Incarnation>,
    pub(crate) epoch: i64,
    pub(crate) due: Option<Timestamp>,
    pub(crate) queued_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) journal_base: u32,
    pub(crate) journal_next: u32,
    pub(crate) journal_bytes: u64,
    pub(crate) log_lines: u32,
    pub(crate) claims: u32,
    pub(crate) host_traps: u32,
    pub(crate) continued: bool,
    /// The run whose step has invoked it.
    pub(crate) parent: Option<RunId>,
    pub(crate) reason: Option<String>,
    pub(crate) hold: Hold,
    /// Whether completions are stored for it.
    pub(crate) completions: bool,
    /// Whether waits may be stored for it.
    pub(crate) waits: bool,
    /// Whether it needs slots while it executes.
    pub(crate) needs_slots: bool,
    /// The events of ends that somebody may listen to.
    pub(crate) listened: Kinds,
}

/// Who holds a run. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nobody.
    None = 0,
    /// A person has asked for it, and its node has not recorded an entry since.
    Asked = 1,
    /// A person: it is paused.
    Person = 2,
    /// Its function's pause: it is paused and was never begun.
    Function = 3,
}

impl Hold {
    /// From the number on disk.
    pub(crate) fn from_number(number: i64) -> Result<Hold> {
        [Hold::None, Hold::Asked, Hold::Person, Hold::Function]
            .into_iter()
            .find(|hold| *hold as i64 == number)
            .ok_or_else(|| Error::Corrupt(format!("{number} does not say who holds a run")))
    }
}

/// A row of `ready` or `timers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Ready(Timestamp),
    Timer(Timestamp),
}

impl RunRow {
    fn place(&self) -> Place {
        match (self.state.phase, self.due) {
            (Some(Phase::Queued), Some(at)) => Place::Ready(at),
            (Some(Phase::Sleeping | Phase::Waiting | Phase::BackingOff | Phase::Limited), Some(at)) => {
                Place::Timer(at)
            }
            _ => Place::Nowhere,
        }
    }

    /// Whether it is in a line for a slot. What a throttle holds back has a timer.
    pub(crate) fn waits_for_slot(&self) -> bool {
        self.needs_slots && self.state.phase == Some(Phase::Limited) && self.due.is_none()
    }

    /// Whether it waits for something that may come from outside, or for a time.
    pub(crate) fn may_be_woken(&self) -> bool {
        let waits = [Phase::Sleeping, Phase::Waiting, Phase::BackingOff, Phase::Limited];
        self.state.phase.is_some_and(|phase| waits.contains(&phase)) && !self.waits_for_slot()
    }

    fn hand(&self) -> Hand {
        match self.state.phase {
            _ if !self.needs_slots => Hand::Empty,
            Some(Phase::Executing) => Hand::Slots(self.epoch),
            Some(Phase::Limited) if self.due.is_none() => Hand::InLine,
            _ => Hand::Empty,
        }
    }

    /// Moves the run on, with its new reason.
    ///
    /// # Errors
    /// When the event cannot happen to the run: the store and its caller disagree about what is stored.
    pub(crate) fn on(&mut self, event: Event, reason: Option<String>) -> Result<()> {
        self.state = self
            .state
            .on(event)
            .map_err(|illegal| Error::Corrupt(format!("run {}: {illegal}", self.id)))?;
        self.reason = reason;
        self.due = None;
        Ok(())
    }

    /// Makes the run ready for any node; or paused, if somebody has asked for that.
    pub(crate) fn ready(&mut self, event: Event, now: Timestamp) -> Result<()> {
        self.on(event, None)?;
        self.owner = None;
        self.due = Some(now);
        if self.hold == Hold::Asked {
            self.hold()?;
        }
        Ok(())
    }

    /// Pauses the run, as a person has asked.
    pub(crate) fn hold(&mut self) -> Result<()> {
        self.on(Event::Pause, Some(super::pausing::PAUSED.to_owned()))?;
        self.owner = None;
        self.hold = Hold::Person;
        Ok(())
    }

    /// Leases the run to a node, or blocks it when that was done too often to no effect. True: it is leased.
    pub(crate) fn claim(&mut self, node: Incarnation, now: Timestamp) -> Result<bool> {
        if self.claims >= dormouse_core::limit::CLAIMS_WITHOUT_ENTRY_MAX {
            // A run is blocked from the queue: a waiting one is woken first.
            self.on(Event::Wake, None)?;
            self.on(Event::Block, Some(crate::schedule::crash_loop().message))?;
            self.owner = None;
            return Ok(false);
        }
        self.on(Event::Claim, None)?;
        self.owner = Some(node);
        self.epoch += 1;
        self.claims += 1;
        self.started_at = self.started_at.or(Some(now));
        Ok(true)
    }
}

/// A function's name from its parts as stored.
pub(crate) fn function_name(module: &str, function: &str) -> Result<FunctionName> {
    FunctionName::new(module, function).map_err(|error| Error::Corrupt(error.to_string()))
}

/// A state from its numbers on disk.
pub(crate) fn state(status: i64, phase: Option<i64>) -> Result<State> {
    let status =
        Status::from_number(status).ok_or_else(|| Error::Corrupt(format!("{status} is not a status")))?;
    let phase = phase
        .map(|number| {
            Phase::from_number(number).ok_or_else(|| Error::Corrupt(format!("{number} is not a phase")))
        })
        .transpose()?;
    Ok(State { status, phase })
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Nothing,
    Advance,
    Move,
}

/// What a run has of the slots that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    Empty,
    /// A place in a line.
    InLine,
    /// All, under a lease's epoch.
    Slots(i64),
}

struct Slot {
    row: RunRow,
    before: Place,
    hand: Hand,
    change: Change,
}

/// What one batch reads of runs and is going to write.
#[derive(Default)]
pub(crate) struct Work {
    runs: HashMap<RunId, Slot>,
    journal: Vec<(RunId, Record)>,
    logs: Vec<(RunId, LogLine)>,
    outcomes: Vec<(RunId, Option<Json>, Option<RunError>)>,
    blobs: Vec<([u8; 16], i64, Json)>,
    completions: Vec<(RunId, Completion)>,
    delivered: Vec<(RunId, Seq)>,
    completions_cleared: Vec<RunId>,
    waits: Vec<(RunId, NewWait)>,
    waits_ended: Vec<(RunId, Seq)>,
    waits_given_up: Vec<(RunId, Seq)>,
    waits_cleared: Vec<RunId>,
    waits_reset: Vec<RunId>,
    orphans: Vec<RunId>,
    ends: Vec<(RunId, Kinds)>,
    swaps: Vec<(RunId, SwapRow)>,
    /// Waiting runs were made ready by what they waited for, or may go by what was freed.
    pub(crate) woke: bool,
    /// Slots were freed.
    pub(crate) freed: bool,
    /// Runs that wait in the line of one of their needs, and since when.
    lines: HashMap<RunId, (i64, Timestamp)>,
    journal_cleared: Vec<RunId>,
}

impl Work {
    /// Of some runs, those that are not loaded yet, each once and in order of the key: neighbours are read from the
    /// same page, and whoever locks them locks them in that order.
    pub(crate) fn missing(&self, mut ids: Vec<RunId>) -> Vec<RunId> {
        ids.retain(|id| !self.runs.contains_key(id));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Takes a run that was read by another statement.
    pub(crate) fn add(&mut self, row: RunRow) {
        if let Entry::Vacant(slot) = self.runs.entry(row.id) {
            slot.insert(Slot {
                before: row.place(),
                hand: row.hand(),
                row,
                change: Change::Nothing,
            });
        }
    }

    /// A run as it is after what was done to it so far.
    pub(crate) fn get(&self, id: RunId) -> Option<&RunRow> {
        self.runs.get(&id).map(|slot| &slot.row)
    }

    /// Changes a run's state.
    pub(crate) fn change<T>(
        &mut self,
        id: RunId,
        change: impl FnOnce(&mut RunRow) -> Result<T>,
    ) -> Result<T> {
        self.alter(id, Change::Move, change)
    }

    /// Changes what a run may change while it keeps its state.
    pub(crate) fn advance(&mut self, id: RunId, change: impl FnOnce(&mut RunRow)) -> Result<()> {
        self.alter(id, Change::Advance, |row| {
            change(row);
            Ok(())
        })
    }

    fn alter<T>(
        &mut self,
        id: RunId,
        kind: Change,
        change: impl FnOnce(&mut RunRow) -> Result<T>,
    ) -> Result<T> {
        let slot = self
            .runs
            .get_mut(&id)
            .ok_or_else(|| Error::Corrupt(format!("run {id} was changed without being read")))?;
        // A change that is refused leaves the run as it was.
        let mut row = slot.row.clone();
        let answer = change(&mut row)?;
        if matches!(slot.row.hand(), Hand::Slots(_)) && row.hand() == Hand::Empty {
            self.freed = true;
            self.woke = true;
        }
        slot.row = row;
        slot.change = slot.change.max(kind);
        Ok(answer)
    }

    /// A run waits in the line of one of its needs.
    pub(crate) fn wait_for_slot(&mut self, run: RunId, number: i64, since: Timestamp) {
        self.lines.insert(run, (number, since));
    }

    pub(crate) fn journal(&mut self, run: RunId, record: Record) {
        self.journal.push((run, record));
    }

    pub(crate) fn log(&mut self, run: RunId, line: LogLine) {
        self.logs.push((run, line));
    }

    pub(crate) fn outcome(&mut self, run: RunId, output: Option<Json>, error: Option<RunError>) {
        self.outcomes.push((run, output, error));
    }

    pub(crate) fn blob(&mut self, owner: [u8; 16], place: i64, bytes: Json) {
        self.blobs.push((owner, place, bytes));
    }

    pub(crate) fn complete(&mut self, run: RunId, completion: Completion) {
        self.completions.push((run, completion));
        if let Some(slot) = self.runs.get_mut(&run) {
            slot.row.completions = true;
            slot.change = slot.change.max(Change::Advance);
        }
    }

    /// The completions of a run that this batch is going to store.
    pub(crate) fn completions_of(&self, run: RunId) -> impl Iterator<Item = &Completion> {
        self.completions
            .iter()
            .filter(move |(of, _)| *of == run)
            .map(|(_, completion)| completion)
    }

    pub(crate) fn wait(&mut self, run: RunId, wait: NewWait) {
        self.waits.push((run, wait));
        if let Some(slot) = self.runs.get_mut(&run) {
            slot.row.waits = true;
            slot.change = slot.change.max(Change::Advance);
        }
    }

    /// The waits that this batch is going to store.
    pub(crate) fn new_waits(&self) -> &[(RunId, NewWait)] {
        &self.waits
    }

    /// Whether a stored wait is over by what this batch does.
    pub(crate) fn is_over(&self, run: RunId, operation: Seq) -> bool {
        self.waits_cleared.contains(&run)
            || self.waits_reset.contains(&run)
            || self.waits_ended.contains(&(run, operation))
    }

    /// A wait is over: the stored one, and the one that this batch was going to store.
    pub(crate) fn end_wait(&mut self, run: RunId, operation: Seq) {
        self.waits
            .retain(|(of, wait)| (*of, wait.operation) != (run, operation));
        self.waits_ended.push((run, operation));
    }

    /// A wait is over because its run has closed the operation: whom it waited for may be an orphan.
    pub(crate) fn give_up_wait(&mut self, run: RunId, operation: Seq) {
        self.orphan(|of, wait| (of, wait.operation) == (run, operation));
        self.end_wait(run, operation);
        self.waits_given_up.push((run, operation));
    }

    /// All waits of a run are given up.
    pub(crate) fn clear_waits(&mut self, run: RunId) {
        self.orphan(|of, _| of == run);
        self.waits.retain(|(of, _)| *of != run);
        self.waits_cleared.push(run);
    }

    /// All waits of a run are given up, and the run goes on: what may end it stays.
    pub(crate) fn reset_waits(&mut self, run: RunId) {
        self.orphan(|of, _| of == run);
        self.waits.retain(|(of, _)| *of != run);
        self.waits_reset.push(run);
    }

    /// A run goes over to another version, or does not.
    pub(crate) fn swap(&mut self, run: RunId, row: SwapRow) {
        self.swaps.push((run, row));
    }

    /// A run has ended, which is to be told if somebody listens.
    pub(crate) fn ended(&mut self, run: RunId) {
        let Some(row) = self.get(run) else { return };
        let kinds = Kinds::of(row.state.status).among(row.listened);
        if !kinds.is_empty() {
            self.ends.push((run, kinds));
        }
    }

    /// Of the waits that this batch was going to store.
    fn orphan(&mut self, given_up: impl Fn(RunId, &NewWait) -> bool) {
        let given_up = self.waits.iter().filter(|(of, wait)| given_up(*of, wait));
        self.orphans
            .extend(given_up.filter_map(|(_, wait)| match &wait.on {
                WaitOn::Child(on) if on.cancels => Some(on.child),
                _ => None,
            }));
    }

    pub(crate) fn delivered(&mut self, run: RunId, operation: Seq) {
        self.completions
            .retain(|(of, completion)| (*of, completion.operation) != (run, operation));
        self.delivered.push((run, operation));
    }

    pub(crate) fn clear_completions(&mut self, run: RunId) {
        self.completions.retain(|(of, _)| *of != run);
        self.completions_cleared.push(run);
    }

    /// Drops a run's journal: what is stored and what this batch was going to store.
    pub(crate) fn clear_journal(&mut self, run: RunId) {
        self.journal.retain(|(of, _)| *of != run);
        self.blobs
            .retain(|(owner, place, _)| *owner != run.to_bytes() || *place < 0);
        self.journal_cleared.push(run);
    }

    /// Journal records of a run that this batch is going to store.
    pub(crate) fn unwritten(&self, run: RunId) -> impl Iterator<Item = &Record> {
        self.journal
            .iter()
            .filter(move |(of, _)| *of == run)
            .map(|(_, record)| record)
    }

    /// The operations whose completions this batch removes for having been delivered or cancelled.
    pub(crate) fn delivered_of(&self, run: RunId) -> impl Iterator<Item = Seq> {
        self.delivered
            .iter()
            .filter(move |(of, _)| *of == run)
            .map(|(_, operation)| *operation)
    }

    /// Everything there is to write, in the order and shape in which it is written. Forgets it.
    pub(crate) fn take(&mut self) -> Changes {
        let mut changes = Changes {
            journal_cleared: std::mem::take(&mut self.journal_cleared),
            completions_cleared: std::mem::take(&mut self.completions_cleared),
            delivered: std::mem::take(&mut self.delivered),
            waits_cleared: std::mem::take(&mut self.waits_cleared),
            waits_reset: std::mem::take(&mut self.waits_reset),
            waits_given_up: std::mem::take(&mut self.waits_given_up),
            orphans: std::mem::take(&mut self.orphans),
            ends: std::mem::take(&mut self.ends),
            swaps: std::mem::take(&mut self.swaps),
            waits_ended: std::mem::take(&mut self.waits_ended),
            waits: std::mem::take(&mut self.waits),
            journal: std::mem::take(&mut self.journal),
            logs: std::mem::take(&mut self.logs),
            outcomes: std::mem::take(&mut self.outcomes),
            blobs: std::mem::take(&mut self.blobs),
            completions: std::mem::take(&mut self.completions),
            ..Changes::default()
        };
        // Rows of a run side by side, runs in order of their keys: fewer pages are touched twice.
        changes.journal.sort_by_key(|(id, record)| (*id, record.seq));
        for (id, record) in &changes.journal {
            if let Some(payload) = record.payload.as_ref().filter(|payload| is_large(payload)) {
                changes
                    .blobs
                    .push((id.to_bytes(), record.seq.into(), payload.clone()));
            }
        }
        for (id, output, _) in &changes.outcomes {
            if let Some(output) = output.as_ref().filter(|output| is_large(output)) {
                changes.blobs.push((id.to_bytes(), place::OUTPUT, output.clone()));
            }
        }
        let mut changed: Vec<Slot> = std::mem::take(&mut self.runs)
            .into_values()
            .filter(|slot| slot.change != Change::Nothing)
            .collect();
        changed.sort_unstable_by_key(|slot| slot.row.id);
        let lines = std::mem::take(&mut self.lines);
        for Slot {
            row,
            before,
            hand,
            change,
        } in changed
        {
            if change == Change::Advance {
                changes.advanced.push(row);
                continue;
            }
            let after = row.place();
            if after != before {
                match before {
                    Place::Ready(at) => changes.unready.push((at, row.id)),
                    Place::Timer(at) => changes.untimed.push((at, row.id)),
                    Place::Nowhere => {}
                }
                match after {
                    Place::Ready(at) => changes.ready.push((at, row.id)),
                    Place::Timer(at) => changes.timers.push((at, row.id)),
                    Place::Nowhere => {}
                }
            }
            if row.needs_slots {
                changes.slots(&row, hand, lines.get(&row.id));
            }
            changes.moved.push(row);
        }
        changes
    }
}

/// What a batch writes of runs.
#[derive(Default)]
pub(crate) struct Changes {
    /// Runs whose journal is dropped before anything is added.
    pub(crate) journal_cleared: Vec<RunId>,
    /// Runs whose completions are dropped.
    pub(crate) completions_cleared: Vec<RunId>,
    /// Single completions to drop.
    pub(crate) delivered: Vec<(RunId, Seq)>,
    /// Runs whose waits are dropped.
    pub(crate) waits_cleared: Vec<RunId>,
    /// Runs whose waits are dropped, but for what may end them.
    pub(crate) waits_reset: Vec<RunId>,
    /// Single waits of those to drop that their own runs have given up.
    pub(crate) waits_given_up: Vec<(RunId, Seq)>,
    /// Runs that are orphans, beside those that dropped waits name.
    pub(crate) orphans: Vec<RunId>,
    /// Ends that are to be told.
    pub(crate) ends: Vec<(RunId, Kinds)>,
    /// Versions that runs go over to, or do not.
    pub(crate) swaps: Vec<(RunId, SwapRow)>,
    /// Single waits to drop.
    pub(crate) waits_ended: Vec<(RunId, Seq)>,
    /// Waits to add.
    pub(crate) waits: Vec<(RunId, NewWait)>,
    /// Entries, in order of their keys.
    pub(crate) journal: Vec<(RunId, Record)>,
    /// Log lines.
    pub(crate) logs: Vec<(RunId, LogLine)>,
    /// Outputs and errors.
    pub(crate) outcomes: Vec<(RunId, Option<Json>, Option<RunError>)>,
    /// Large payloads, those of entries and outputs among them.
    pub(crate) blobs: Vec<([u8; 16], i64, Json)>,
    /// Completions to add.
    pub(crate) completions: Vec<(RunId, Completion)>,
    /// Runs whose state changed, in order of their ids.
    pub(crate) moved: Vec<RunRow>,
    /// Runs that kept their state, in order of their ids.
    pub(crate) advanced: Vec<RunRow>,
    /// Rows of `ready` to add,
    pub(crate) ready: Vec<(Timestamp, RunId)>,
    /// and to drop.
    pub(crate) unready: Vec<(Timestamp, RunId)>,
    /// Runs that take their slots, each with its lease's epoch.
    pub(crate) slots_taken: Vec<(RunId, i64)>,
    /// Runs whose leases, by their epochs, hold slots no more.
    pub(crate) slots_freed: Vec<(RunId, i64)>,
    /// Runs that have neither slots nor a place in a line any more.
    pub(crate) slots_left: Vec<RunId>,
    /// Runs that wait in the line of one of their needs, and since when.
    pub(crate) slots_awaited: Vec<(RunId, i64, Timestamp)>,
    /// Runs that need no slots any more.
    pub(crate) slots_gone: Vec<RunId>,
    /// Rows of `timers` to add,
    pub(crate) timers: Vec<(Timestamp, RunId)>,
    /// and to drop.
    pub(crate) untimed: Vec<(Timestamp, RunId)>,
}

impl Changes {
    /// What becomes of the slots of a run whose state has changed.
    fn slots(&mut self, row: &RunRow, before: Hand, line: Option<&(i64, Timestamp)>) {
        let after = row.hand();
        if let Hand::Slots(epoch) = before
            && after != before
        {
            self.slots_freed.push((row.id, epoch));
        }
        match (before, after) {
            _ if row.state.phase.is_none() => self.slots_gone.push(row.id),
            (_, Hand::Slots(epoch)) if after != before => self.slots_taken.push((row.id, epoch)),
            (_, Hand::InLine) => {
                self.slots_awaited
                    .extend(line.map(|(number, since)| (row.id, *number, *since)));
            }
            (Hand::InLine | Hand::Slots(_), Hand::Empty) => self.slots_left.push(row.id),
            (Hand::Empty, Hand::Empty) | (_, Hand::Slots(_)) => {}
        }
    }
}
