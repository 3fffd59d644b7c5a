//! Cancelling many runs with one command.

use dormouse_core::{EventId, Json, RunId, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::cache::Cache;
use super::execute::Writing;
use super::runs::{flush, load};
use super::sql::{Cells, execute, fetch, list_text};
use super::throttles;
use crate::batch;
use crate::batch::ingest::Small as _;
use crate::batch::runs::{Work, function_name, place};
use crate::batch::throttles::waiting;
use crate::cancellation::{
    Batch, Cancellation, CancellationFilter, CancellationId, Candidate, Examined, NewCancellation,
};
use crate::error::Result;

/// The cells of [`read`].
macro_rules! columns {
    () => {
        "c.id, f.module, f.function, c.started_after_ms, c.started_before_ms, c.condition, c.created_ms, c.done_ms, \
         c.cancelled, c.function_id, c.cursor_id, c.until_id FROM cancellations c JOIN functions f ON f.id = c.function_id"
    };
}

/// Runs to look at, and the events of those that live, if they are asked for (?5).
pub(super) const CANDIDATES: &str = "SELECT looked.id, looked.phase, CASE WHEN ?5 AND looked.phase IS NOT NULL THEN \
     CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END END \
     FROM (SELECT id, phase, event_id FROM runs WHERE function_id = ?1 AND id > ?2 AND id < ?3 ORDER BY id LIMIT ?4) AS looked \
     LEFT JOIN events e ON e.id = looked.event_id ORDER BY looked.id";
const _: () = assert!(place::EVENT == -3);

pub(super) async fn put(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    new: &NewCancellation,
) -> Result<Cancellation> {
    cache.number_function(conn, &new.function).await?;
    let function_id = cache.function_id(&new.function)?;
    let (cursor, until) = new.bounds();
    execute(
        conn,
        "INSERT INTO cancellations (id, function_id, started_after_ms, started_before_ms, condition, created_ms, \
         cursor_id, until_id, cancelled) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
        |args| {
            args.event(new.id)
                .int(function_id)
                .int_or_null(new.started_after.map(Timestamp::as_millis))
                .int_or_null(new.started_before.map(Timestamp::as_millis))
                .text_or_null(new.condition.as_deref())
                .time(new.now)
                .run(cursor)
                .run(until);
        },
    )
    .await?;
    Ok(new.fresh())
}

pub(super) async fn delete(conn: &mut SqliteConnection, id: CancellationId) -> Result<u64> {
    execute(conn, "DELETE FROM cancellations WHERE id = ?", |args| {
        args.event(id);
    })
    .await
}

pub(super) async fn list(
    conn: &mut SqliteConnection,
    filter: &CancellationFilter,
) -> Result<Vec<Cancellation>> {
    let rows = fetch(
        conn,
        concat!(
            "SELECT ",
            columns!(),
            " WHERE (?2 IS NULL OR f.module IN (SELECT value FROM json_each(?2))) AND (?3 IS NULL OR c.id = ?3) \
             ORDER BY c.id DESC LIMIT ?1"
        ),
        |args| {
            args.int(filter.limit.into())
                .text_or_null(filter.modules.as_deref().map(list_text).as_deref())
                .bytes_or_null(filter.id.map(EventId::to_bytes).as_ref().map(<[u8; 16]>::as_slice));
        },
    )
    .await?;
    rows.iter()
        .map(|row| read(row).map(|(found, ..)| found))
        .collect()
}

/// A cancellation, its function's number, and the runs that are left of it.
fn read(row: &SqliteRow) -> Result<(Cancellation, i64, RunId, RunId)> {
    let mut cells = Cells::of(row);
    let cancellation = Cancellation {
        id: EventId::from_bytes(cells.bytes()?),
        function: function_name(cells.text()?, cells.text()?)?,
        started_after: cells.time_or_null()?,
        started_before: cells.time_or_null()?,
        condition: cells.text_or_null()?.map(str::to_owned),
        created_at: cells.time()?,
        done_at: cells.time_or_null()?,
        cancelled: cells.int()?.unsigned_abs(),
    };
    Ok((cancellation, cells.int()?, cells.run()?, cells.run()?))
}

pub(super) async fn next(conn: &mut SqliteConnection, limit: u32) -> Result<Option<Batch>> {
    let rows = fetch(
        conn,
        concat!(
            "SELECT ",
            columns!(),
            " WHERE c.done_ms IS NULL ORDER BY c.id LIMIT 1"
        ),
        |_| {},
    )
    .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (cancellation, function_id, cursor, until) = read(row)?;
    let rows = fetch(conn, CANDIDATES, |args| {
        args.int(function_id)
            .run(cursor)
            .run(until)
            .int(limit.into())
            .int(cancellation.condition.is_some().into());
    })
    .await?;
    let mut candidates = Vec::new();
    let mut last = None;
    for row in &rows {
        let mut cells = Cells::of(row);
        let run = cells.run()?;
        last = Some(run);
        if cells.int_or_null()?.is_some() {
            let event = cells.text_or_null()?.map(Json::trusted);
            candidates.push(Candidate { run, event });
        }
    }
    Ok(Some(Batch {
        cancellation,
        candidates,
        last,
    }))
}

/// Cancels what was found to be meant. True: some waiting run was made ready.
pub(super) async fn examined(conn: &mut SqliteConnection, examined: &Examined) -> Result<(Vec<RunId>, bool)> {
    let found = fetch(conn, "SELECT 1 FROM cancellations WHERE id = ?", |args| {
        args.event(examined.id);
    })
    .await?;
    if found.is_empty() {
        return Ok((Vec::new(), false));
    }
    let mut work = Work::default();
    load(conn, &mut work, examined.runs.clone()).await?;
    let waited = waiting(&work, &examined.runs);
    let mut writing = Writing(conn);
    let cancelled = batch::command::cancel_all(&mut writing, &mut work, &examined.runs, examined.now).await?;
    throttles::left(conn, &mut work, &waited, Some(examined.now)).await?;
    let woken = work.woke;
    flush(conn, &mut work).await?;
    execute(
        conn,
        "UPDATE cancellations SET cursor_id = max(cursor_id, coalesce(?2, cursor_id)), \
         done_ms = coalesce(done_ms, CASE WHEN ?2 IS NULL THEN ?3 END), cancelled = cancelled + ?4 WHERE id = ?1",
        |args| {
            args.event(examined.id)
                .run_or_null(examined.last)
                .time(examined.now)
                .int(cancelled.len() as i64);
        },
    )
    .await?;
    Ok((cancelled, woken))
}
