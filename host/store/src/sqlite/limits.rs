//! What limits remember, and why events start no run of their own.

use std::collections::BTreeMap;

use dormouse_core::flow::Standing;
use dormouse_core::{EventId, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::sql::{Cells, Rows, execute, fetch};
use super::throttles;
use crate::batch::ingest::Additions;
use crate::batch::limits::{LimitKey, Limits, decided, gate};
use crate::batch::throttles::throttled;
use crate::error::Result;
use crate::read::Decided;

static KNOWN: Rows = Rows::new(
    "SELECT function_id, gate, key, used_until_us, run_id FROM limits WHERE (function_id, gate, key) IN (VALUES ",
    3,
    ")",
);
static REMEMBER: Rows = Rows::insert(
    "INSERT OR REPLACE INTO limits (function_id, gate, key, used_until_us, run_id) SELECT * FROM (VALUES ",
    5,
);
static DECISIONS: Rows = Rows::insert(
    "INSERT OR IGNORE INTO decisions (event_id, function_id, decision, at_ms, run_id, detail) SELECT * FROM (VALUES ",
    6,
);
/// Rows are swept out after so many were written: twice as many, so that the table does not outgrow what is in force.
const SWEEP_EVERY: usize = 64;

/// What is stored of some limits.
pub(super) async fn known(conn: &mut SqliteConnection, keys: &[LimitKey]) -> Result<Limits> {
    let mut known = Limits::default();
    let rows = KNOWN
        .fetch(conn, keys, |args, (function_id, gate, key)| {
            args.int(*function_id).int(*gate as i64).text(key);
        })
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row);
        let key = (cells.int()?, gate(cells.int()?)?, cells.text()?.to_owned());
        let standing = Standing {
            used_until: cells.int()?,
            run: cells.run()?,
        };
        known.insert(key, standing);
    }
    Ok(known)
}

/// Stores what a batch decided.
pub(super) async fn write(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    additions: &Additions<'_>,
    now: Timestamp,
) -> Result<()> {
    DECISIONS
        .apply(
            conn,
            &additions.decisions.rows(),
            |args, ((event, function_id), reason)| {
                let (decision, at, run, detail) = reason;
                args.event(*event)
                    .int(*function_id)
                    .int(*decision as i64)
                    .time(*at)
                    .run_or_null(*run)
                    .text(detail);
            },
        )
        .await?;
    remember(conn, &additions.limits).await?;
    throttles::insert(conn, &throttled(&additions.runs)).await?;
    cache.unswept_limits += additions.limits.len();
    if cache.unswept_limits >= SWEEP_EVERY {
        let limit = cache.unswept_limits * 2;
        execute(
            conn,
            "DELETE FROM limits WHERE (function_id, gate, key) IN \
             (SELECT function_id, gate, key FROM limits WHERE used_until_us <= ? ORDER BY used_until_us LIMIT ?)",
            |args| {
                args.int(now.as_millis().saturating_mul(1_000)).int(limit as i64);
            },
        )
        .await?;
        cache.unswept_limits = 0;
    }
    Ok(())
}

/// Stores what limits have to remember.
pub(super) async fn remember(
    conn: &mut SqliteConnection,
    limits: &BTreeMap<LimitKey, Standing>,
) -> Result<()> {
    let rows: Vec<(&LimitKey, &Standing)> = limits.iter().collect();
    REMEMBER
        .apply(conn, &rows, |args, ((function_id, gate, key), standing)| {
            args.int(*function_id)
                .int(*gate as i64)
                .text(key)
                .int(standing.used_until)
                .run(standing.run);
        })
        .await
}

/// Why an event started nothing.
pub(super) async fn decisions(conn: &mut SqliteConnection, event: EventId) -> Result<Vec<Decided>> {
    let rows = fetch(
        conn,
        "SELECT f.module, f.function, d.decision, d.at_ms, d.run_id, d.detail \
         FROM decisions d JOIN functions f ON f.id = d.function_id WHERE d.event_id = ? ORDER BY f.module, f.function",
        |args| {
            args.event(event);
        },
    )
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        found.push(decided(
            cells.text()?,
            cells.text()?,
            cells.int()?,
            cells.time()?,
            cells.bytes_or_null()?.map(RunId::from_bytes),
            cells.text()?.to_owned(),
        )?);
    }
    Ok(found)
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&KNOWN, &REMEMBER, &DECISIONS]
}
