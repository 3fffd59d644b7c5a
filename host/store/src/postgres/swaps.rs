//! The versions that runs went over to, or could not.

use dormouse_core::run::{Phase, RunError, Status};
use dormouse_core::swap::Swap;
use dormouse_core::{Digest, RunId, Timestamp};

use super::cache::Cache;
use super::fault::Attempt;
use super::runs::{flush, hot_columns, load, take};
use super::sql::{Cells, Conn};
use super::writer::Effects;
use crate::batch;
use crate::batch::runs::Work;
use crate::batch::swaps::{SwapRow, once};
use crate::command::Commanded;
use crate::error::{Error, Result};
use crate::swap::{Asked, ToRestart};

const INSERT: &str = "INSERT INTO swaps (run_id, seq, at_ms, to_id, from_id, error, restarted) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::text[], $7::bool[]) \
     ON CONFLICT (run_id, seq, at_ms, to_id) DO UPDATE SET from_id = excluded.from_id, error = excluded.error, \
     restarted = excluded.restarted";
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
            .texts_or_null(errors.iter().map(Option::as_deref))
            .flags(rows().map(|row| row.restarted));
    })
    .await?;
    conn.execute(FLAG, |args| {
        args.keys(swaps.iter().map(|(run, _)| *run))
            .ints(rows().map(SwapRow::flag));
    })
    .await?;
    Ok(())
}

/// Remembers which version a person wants a run on. The registry is locked, so that the version is not deleted meanwhile.
pub(super) async fn ask(
    conn: &mut Conn,
    cache: &Cache,
    effects: &mut Effects<'_>,
    run: RunId,
    asked: Option<&Asked>,
    now: Timestamp,
) -> Attempt<Commanded> {
    let asked = batch::swaps::asked(cache, asked)?;
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let commanded = batch::swaps::ask(&mut work, run, now)?;
    if let Commanded::Done(_) = commanded {
        conn.execute("UPDATE runs SET asked_id = $2 WHERE id = $1", |args| {
            args.key(run).int_or_null(asked);
        })
        .await?;
    }
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(commanded)
}

/// Runs that sleep, wait or back off on other versions of a module, of some of its functions. What somebody else has locked does
/// something just now.
const TO_RESTART: &str = concat!(
    "SELECT ",
    hot_columns!(),
    " FROM runs r WHERE r.live AND r.phase IN (2, 3, 4) AND r.status = 1 AND r.asked_id IS NULL \
     AND r.version_id IN (SELECT id FROM versions WHERE module = $1 AND digest <> $2) \
     AND r.function_id IN (SELECT id FROM functions WHERE module = $1 AND function = ANY($3::text[])) LIMIT $4 \
     FOR NO KEY UPDATE OF r SKIP LOCKED"
);
const _: () = assert!(
    Phase::Sleeping as u8 == 2
        && Phase::Waiting as u8 == 3
        && Phase::BackingOff as u8 == 4
        && Status::Running as u8 == 1
);

/// Makes them ready.
pub(super) async fn wake_to_restart(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    restart: &ToRestart,
) -> Attempt<u64> {
    let rows = conn
        .fetch(TO_RESTART, |args| {
            args.text(&restart.module)
                .bytes(restart.to.as_bytes())
                .texts(restart.functions.iter().map(String::as_str))
                .int(restart.limit.into());
        })
        .await?;
    let (mut work, runs) = take(&rows)?;
    batch::swaps::wake_to_restart(&mut work, &runs, restart.now)?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(runs.len() as u64)
}

/// A run's swaps, oldest first.
pub(super) async fn of(conn: &mut Conn, run: RunId) -> Attempt<Vec<Swap>> {
    let rows = conn
        .fetch(
            "SELECT s.seq, f.digest, t.digest, s.at_ms, s.error, s.restarted FROM swaps s JOIN versions f ON f.id = s.from_id \
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
            restarted: cells.flag()?,
        });
    }
    Ok(swaps)
}

fn stayed(text: Option<String>, run: RunId) -> Result<Option<RunError>> {
    let read = text.as_deref().map(serde_json::from_str::<RunError>);
    let read = read.transpose();
    read.map_err(|error| Error::Corrupt(format!("run {run}: why it stayed: {error}")))
}
