//! Runs that begin with what others recorded.

use std::collections::HashMap;

use dormouse_core::{RunId, Seq};

use super::fault::Attempt;
use super::sql::{Cells, Conn};
use crate::batch::ingest::{Creation, copies};
use crate::batch::runs::place;

/// $1: the run. $2: the other. $3 and $4: from which entry, and before which.
const JOURNAL: &str = "INSERT INTO journal (run_id, seq, kind, name, at_ms, meta, large, payload) \
     SELECT $1, seq, kind, name, at_ms, meta, large, payload FROM journal WHERE run_id = $2 AND seq >= $3 AND seq < $4";
const BLOBS: &str = "INSERT INTO blobs (owner_id, seq, bytes) SELECT $1, seq, bytes FROM blobs \
     WHERE owner_id = $2 AND ((seq >= $3 AND seq < $4) OR seq = -2)";
const _: () = assert!(place::CONTINUED == -2);
const RUN: &str = "UPDATE runs SET seed = o.seed, continued = o.continued, began_base = $3, \
     began_ms = CASE WHEN o.began_base = o.journal_base THEN o.began_ms ELSE o.queued_ms END, \
     journal_base = $3, journal_next = $4, journal_bytes = $5 FROM runs o WHERE o.id = $2 AND runs.id = $1";

/// Where the journals of runs that are to be copied from begin and end. They are kept from beginning anew and from being
/// deleted until the transaction ends.
pub(super) async fn sources(conn: &mut Conn, runs: &[RunId]) -> Attempt<HashMap<RunId, (Seq, Seq)>> {
    let mut sources = HashMap::new();
    if runs.is_empty() {
        return Ok(sources);
    }
    let rows = conn
        .fetch(
            "SELECT id, journal_base, journal_next FROM runs WHERE id = ANY($1) ORDER BY id FOR SHARE",
            |args| {
                args.keys(runs.iter().copied());
            },
        )
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row);
        sources.insert(cells.run()?, (cells.number()?, cells.number()?));
    }
    Ok(sources)
}

/// Copies what new runs, which are stored by now, begin with.
pub(super) async fn write(conn: &mut Conn, creations: &[Creation<'_>]) -> Attempt<()> {
    for (run, copied) in copies(creations) {
        for text in [JOURNAL, BLOBS] {
            conn.execute(text, |args| {
                args.key(run)
                    .key(copied.run)
                    .int(copied.base.into())
                    .int(copied.before.into());
            })
            .await?;
        }
        conn.execute(RUN, |args| {
            args.key(run)
                .key(copied.run)
                .int(copied.base.into())
                .int(copied.before.into())
                .int(copied.bytes as i64);
        })
        .await?;
    }
    Ok(())
}
