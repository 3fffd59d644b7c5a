//! Pausing and resuming runs and functions. A function's pause is written under the registry's lock, taken alone, so that
//! no ingest decides on what it changes.

use dormouse_core::{FunctionName, RunId, Timestamp};

use super::cache::Cache;
use super::fault::Attempt;
use super::registry::next_generation;
use super::runs::{flush, hot_columns, load, take};
use super::sql::{Cells, Conn};
use super::throttles;
use super::writer::Effects;
use crate::batch;
use crate::batch::ingest::Small as _;
use crate::batch::pausing::may_be_throttled;
use crate::batch::runs::{Hold, Work, function_name};
use crate::batch::throttles::waiting;
use crate::command::Commanded;
use crate::registry::Changed;

pub(super) async fn pause(conn: &mut Conn, effects: &mut Effects<'_>, run: RunId) -> Attempt<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let commanded = batch::pausing::pause(&mut work, run)?;
    throttles::left(conn, &mut work, &waited, None).await?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(commanded)
}

pub(super) async fn resume(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    run: RunId,
    now: Timestamp,
) -> Attempt<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let throttled = throttles::held(conn, &may_be_throttled(&work, &[run])).await?;
    let commanded = batch::pausing::resume(&mut work, run, &throttled, now)?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(commanded)
}

/// Pauses a function since a time, or ends its pause.
pub(super) async fn function(
    conn: &mut Conn,
    cache: &mut Cache,
    name: &FunctionName,
    since: Option<Timestamp>,
) -> Attempt<Changed> {
    cache.number_functions(conn, &[name]).await?;
    let id = cache.function_id(name)?;
    let changed = match since {
        Some(since) => {
            conn.execute(
                "UPDATE functions SET paused_ms = $2 WHERE id = $1 AND paused_ms IS NULL",
                |args| {
                    args.int(id).time(since);
                },
            )
            .await?
        }
        None => {
            conn.execute(
                "UPDATE functions SET paused_ms = NULL WHERE id = $1 AND paused_ms IS NOT NULL",
                |args| {
                    args.int(id);
                },
            )
            .await?
        }
    };
    if changed == 0 {
        return Ok(Changed::Unchanged(cache.generation()));
    }
    next_generation(conn, cache).await?;
    Ok(Changed::Done(cache.generation()))
}

/// Lets on what functions held that are not paused. What somebody else has locked is left to them.
pub(super) async fn release(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    limit: u32,
    now: Timestamp,
) -> Attempt<u64> {
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                hot_columns!(),
                " FROM runs r WHERE r.hold = 3 \
                 AND r.function_id = ANY(ARRAY(SELECT id FROM functions WHERE paused_ms IS NULL)) \
                 ORDER BY r.function_id, r.id LIMIT $1 FOR NO KEY UPDATE OF r SKIP LOCKED"
            ),
            |args| {
                args.int(limit.into());
            },
        )
        .await?;
    let (mut work, ids) = take(&rows)?;
    let throttled = throttles::held(conn, &may_be_throttled(&work, &ids)).await?;
    batch::pausing::release(&mut work, &ids, &throttled, now)?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(ids.len() as u64)
}
const _: () = assert!(Hold::Function as u8 == 3);

/// The functions that are paused.
pub(super) async fn paused(conn: &mut Conn) -> Attempt<Vec<FunctionName>> {
    let rows = conn
        .fetch(
            "SELECT module, function FROM functions WHERE paused_ms IS NOT NULL \
             ORDER BY module COLLATE \"C\", function COLLATE \"C\"",
            |_| {},
        )
        .await?;
    let mut paused = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        paused.push(function_name(&cells.text()?, &cells.text()?)?);
    }
    Ok(paused)
}
