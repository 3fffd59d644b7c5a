//! What limits remember, and why events start no run of their own. Whoever decides on a limit has locked its row, in the
//! order of the keys, so that two nodes wait for each other one way only and no start is granted twice.

use std::collections::BTreeMap;
use std::time::Duration;

use dormouse_core::flow::{Limited, Rate, Standing};
use dormouse_core::{EventId, RunId, Timestamp};

use super::cache::Cache;
use super::fault::Attempt;
use super::sql::{Cells, Conn, Together};
use crate::batch::limits::{Decisions, LimitKey, Limits, Throttled, Throttles, decided, gate};
use crate::read::Decided;

/// A row that is not there is made, with nothing used up, so that there is something to lock. The update changes nothing:
/// it locks the row and answers with it as it is then.
const LOCK: &str = "INSERT INTO limits (function_id, gate, key, used_until_us, run_id) \
     SELECT v.function_id, v.gate, v.key, 0, '00000000-0000-0000-0000-000000000000'::uuid \
     FROM UNNEST($1::int8[], $2::int8[], $3::text[]) AS v(function_id, gate, key) \
     ON CONFLICT (function_id, gate, key) DO UPDATE SET used_until_us = limits.used_until_us \
     RETURNING function_id, gate, key, used_until_us, run_id";
const REMEMBER: &str = "UPDATE limits l SET used_until_us = v.used_until_us, run_id = v.run_id \
     FROM UNNEST($1::int8[], $2::int8[], $3::text[], $4::int8[], $5::uuid[]) \
     AS v(function_id, gate, key, used_until_us, run_id) \
     WHERE l.function_id = v.function_id AND l.gate = v.gate AND l.key = v.key";
const SWEEP: &str = "DELETE FROM limits WHERE (function_id, gate, key) IN \
     (SELECT function_id, gate, key FROM limits WHERE used_until_us <= $1 ORDER BY used_until_us LIMIT $2 \
     FOR UPDATE SKIP LOCKED)";
const DECISIONS: &str = "INSERT INTO decisions (event_id, function_id, decision, at_ms, run_id, detail) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::int8[], $5::uuid[], $6::text[]) ON CONFLICT DO NOTHING";

const THROTTLED: &str = "INSERT INTO throttled (run_id, function_id, key, rate_limit, period_ms, burst, turn) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::bool[])";
const HELD: &str = "SELECT run_id, function_id, key, rate_limit, period_ms, burst, turn FROM throttled \
     WHERE run_id = ANY($1)";

/// Rows are swept out after so many were written: twice as many, so that the table does not outgrow what is in force.
const SWEEP_EVERY: usize = 64;
/// What is past by this node's clock may not be by another's.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// What is stored of some limits, whose rows are locked until the transaction ends. The keys are in order.
pub(super) async fn locked(conn: &mut Conn, keys: &[LimitKey]) -> Attempt<Limits> {
    let mut known = Limits::default();
    if keys.is_empty() {
        return Ok(known);
    }
    let rows = conn
        .fetch(LOCK, |args| {
            args.ints(keys.iter().map(|(function_id, _, _)| *function_id))
                .ints(keys.iter().map(|(_, gate, _)| *gate as i64))
                .texts(keys.iter().map(|(_, _, key)| key.as_str()));
        })
        .await?;
    conn.wrote = true;
    for row in &rows {
        let mut cells = Cells::of(row);
        let key = (cells.int()?, gate(cells.int()?)?, cells.text()?);
        let standing = Standing {
            used_until: cells.int()?,
            run: cells.run()?,
        };
        known.insert(key, standing);
    }
    Ok(known)
}

/// Adds what a batch decided to its statements.
pub(super) fn add(together: &mut Together, limits: &BTreeMap<LimitKey, Standing>, decisions: &Decisions) {
    let rows: Vec<(&LimitKey, &Standing)> = limits.iter().collect();
    together.add(&rows, REMEMBER, |args, rows| {
        args.ints(rows.iter().map(|((function_id, _, _), _)| *function_id))
            .ints(rows.iter().map(|((_, gate, _), _)| *gate as i64))
            .texts(rows.iter().map(|((_, _, key), _)| key.as_str()))
            .ints(rows.iter().map(|(_, standing)| standing.used_until))
            .keys(rows.iter().map(|(_, standing)| standing.run));
    });
    together.add(&decisions.rows(), DECISIONS, |args, rows| {
        args.keys(rows.iter().map(|((event, _), _)| *event))
            .ints(rows.iter().map(|((_, function_id), _)| *function_id))
            .ints(rows.iter().map(|(_, (decision, _, _, _))| *decision as i64))
            .ints(rows.iter().map(|(_, (_, at, _, _))| at.as_millis()))
            .keys_or_null(rows.iter().map(|(_, (_, _, run, _))| *run))
            .texts(rows.iter().map(|(_, (_, _, _, detail))| detail.as_str()));
    });
}

/// Adds the rows of runs that throttles hold back.
pub(super) fn add_throttled(together: &mut Together, rows: &[(RunId, Throttled)]) {
    together.add(rows, THROTTLED, |args, rows| {
        let rates = || rows.iter().map(|(_, throttled)| throttled.throttle.rate);
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints(rows.iter().map(|(_, throttled)| throttled.function_id))
            .texts(rows.iter().map(|(_, throttled)| throttled.throttle.key.as_str()))
            .ints(rates().map(|rate| rate.limit.into()))
            .ints(rates().map(|rate| i64::try_from(rate.period_ms).unwrap_or(i64::MAX)))
            .ints(rates().map(|rate| rate.burst.into()))
            .flags(rows.iter().map(|(_, throttled)| throttled.turn));
    });
}

/// What throttles hold back some runs, whose rows are locked, and what they remember, which is locked then.
pub(super) async fn throttles(conn: &mut Conn, runs: &[RunId]) -> Attempt<Throttles> {
    let mut throttles = Throttles::default();
    if runs.is_empty() {
        return Ok(throttles);
    }
    let rows = conn
        .fetch(HELD, |args| {
            args.keys(runs.iter().copied());
        })
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row);
        let run = cells.run()?;
        let function_id = cells.int()?;
        let key = cells.text()?;
        let rate = Rate {
            limit: cells.number()?,
            period_ms: cells.int()?.unsigned_abs(),
            burst: cells.number()?,
        };
        let throttled = Throttled {
            function_id,
            throttle: Limited { rate, key },
            turn: cells.flag()?,
        };
        throttles.held.insert(run, throttled);
    }
    throttles.limits = locked(conn, &throttles.keys()).await?;
    Ok(throttles)
}

/// Stores what throttles decided.
pub(super) async fn turned(conn: &mut Conn, throttles: &Throttles) -> Attempt<()> {
    let mut together = Together::default();
    add(&mut together, &throttles.changed, &Decisions::default());
    together.add(
        &throttles.begun,
        "DELETE FROM throttled WHERE run_id = ANY($1)",
        |args, runs| {
            args.keys(runs.iter().copied());
        },
    );
    together.add(
        &throttles.turned,
        "UPDATE throttled SET turn = true WHERE run_id = ANY($1)",
        |args, runs| {
            args.keys(runs.iter().copied());
        },
    );
    together.run(conn).await
}

/// Deletes rows that say nothing any more, now and then, after what was decided is written.
pub(super) async fn sweep(conn: &mut Conn, cache: &mut Cache, written: usize, now: Timestamp) -> Attempt<()> {
    cache.unswept_limits += written;
    if cache.unswept_limits < SWEEP_EVERY {
        return Ok(());
    }
    let limit = cache.unswept_limits * 2;
    conn.execute(SWEEP, |args| {
        args.int(now.before(CLOCKS_APART).as_millis().saturating_mul(1_000))
            .int(limit as i64);
    })
    .await?;
    cache.unswept_limits = 0;
    Ok(())
}

/// Why an event started nothing.
pub(super) async fn decisions(conn: &mut Conn, event: EventId) -> Attempt<Vec<Decided>> {
    let rows = conn
        .fetch(
            "SELECT f.module, f.function, d.decision, d.at_ms, d.run_id, d.detail \
             FROM decisions d JOIN functions f ON f.id = d.function_id WHERE d.event_id = $1 \
             ORDER BY f.module COLLATE \"C\", f.function COLLATE \"C\"",
            |args| {
                args.key(event);
            },
        )
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        found.push(decided(
            &cells.text()?,
            &cells.text()?,
            cells.int()?,
            cells.time()?,
            cells.run_or_null()?,
            cells.text()?,
        )?);
    }
    Ok(found)
}
