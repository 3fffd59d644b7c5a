//! Runs that throttles hold back, and their lines.

use dormouse_core::flow::Limited;
use dormouse_core::{RunId, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::limits::{known, remember};
use super::runs;
use super::sql::{Cells, Rows, fetch};
use crate::batch::runs::Work;
use crate::batch::throttles::{Held, Throttled, Throttles, keys, waiting};
use crate::error::Result;

static INSERT: Rows = Rows::insert(
    "INSERT INTO throttled (run_id, function_id, key, rate_limit, period_ms, burst, turn_ms) SELECT * FROM (VALUES ",
    7,
);
static HELD: Rows = Rows::new(
    "SELECT run_id, function_id, key, rate_limit, period_ms, burst, turn_ms FROM throttled WHERE run_id IN (VALUES ",
    1,
    ")",
);
/// The first runs in a line.
pub(super) const FIRSTS: &str = "SELECT run_id, function_id, key, rate_limit, period_ms, burst, turn_ms FROM throttled \
     WHERE function_id = ? AND key = ? AND turn_ms IS NOT NULL ORDER BY turn_ms, run_id LIMIT ?";
static GONE: Rows = Rows::new("DELETE FROM throttled WHERE run_id IN (VALUES ", 1, ")");
static TURNED: Rows = Rows::new(
    "UPDATE throttled SET turn_ms = v.column2 FROM (VALUES ",
    2,
    ") AS v WHERE throttled.run_id = v.column1",
);

/// Adds the rows of new runs.
pub(super) async fn insert(conn: &mut SqliteConnection, rows: &[(RunId, Throttled)]) -> Result<()> {
    INSERT
        .apply(conn, rows, |args, (run, throttled)| {
            let Limited { rate, key } = &throttled.throttle;
            args.run(*run)
                .int(throttled.function_id)
                .text(key)
                .int(rate.limit.into())
                .int(i64::try_from(rate.period_ms).unwrap_or(i64::MAX))
                .int(rate.burst.into())
                .int_or_null(throttled.turn.map(Timestamp::as_millis));
        })
        .await
}

fn read(rows: &[SqliteRow], held: &mut Held) -> Result<()> {
    for row in rows {
        let mut cells = Cells::of(row);
        let (run, function_id, key) = (cells.run()?, cells.int()?, cells.text()?.to_owned());
        let rate = (cells.number()?, cells.int()?, cells.number()?);
        let throttled = Throttled::stored(function_id, key, rate, cells.time_or_null()?);
        held.insert(run, throttled);
    }
    Ok(())
}

/// Those of some runs that throttles hold back.
pub(super) async fn held(conn: &mut SqliteConnection, runs: &[RunId]) -> Result<Held> {
    let mut held = Held::default();
    let rows = HELD
        .fetch(conn, runs, |args, id| {
            args.run(*id);
        })
        .await?;
    read(&rows, &mut held)?;
    Ok(held)
}

/// The lines of some runs.
pub(super) async fn lines(conn: &mut SqliteConnection, runs: &[RunId]) -> Result<Throttles> {
    let held = held(conn, runs).await?;
    if held.is_empty() {
        return Ok(Throttles::default());
    }
    let keys = keys(&held);
    let limits = known(conn, &keys.keys().cloned().collect::<Vec<_>>()).await?;
    let mut firsts = Held::default();
    for ((function_id, _, key), count) in &keys {
        let rows = fetch(conn, FIRSTS, |args| {
            args.int(*function_id).text(key).int(*count as i64 + 1);
        })
        .await?;
        read(&rows, &mut firsts)?;
    }
    Ok(Throttles::new(held, &limits, firsts))
}

/// Lets those move up that may, and stores what became of the lines. Answers with the turns of those that moved.
pub(super) async fn settle(
    conn: &mut SqliteConnection,
    work: &mut Work,
    mut throttles: Throttles,
) -> Result<Vec<Timestamp>> {
    runs::load(conn, work, throttles.settle()).await?;
    let turns = throttles.advance(work)?;
    remember(conn, &throttles.changed).await?;
    GONE.apply(conn, &throttles.gone, |args, id| {
        args.run(*id);
    })
    .await?;
    let turned: Vec<(RunId, Option<Timestamp>)> = throttles.turned.into_iter().collect();
    TURNED
        .apply(conn, &turned, |args, (run, turn)| {
            args.run(*run).int_or_null(turn.map(Timestamp::as_millis));
        })
        .await?;
    Ok(turns)
}

/// What was done to runs that waited in line: those that do so no more leave it to the others. `now`: the time, if it is
/// known.
pub(super) async fn left(
    conn: &mut SqliteConnection,
    work: &mut Work,
    waited: &[RunId],
    now: Option<Timestamp>,
) -> Result<()> {
    let wait = waiting(work, waited);
    let left: Vec<RunId> = waited.iter().copied().filter(|id| !wait.contains(id)).collect();
    let mut throttles = lines(conn, &left).await?;
    throttles.left(work, &left, now)?;
    settle(conn, work, throttles).await?;
    Ok(())
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&INSERT, &HELD, &GONE, &TURNED]
}
