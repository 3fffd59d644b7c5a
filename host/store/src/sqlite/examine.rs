//! Looking at live runs as a claim would hand them out, from connections that cannot write.

use dormouse_core::{Digest, RunId};
use sqlx::SqliteConnection;

use super::runs::{hot_columns, read_row};
use super::schedule::details;
use super::sql::{Cells, Rows, fetch};
use crate::batch::runs::{function_name, place};
use crate::batch::schedule::claimed_run;
use crate::error::Result;
use crate::schedule::ClaimedRun;

/// One statement, so that a run's row and what is beside it are of one moment.
static EXAMINE: Rows = Rows::new(
    concat!(
        "SELECT ",
        hot_columns!(),
        ", f.module, f.function, v.digest, r.config_revision, r.event_id, r.depth, r.seed, \
         CASE WHEN r.continued THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = r.id AND b.seq = -2) END, \
         CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END, \
         CASE WHEN r.began_base = r.journal_base THEN r.began_ms END, r.swapped, \
     CASE WHEN r.asked_id IS NOT NULL THEN (SELECT a.digest FROM versions a WHERE a.id = r.asked_id) END \
         FROM runs r JOIN functions f ON f.id = r.function_id JOIN versions v ON v.id = r.version_id \
         LEFT JOIN events e ON e.id = r.event_id WHERE r.phase IS NOT NULL AND r.id IN (VALUES "
    ),
    1,
    ")",
);
const _: () = assert!(place::CONTINUED == -2 && place::EVENT == -3);

/// Ids end in random bytes: the order by these is even over time and functions.
pub(super) const IN_FLIGHT: &str = "SELECT r.id FROM runs r WHERE r.phase IS NOT NULL AND r.version_id IN \
     (SELECT id FROM versions WHERE module = ?) ORDER BY substr(r.id, 13), r.id LIMIT ?";

pub(super) async fn in_flight(conn: &mut SqliteConnection, module: &str, limit: u32) -> Result<Vec<RunId>> {
    let rows = fetch(conn, IN_FLIGHT, |args| {
        args.text(module).int(limit.into());
    })
    .await?;
    rows.iter().map(|row| Cells::of(row).run()).collect()
}

pub(super) async fn examine(conn: &mut SqliteConnection, runs: &[RunId]) -> Result<Vec<ClaimedRun>> {
    let rows = EXAMINE
        .fetch(conn, runs, |args, id| {
            args.run(*id);
        })
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let row = read_row(&mut cells)?;
        let function = function_name(cells.text()?, cells.text()?)?;
        let version = Digest::from_bytes(cells.bytes()?);
        found.push(claimed_run(&row, details(&mut cells, function, version)?)?);
    }
    found.sort_unstable_by_key(|run: &ClaimedRun| run.id);
    // A run that was asked for twice, in different statements, is answered once.
    found.dedup_by_key(|run| run.id);
    Ok(found)
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&EXAMINE]
}
