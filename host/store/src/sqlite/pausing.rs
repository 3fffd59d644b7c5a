//! Pausing and resuming runs and functions.

use dormouse_core::{FunctionName, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::registry::next_generation;
use super::runs::{flush, hot_columns, load, read_row};
use super::sql::{Cells, execute, fetch};
use super::throttles;
use crate::batch;
use crate::batch::ingest::Small as _;
use crate::batch::pausing::may_be_throttled;
use crate::batch::runs::{Hold, Work, function_name};
use crate::batch::throttles::waiting;
use crate::command::Commanded;
use crate::error::Result;
use crate::registry::Changed;

/// Held runs whose functions are not paused, as far as the index leads.
pub(super) const RELEASED: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM runs r WHERE r.hold = 3 AND r.function_id IN (SELECT id FROM functions WHERE paused_ms IS NULL) \
     ORDER BY r.function_id, r.id LIMIT ?"
);
const _: () = assert!(Hold::Function as u8 == 3);

pub(super) async fn pause(conn: &mut SqliteConnection, run: RunId) -> Result<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let commanded = batch::pausing::pause(&mut work, run)?;
    throttles::left(conn, &mut work, &waited, None).await?;
    flush(conn, &mut work).await?;
    Ok(commanded)
}

pub(super) async fn resume(conn: &mut SqliteConnection, run: RunId, now: Timestamp) -> Result<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let throttled = throttles::held(conn, &may_be_throttled(&work, &[run])).await?;
    let commanded = batch::pausing::resume(&mut work, run, &throttled, now)?;
    flush(conn, &mut work).await?;
    Ok(commanded)
}

/// Pauses a function since a time, or ends its pause.
pub(super) async fn function(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    name: &FunctionName,
    since: Option<Timestamp>,
) -> Result<Changed> {
    cache.number_function(conn, name).await?;
    let id = cache.function_id(name)?;
    let changed = execute(
        conn,
        "UPDATE functions SET paused_ms = ?1 WHERE id = ?2 AND (paused_ms IS NULL) <> (?1 IS NULL)",
        |args| {
            args.int_or_null(since.map(Timestamp::as_millis)).int(id);
        },
    )
    .await?;
    if changed == 0 {
        return Ok(Changed::Unchanged(cache.generation()));
    }
    next_generation(conn, cache).await?;
    Ok(Changed::Done(cache.generation()))
}

/// Lets on what functions held that are not paused.
pub(super) async fn release(conn: &mut SqliteConnection, limit: u32, now: Timestamp) -> Result<u64> {
    let rows = fetch(conn, RELEASED, |args| {
        args.int(limit.into());
    })
    .await?;
    let mut work = Work::default();
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = read_row(&mut Cells::of(row))?;
        ids.push(row.id);
        work.add(row);
    }
    let throttled = throttles::held(conn, &may_be_throttled(&work, &ids)).await?;
    batch::pausing::release(&mut work, &ids, &throttled, now)?;
    flush(conn, &mut work).await?;
    Ok(ids.len() as u64)
}

/// The functions that are paused.
pub(super) async fn paused(conn: &mut SqliteConnection) -> Result<Vec<FunctionName>> {
    let rows = fetch(
        conn,
        "SELECT module, function FROM functions WHERE paused_ms IS NOT NULL ORDER BY module, function",
        |_| {},
    )
    .await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::of(row);
            function_name(cells.text()?, cells.text()?)
        })
        .collect()
}
