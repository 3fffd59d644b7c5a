//! A batch's runs: loaded together, changed in memory, written back together.
//!
//! What a run's row says decides where else it stands: phase queued means one row in `ready`, a waiting phase with a
//! time means one row in `timers`. [`Work::flush`] derives those rows from the change, so that no operation can forget
//! them. Absent on purpose: decisions about single operations, which are in their own rooms.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use dormouse_core::journal::Record;
use dormouse_core::run::{Event, Phase, RunError, State, Status};
use dormouse_core::{Json, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;

use super::sql::{Args, Cells, Rows};
use super::waits;
use crate::error::{Error, Result};
use crate::execute::{Completion, LogLine};
use crate::schedule::Incarnation;
use crate::wait::NewWait;

/// Payloads longer than this go to `blobs`.
pub(super) const INLINE_BYTES_MAX: usize = 64 << 10;

/// The one shard of a SQLite store. Postgres spreads its queues over several.
pub(super) const SHARD: i64 = 0;

/// Places in `blobs` that are not journal entries.
pub(super) mod place {
    /// A run's output.
    pub(crate) const OUTPUT: i64 = -1;
    /// What `continue-with` handed on.
    pub(crate) const CONTINUED: i64 = -2;
    /// An event.
    pub(crate) const EVENT: i64 = -3;
}

/// What changes in a run, without what it was created with.
#[derive(Clone, Debug)]
pub(super) struct RunRow {
    pub(super) id: RunId,
    pub(super) version_id: i64,
    pub(super) state: State,
    pub(super) owner: Option<Incarnation>,
    pub(super) epoch: i64,
    pub(super) due: Option<Timestamp>,
    pub(super) queued_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) journal_base: u32,
    pub(super) journal_next: u32,
    pub(super) journal_bytes: u64,
    pub(super) log_lines: u32,
    pub(super) claims: u32,
    pub(super) host_traps: u32,
    pub(super) continued: bool,
    pub(super) reason: Option<String>,
    /// Whether completions are stored for it.
    pub(super) completions: bool,
    /// Whether waits are stored for it.
    pub(super) waits: bool,
}

/// The cells [`RunRow::read`] expects. The reason is not read: every change of state gives a new one.
macro_rules! hot_columns {
    () => {
        "r.id, r.version_id, r.status, r.phase, r.owner, r.epoch, r.due_ms, r.queued_ms, r.started_ms, r.ended_ms, \
         r.journal_base, r.journal_next, r.journal_bytes, r.log_lines, r.claims, r.host_traps, r.continued, \
         EXISTS (SELECT 1 FROM completions c WHERE c.run_id = r.id), \
         EXISTS (SELECT 1 FROM waits w WHERE w.run_id = r.id)"
    };
}
pub(super) use hot_columns;

static LOAD: Rows = Rows::new(
    concat!("SELECT ", hot_columns!(), " FROM runs r WHERE r.id IN (VALUES "),
    1,
    ")",
);

/// Writes all that may change. Rewrites the index of live runs, so it is for changes of state.
static MOVE: Rows = Rows::new(
    "UPDATE runs SET version_id = v.column2, status = v.column3, phase = v.column4, owner = v.column5, \
     epoch = v.column6, due_ms = v.column7, queued_ms = v.column8, started_ms = v.column9, ended_ms = v.column10, \
     journal_base = v.column11, journal_next = v.column12, journal_bytes = v.column13, log_lines = v.column14, \
     claims = v.column15, host_traps = v.column16, continued = v.column17, reason = v.column18 FROM (VALUES ",
    18,
    ") AS v WHERE runs.id = v.column1",
);

/// Writes what changes while a run keeps its state. No indexed column is among it.
static ADVANCE: Rows = Rows::new(
    "UPDATE runs SET journal_next = v.column2, journal_bytes = v.column3, log_lines = v.column4, claims = v.column5, \
     host_traps = v.column6 FROM (VALUES ",
    6,
    ") AS v WHERE runs.id = v.column1",
);

static JOURNAL: Rows = Rows::insert(
    "INSERT INTO journal (run_id, seq, kind, name, at_ms, meta, large, payload) SELECT * FROM (VALUES ",
    8,
);
static LOGS: Rows = Rows::insert(
    "INSERT OR REPLACE INTO logs (run_id, number, at_ms, level, step, message, fields) SELECT * FROM (VALUES ",
    7,
);
static OUTCOMES: Rows = Rows::insert(
    "INSERT OR REPLACE INTO outcomes (run_id, large, output, error) SELECT * FROM (VALUES ",
    4,
);
static BLOBS: Rows = Rows::insert(
    "INSERT OR REPLACE INTO blobs (owner_id, seq, bytes) SELECT * FROM (VALUES ",
    3,
);
static COMPLETIONS: Rows = Rows::insert(
    "INSERT OR IGNORE INTO completions (run_id, operation, at_ms, failed, payload) SELECT * FROM (VALUES ",
    5,
);
static COMPLETIONS_DELETE: Rows = Rows::new(
    "DELETE FROM completions WHERE (run_id, operation) IN (VALUES ",
    2,
    ")",
);
static COMPLETIONS_CLEAR: Rows = Rows::new("DELETE FROM completions WHERE run_id IN (VALUES ", 1, ")");
static JOURNAL_CLEAR: Rows = Rows::new("DELETE FROM journal WHERE run_id IN (VALUES ", 1, ")");
static JOURNAL_BLOBS_CLEAR: Rows = Rows::new(
    "DELETE FROM blobs WHERE seq >= 0 AND owner_id IN (VALUES ",
    1,
    ")",
);
static READY: Rows = Rows::insert(
    "INSERT INTO ready (shard, at_ms, run_id) SELECT * FROM (VALUES ",
    3,
);
static READY_DELETE: Rows = Rows::new(
    "DELETE FROM ready WHERE (shard, at_ms, run_id) IN (VALUES ",
    3,
    ")",
);
static TIMERS: Rows = Rows::insert(
    "INSERT INTO timers (shard, due_ms, run_id) SELECT * FROM (VALUES ",
    3,
);
static TIMERS_DELETE: Rows = Rows::new(
    "DELETE FROM timers WHERE (shard, due_ms, run_id) IN (VALUES ",
    3,
    ")",
);

/// A row of `ready` or `timers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Ready(Timestamp),
    Timer(Timestamp),
}

impl RunRow {
    pub(super) fn read(cells: &mut Cells<'_>) -> Result<RunRow> {
        Ok(RunRow {
            id: cells.run()?,
            version_id: cells.int()?,
            state: state(cells.int()?, cells.int_or_null()?)?,
            owner: cells.node_or_null()?,
            epoch: cells.int()?,
            due: cells.time_or_null()?,
            queued_at: cells.time()?,
            started_at: cells.time_or_null()?,
            ended_at: cells.time_or_null()?,
            journal_base: cells.number()?,
            journal_next: cells.number()?,
            journal_bytes: cells.int()?.unsigned_abs(),
            log_lines: cells.number()?,
            claims: cells.number()?,
            host_traps: cells.number()?,
            continued: cells.flag()?,
            reason: None,
            completions: cells.flag()?,
            waits: cells.flag()?,
        })
    }

    fn place(&self) -> Place {
        match (self.state.phase, self.due) {
            (Some(Phase::Queued), Some(at)) => Place::Ready(at),
            (Some(Phase::Sleeping | Phase::Waiting | Phase::BackingOff | Phase::Limited), Some(at)) => {
                Place::Timer(at)
            }
            _ => Place::Nowhere,
        }
    }

    /// Moves the run on, with its new reason.
    ///
    /// # Errors
    /// When the event cannot happen to the run: the store and its caller disagree about what is stored.
    pub(super) fn on(&mut self, event: Event, reason: Option<String>) -> Result<()> {
        self.state = self
            .state
            .on(event)
            .map_err(|illegal| Error::Corrupt(format!("run {}: {illegal}", self.id)))?;
        self.reason = reason;
        self.due = None;
        Ok(())
    }

    /// Makes the run ready for any node.
    pub(super) fn ready(&mut self, event: Event, now: Timestamp) -> Result<()> {
        self.on(event, None)?;
        self.owner = None;
        self.due = Some(now);
        Ok(())
    }

    /// Leases the run to a node, or blocks it when that was done too often to no effect. True: it is leased.
    pub(super) fn claim(&mut self, node: Incarnation, now: Timestamp) -> Result<bool> {
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

/// A state from its numbers on disk.
pub(super) fn state(status: i64, phase: Option<i64>) -> Result<State> {
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

struct Slot {
    row: RunRow,
    before: Place,
    change: Change,
}

/// What one batch reads of runs and is going to write.
#[derive(Default)]
pub(super) struct Work {
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
    waits_cleared: Vec<RunId>,
    /// A waiting run was made ready by what it waited for.
    pub(super) woke: bool,
    journal_cleared: Vec<RunId>,
}

impl Work {
    /// Loads runs that are not loaded yet.
    pub(super) async fn load(&mut self, conn: &mut SqliteConnection, mut ids: Vec<RunId>) -> Result<()> {
        ids.retain(|id| !self.runs.contains_key(id));
        // In order of the key, so that neighbours are read from the same page.
        ids.sort_unstable();
        ids.dedup();
        for row in LOAD
            .fetch(conn, &ids, |args, id| {
                args.run(*id);
            })
            .await?
        {
            self.add(RunRow::read(&mut Cells::of(&row))?);
        }
        Ok(())
    }

    /// Takes a run that was read by another statement.
    pub(super) fn add(&mut self, row: RunRow) {
        if let Entry::Vacant(slot) = self.runs.entry(row.id) {
            slot.insert(Slot {
                before: row.place(),
                row,
                change: Change::Nothing,
            });
        }
    }

    /// A run as it is after what was done to it so far.
    pub(super) fn get(&self, id: RunId) -> Option<&RunRow> {
        self.runs.get(&id).map(|slot| &slot.row)
    }

    /// Changes a run's state.
    pub(super) fn change<T>(
        &mut self,
        id: RunId,
        change: impl FnOnce(&mut RunRow) -> Result<T>,
    ) -> Result<T> {
        self.alter(id, Change::Move, change)
    }

    /// Changes what a run may change while it keeps its state.
    pub(super) fn advance(&mut self, id: RunId, change: impl FnOnce(&mut RunRow)) -> Result<()> {
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
        slot.row = row;
        slot.change = slot.change.max(kind);
        Ok(answer)
    }

    pub(super) fn journal(&mut self, run: RunId, record: Record) {
        self.journal.push((run, record));
    }

    pub(super) fn log(&mut self, run: RunId, line: LogLine) {
        self.logs.push((run, line));
    }

    pub(super) fn outcome(&mut self, run: RunId, output: Option<Json>, error: Option<RunError>) {
        self.outcomes.push((run, output, error));
    }

    pub(super) fn blob(&mut self, owner: [u8; 16], place: i64, bytes: Json) {
        self.blobs.push((owner, place, bytes));
    }

    pub(super) fn complete(&mut self, run: RunId, completion: Completion) {
        if let Some(slot) = self.runs.get_mut(&run) {
            slot.row.completions = true;
        }
        self.completions.push((run, completion));
    }

    /// The completions of a run that this batch is going to store.
    pub(super) fn completions_of(&self, run: RunId) -> impl Iterator<Item = &Completion> {
        self.completions
            .iter()
            .filter(move |(of, _)| *of == run)
            .map(|(_, completion)| completion)
    }

    pub(super) fn wait(&mut self, run: RunId, wait: NewWait) {
        if let Some(slot) = self.runs.get_mut(&run) {
            slot.row.waits = true;
        }
        self.waits.push((run, wait));
    }

    /// The waits that this batch is going to store.
    pub(super) fn new_waits(&self) -> &[(RunId, NewWait)] {
        &self.waits
    }

    /// Whether a stored wait is over by what this batch does.
    pub(super) fn is_over(&self, run: RunId, operation: Seq) -> bool {
        self.waits_cleared.contains(&run) || self.waits_ended.contains(&(run, operation))
    }

    /// A wait is over: the stored one, and the one that this batch was going to store.
    pub(super) fn end_wait(&mut self, run: RunId, operation: Seq) {
        self.waits
            .retain(|(of, wait)| (*of, wait.operation) != (run, operation));
        self.waits_ended.push((run, operation));
    }

    pub(super) fn clear_waits(&mut self, run: RunId) {
        self.waits.retain(|(of, _)| *of != run);
        self.waits_cleared.push(run);
    }

    pub(super) fn delivered(&mut self, run: RunId, operation: Seq) {
        self.completions
            .retain(|(of, completion)| (*of, completion.operation) != (run, operation));
        self.delivered.push((run, operation));
    }

    pub(super) fn clear_completions(&mut self, run: RunId) {
        self.completions.retain(|(of, _)| *of != run);
        self.completions_cleared.push(run);
    }

    /// Drops a run's journal: what is stored and what this batch was going to store.
    pub(super) fn clear_journal(&mut self, run: RunId) {
        self.journal.retain(|(of, _)| *of != run);
        self.blobs
            .retain(|(owner, place, _)| *owner != run.to_bytes() || *place < 0);
        self.journal_cleared.push(run);
    }

    /// Journal records of a run that this batch is going to store.
    pub(super) fn unwritten(&self, run: RunId) -> impl Iterator<Item = &Record> {
        self.journal
            .iter()
            .filter(move |(of, _)| *of == run)
            .map(|(_, record)| record)
    }

    /// The operations whose completions this batch removes for having been delivered or cancelled.
    pub(super) fn delivered_of(&self, run: RunId) -> impl Iterator<Item = Seq> {
        self.delivered
            .iter()
            .filter(move |(of, _)| *of == run)
            .map(|(_, operation)| *operation)
    }

    /// Writes everything and forgets it.
    pub(super) async fn flush(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        self.flush_removals(conn).await?;
        self.flush_additions(conn).await?;
        self.flush_runs(conn).await
    }

    async fn flush_removals(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        let run = |args: &mut Args, id: &RunId| {
            args.run(*id);
        };
        let cleared = std::mem::take(&mut self.journal_cleared);
        JOURNAL_CLEAR.apply(conn, &cleared, run).await?;
        JOURNAL_BLOBS_CLEAR.apply(conn, &cleared, run).await?;
        waits::remove(
            conn,
            &std::mem::take(&mut self.waits_ended),
            &std::mem::take(&mut self.waits_cleared),
        )
        .await?;
        COMPLETIONS_CLEAR
            .apply(conn, &std::mem::take(&mut self.completions_cleared), run)
            .await?;
        COMPLETIONS_DELETE
            .apply(
                conn,
                &std::mem::take(&mut self.delivered),
                |args, (id, operation)| {
                    args.run(*id).int((*operation).into());
                },
            )
            .await
    }

    async fn flush_additions(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        waits::insert(conn, &std::mem::take(&mut self.waits)).await?;
        let mut journal = std::mem::take(&mut self.journal);
        // Rows of a run side by side, runs in order of their keys: fewer pages are touched twice.
        journal.sort_by_key(|(id, record)| (*id, record.seq));
        for (id, record) in &journal {
            if let Some(payload) = record
                .payload
                .as_ref()
                .filter(|payload| payload.len() > INLINE_BYTES_MAX)
            {
                self.blobs
                    .push((id.to_bytes(), record.seq.into(), payload.clone()));
            }
        }
        JOURNAL
            .apply(conn, &journal, |args, (id, record)| {
                let large = record
                    .payload
                    .as_ref()
                    .is_some_and(|payload| payload.len() > INLINE_BYTES_MAX);
                let inline = record.payload.as_ref().filter(|_| !large);
                args.run(*id)
                    .int(record.seq.into())
                    .int(record.kind as i64)
                    .text(&record.name)
                    .time(record.at)
                    .text(&record.meta)
                    .int(large.into())
                    .text_or_null(inline.map(Json::as_str));
            })
            .await?;
        LOGS.apply(conn, &std::mem::take(&mut self.logs), |args, (id, line)| {
            args.run(*id)
                .int(line.number.into())
                .time(line.at)
                .text(&line.level)
                .text_or_null(line.step.as_deref())
                .text(&line.message)
                .text_or_null(line.fields.as_ref().map(Json::as_str));
        })
        .await?;
        let outcomes = std::mem::take(&mut self.outcomes);
        for (id, output, _) in &outcomes {
            if let Some(output) = output.as_ref().filter(|output| output.len() > INLINE_BYTES_MAX) {
                self.blobs.push((id.to_bytes(), place::OUTPUT, output.clone()));
            }
        }
        OUTCOMES
            .apply(conn, &outcomes, |args, (id, output, error)| {
                let large = output
                    .as_ref()
                    .is_some_and(|output| output.len() > INLINE_BYTES_MAX);
                let inline = output.as_ref().filter(|_| !large);
                // A run error is texts and JSON: it always serialises.
                let error = error.as_ref().and_then(|error| serde_json::to_string(error).ok());
                args.run(*id)
                    .int(large.into())
                    .text_or_null(inline.map(Json::as_str))
                    .text_or_null(error.as_deref());
            })
            .await?;
        BLOBS
            .apply(
                conn,
                &std::mem::take(&mut self.blobs),
                |args, (owner, place, bytes)| {
                    args.bytes(owner).int(*place).text(bytes.as_str());
                },
            )
            .await?;
        COMPLETIONS
            .apply(
                conn,
                &std::mem::take(&mut self.completions),
                |args, (id, completion)| {
                    let payload = match &completion.outcome {
                        Ok(json) => json.clone(),
                        // A failure is texts and JSON: it always serialises.
                        Err(failure) => Json::from_value(failure).unwrap_or_else(|_| Json::null()),
                    };
                    args.run(*id)
                        .int(completion.operation.into())
                        .time(completion.at)
                        .int(completion.outcome.is_err().into())
                        .text(payload.as_str());
                },
            )
            .await
    }

    async fn flush_runs(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        let mut changed: Vec<Slot> = std::mem::take(&mut self.runs)
            .into_values()
            .filter(|slot| slot.change != Change::Nothing)
            .collect();
        changed.sort_unstable_by_key(|slot| slot.row.id);
        let (moved, advanced): (Vec<Slot>, Vec<Slot>) =
            changed.into_iter().partition(|slot| slot.change == Change::Move);
        ADVANCE
            .apply(conn, &advanced, |args, Slot { row, .. }| {
                args.run(row.id)
                    .int(row.journal_next.into())
                    .int(row.journal_bytes as i64)
                    .int(row.log_lines.into())
                    .int(row.claims.into())
                    .int(row.host_traps.into());
            })
            .await?;
        MOVE.apply(conn, &moved, |args, Slot { row, .. }| {
            args.run(row.id)
                .int(row.version_id)
                .int(row.state.status as i64)
                .int_or_null(row.state.phase.map(|phase| phase as i64))
                .node_or_null(row.owner)
                .int(row.epoch)
                .int_or_null(row.due.map(Timestamp::as_millis))
                .time(row.queued_at)
                .int_or_null(row.started_at.map(Timestamp::as_millis))
                .int_or_null(row.ended_at.map(Timestamp::as_millis))
                .int(row.journal_base.into())
                .int(row.journal_next.into())
                .int(row.journal_bytes as i64)
                .int(row.log_lines.into())
                .int(row.claims.into())
                .int(row.host_traps.into())
                .int(row.continued.into())
                .text_or_null(row.reason.as_deref());
        })
        .await?;
        let mut ready = Vec::new();
        let mut unready = Vec::new();
        let mut timers = Vec::new();
        let mut untimed = Vec::new();
        for slot in &moved {
            let after = slot.row.place();
            if after == slot.before {
                continue;
            }
            match slot.before {
                Place::Ready(at) => unready.push((at, slot.row.id)),
                Place::Timer(at) => untimed.push((at, slot.row.id)),
                Place::Nowhere => {}
            }
            match after {
                Place::Ready(at) => ready.push((at, slot.row.id)),
                Place::Timer(at) => timers.push((at, slot.row.id)),
                Place::Nowhere => {}
            }
        }
        READY_DELETE.apply(conn, &unready, place_args).await?;
        TIMERS_DELETE.apply(conn, &untimed, place_args).await?;
        insert_ready(conn, &ready).await?;
        insert_timers(conn, &timers).await
    }
}

fn place_args(args: &mut Args, (at, run): &(Timestamp, RunId)) {
    args.int(SHARD).time(*at).run(*run);
}

/// Makes runs ready that were just created.
pub(super) async fn insert_ready(conn: &mut SqliteConnection, rows: &[(Timestamp, RunId)]) -> Result<()> {
    READY.apply(conn, rows, place_args).await
}

/// Sets timers of runs that were just created.
pub(super) async fn insert_timers(conn: &mut SqliteConnection, rows: &[(Timestamp, RunId)]) -> Result<()> {
    TIMERS.apply(conn, rows, place_args).await
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![
        &LOAD,
        &MOVE,
        &ADVANCE,
        &JOURNAL,
        &LOGS,
        &OUTCOMES,
        &BLOBS,
        &COMPLETIONS,
        &COMPLETIONS_DELETE,
        &COMPLETIONS_CLEAR,
        &JOURNAL_CLEAR,
        &JOURNAL_BLOBS_CLEAR,
        &READY,
        &READY_DELETE,
        &TIMERS,
        &TIMERS_DELETE,
    ]
}
