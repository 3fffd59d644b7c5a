//! Events that start runs together, on Postgres, where they come in at several nodes at once.
//!
//! A window is changed by whoever has locked its run, together with the other runs of the batch, and then its row among the
//! limits. Which run that is was read before, without a lock; when another node has opened a window meanwhile, the transaction
//! is done again.

use std::collections::HashSet;

use dormouse_core::{EventId, Json, RunId};

use super::cache::Cache;
use super::fault::{Attempt, Fault};
use super::runs;
use super::sql::{Cells, Conn, Together};
use super::writer::Effects;
use crate::batch::ingest::Known;
use crate::batch::limits::{LimitKey, limit_keys};
use crate::batch::runs::Work;
use crate::batch::windows::{Changed, Collected, Gatherings, is_window, open_from};
use crate::error::Result;
use crate::ingest::Ingest;
use crate::read::BatchEvent;

const CANDIDATES: &str = "SELECT l.run_id FROM UNNEST($1::int8[], $2::int8[], $3::text[]) AS v(function_id, gate, key) \
     JOIN limits l ON l.function_id = v.function_id AND l.gate = v.gate AND l.key = v.key WHERE l.used_until_us > $4";
const COLLECTED: &str = "SELECT r.id, r.event_id, b.position, b.bytes FROM runs r LEFT JOIN LATERAL \
     (SELECT m.position, m.bytes FROM batched m WHERE m.run_id = r.id ORDER BY m.position DESC LIMIT 1) b ON true \
     WHERE r.id = ANY($1)";
const CHANGED: &str = "UPDATE runs SET event_id = v.event_id, config_revision = v.config_revision \
     FROM UNNEST($1::uuid[], $2::uuid[], $3::int8[]) AS v(run_id, event_id, config_revision) WHERE runs.id = v.run_id";
const MEMBERS: &str = "INSERT INTO batched (run_id, position, event_id, bytes) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::uuid[], $4::int8[])";
const COPIES: &str = "INSERT INTO batched (run_id, position, event_id, bytes) \
     SELECT v.run_id, b.position, b.event_id, b.bytes FROM UNNEST($1::uuid[], $2::uuid[]) AS v(run_id, of_id) \
     JOIN batched b ON b.run_id = v.of_id";
const SUPERSEDED: &str = "UPDATE events SET has_runs = false WHERE id = ANY($1) AND has_runs \
     AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.event_id = events.id) \
     AND NOT EXISTS (SELECT 1 FROM batched b WHERE b.event_id = events.id)";

/// The runs of the windows that a batch's events may join.
pub(super) async fn candidates(conn: &mut Conn, cache: &Cache, ingests: &[&Ingest]) -> Attempt<Vec<RunId>> {
    let gathers = |ingest: &&Ingest| ingest.runs.iter().any(|run| run.admission.gathering.is_some());
    if !ingests.iter().any(gathers) {
        return Ok(Vec::new());
    }
    let mut keys = limit_keys(cache, ingests)?;
    keys.retain(is_window);
    let rows = conn
        .fetch(CANDIDATES, |args| {
            args.ints(keys.iter().map(|(function_id, _, _)| *function_id))
                .ints(keys.iter().map(|(_, gate, _)| *gate as i64))
                .texts(keys.iter().map(|(_, _, key)| key.as_str()))
                .int(open_from(ingests));
        })
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        found.push(Cells::of(row).run()?);
    }
    Ok(found)
}

/// The runs of windows that may be open. They are locked.
pub(super) async fn load(
    conn: &mut Conn,
    known: &mut Known,
    (keys, requests): (&[LimitKey], &[&Ingest]),
    locked: &HashSet<RunId>,
) -> Attempt<Work> {
    let mut work = Work::default();
    let ids = crate::batch::windows::runs(&known.limits, keys, requests);
    if ids.is_empty() {
        return Ok(work);
    }
    if !ids.iter().all(|id| locked.contains(id)) {
        return Err(Fault::Again("another node has opened a window".to_owned()));
    }
    runs::load(conn, &mut work, ids.clone()).await?;
    let rows = conn
        .fetch(COLLECTED, |args| {
            args.keys(ids.iter().copied());
        })
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row);
        let (id, event) = (cells.run()?, cells.event()?);
        let last = match (cells.int_or_null()?, cells.int_or_null()?) {
            (Some(position), Some(bytes)) => Some((position as u32, bytes.unsigned_abs())),
            _ => None,
        };
        if let Some(row) = work.get(id) {
            known.windows.insert(id, Collected::stored(row, event, last));
        }
    }
    Ok(work)
}

/// Stores what a commit does to windows, after its events and runs.
pub(super) async fn write(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    work: &mut Work,
    mut gatherings: Gatherings,
) -> Attempt<()> {
    if gatherings.moves() {
        gatherings.apply(work)?;
        effects.tell |= runs::flush(conn, work, effects.marks).await?;
    }
    let changed: Vec<(&RunId, &Changed)> = gatherings.changed.iter().collect();
    let mut together = Together::default();
    together.add(&changed, CHANGED, |args, rows| {
        args.keys(rows.iter().map(|(run, _)| **run))
            .keys(rows.iter().map(|(_, changed)| changed.event))
            .ints(rows.iter().map(|(_, changed)| changed.config_revision));
    });
    together.add(&gatherings.members, MEMBERS, |args, rows| {
        args.keys(rows.iter().map(|member| member.run))
            .ints(rows.iter().map(|member| member.position.into()))
            .keys(rows.iter().map(|member| member.event))
            .ints(
                rows.iter()
                    .map(|member| i64::try_from(member.bytes).unwrap_or(i64::MAX)),
            );
    });
    together.add(&gatherings.copies, COPIES, |args, rows| {
        args.keys(rows.iter().map(|(run, _)| *run))
            .keys(rows.iter().map(|(_, of)| *of));
    });
    together.run(conn).await?;
    // Once the runs start with others: statements that go together do not see each other's rows.
    if !gatherings.superseded.is_empty() {
        conn.execute(SUPERSEDED, |args| {
            args.keys(gatherings.superseded.iter().copied());
        })
        .await?;
    }
    Ok(())
}

/// The events of a batch.
pub(super) async fn batch(conn: &mut Conn, run: RunId) -> Attempt<Vec<BatchEvent>> {
    let rows = conn
        .fetch(
            "SELECT e.id, CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) \
             ELSE e.payload END FROM batched m JOIN events e ON e.id = m.event_id WHERE m.run_id = $1 ORDER BY m.position",
            |args| {
                args.key(run);
            },
        )
        .await?;
    let read = |row| {
        let mut cells = Cells::of(row);
        Ok(BatchEvent {
            id: cells.event()?,
            payload: Json::trusted(cells.text()?),
        })
    };
    let events: Result<Vec<BatchEvent>> = rows.iter().map(read).collect();
    Ok(events?)
}

/// The events of batches that are about to be deleted.
pub(super) async fn events(conn: &mut Conn, runs: &[RunId]) -> Attempt<Vec<EventId>> {
    let rows = conn
        .fetch("SELECT event_id FROM batched WHERE run_id = ANY($1)", |args| {
            args.keys(runs.iter().copied());
        })
        .await?;
    let events: Result<Vec<EventId>> = rows.iter().map(|row| Cells::of(row).event()).collect();
    Ok(events?)
}
