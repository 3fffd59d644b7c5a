//! Cancel, wake, unblock.

use dormouse_core::run::Phase;
use dormouse_core::{RunId, Seq, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::execute::Writing;
use super::runs::{flush, hot_columns, load, read_row};
use super::sql::{Cells, Rows, fetch};
use super::throttles;
use crate::batch;
use crate::batch::runs::Work;
use crate::batch::throttles::waiting;
use crate::command::{Commanded, Orphans, unreadable_as_stored};
use crate::error::Result;

/// Ends a run. True: some waiting run was made ready.
pub(super) async fn cancel(
    conn: &mut SqliteConnection,
    run: RunId,
    now: Timestamp,
) -> Result<(Commanded, bool)> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let commanded = batch::command::cancel(&mut Writing(conn), &mut work, run, None, now).await?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    let woken = work.woke;
    flush(conn, &mut work).await?;
    Ok((commanded, woken))
}

static ORPHANS_DELETE: Rows = Rows::new("DELETE FROM orphans WHERE run_id IN (VALUES ", 1, ")");

/// Whether there are orphans.
pub(super) async fn any_orphans(conn: &mut SqliteConnection) -> Result<bool> {
    let rows = fetch(conn, "SELECT EXISTS (SELECT 1 FROM orphans)", |_| {}).await?;
    rows.first().map_or(Ok(false), |row| Cells::of(row).flag())
}

/// Ends runs that their callers have given up.
pub(super) async fn cancel_orphans(
    conn: &mut SqliteConnection,
    limit: u32,
    now: Timestamp,
) -> Result<Orphans> {
    let rows = fetch(
        conn,
        "SELECT run_id FROM orphans ORDER BY run_id LIMIT ?",
        |args| {
            args.int(limit.into());
        },
    )
    .await?;
    let ids: Vec<RunId> = rows
        .iter()
        .map(|row| Cells::of(row).run())
        .collect::<Result<_>>()?;
    let mut work = Work::default();
    load(conn, &mut work, ids.clone()).await?;
    let waited = waiting(&work, &ids);
    let orphans = batch::command::cancel_orphans(&mut work, &ids, now)?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    ORPHANS_DELETE
        .apply(conn, &ids, |args, id| {
            args.run(*id);
        })
        .await?;
    flush(conn, &mut work).await?;
    Ok(orphans)
}

pub(super) async fn wake(
    conn: &mut SqliteConnection,
    run: RunId,
    operation: Option<Seq>,
    now: Timestamp,
) -> Result<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let commanded = batch::command::wake(&mut Writing(conn), &mut work, run, operation, now).await?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    flush(conn, &mut work).await?;
    Ok(commanded)
}

pub(super) async fn unblock(conn: &mut SqliteConnection, module: &str, now: Timestamp) -> Result<u64> {
    let rows = fetch(
        conn,
        concat!(
            "SELECT ",
            hot_columns!(),
            " FROM runs r WHERE r.phase = 7 AND r.version_id IN (SELECT id FROM versions WHERE module = ?)"
        ),
        |args| {
            args.text(module);
        },
    )
    .await?;
    unblock_rows(conn, &rows, now).await
}

/// Blocked runs whose reason begins with a text and does not contain another. The versions lead to the live runs by their
/// index; without them SQLite begins with all outcomes there are.
pub(super) const UNREADABLE: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM runs r CROSS JOIN outcomes o ON o.run_id = r.id WHERE r.phase = 7 AND r.version_id IN (SELECT id FROM versions) \
     AND instr(o.error, ?) = 1 AND instr(o.error, ?) = 0 ORDER BY r.id LIMIT ?"
);

pub(super) async fn retry_unreadable(
    conn: &mut SqliteConnection,
    release: &str,
    limit: u32,
    now: Timestamp,
) -> Result<u64> {
    let (begins, own) = unreadable_as_stored(release);
    let rows = fetch(conn, UNREADABLE, |args| {
        args.text(begins).text(&own).int(limit.into());
    })
    .await?;
    unblock_rows(conn, &rows, now).await
}

/// Makes blocked runs ready. How many that were.
async fn unblock_rows(conn: &mut SqliteConnection, rows: &[SqliteRow], now: Timestamp) -> Result<u64> {
    let mut work = Work::default();
    for row in rows {
        let row = read_row(&mut Cells::of(row))?;
        let id = row.id;
        work.add(row);
        batch::command::unblock(&mut work, id, now)?;
    }
    flush(conn, &mut work).await?;
    Ok(rows.len() as u64)
}

// The statements above name phases by their numbers on disk.
const _: () = assert!(Phase::Blocked as u8 == 7 && Phase::Executing as u8 == 1);
