//! The versions that runs went over to, or could not.

use dormouse_core::run::RunError;
use dormouse_core::swap::Swap;
use dormouse_core::{Digest, RunId};

use super::fault::Attempt;
use super::sql::{Cells, Conn};
use crate::batch::swaps::{SwapRow, once};
use crate::error::{Error, Result};

const INSERT: &str = "INSERT INTO swaps (run_id, seq, at_ms, to_id, from_id, error) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::text[]) \
     ON CONFLICT (run_id, seq, at_ms, to_id) DO UPDATE SET from_id = excluded.from_id, error = excluded.error";
const FLAG: &str = "UPDATE runs SET swapped = swapped | v.flag FROM (SELECT id, bit_or(flag) AS flag \
     FROM UNNEST($1::uuid[], $2::int8[]) AS w(id, flag) GROUP BY id) v WHERE runs.id = v.id";

/// Adds swaps, and says so on the rows of their runs. Statements of their own: one that changes a run's row may be part of
/// what is written together.
pub(super) async fn insert(conn: &mut Conn, mut swaps: Vec<(RunId, SwapRow)>) -> Attempt<()> {
    if swaps.is_empty() {
        return Ok(());
    }
    once(&mut swaps);
    let errors: Vec<Option<String>> = swaps.iter().map(|(_, row)| row.error()).collect();
    let rows = || swaps.iter().map(|(_, row)| row);
    conn.execute(INSERT, |args| {
        args.keys(swaps.iter().map(|(run, _)| *run))
            .ints(rows().map(|row| row.seq.into()))
            .ints(rows().map(|row| row.at.as_millis()))
            .ints(rows().map(|row| row.to_id))
            .ints(rows().map(|row| row.from_id))
            .texts_or_null(errors.iter().map(Option::as_deref));
    })
    .await?;
    conn.execute(FLAG, |args| {
        args.keys(swaps.iter().map(|(run, _)| *run))
            .ints(rows().map(SwapRow::flag));
    })
    .await?;
    Ok(())
}

/// A run's swaps, oldest first.
pub(super) async fn of(conn: &mut Conn, run: RunId) -> Attempt<Vec<Swap>> {
    let rows = conn
        .fetch(
            "SELECT s.seq, f.digest, t.digest, s.at_ms, s.error FROM swaps s JOIN versions f ON f.id = s.from_id \
             JOIN versions t ON t.id = s.to_id WHERE s.run_id = $1 ORDER BY s.seq, s.at_ms, t.digest",
            |args| {
                args.key(run);
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
            stayed: stayed(cells.text_or_null()?, run)?,
        });
    }
    Ok(swaps)
}

fn stayed(text: Option<String>, run: RunId) -> Result<Option<RunError>> {
    let read = text.as_deref().map(serde_json::from_str::<RunError>);
    let read = read.transpose();
    read.map_err(|error| Error::Corrupt(format!("run {run}: why it stayed: {error}")))
}
