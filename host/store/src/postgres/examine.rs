//! Looking at live runs as a claim would hand them out: single statements, each of which sees one moment.

use dormouse_core::{Digest, RunId};

use super::fault::Attempt;
use super::runs::{hot_columns, read_row};
use super::schedule::details;
use super::sql::{Cells, Conn};
use crate::batch::runs::{function_name, place};
use crate::batch::schedule::claimed_run;
use crate::error::Result;
use crate::schedule::ClaimedRun;

const EXAMINE: &str = concat!(
    "SELECT ",
    hot_columns!(),
    ", f.module, f.function, v.digest, r.config_revision, r.event_id, r.depth, r.seed, \
     CASE WHEN r.continued THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = r.id AND b.seq = -2) END, \
     CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END, \
     CASE WHEN r.began_base = r.journal_base THEN r.began_ms END, r.swapped, \
     CASE WHEN r.asked_id IS NOT NULL THEN (SELECT a.digest FROM versions a WHERE a.id = r.asked_id) END \
     FROM runs r JOIN functions f ON f.id = r.function_id JOIN versions v ON v.id = r.version_id \
     LEFT JOIN events e ON e.id = r.event_id WHERE r.live AND r.id = ANY($1) ORDER BY r.id"
);
const _: () = assert!(place::CONTINUED == -2 && place::EVENT == -3);

/// Ids end in random bytes: the order by these is even over time and functions.
pub(super) async fn in_flight(conn: &mut Conn, module: &str, limit: u32) -> Attempt<Vec<RunId>> {
    let rows = conn
        .fetch(
            "SELECT r.id FROM runs r WHERE r.live AND r.version_id IN (SELECT id FROM versions WHERE module = $1) \
             ORDER BY substring(uuid_send(r.id) FROM 13), r.id LIMIT $2",
            |args| {
                args.text(module).int(limit.into());
            },
        )
        .await?;
    let ids: Result<Vec<RunId>> = rows.iter().map(|row| Cells::of(row).run()).collect();
    Ok(ids?)
}

pub(super) async fn examine(conn: &mut Conn, runs: &[RunId]) -> Attempt<Vec<ClaimedRun>> {
    let rows = conn
        .fetch(EXAMINE, |args| {
            args.keys(runs.iter().copied());
        })
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let row = read_row(&mut cells)?;
        let function = function_name(&cells.text()?, &cells.text()?)?;
        let version = Digest::from_bytes(cells.bytes()?);
        found.push(claimed_run(&row, details(&mut cells, function, version)?)?);
    }
    Ok(found)
}
