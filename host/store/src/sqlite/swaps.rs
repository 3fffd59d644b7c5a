//! The versions that runs went over to, or could not.

use dormouse_core::run::RunError;
use dormouse_core::swap::Swap;
use dormouse_core::{Digest, RunId};
use sqlx::SqliteConnection;

use super::sql::{Cells, Rows, fetch};
use crate::batch::swaps::SwapRow;
use crate::error::{Error, Result};

static INSERT: Rows = Rows::insert(
    "INSERT OR REPLACE INTO swaps (run_id, seq, at_ms, to_id, from_id, error) SELECT * FROM (VALUES ",
    6,
);
static FLAG: Rows = Rows::new(
    "UPDATE runs SET swapped = swapped | v.column2 FROM (VALUES ",
    2,
    ") AS v WHERE runs.id = v.column1",
);

/// Adds swaps, and says so on the rows of their runs.
pub(super) async fn insert(conn: &mut SqliteConnection, swaps: &[(RunId, SwapRow)]) -> Result<()> {
    if swaps.is_empty() {
        return Ok(());
    }
    INSERT
        .apply(conn, swaps, |args, (run, row)| {
            args.run(*run)
                .int(row.seq.into())
                .time(row.at)
                .int(row.to_id)
                .int(row.from_id)
                .text_or_null(row.error().as_deref());
        })
        .await?;
    // One statement may not change a row twice.
    for stayed in [false, true] {
        let of_kind = |(_, row): &&(RunId, SwapRow)| row.stayed.is_some() == stayed;
        let mut flags: Vec<(RunId, i64)> = swaps
            .iter()
            .filter(of_kind)
            .map(|(run, row)| (*run, row.flag()))
            .collect();
        flags.sort_unstable();
        flags.dedup();
        FLAG.apply(conn, &flags, |args, (run, flag)| {
            args.run(*run).int(*flag);
        })
        .await?;
    }
    Ok(())
}

/// A run's swaps, oldest first.
pub(super) async fn of(conn: &mut SqliteConnection, run: RunId) -> Result<Vec<Swap>> {
    let rows = fetch(
        conn,
        "SELECT s.seq, f.digest, t.digest, s.at_ms, s.error FROM swaps s JOIN versions f ON f.id = s.from_id \
         JOIN versions t ON t.id = s.to_id WHERE s.run_id = ? ORDER BY s.seq, s.at_ms, t.digest",
        |args| {
            args.run(run);
        },
    )
    .await?;
    let mut swaps = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        swaps.push(Swap {
            seq: cells.number()?,
            from: Digest::from_bytes(cells.bytes()?),
            to: Digest::from_bytes(cells.bytes()?),
            at: cells.time()?,
            stayed: cells
                .text_or_null()?
                .map(serde_json::from_str::<RunError>)
                .transpose()
                .map_err(|error| Error::Corrupt(format!("run {run}: why it stayed: {error}")))?,
        });
    }
    Ok(swaps)
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&INSERT, &FLAG]
}
