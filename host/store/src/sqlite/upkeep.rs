//! Finding out whether writes are durable, and deleting what is old.

use std::collections::HashSet;

use dormouse_core::{Digest, EventId, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::sql::{Cells, Rows, execute, fetch};
use crate::batch::runs::place;
use crate::error::Result;

pub(super) async fn probe(conn: &mut SqliteConnection, now: Timestamp) -> Result<()> {
    execute(conn, "UPDATE probe SET at_ms = ?", |args| {
        args.time(now);
    })
    .await?;
    Ok(())
}

/// All that belongs to runs, beside their rows.
static BELONGINGS: [Rows; 9] = [
    Rows::new("DELETE FROM journal WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM logs WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM outcomes WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM throttled WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM batched WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM slots WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM completions WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM swaps WHERE run_id IN (VALUES ", 1, ")"),
    Rows::new("DELETE FROM blobs WHERE owner_id IN (VALUES ", 1, ")"),
];
static RUNS: Rows = Rows::new("DELETE FROM runs WHERE id IN (VALUES ", 1, ")");

static EVENTS_LEFT: Rows = Rows::new(
    "SELECT e.id, e.received_ms FROM events e WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.event_id = e.id) \
     AND NOT EXISTS (SELECT 1 FROM batched b WHERE b.event_id = e.id) AND e.id IN (VALUES ",
    1,
    ")",
);
static EVENTS_ORPHANED: Rows = Rows::new("UPDATE events SET has_runs = 0 WHERE id IN (VALUES ", 1, ")");
static EVENTS: Rows = Rows::new("DELETE FROM events WHERE id IN (VALUES ", 1, ")");
static DECISIONS: Rows = Rows::new("DELETE FROM decisions WHERE event_id IN (VALUES ", 1, ")");
static EVENT_BLOBS: Rows = Rows::new("DELETE FROM blobs WHERE (owner_id, seq) IN (VALUES ", 2, ")");

/// Deletes runs that ended before a time, and events as old that no run refers to.
pub(super) async fn prune(conn: &mut SqliteConnection, ended_before: Timestamp, limit: u32) -> Result<u64> {
    let rows = fetch(
        conn,
        "SELECT id, event_id FROM runs WHERE ended_ms IS NOT NULL AND ended_ms < ? ORDER BY ended_ms, id LIMIT ?",
        |args| {
            args.time(ended_before).int(limit.into());
        },
    )
    .await?;
    let mut runs: Vec<RunId> = Vec::with_capacity(rows.len());
    let mut events: Vec<EventId> = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        runs.push(cells.run()?);
        events.push(cells.event()?);
    }
    runs.sort_unstable();
    events.extend(super::windows::events(conn, &runs).await?);
    for statement in &BELONGINGS {
        statement
            .apply(conn, &runs, |args, id| {
                args.run(*id);
            })
            .await?;
    }
    RUNS.apply(conn, &runs, |args, id| {
        args.run(*id);
    })
    .await?;
    events.sort_unstable();
    events.dedup();
    let left = EVENTS_LEFT
        .fetch(conn, &events, |args, id| {
            args.event(*id);
        })
        .await?;
    let (mut old, mut young) = (Vec::new(), Vec::new());
    for row in &left {
        let mut cells = Cells::of(row);
        let id = cells.event()?;
        if cells.time()? < ended_before {
            old.push(id)
        } else {
            young.push(id)
        }
    }
    EVENTS_ORPHANED
        .apply(conn, &young, |args, id| {
            args.event(*id);
        })
        .await?;
    let alone = fetch(
        conn,
        "SELECT id FROM events WHERE has_runs = 0 AND received_ms < ? ORDER BY received_ms, id LIMIT ?",
        |args| {
            args.time(ended_before).int(limit.into());
        },
    )
    .await?;
    for row in &alone {
        old.push(Cells::of(row).event()?);
    }
    EVENT_BLOBS
        .apply(conn, &old, |args, id| {
            args.event(*id).int(place::EVENT);
        })
        .await?;
    DECISIONS
        .apply(conn, &old, |args, id| {
            args.event(*id);
        })
        .await?;
    EVENTS
        .apply(conn, &old, |args, id| {
            args.event(*id);
        })
        .await?;
    Ok(runs.len() as u64)
}

/// The digests that some version needs.
pub(super) async fn needed_components(conn: &mut SqliteConnection) -> Result<HashSet<Digest>> {
    let rows = fetch(
        conn,
        "SELECT DISTINCT digest FROM versions WHERE deleted = 0",
        |_| {},
    )
    .await?;
    rows.iter()
        .map(|row| Cells::of(row).bytes().map(Digest::from_bytes))
        .collect()
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    [
        &RUNS,
        &EVENTS_LEFT,
        &EVENTS_ORPHANED,
        &EVENTS,
        &EVENT_BLOBS,
        &DECISIONS,
    ]
    .into_iter()
    .chain(&BELONGINGS)
    .collect()
}
