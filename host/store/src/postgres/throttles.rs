//! Runs that throttles hold back, and their lines. A line is changed by whoever has locked its limit's row, after the rows of
//! the runs: so nobody takes a turn while somebody else gives it away. The run that moves up is locked last, and only if that
//! takes no waiting; one that is in somebody else's hands keeps its turn.

use dormouse_core::{RunId, Timestamp};
use sqlx::postgres::PgRow;

use super::fault::Attempt;
use super::limits::{add, locked};
use super::runs::load_free;
use super::sql::{Cells, Conn, Together};
use crate::batch::limits::{Decisions, LimitKey};
use crate::batch::runs::Work;
use crate::batch::throttles::{Held, Throttled, Throttles, keys, waiting};
use crate::error::Result;

const INSERT: &str = "INSERT INTO throttled (run_id, function_id, key, rate_limit, period_ms, burst, turn_ms) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::int8[])";
const HELD: &str = "SELECT run_id, function_id, key, rate_limit, period_ms, burst, turn_ms FROM throttled \
     WHERE run_id = ANY($1)";
/// The first runs in each of some lines.
const FIRSTS: &str = "SELECT f.run_id, v.function_id, v.key, f.rate_limit, f.period_ms, f.burst, f.turn_ms \
     FROM UNNEST($1::int8[], $2::text[], $3::int8[]) AS v(function_id, key, count) \
     CROSS JOIN LATERAL (SELECT run_id, rate_limit, period_ms, burst, turn_ms FROM throttled t \
     WHERE t.function_id = v.function_id AND t.key = v.key AND t.turn_ms IS NOT NULL \
     ORDER BY t.turn_ms, t.run_id LIMIT v.count) f";
const TURNED: &str = "UPDATE throttled t SET turn_ms = v.turn_ms \
     FROM UNNEST($1::uuid[], $2::int8[]) AS v(run_id, turn_ms) WHERE t.run_id = v.run_id";

/// Adds the rows of new runs.
pub(super) fn insert(together: &mut Together, rows: &[(RunId, Throttled)]) {
    together.add(rows, INSERT, |args, rows| {
        let rates = || rows.iter().map(|(_, throttled)| throttled.throttle.rate);
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints(rows.iter().map(|(_, throttled)| throttled.function_id))
            .texts(rows.iter().map(|(_, throttled)| throttled.throttle.key.as_str()))
            .ints(rates().map(|rate| rate.limit.into()))
            .ints(rates().map(|rate| i64::try_from(rate.period_ms).unwrap_or(i64::MAX)))
            .ints(rates().map(|rate| rate.burst.into()))
            .ints_or_null(
                rows.iter()
                    .map(|(_, throttled)| throttled.turn.map(Timestamp::as_millis)),
            );
    });
}

fn read(rows: &[PgRow], held: &mut Held) -> Result<()> {
    for row in rows {
        let mut cells = Cells::of(row);
        let (run, function_id, key) = (cells.run()?, cells.int()?, cells.text()?);
        let rate = (cells.number()?, cells.int()?, cells.number()?);
        let throttled = Throttled::stored(function_id, key, rate, cells.time_or_null()?);
        held.insert(run, throttled);
    }
    Ok(())
}

/// Those of some runs that throttles hold back.
pub(super) async fn held(conn: &mut Conn, runs: &[RunId]) -> Attempt<Held> {
    let mut held = Held::default();
    if runs.is_empty() {
        return Ok(held);
    }
    let rows = conn
        .fetch(HELD, |args| {
            args.keys(runs.iter().copied());
        })
        .await?;
    read(&rows, &mut held)?;
    Ok(held)
}

/// The lines of some runs, whose rows are locked.
pub(super) async fn lines(conn: &mut Conn, runs: &[RunId]) -> Attempt<Throttles> {
    let held = held(conn, runs).await?;
    if held.is_empty() {
        return Ok(Throttles::default());
    }
    let keys = keys(&held);
    let limits = locked(conn, &keys.keys().cloned().collect::<Vec<LimitKey>>()).await?;
    let rows = conn
        .fetch(FIRSTS, |args| {
            args.ints(keys.keys().map(|(function_id, _, _)| *function_id))
                .texts(keys.keys().map(|(_, _, key)| key.as_str()))
                .ints(keys.values().map(|count| *count as i64 + 1));
        })
        .await?;
    let mut firsts = Held::default();
    read(&rows, &mut firsts)?;
    Ok(Throttles::new(held, &limits, firsts))
}

/// Lets those move up that may, and stores what became of the lines. Answers with the turns of those that moved.
pub(super) async fn settle(
    conn: &mut Conn,
    work: &mut Work,
    mut throttles: Throttles,
) -> Attempt<Vec<Timestamp>> {
    load_free(conn, work, throttles.settle()).await?;
    let turns = throttles.advance(work)?;
    let mut together = Together::default();
    add(&mut together, &throttles.changed, &Decisions::default());
    together.add(
        &throttles.gone,
        "DELETE FROM throttled WHERE run_id = ANY($1)",
        |args, runs| {
            args.keys(runs.iter().copied());
        },
    );
    let turned: Vec<(RunId, Option<Timestamp>)> = throttles.turned.into_iter().collect();
    together.add(&turned, TURNED, |args, rows| {
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints_or_null(rows.iter().map(|(_, turn)| turn.map(Timestamp::as_millis)));
    });
    together.run(conn).await?;
    Ok(turns)
}

/// What was done to runs that waited in line: those that do so no more leave it to the others. `now`: the time, if it is
/// known.
pub(super) async fn left(
    conn: &mut Conn,
    work: &mut Work,
    waited: &[RunId],
    now: Option<Timestamp>,
) -> Attempt<()> {
    let wait = waiting(work, waited);
    let left: Vec<RunId> = waited.iter().copied().filter(|id| !wait.contains(id)).collect();
    let mut throttles = lines(conn, &left).await?;
    throttles.left(work, &left, now)?;
    settle(conn, work, throttles).await?;
    Ok(())
}
