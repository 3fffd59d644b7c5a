//! Cancel, wake, unblock.

use dormouse_core::run::Phase;
use dormouse_core::{RunId, Seq, Timestamp};
use sqlx::postgres::PgRow;

use super::execute::Writing;
use super::fault::Attempt;
use super::runs::{flush, hot_columns, load, take};
use super::sql::{Cells, Conn};
use super::writer::Effects;
use super::{throttles, waits};
use crate::batch;
use crate::batch::runs::Work;
use crate::batch::throttles::waiting;
use crate::command::{Commanded, Orphans, unreadable_as_stored};

/// Locks and reads runs that are to end, and with them those whose steps may wait for that: all in the order of their ids.
pub(super) async fn load_to_end(conn: &mut Conn, work: &mut Work, runs: Vec<RunId>) -> Attempt<()> {
    let mut ids = runs;
    ids.extend(waits::parents(conn, &ids).await?);
    load(conn, work, ids).await
}

pub(super) async fn cancel(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    run: RunId,
    now: Timestamp,
) -> Attempt<Commanded> {
    let mut work = Work::default();
    load_to_end(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let mut writing = Writing::on(conn);
    let commanded = batch::command::cancel(&mut writing, &mut work, run, None, now).await;
    let commanded = writing.settle(commanded)?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    effects.woke |= work.woke;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(commanded)
}

/// Whether there are orphans.
pub(super) async fn any_orphans(conn: &mut Conn) -> Attempt<bool> {
    let rows = conn
        .fetch("SELECT EXISTS (SELECT 1 FROM orphans)", |_| {})
        .await?;
    Ok(rows.first().map_or(Ok(false), |row| Cells::of(row).flag())?)
}

/// Ends runs that their callers have given up. Several nodes may do so at once: each takes what the others have not.
pub(super) async fn cancel_orphans(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    limit: u32,
    now: Timestamp,
) -> Attempt<Orphans> {
    let rows = conn
        .fetch(
            "SELECT run_id FROM orphans ORDER BY run_id LIMIT $1 FOR UPDATE SKIP LOCKED",
            |args| {
                args.int(limit.into());
            },
        )
        .await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(Cells::of(row).run()?);
    }
    let mut work = Work::default();
    load(conn, &mut work, ids.clone()).await?;
    let waited = waiting(&work, &ids);
    let orphans = batch::command::cancel_orphans(&mut work, &ids, now)?;
    effects.woke |= work.woke;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    conn.execute("DELETE FROM orphans WHERE run_id = ANY($1)", |args| {
        args.keys(ids.iter().copied());
    })
    .await?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(orphans)
}

pub(super) async fn wake(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    run: RunId,
    operation: Option<Seq>,
    now: Timestamp,
) -> Attempt<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let mut writing = Writing::on(conn);
    let commanded = batch::command::wake(&mut writing, &mut work, run, operation, now).await;
    let commanded = writing.settle(commanded)?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(commanded)
}

pub(super) async fn unblock(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    module: &str,
    now: Timestamp,
) -> Attempt<u64> {
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                hot_columns!(),
                " FROM runs r WHERE r.live AND r.phase = 7 AND r.version_id IN (SELECT id FROM versions WHERE module = $1) \
                 ORDER BY r.id FOR NO KEY UPDATE OF r"
            ),
            |args| {
                args.text(module);
            },
        )
        .await?;
    unblock_rows(conn, effects, &rows, now).await
}

pub(super) async fn retry_unreadable(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    release: &str,
    limit: u32,
    now: Timestamp,
) -> Attempt<u64> {
    let (begins, own) = unreadable_as_stored(release);
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                hot_columns!(),
                " FROM runs r JOIN outcomes o ON o.run_id = r.id WHERE r.live AND r.phase = 7 \
                 AND strpos(o.error, $1) = 1 AND strpos(o.error, $2) = 0 \
                 ORDER BY r.id LIMIT $3 FOR NO KEY UPDATE OF r SKIP LOCKED"
            ),
            |args| {
                args.text(begins).text(&own).int(limit.into());
            },
        )
        .await?;
    unblock_rows(conn, effects, &rows, now).await
}

/// Makes blocked runs ready. How many that were.
async fn unblock_rows(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    rows: &[PgRow],
    now: Timestamp,
) -> Attempt<u64> {
    let (mut work, ids) = take(rows)?;
    for id in &ids {
        batch::command::unblock(&mut work, *id, now)?;
    }
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(rows.len() as u64)
}

// The statements above name the phase by its number on disk.
const _: () = assert!(Phase::Blocked as u8 == 7);
