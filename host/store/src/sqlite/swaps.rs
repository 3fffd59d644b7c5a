//! The versions that runs went over to, or could not.

use dormouse_core::run::{Phase, RunError, Status};
use dormouse_core::swap::Swap;
use dormouse_core::{Digest, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::runs::{flush, hot_columns, load, read_row};
use super::sql::{Cells, Rows, execute, fetch};
use crate::batch;
use crate::batch::runs::Work;
use crate::batch::swaps::SwapRow;
use crate::command::Commanded;
use crate::error::{Error, Result};
use crate::swap::{Asked, ToRestart};

static INSERT: Rows = Rows::insert(
    "INSERT OR REPLACE INTO swaps (run_id, seq, at_ms, to_id, from_id, error, restarted) SELECT * FROM (VALUES ",
    7,
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
                .text_or_null(row.error().as_deref())
                .int(row.restarted.into());
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
        "SELECT s.seq, f.digest, t.digest, s.at_ms, s.error, s.restarted FROM swaps s JOIN versions f ON f.id = s.from_id \
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
            restarted: cells.flag()?,
        });
    }
    Ok(swaps)
}

/// Remembers which version a person wants a run on.
pub(super) async fn ask(
    conn: &mut SqliteConnection,
    cache: &Cache,
    run: RunId,
    asked: Option<&Asked>,
    now: Timestamp,
) -> Result<Commanded> {
    let asked = batch::swaps::asked(cache, asked)?;
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let commanded = batch::swaps::ask(&mut work, run, now)?;
    if let Commanded::Done(_) = commanded {
        execute(conn, "UPDATE runs SET asked_id = ?2 WHERE id = ?1", |args| {
            args.run(run).int_or_null(asked);
        })
        .await?;
    }
    flush(conn, &mut work).await?;
    Ok(commanded)
}

/// Runs that sleep, wait or back off on other versions of a module, of some of its functions.
pub(super) const TO_RESTART: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM runs r WHERE r.phase IN (2, 3, 4) AND r.status = 1 AND r.asked_id IS NULL \
     AND r.version_id IN (SELECT id FROM versions WHERE module = ?1 AND digest <> ?2) \
     AND r.function_id IN (SELECT id FROM functions WHERE module = ?1 AND function IN (SELECT value FROM json_each(?3))) LIMIT ?4"
);
const _: () = assert!(
    Phase::Sleeping as u8 == 2
        && Phase::Waiting as u8 == 3
        && Phase::BackingOff as u8 == 4
        && Status::Running as u8 == 1
);

/// Makes them ready.
pub(super) async fn wake_to_restart(conn: &mut SqliteConnection, restart: &ToRestart) -> Result<u64> {
    // Names have no characters that JSON escapes.
    let functions = format!("[\"{}\"]", restart.functions.join("\",\""));
    let rows = fetch(conn, TO_RESTART, |args| {
        args.text(&restart.module)
            .bytes(restart.to.as_bytes())
            .text(&functions)
            .int(restart.limit.into());
    })
    .await?;
    let mut work = Work::default();
    let mut runs = Vec::with_capacity(rows.len());
    for row in &rows {
        let row = read_row(&mut Cells::of(row))?;
        runs.push(row.id);
        work.add(row);
    }
    batch::swaps::wake_to_restart(&mut work, &runs, restart.now)?;
    flush(conn, &mut work).await?;
    Ok(runs.len() as u64)
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&INSERT, &FLAG]
}
