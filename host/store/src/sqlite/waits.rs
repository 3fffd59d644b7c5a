//! Waits on SQLite: storing, finding and removing their rows.

use std::collections::HashMap;

use dormouse_core::{EventId, Json, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::execute::Writing;
use super::ingest::stored_events;
use super::runs::{flush, load};
use super::sql::{Args, Cells, Rows, execute, fetch};
use super::{ending, ends, throttles};
use crate::batch;
use crate::batch::ends::awaited;
use crate::batch::runs::{Changes, Work, place};
use crate::batch::singletons::{self, Consequences};
use crate::batch::throttles::waiting;
use crate::batch::waits::{Arrivals, Found, Probe, child_name, child_path, complete, kind, new_paths};
use crate::error::Result;
use crate::wait::{NewWait, WaitOn};

static INSERT: Rows = Rows::insert(
    "INSERT OR REPLACE INTO waits (run_id, operation, kind, name, path, key, condition) SELECT * FROM (VALUES ",
    7,
);
static REMOVE: Rows = Rows::new("DELETE FROM waits WHERE (run_id, operation) IN (VALUES ", 2, ")");
/// What may end the run stays.
static RESET: Rows = Rows::new("DELETE FROM waits WHERE kind < 4 AND run_id IN (VALUES ", 1, ")");
static CLEAR: Rows = Rows::new("DELETE FROM waits WHERE run_id IN (VALUES ", 1, ")");
static FIND: Rows = Rows::new(
    "SELECT w.kind, w.until_ms, w.name, w.path, w.key, w.run_id, w.operation, w.condition, \
     CASE WHEN w.condition IS NOT NULL THEN (SELECT CASE WHEN e.large \
       THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
       FROM runs r JOIN events e ON e.id = r.event_id WHERE r.id = w.run_id) END \
     FROM waits w WHERE (w.kind, w.name, w.path, w.key) IN (VALUES ",
    4,
    ")",
);
pub(super) const HOLDER: &str = "SELECT w.run_id, w.operation FROM waits w \
     WHERE w.kind = 2 AND w.name = ? AND w.path = '' AND w.key = ''";
const STARTED_BY: &str = "SELECT CASE WHEN e.large \
     THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
     FROM runs r JOIN events e ON e.id = r.event_id WHERE r.id = ?";
pub(super) const RECEIVED: &str = "SELECT CASE WHEN e.large \
     THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
     FROM events e WHERE e.name = ? AND e.received_ms >= ? ORDER BY e.received_ms DESC, e.id DESC LIMIT ?";
pub(super) const CALLER: &str = "SELECT w.operation FROM waits w \
     WHERE w.kind = 3 AND w.name = ? AND w.path IN ('abandon', 'cancel') AND w.key = '' AND w.run_id = ?";
/// Found by the key of what is given up: there may be many more that wait for other runs' ends.
static ORPHANS_OF: Rows = Rows::new(
    "INSERT OR IGNORE INTO orphans (run_id) SELECT unhex(w.name) FROM waits w \
     WHERE +w.kind = 3 AND +w.path = 'cancel' AND (w.run_id, w.operation) IN (VALUES ",
    2,
    ")",
);
static ORPHANS_OF_ALL: Rows = Rows::new(
    "INSERT OR IGNORE INTO orphans (run_id) SELECT unhex(w.name) FROM waits w \
     WHERE +w.kind = 3 AND +w.path = 'cancel' AND w.run_id IN (VALUES ",
    1,
    ")",
);
static ORPHANS: Rows = Rows::insert("INSERT OR IGNORE INTO orphans (run_id) SELECT * FROM (VALUES ", 1);
const _: () = assert!(place::EVENT == -3 && kind::SIGNAL == 2 && kind::CHILD == 3);

/// Payloads of a name's events since some time, the latest first.
pub(super) async fn received(
    conn: &mut SqliteConnection,
    name: &str,
    from: Timestamp,
    limit: u32,
) -> Result<Vec<Json>> {
    let rows = fetch(conn, RECEIVED, |args| {
        args.text(name).time(from).int(limit.into());
    })
    .await?;
    rows.iter()
        .map(|row| Ok(Json::trusted(Cells::of(row).text()?)))
        .collect()
}

/// The payload of the event that started a run.
pub(super) async fn started_by(conn: &mut SqliteConnection, run: RunId) -> Result<Option<Json>> {
    let rows = fetch(conn, STARTED_BY, |args| {
        args.run(run);
    })
    .await?;
    match rows.first() {
        Some(row) => Ok(Some(Json::trusted(Cells::of(row).text()?))),
        None => Ok(None),
    }
}

/// The run and the operation that wait for a signal.
pub(super) async fn signal_holder(conn: &mut SqliteConnection, signal: &str) -> Result<Option<(RunId, Seq)>> {
    let rows = fetch(conn, HOLDER, |args| {
        args.text(signal);
    })
    .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut cells = Cells::of(row);
    Ok(Some((cells.run()?, cells.number()?)))
}

/// The operation of a run that waits for another's end.
pub(super) async fn caller(conn: &mut SqliteConnection, parent: RunId, child: RunId) -> Result<Option<Seq>> {
    let rows = fetch(conn, CALLER, |args| {
        args.text(&child_name(child)).run(parent);
    })
    .await?;
    rows.first().map(|row| Cells::of(row).number()).transpose()
}

/// Hands a signal to the run that waits for it. True: that run was made ready.
pub(super) async fn signal(
    conn: &mut SqliteConnection,
    signal: &str,
    data: &Json,
    now: Timestamp,
) -> Result<(Option<RunId>, bool)> {
    let mut work = Work::default();
    let signalled = batch::waits::signal(&mut Writing(conn), &mut work, signal, data, now).await?;
    flush(conn, &mut work).await?;
    Ok(signalled)
}

/// Stores the paths of waits that a batch is going to store.
pub(super) async fn remember_paths(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    work: &Work,
) -> Result<()> {
    let paths = new_paths(cache, work);
    store_paths(conn, cache, paths).await
}

/// Stores paths of events that nobody has asked for yet.
pub(super) async fn store_paths(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    paths: Vec<(String, String)>,
) -> Result<()> {
    ends::await_too(conn, awaited(&paths)).await?;
    for (name, path) in paths {
        execute(
            conn,
            "INSERT OR IGNORE INTO wait_paths (name, path) VALUES (?, ?)",
            |args| {
                args.text(&name).text(&path);
            },
        )
        .await?;
        cache.wait_paths.entry(name).or_default().push(path);
    }
    Ok(())
}

/// Of events that are about to be stored, keeps those that are not there yet.
pub(super) async fn keep_news(conn: &mut SqliteConnection, arrivals: &mut Arrivals<'_>) -> Result<()> {
    if !arrivals.is_empty() {
        let ids: Vec<EventId> = arrivals.ids();
        arrivals.keep_news(stored_events(conn, &ids).await?);
    }
    Ok(())
}

/// Ends the waits that new events end, the runs that they cancel and those that make room for new ones. True: some run was made
/// ready.
pub(super) async fn end(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    arrivals: &Arrivals<'_>,
    (born, consequences): (&HashMap<RunId, usize>, Consequences),
    now: Timestamp,
) -> Result<(bool, Vec<RunId>)> {
    let found = find(conn, &arrivals.probes()).await?;
    let mut ends = arrivals.ends(&found, born, &consequences.displaced());
    ends.cancels.splice(..0, consequences.displaced);
    if ends.is_empty() && consequences.refused.is_empty() {
        return Ok((false, Vec::new()));
    }
    let mut work = Work::default();
    load(conn, &mut work, ends.runs()).await?;
    let waited = waiting(&work, &ends.cancelled().collect::<Vec<_>>());
    let mut woken = complete(&mut work, ends.completions)?;
    let mut cancelled = Vec::new();
    if !ends.cancels.is_empty() {
        let done = batch::ending::cancel(&mut Writing(conn), &mut work, ends.cancels).await?;
        ending::decided(conn, &batch::ending::by_events(&done)).await?;
        cancelled = done.iter().map(|one| one.run).collect();
        throttles::left(conn, &mut work, &waited, Some(now)).await?;
    }
    singletons::tell(&mut Writing(conn), &mut work, consequences.refused).await?;
    woken |= work.woke;
    // Who was cancelled may have held slots.
    cache.slots_freed |= work.freed;
    flush(conn, &mut work).await?;
    Ok((woken, cancelled))
}

async fn find(conn: &mut SqliteConnection, probes: &[&Probe]) -> Result<Vec<Found>> {
    let kinds = [kind::EVENT, kind::CANCELS];
    let probes: Vec<(i64, &Probe)> = probes
        .iter()
        .flat_map(|probe| kinds.map(|kind| (kind, *probe)))
        .collect();
    let rows = FIND
        .fetch(conn, &probes, |args, (kind, probe)| {
            args.int(*kind)
                .text(&probe.name)
                .text(&probe.path)
                .text(&probe.key);
        })
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let (kind, until) = (cells.int()?, cells.time_or_null()?);
        found.push(Found {
            kind,
            until,
            probe: Probe {
                name: cells.text()?.to_owned(),
                path: cells.text()?.to_owned(),
                key: cells.text()?.to_owned(),
            },
            run: cells.run()?,
            operation: cells.number()?,
            condition: cells.text_or_null()?.map(str::to_owned),
            started_by: cells.text_or_null()?.map(Json::trusted),
        });
    }
    Ok(found)
}

pub(super) async fn insert(conn: &mut SqliteConnection, waits: &[(RunId, NewWait)]) -> Result<()> {
    INSERT
        .apply(conn, waits, |args, (run, wait)| {
            args.run(*run).int(wait.operation.into());
            match &wait.on {
                WaitOn::Event(on) => args
                    .int(kind::EVENT)
                    .text(&on.event)
                    .text(&on.path)
                    .text(&on.key)
                    .text_or_null(on.condition.as_deref()),
                WaitOn::Signal(on) => args
                    .int(kind::SIGNAL)
                    .text(&on.signal)
                    .text("")
                    .text("")
                    .text_or_null(None),
                WaitOn::Child(on) => args
                    .int(kind::CHILD)
                    .text(&child_name(on.child))
                    .text(child_path(on))
                    .text("")
                    .text_or_null(None),
                // It was completed instead of being stored.
                WaitOn::Nothing(_) => args
                    .int_or_null(None)
                    .text("")
                    .text("")
                    .text("")
                    .text_or_null(None),
            };
        })
        .await
}

pub(super) async fn remove(conn: &mut SqliteConnection, changes: &Changes) -> Result<()> {
    let run = |args: &mut Args, run: &RunId| {
        args.run(*run);
    };
    ORPHANS_OF
        .apply(conn, &changes.waits_given_up, |args, (run, operation)| {
            args.run(*run).int((*operation).into());
        })
        .await?;
    ORPHANS_OF_ALL.apply(conn, &changes.waits_cleared, run).await?;
    ORPHANS.apply(conn, &changes.orphans, run).await?;
    REMOVE
        .apply(conn, &changes.waits_ended, |args, (run, operation)| {
            args.run(*run).int((*operation).into());
        })
        .await?;
    ORPHANS_OF_ALL.apply(conn, &changes.waits_reset, run).await?;
    RESET.apply(conn, &changes.waits_reset, run).await?;
    CLEAR.apply(conn, &changes.waits_cleared, run).await
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![
        &INSERT,
        &REMOVE,
        &RESET,
        &CLEAR,
        &FIND,
        &ORPHANS_OF,
        &ORPHANS_OF_ALL,
        &ORPHANS,
    ]
}
