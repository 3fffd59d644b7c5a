//! Cancelling many runs with one command.

use dormouse_core::{EventId, Json, RunId, Timestamp};
use sqlx::postgres::PgRow;

use super::cache::Cache;
use super::command::load_to_end;
use super::execute::Writing;
use super::fault::Attempt;
use super::runs::flush;
use super::sql::{Cells, Conn};
use super::throttles;
use super::writer::Effects;
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

/// Runs to look at, and the events of those that live, if they are asked for ($5).
const CANDIDATES: &str = "SELECT r.id, r.live, CASE WHEN $5 = 1 AND r.live THEN \
     CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END END \
     FROM (SELECT id, live, event_id FROM runs WHERE function_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4) r \
     LEFT JOIN events e ON e.id = r.event_id ORDER BY r.id";
const _: () = assert!(place::EVENT == -3);

/// The registry's lock is held: the function may get its number here.
pub(super) async fn put(conn: &mut Conn, cache: &mut Cache, new: &NewCancellation) -> Attempt<Cancellation> {
    cache.number_functions(conn, &[&new.function]).await?;
    let function_id = cache.function_id(&new.function)?;
    let (cursor, until) = new.bounds();
    conn.execute(
        "INSERT INTO cancellations (id, function_id, created_ms, cursor_id, until_id, cancelled, condition, \
         started_after_ms, started_before_ms) VALUES ($1, $2, $3, $4, $5, 0, $6, NULLIF($7::int8, $9::int8), NULLIF($8::int8, $9::int8))",
        |args| {
            args.key(new.id)
                .int(function_id)
                .time(new.now)
                .key(cursor)
                .key(until)
                .text_or_null(new.condition.as_deref())
                .int(new.started_after.map_or(i64::MIN, Timestamp::as_millis))
                .int(new.started_before.map_or(i64::MIN, Timestamp::as_millis))
                .int(i64::MIN);
        },
    )
    .await?;
    Ok(new.fresh())
}

pub(super) async fn delete(conn: &mut Conn, id: CancellationId) -> Attempt<u64> {
    conn.execute("DELETE FROM cancellations WHERE id = $1", |args| {
        args.key(id);
    })
    .await
}

pub(super) async fn list(conn: &mut Conn, filter: &CancellationFilter) -> Attempt<Vec<Cancellation>> {
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                columns!(),
                " WHERE ($2 = 0 OR f.module = ANY($3)) AND ($4 = 0 OR c.id = $5) ORDER BY c.id DESC LIMIT $1"
            ),
            |args| {
                let modules = filter.modules.as_deref().unwrap_or_default();
                args.int(filter.limit.into())
                    .int(filter.modules.is_some().into())
                    .texts(modules.iter().map(String::as_str))
                    .int(filter.id.is_some().into())
                    .key(filter.id.unwrap_or(EventId::from_bytes([0; 16])));
            },
        )
        .await?;
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        list.push(read(row)?.0);
    }
    Ok(list)
}

/// A cancellation, its function's number, and the runs that are left of it.
fn read(row: &PgRow) -> Result<(Cancellation, i64, RunId, RunId)> {
    let mut cells = Cells::of(row);
    let cancellation = Cancellation {
        id: EventId::from_bytes(cells.event()?.to_bytes()),
        function: function_name(&cells.text()?, &cells.text()?)?,
        started_after: cells.time_or_null()?,
        started_before: cells.time_or_null()?,
        condition: cells.text_or_null()?,
        created_at: cells.time()?,
        done_at: cells.time_or_null()?,
        cancelled: cells.int()?.unsigned_abs(),
    };
    Ok((cancellation, cells.int()?, cells.run()?, cells.run()?))
}

pub(super) async fn next(conn: &mut Conn, limit: u32) -> Attempt<Option<Batch>> {
    let rows = conn
        .fetch(
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
    let rows = conn
        .fetch(CANDIDATES, |args| {
            args.int(function_id)
                .key(cursor)
                .key(until)
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
        if cells.flag()? {
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

/// The cancellation's row is locked first: of two nodes that have examined the same batch, one waits for the other.
pub(super) async fn examined(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    examined: &Examined,
) -> Attempt<Vec<RunId>> {
    let found = conn
        .fetch("SELECT id FROM cancellations WHERE id = $1 FOR UPDATE", |args| {
            args.key(examined.id);
        })
        .await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut work = Work::default();
    load_to_end(conn, &mut work, examined.runs.clone()).await?;
    let waited = waiting(&work, &examined.runs);
    let mut writing = Writing::on(conn);
    let cancelled = batch::command::cancel_all(&mut writing, &mut work, &examined.runs, examined.now).await;
    let cancelled = writing.settle(cancelled)?;
    throttles::left(conn, &mut work, &waited, Some(examined.now)).await?;
    effects.woke |= work.woke;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    match examined.last {
        Some(last) => {
            conn.execute(
                "UPDATE cancellations SET cursor_id = greatest(cursor_id, $2), cancelled = cancelled + $3 WHERE id = $1",
                |args| {
                    args.key(examined.id).key(last).int(cancelled.len() as i64);
                },
            )
            .await?
        }
        None => {
            conn.execute(
                "UPDATE cancellations SET done_ms = coalesce(done_ms, $2), cancelled = cancelled + $3 WHERE id = $1",
                |args| {
                    args.key(examined.id)
                        .time(examined.now)
                        .int(cancelled.len() as i64);
                },
            )
            .await?
        }
    };
    Ok(cancelled)
}
