//! Finding out whether writes are durable, and deleting what is old.

use dormouse_core::{EventId, RunId, Timestamp};

use super::fault::Attempt;
use super::sql::{Cells, Conn};

pub(super) async fn probe(conn: &mut Conn, now: Timestamp) -> Attempt<()> {
    conn.execute("UPDATE probe SET at_ms = $1", |args| {
        args.time(now);
    })
    .await?;
    Ok(())
}

/// All that belongs to runs, and their rows.
const OF_RUNS: [&str; 10] = [
    "DELETE FROM journal WHERE run_id = ANY($1)",
    "DELETE FROM logs WHERE run_id = ANY($1)",
    "DELETE FROM outcomes WHERE run_id = ANY($1)",
    "DELETE FROM throttled WHERE run_id = ANY($1)",
    "DELETE FROM batched WHERE run_id = ANY($1)",
    "DELETE FROM slots WHERE run_id = ANY($1)",
    "DELETE FROM completions WHERE run_id = ANY($1)",
    "DELETE FROM swaps WHERE run_id = ANY($1)",
    "DELETE FROM blobs WHERE owner_id = ANY($1)",
    "DELETE FROM runs WHERE id = ANY($1)",
];

/// Locks events, so that no run comes to refer to them meanwhile, and says which of them have none.
const LOCK_EVENTS: &str = "SELECT id FROM events WHERE id = ANY($1) ORDER BY id FOR UPDATE SKIP LOCKED";
const EVENTS_LEFT: &str = "SELECT e.id, e.received_ms FROM events e WHERE e.id = ANY($1) \
     AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.event_id = e.id) \
     AND NOT EXISTS (SELECT 1 FROM batched b WHERE b.event_id = e.id)";

/// Deletes runs that ended before a time, and events as old that no run refers to.
pub(super) async fn prune(conn: &mut Conn, ended_before: Timestamp, limit: u32) -> Attempt<u64> {
    // Several nodes may prune at once: each takes what the others have not.
    let rows = conn
        .fetch(
            "SELECT id, event_id FROM runs WHERE ended_ms IS NOT NULL AND ended_ms < $1 \
             ORDER BY ended_ms, id LIMIT $2 FOR UPDATE SKIP LOCKED",
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
    if !runs.is_empty() {
        events.extend(super::windows::events(conn, &runs).await?);
        for text in OF_RUNS {
            conn.execute(text, |args| {
                args.keys(runs.iter().copied());
            })
            .await?;
        }
    }
    let alone = conn
        .fetch(
            "SELECT id FROM events WHERE NOT has_runs AND received_ms < $1 ORDER BY received_ms, id LIMIT $2",
            |args| {
                args.time(ended_before).int(limit.into());
            },
        )
        .await?;
    // The runs' own events come beside those that never had a run, as many of these as there may be runs.
    for row in &alone {
        events.push(Cells::of(row).event()?);
    }
    events.sort_unstable();
    events.dedup();
    prune_events(conn, &events, ended_before).await?;
    Ok(runs.len() as u64)
}

async fn prune_events(conn: &mut Conn, events: &[EventId], ended_before: Timestamp) -> Attempt<()> {
    if events.is_empty() {
        return Ok(());
    }
    let locked = ids(conn, LOCK_EVENTS, events).await?;
    let left = conn
        .fetch(EVENTS_LEFT, |args| {
            args.keys(locked.iter().copied());
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
    if !young.is_empty() {
        conn.execute(
            "UPDATE events SET has_runs = false WHERE has_runs AND id = ANY($1)",
            |args| {
                args.keys(young.iter().copied());
            },
        )
        .await?;
    }
    if !old.is_empty() {
        for text in [
            "DELETE FROM blobs WHERE seq = -3 AND owner_id = ANY($1)",
            "DELETE FROM decisions WHERE event_id = ANY($1)",
            "DELETE FROM events WHERE id = ANY($1)",
        ] {
            conn.execute(text, |args| {
                args.keys(old.iter().copied());
            })
            .await?;
        }
    }
    Ok(())
}

async fn ids(conn: &mut Conn, text: &'static str, events: &[EventId]) -> Attempt<Vec<EventId>> {
    let rows = conn
        .fetch(text, |args| {
            args.keys(events.iter().copied());
        })
        .await?;
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(Cells::of(row).event()?);
    }
    Ok(ids)
}
