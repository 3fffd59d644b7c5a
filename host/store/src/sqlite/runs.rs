//! The rows of runs and all that follows from them, on SQLite: read and written in a few multi-row statements.

use dormouse_core::system::Kinds;
use dormouse_core::{Json, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::sql::{Args, Cells, Rows};
use super::{ends, slots, swaps, waits};
use crate::batch::execute::completion_payload;
use crate::batch::runs::{Changes, Hold, RunRow, SHARD, Work, inline, is_large, state};
use crate::error::Result;

/// The cells [`read_row`] expects. The reason is not read: every change of state gives a new one.
macro_rules! hot_columns {
    () => {
        "r.id, r.version_id, r.status, r.phase, r.owner, r.epoch, r.due_ms, r.queued_ms, r.started_ms, r.ended_ms, \
         r.journal_base, r.journal_next, r.journal_bytes, r.log_lines, r.claims, r.host_traps, r.continued, r.parent_id, r.hold, r.needs_slots, \
         EXISTS (SELECT 1 FROM completions c WHERE c.run_id = r.id), \
         EXISTS (SELECT 1 FROM waits w WHERE w.run_id = r.id), (SELECT listened | awaited FROM registry)"
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
     claims = v.column15, host_traps = v.column16, continued = v.column17, reason = v.column18, hold = v.column19 FROM (VALUES ",
    19,
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

pub(super) fn read_row(cells: &mut Cells<'_>) -> Result<RunRow> {
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
        parent: cells.bytes_or_null()?.map(RunId::from_bytes),
        hold: Hold::from_number(cells.int()?)?,
        needs_slots: cells.flag()?,
        reason: None,
        completions: cells.flag()?,
        waits: cells.flag()?,
        listened: Kinds::from_bits(cells.int()?),
    })
}

/// Loads runs that are not loaded yet.
pub(super) async fn load(conn: &mut SqliteConnection, work: &mut Work, ids: Vec<RunId>) -> Result<()> {
    let ids = work.missing(ids);
    for row in LOAD
        .fetch(conn, &ids, |args, id| {
            args.run(*id);
        })
        .await?
    {
        work.add(read_row(&mut Cells::of(&row))?);
    }
    Ok(())
}

/// Writes everything a batch did to runs.
pub(super) async fn flush(conn: &mut SqliteConnection, work: &mut Work) -> Result<()> {
    let changes = work.take();
    remove(conn, &changes).await?;
    add(conn, &changes).await?;
    update(conn, &changes).await?;
    swaps::insert(conn, &changes.swaps).await?;
    slots::write(conn, &changes).await
}

async fn remove(conn: &mut SqliteConnection, changes: &Changes) -> Result<()> {
    let run = |args: &mut Args, id: &RunId| {
        args.run(*id);
    };
    JOURNAL_CLEAR.apply(conn, &changes.journal_cleared, run).await?;
    JOURNAL_BLOBS_CLEAR
        .apply(conn, &changes.journal_cleared, run)
        .await?;
    waits::remove(conn, changes).await?;
    COMPLETIONS_CLEAR
        .apply(conn, &changes.completions_cleared, run)
        .await?;
    COMPLETIONS_DELETE
        .apply(conn, &changes.delivered, |args, (id, operation)| {
            args.run(*id).int((*operation).into());
        })
        .await
}

async fn add(conn: &mut SqliteConnection, changes: &Changes) -> Result<()> {
    waits::insert(conn, &changes.waits).await?;
    ends::insert(conn, &changes.ends).await?;
    JOURNAL
        .apply(conn, &changes.journal, |args, (id, record)| {
            args.run(*id)
                .int(record.seq.into())
                .int(record.kind as i64)
                .text(&record.name)
                .time(record.at)
                .text(&record.meta)
                .int(record.payload.as_ref().is_some_and(is_large).into())
                .text_or_null(inline(record.payload.as_ref()));
        })
        .await?;
    LOGS.apply(conn, &changes.logs, |args, (id, line)| {
        args.run(*id)
            .int(line.number.into())
            .time(line.at)
            .text(&line.level)
            .text_or_null(line.step.as_deref())
            .text(&line.message)
            .text_or_null(line.fields.as_ref().map(Json::as_str));
    })
    .await?;
    OUTCOMES
        .apply(conn, &changes.outcomes, |args, (id, output, error)| {
            // A run error is texts and JSON: it always serialises.
            let error = error.as_ref().and_then(|error| serde_json::to_string(error).ok());
            args.run(*id)
                .int(output.as_ref().is_some_and(is_large).into())
                .text_or_null(inline(output.as_ref()))
                .text_or_null(error.as_deref());
        })
        .await?;
    BLOBS
        .apply(conn, &changes.blobs, |args, (owner, place, bytes)| {
            args.bytes(owner).int(*place).text(bytes.as_str());
        })
        .await?;
    COMPLETIONS
        .apply(conn, &changes.completions, |args, (id, completion)| {
            args.run(*id)
                .int(completion.operation.into())
                .time(completion.at)
                .int(completion.outcome.is_err().into())
                .text(completion_payload(&completion.outcome).as_str());
        })
        .await
}

async fn update(conn: &mut SqliteConnection, changes: &Changes) -> Result<()> {
    ADVANCE
        .apply(conn, &changes.advanced, |args, row| {
            args.run(row.id)
                .int(row.journal_next.into())
                .int(row.journal_bytes as i64)
                .int(row.log_lines.into())
                .int(row.claims.into())
                .int(row.host_traps.into());
        })
        .await?;
    MOVE.apply(conn, &changes.moved, |args, row| {
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
            .text_or_null(row.reason.as_deref())
            .int(row.hold as i64);
    })
    .await?;
    READY_DELETE.apply(conn, &changes.unready, place_args).await?;
    TIMERS_DELETE.apply(conn, &changes.untimed, place_args).await?;
    insert_ready(conn, &changes.ready).await?;
    insert_timers(conn, &changes.timers).await
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
