//! Events that start runs together.

use dormouse_core::{EventId, Json, RunId};
use sqlx::SqliteConnection;

use super::runs;
use super::sql::{Cells, Rows, fetch};
use crate::batch::ingest::Known;
use crate::batch::limits::LimitKey;
use crate::batch::runs::Work;
use crate::batch::windows::{Changed, Collected, Gatherings, Member};
use crate::error::Result;
use crate::ingest::Ingest;
use crate::read::BatchEvent;

/// The events that runs start with, and the last of those that batches have.
static COLLECTED: Rows = Rows::new(
    "SELECT r.id, r.event_id, b.position, b.bytes FROM runs r LEFT JOIN batched b ON b.run_id = r.id \
     AND b.position = (SELECT max(m.position) FROM batched m WHERE m.run_id = r.id) WHERE r.id IN (VALUES ",
    1,
    ")",
);
static CHANGED: Rows = Rows::new(
    "UPDATE runs SET event_id = v.column2, config_revision = v.column3 FROM (VALUES ",
    3,
    ") AS v WHERE runs.id = v.column1",
);
static MEMBERS: Rows = Rows::insert(
    "INSERT INTO batched (run_id, position, event_id, bytes) SELECT * FROM (VALUES ",
    4,
);
static COPIES: Rows = Rows::new(
    "INSERT INTO batched (run_id, position, event_id, bytes) SELECT v.column1, b.position, b.event_id, b.bytes FROM (VALUES ",
    2,
    ") AS v CROSS JOIN batched b ON b.run_id = v.column2",
);
static SUPERSEDED: Rows = Rows::new(
    "UPDATE events SET has_runs = 0 WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.event_id = events.id) \
     AND NOT EXISTS (SELECT 1 FROM batched b WHERE b.event_id = events.id) AND id IN (VALUES ",
    1,
    ")",
);

/// The runs of windows that may be open.
pub(super) async fn load(
    conn: &mut SqliteConnection,
    known: &mut Known,
    (keys, requests): (&[LimitKey], &[&Ingest]),
) -> Result<Work> {
    let mut work = Work::default();
    let ids = crate::batch::windows::runs(&known.limits, keys, requests);
    if ids.is_empty() {
        return Ok(work);
    }
    runs::load(conn, &mut work, ids.clone()).await?;
    let rows = COLLECTED
        .fetch(conn, &ids, |args, id| {
            args.run(*id);
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
    conn: &mut SqliteConnection,
    work: &mut Work,
    mut gatherings: Gatherings,
) -> Result<()> {
    if gatherings.moves() {
        gatherings.apply(work)?;
        runs::flush(conn, work).await?;
    }
    let changed: Vec<(&RunId, &Changed)> = gatherings.changed.iter().collect();
    CHANGED
        .apply(conn, &changed, |args, (run, changed)| {
            args.run(**run).event(changed.event).int(changed.config_revision);
        })
        .await?;
    MEMBERS
        .apply(conn, &gatherings.members, |args, member| {
            let Member {
                run,
                position,
                event,
                bytes,
            } = *member;
            args.run(run)
                .int(position.into())
                .event(event)
                .int(i64::try_from(bytes).unwrap_or(i64::MAX));
        })
        .await?;
    COPIES
        .apply(conn, &gatherings.copies, |args, (run, of)| {
            args.run(*run).run(*of);
        })
        .await?;
    SUPERSEDED
        .apply(conn, &gatherings.superseded, |args, event| {
            args.event(*event);
        })
        .await
}

/// The events of a batch.
pub(super) async fn batch(conn: &mut SqliteConnection, run: RunId) -> Result<Vec<BatchEvent>> {
    let rows = fetch(
        conn,
        "SELECT e.id, CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) \
         ELSE e.payload END FROM batched m JOIN events e ON e.id = m.event_id WHERE m.run_id = ? ORDER BY m.position",
        |args| {
            args.run(run);
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
    rows.iter().map(read).collect()
}

/// The events of batches that are about to be deleted.
pub(super) async fn events(conn: &mut SqliteConnection, runs: &[RunId]) -> Result<Vec<EventId>> {
    let rows = OF_RUNS
        .fetch(conn, runs, |args, id| {
            args.run(*id);
        })
        .await?;
    rows.iter().map(|row| Cells::of(row).event()).collect()
}

static OF_RUNS: Rows = Rows::new("SELECT event_id FROM batched WHERE run_id IN (VALUES ", 1, ")");

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&COLLECTED, &CHANGED, &MEMBERS, &COPIES, &SUPERSEDED, &OF_RUNS]
}
