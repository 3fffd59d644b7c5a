//! The rows of runs and all that follows from them, on Postgres: locked in the order of their ids, read and written in
//! one statement each.

use dormouse_core::system::Kinds;
use dormouse_core::{Json, RunId, Timestamp};
use sqlx::postgres::PgRow;

use super::fault::Attempt;
use super::marks::Marks;
use super::sql::{Args, Cells, Conn, Key, Together};
use super::{ends, slots, swaps, waits};
use crate::batch::execute::completion_payload;
use crate::batch::runs::{Changes, Hold, RunRow, SHARD, Work, inline, is_large, state};
use crate::error::Result;

/// The cells [`read_row`] expects. The reason is not read: every change of state gives a new one.
macro_rules! hot_columns {
    () => {
        "r.id, r.version_id, r.status, r.phase, r.owner, r.epoch, r.due_ms, r.queued_ms, r.started_ms, r.ended_ms, \
         r.journal_base, r.journal_next, r.journal_bytes, r.log_lines, r.claims, r.host_traps, r.continued, r.completions, \
         r.waits, r.parent_id, r.hold, r.needs_slots"
    };
}
pub(super) use hot_columns;

/// In order of the ids, as everyone locks runs: whoever locks several waits for nobody that waits for it.
const LOAD: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM runs r WHERE r.id = ANY($1) ORDER BY r.id FOR NO KEY UPDATE"
);

/// Without waiting for anybody, so in any order.
const LOAD_FREE: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM runs r WHERE r.id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED"
);

const MOVE: &str = "UPDATE runs SET version_id = v.version_id, status = v.status, phase = v.phase, \
     live = v.phase IS NOT NULL, unhappy = v.status >= 3, owner = v.owner, epoch = v.epoch, due_ms = v.due_ms, \
     queued_ms = v.queued_ms, started_ms = v.started_ms, ended_ms = v.ended_ms, journal_base = v.journal_base, \
     journal_next = v.journal_next, journal_bytes = v.journal_bytes, log_lines = v.log_lines, claims = v.claims, \
     host_traps = v.host_traps, continued = v.continued, completions = v.completions, waits = v.waits, \
     reason = v.reason, hold = v.hold \
     FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::uuid[], $6::int8[], $7::int8[], $8::int8[], \
     $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int8[], $15::int8[], $16::int8[], \
     $17::bool[], $18::bool[], $19::bool[], $20::text[], $21::int8[]) AS v(id, version_id, status, phase, owner, epoch, due_ms, queued_ms, \
     started_ms, ended_ms, journal_base, journal_next, journal_bytes, log_lines, claims, host_traps, continued, \
     completions, waits, reason, hold) WHERE runs.id = v.id";

/// What changes while a run keeps its state.
const ADVANCE: &str = "UPDATE runs SET journal_next = v.journal_next, journal_bytes = v.journal_bytes, \
     log_lines = v.log_lines, claims = v.claims, host_traps = v.host_traps, completions = v.completions, \
     waits = v.waits \
     FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::bool[], $8::bool[]) \
     AS v(id, journal_next, journal_bytes, log_lines, claims, host_traps, completions, waits) WHERE runs.id = v.id";

const JOURNAL: &str = "INSERT INTO journal (run_id, seq, kind, name, at_ms, meta, large, payload) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::text[], $5::int8[], $6::text[], $7::bool[], $8::text[])";
const LOGS: &str = "INSERT INTO logs (run_id, number, at_ms, level, step, message, fields) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[]) \
     ON CONFLICT (run_id, number) DO UPDATE SET at_ms = excluded.at_ms, level = excluded.level, step = excluded.step, \
     message = excluded.message, fields = excluded.fields";
const OUTCOMES: &str = "INSERT INTO outcomes (run_id, large, output, error) \
     SELECT * FROM UNNEST($1::uuid[], $2::bool[], $3::text[], $4::text[]) \
     ON CONFLICT (run_id) DO UPDATE SET large = excluded.large, output = excluded.output, error = excluded.error";
const BLOBS: &str = "INSERT INTO blobs (owner_id, seq, bytes) SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::text[]) \
     ON CONFLICT (owner_id, seq) DO UPDATE SET bytes = excluded.bytes";
const COMPLETIONS: &str = "INSERT INTO completions (run_id, operation, at_ms, failed, payload) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::bool[], $5::text[]) ON CONFLICT DO NOTHING";
const COMPLETIONS_DELETE: &str = "DELETE FROM completions c USING UNNEST($1::uuid[], $2::int8[]) AS v(run_id, operation) \
     WHERE c.run_id = v.run_id AND c.operation = v.operation";
const COMPLETIONS_CLEAR: &str = "DELETE FROM completions WHERE run_id = ANY($1::uuid[])";
const JOURNAL_CLEAR: &str = "DELETE FROM journal WHERE run_id = ANY($1::uuid[])";
const JOURNAL_BLOBS_CLEAR: &str = "DELETE FROM blobs WHERE seq >= 0 AND owner_id = ANY($1::uuid[])";
pub(super) const READY: &str = "INSERT INTO ready (shard, at_ms, run_id) SELECT 0, v.at_ms, v.run_id FROM UNNEST($1::int8[], $2::uuid[]) AS v(at_ms, run_id)";
const READY_DELETE: &str = "DELETE FROM ready q USING UNNEST($1::int8[], $2::uuid[]) AS v(at_ms, run_id) \
     WHERE q.shard = 0 AND q.at_ms = v.at_ms AND q.run_id = v.run_id";
pub(super) const TIMERS: &str = "INSERT INTO timers (shard, due_ms, run_id) SELECT 0, v.at_ms, v.run_id FROM UNNEST($1::int8[], $2::uuid[]) AS v(at_ms, run_id)";
const TIMERS_DELETE: &str = "DELETE FROM timers q USING UNNEST($1::int8[], $2::uuid[]) AS v(at_ms, run_id) \
     WHERE q.shard = 0 AND q.due_ms = v.at_ms AND q.run_id = v.run_id";
// The statements name the shard by its number.
const _: () = assert!(SHARD == 0);

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
        completions: cells.flag()?,
        waits: cells.flag()?,
        // Whether anybody listens is asked when the end is written.
        listened: Kinds::ALL,
        parent: cells.run_or_null()?,
        hold: Hold::from_number(cells.int()?)?,
        needs_slots: cells.flag()?,
        reason: None,
    })
}

/// Locks and loads those of some runs that are not loaded yet and that nobody else has locked.
pub(super) async fn load_free(conn: &mut Conn, work: &mut Work, ids: Vec<RunId>) -> Attempt<()> {
    let ids = work.missing(ids);
    if ids.is_empty() {
        return Ok(());
    }
    let rows = conn
        .fetch(LOAD_FREE, |args| {
            args.keys(ids.iter().copied());
        })
        .await?;
    for row in &rows {
        work.add(read_row(&mut Cells::of(row))?);
    }
    Ok(())
}

/// Locks and loads runs that are not loaded yet.
pub(super) async fn load(conn: &mut Conn, work: &mut Work, ids: Vec<RunId>) -> Attempt<()> {
    let ids = work.missing(ids);
    let rows = conn
        .fetch(LOAD, |args| {
            args.keys(ids.iter().copied());
        })
        .await?;
    for row in &rows {
        work.add(read_row(&mut Cells::of(row))?);
    }
    Ok(())
}

/// The runs that a statement found and locked, in the order in which it found them.
pub(super) fn take(rows: &[PgRow]) -> Result<(Work, Vec<RunId>)> {
    let mut work = Work::default();
    let mut ids = Vec::with_capacity(rows.len());
    for row in rows {
        let row = read_row(&mut Cells::of(row))?;
        ids.push(row.id);
        work.add(row);
    }
    Ok((work, ids))
}

/// Writes everything a batch did to runs. Answers whether other nodes may want to know.
pub(super) async fn flush(conn: &mut Conn, work: &mut Work, marks: &Marks) -> Attempt<bool> {
    let mut changes = work.take();
    // One statement may not write a row twice; the last one counts.
    last_of_each(&mut changes.logs, |(id, line)| {
        (id.to_bytes(), i64::from(line.number))
    });
    last_of_each(&mut changes.blobs, |(owner, place, _)| (*owner, *place));
    last_of_each(&mut changes.outcomes, |(id, ..)| (id.to_bytes(), 0));
    let mut together = Together::default();
    remove(&mut together, &changes);
    add(&mut together, &changes);
    waits::write(&mut together, &changes);
    slots::write(&mut together, &changes);
    ends::insert(&mut together, &changes.ends);
    update(&mut together, &changes);
    together.run(conn).await?;
    swaps::insert(conn, changes.swaps).await?;
    marks.lower(&changes.ready, &changes.timers);
    let ended = changes.moved.iter().any(|row| row.state.phase.is_none());
    Ok(ended || !changes.ready.is_empty() || !changes.slots_freed.is_empty())
}

fn last_of_each<T>(rows: &mut Vec<T>, key: impl Fn(&T) -> ([u8; 16], i64)) {
    rows.reverse();
    rows.sort_by_key(&key);
    rows.dedup_by_key(|row| key(row));
}

fn remove(together: &mut Together, changes: &Changes) {
    let ids = |args: &mut Args, ids: &[RunId]| {
        args.keys(ids.iter().copied());
    };
    together.add(&changes.journal_cleared, JOURNAL_CLEAR, ids);
    together.add(&changes.journal_cleared, JOURNAL_BLOBS_CLEAR, ids);
    together.add(&changes.completions_cleared, COMPLETIONS_CLEAR, ids);
    together.add(&changes.delivered, COMPLETIONS_DELETE, |args, rows| {
        args.keys(rows.iter().map(|(id, _)| *id))
            .ints(rows.iter().map(|(_, operation)| i64::from(*operation)));
    });
    together.add(&changes.unready, READY_DELETE, bind_places);
    together.add(&changes.untimed, TIMERS_DELETE, bind_places);
}

fn add(together: &mut Together, changes: &Changes) {
    together.add(&changes.journal, JOURNAL, |args, rows| {
        let records = || rows.iter().map(|(_, record)| record);
        args.keys(rows.iter().map(|(id, _)| *id))
            .ints(records().map(|record| record.seq.into()))
            .ints(records().map(|record| record.kind as i64))
            .texts(records().map(|record| record.name.as_str()))
            .ints(records().map(|record| record.at.as_millis()))
            .texts(records().map(|record| record.meta.as_str()))
            .flags(records().map(|record| record.payload.as_ref().is_some_and(is_large)))
            .texts_or_null(records().map(|record| inline(record.payload.as_ref())));
    });
    together.add(&changes.logs, LOGS, |args, rows| {
        let lines = || rows.iter().map(|(_, line)| line);
        args.keys(rows.iter().map(|(id, _)| *id))
            .ints(lines().map(|line| line.number.into()))
            .ints(lines().map(|line| line.at.as_millis()))
            .texts(lines().map(|line| line.level.as_str()))
            .texts_or_null(lines().map(|line| line.step.as_deref()))
            .texts(lines().map(|line| line.message.as_str()))
            .texts_or_null(lines().map(|line| line.fields.as_ref().map(Json::as_str)));
    });
    together.add(&changes.outcomes, OUTCOMES, |args, rows| {
        // A run error is texts and JSON: it always serialises.
        let errors: Vec<Option<String>> = rows
            .iter()
            .map(|(_, _, error)| error.as_ref().and_then(|error| serde_json::to_string(error).ok()))
            .collect();
        args.keys(rows.iter().map(|(id, ..)| *id))
            .flags(
                rows.iter()
                    .map(|(_, output, _)| output.as_ref().is_some_and(is_large)),
            )
            .texts_or_null(rows.iter().map(|(_, output, _)| inline(output.as_ref())))
            .texts_or_null(errors.iter().map(Option::as_deref));
    });
    together.add(&changes.blobs, BLOBS, |args, rows| {
        args.keys(rows.iter().map(|(owner, ..)| Key(*owner)))
            .ints(rows.iter().map(|(_, place, _)| *place))
            .texts(rows.iter().map(|(_, _, bytes)| bytes.as_str()));
    });
    together.add(&changes.completions, COMPLETIONS, |args, rows| {
        let payloads: Vec<Json> = rows
            .iter()
            .map(|(_, completion)| completion_payload(&completion.outcome))
            .collect();
        let completions = || rows.iter().map(|(_, completion)| completion);
        args.keys(rows.iter().map(|(id, _)| *id))
            .ints(completions().map(|completion| completion.operation.into()))
            .ints(completions().map(|completion| completion.at.as_millis()))
            .flags(completions().map(|completion| completion.outcome.is_err()))
            .texts(payloads.iter().map(Json::as_str));
    });
    together.add(&changes.ready, READY, bind_places);
    together.add(&changes.timers, TIMERS, bind_places);
}

fn update(together: &mut Together, changes: &Changes) {
    together.add(&changes.advanced, ADVANCE, |args, rows| {
        args.keys(rows.iter().map(|row| row.id))
            .ints(rows.iter().map(|row| row.journal_next.into()))
            .ints(rows.iter().map(|row| row.journal_bytes as i64))
            .ints(rows.iter().map(|row| row.log_lines.into()))
            .ints(rows.iter().map(|row| row.claims.into()))
            .ints(rows.iter().map(|row| row.host_traps.into()))
            .flags(rows.iter().map(|row| row.completions))
            .flags(rows.iter().map(|row| row.waits));
    });
    together.add(&changes.moved, MOVE, |args, rows| {
        args.keys(rows.iter().map(|row| row.id))
            .ints(rows.iter().map(|row| row.version_id))
            .ints(rows.iter().map(|row| row.state.status as i64))
            .ints_or_null(rows.iter().map(|row| row.state.phase.map(|phase| phase as i64)))
            .keys_or_null(rows.iter().map(|row| row.owner))
            .ints(rows.iter().map(|row| row.epoch))
            .ints_or_null(rows.iter().map(|row| row.due.map(Timestamp::as_millis)))
            .ints(rows.iter().map(|row| row.queued_at.as_millis()))
            .ints_or_null(rows.iter().map(|row| row.started_at.map(Timestamp::as_millis)))
            .ints_or_null(rows.iter().map(|row| row.ended_at.map(Timestamp::as_millis)))
            .ints(rows.iter().map(|row| row.journal_base.into()))
            .ints(rows.iter().map(|row| row.journal_next.into()))
            .ints(rows.iter().map(|row| row.journal_bytes as i64))
            .ints(rows.iter().map(|row| row.log_lines.into()))
            .ints(rows.iter().map(|row| row.claims.into()))
            .ints(rows.iter().map(|row| row.host_traps.into()))
            .flags(rows.iter().map(|row| row.continued))
            .flags(rows.iter().map(|row| row.completions))
            .flags(rows.iter().map(|row| row.waits))
            .texts_or_null(rows.iter().map(|row| row.reason.as_deref()))
            .ints(rows.iter().map(|row| row.hold as i64));
    });
}

/// Rows of `ready` or `timers`.
pub(super) fn bind_places(args: &mut Args, rows: &[(Timestamp, RunId)]) {
    args.ints(rows.iter().map(|(at, _)| at.as_millis()))
        .keys(rows.iter().map(|(_, run)| *run));
}
