//! Ends of runs that are yet to be told.

use dormouse_core::RunId;
use dormouse_core::system::Kinds;
use sqlx::SqliteConnection;

use super::sql::{Cells, Rows, execute, fetch};
use crate::batch::ends::LISTEN;
use crate::ends::Untold;
use crate::error::Result;

static INSERT: Rows = Rows::insert(
    "INSERT OR IGNORE INTO ends (run_id, kinds) SELECT * FROM (VALUES ",
    2,
);
const UNTOLD: &str = "SELECT run_id, kinds FROM ends ORDER BY run_id LIMIT ?";

/// Adds ends.
pub(super) async fn insert(conn: &mut SqliteConnection, ends: &[(RunId, Kinds)]) -> Result<()> {
    INSERT
        .apply(conn, ends, |args, (run, kinds)| {
            args.run(*run).int(kinds.bits());
        })
        .await
}

/// Those that are yet to be told.
pub(super) async fn untold(conn: &mut SqliteConnection, limit: u32) -> Result<Vec<Untold>> {
    let rows = fetch(conn, UNTOLD, |args| {
        args.int(limit.into());
    })
    .await?;
    let mut untold = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        untold.push(Untold {
            run: cells.run()?,
            kinds: Kinds::from_bits(cells.int()?),
        });
    }
    Ok(untold)
}

/// Takes an end away. False: it is not there.
pub(super) async fn take(conn: &mut SqliteConnection, run: RunId) -> Result<bool> {
    let taken = execute(conn, "DELETE FROM ends WHERE run_id = ?", |args| {
        args.run(run);
    })
    .await?;
    Ok(taken > 0)
}

/// Decides anew what versions listen to.
pub(super) async fn listen(conn: &mut SqliteConnection) -> Result<()> {
    execute(conn, LISTEN, |_| {}).await.map(drop)
}

/// Remembers what is waited for.
pub(super) async fn await_too(conn: &mut SqliteConnection, kinds: Kinds) -> Result<()> {
    if kinds.is_empty() {
        return Ok(());
    }
    let text = "UPDATE registry SET awaited = awaited | ?";
    execute(conn, text, |args| {
        args.int(kinds.bits());
    })
    .await
    .map(drop)
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&INSERT]
}
