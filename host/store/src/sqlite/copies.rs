//! Runs that begin with what others recorded.

use std::collections::HashMap;

use dormouse_core::{RunId, Seq};
use sqlx::SqliteConnection;

use super::sql::{Cells, Rows, execute};
use crate::batch::ingest::{Creation, copies};
use crate::batch::runs::place;
use crate::error::Result;

static SOURCES: Rows = Rows::new(
    "SELECT id, journal_base, journal_next FROM runs WHERE id IN (VALUES ",
    1,
    ")",
);
/// ?1: the run. ?2: the other. ?3 and ?4: from which entry, and before which.
const JOURNAL: &str = "INSERT INTO journal (run_id, seq, kind, name, at_ms, meta, large, payload) \
     SELECT ?1, seq, kind, name, at_ms, meta, large, payload FROM journal WHERE run_id = ?2 AND seq >= ?3 AND seq < ?4";
const BLOBS: &str = "INSERT INTO blobs (owner_id, seq, bytes) SELECT ?1, seq, bytes FROM blobs \
     WHERE owner_id = ?2 AND ((seq >= ?3 AND seq < ?4) OR seq = -2)";
const _: () = assert!(place::CONTINUED == -2);
const RUN: &str = "UPDATE runs SET seed = o.seed, continued = o.continued, began_base = ?3, \
     began_ms = CASE WHEN o.began_base = o.journal_base THEN o.began_ms ELSE o.queued_ms END, \
     journal_base = ?3, journal_next = ?4, journal_bytes = ?5 \
     FROM (SELECT * FROM runs WHERE id = ?2) AS o WHERE runs.id = ?1";

/// Where the journals of runs that are to be copied from begin and end.
pub(super) async fn sources(
    conn: &mut SqliteConnection,
    runs: &[RunId],
) -> Result<HashMap<RunId, (Seq, Seq)>> {
    let rows = SOURCES
        .fetch(conn, runs, |args, run| {
            args.run(*run);
        })
        .await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::of(row);
            Ok((cells.run()?, (cells.number()?, cells.number()?)))
        })
        .collect()
}

/// Copies what new runs, which are stored by now, begin with.
pub(super) async fn write(conn: &mut SqliteConnection, creations: &[Creation<'_>]) -> Result<()> {
    for (run, copied) in copies(creations) {
        for text in [JOURNAL, BLOBS] {
            execute(conn, text, |args| {
                args.run(run)
                    .run(copied.run)
                    .int(copied.base.into())
                    .int(copied.before.into());
            })
            .await?;
        }
        execute(conn, RUN, |args| {
            args.run(run)
                .run(copied.run)
                .int(copied.base.into())
                .int(copied.before.into())
                .int(copied.bytes as i64);
        })
        .await?;
    }
    Ok(())
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&SOURCES]
}
