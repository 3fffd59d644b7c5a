//! Looking at live runs as a claim would hand them out: single statements, each of which sees one moment.

use dormouse_core::{Digest, Json, RunId};

use super::fault::Attempt;
use super::sql::{Cells, Conn};
use crate::batch::runs::{function_name, place};
use crate::error::{Error, Result};
use crate::schedule::ClaimedRun;

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
        .fetch(
            "SELECT r.id, r.epoch, f.module, f.function, v.digest, r.config_revision, r.event_id, \
             CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) \
             ELSE e.payload END, \
             CASE WHEN r.continued THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = r.id AND b.seq = -2) END, \
             r.seed, r.queued_ms, r.journal_base, r.journal_next, r.log_lines, r.journal_bytes, r.host_traps \
             FROM runs r JOIN functions f ON f.id = r.function_id JOIN versions v ON v.id = r.version_id \
             LEFT JOIN events e ON e.id = r.event_id WHERE r.live AND r.id = ANY($1) ORDER BY r.id",
            |args| {
                args.keys(runs.iter().copied());
            },
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let id = cells.run()?;
        found.push(ClaimedRun {
            id,
            epoch: cells.int()?,
            function: function_name(&cells.text()?, &cells.text()?)?,
            version: Digest::from_bytes(cells.bytes()?),
            config_revision: cells.int()?,
            event_id: cells.event()?,
            event: cells
                .text_or_null()?
                .map(Json::trusted)
                .ok_or_else(|| Error::Corrupt(format!("run {id}: its event is not stored")))?,
            continued: cells.text_or_null()?.map(Json::trusted),
            seed: cells.bytes()?,
            queued_at: cells.time()?,
            journal_base: cells.number()?,
            journal_next: cells.number()?,
            log_lines: cells.number()?,
            journal_bytes: cells.int()?.unsigned_abs(),
            host_traps: cells.number()?,
        });
    }
    Ok(found)
}
