//! What runs wait for that others bring: storing waits, and ending them.
//!
//! An event finds its waits by index: for each path that waits for its name have, the key of its own field there. Only
//! conditions are asked one by one. A name that nobody has ever waited for costs a look into memory.

use std::collections::{HashMap, HashSet};

use dormouse_core::run::{Event, Phase};
use dormouse_core::wait::{EventWait, holds, key, signal_replaced, signal_taken};
use dormouse_core::{Json, RunId, Seq, Timestamp, limit};
use serde_json::Value;
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::runs::{Work, place};
use super::sql::{Cells, Rows, execute, fetch};
use crate::error::Result;
use crate::execute::{Append, Completion};
use crate::ingest::NewEvent;
use crate::wait::{NewWait, WaitOn};

/// The kinds of waits. The numbers are on disk.
mod kind {
    pub(super) const EVENT: i64 = 1;
    pub(super) const SIGNAL: i64 = 2;
}

static INSERT: Rows = Rows::insert(
    "INSERT OR REPLACE INTO waits (run_id, operation, kind, name, path, key, condition) SELECT * FROM (VALUES ",
    7,
);
static REMOVE: Rows = Rows::new("DELETE FROM waits WHERE (run_id, operation) IN (VALUES ", 2, ")");
static CLEAR: Rows = Rows::new("DELETE FROM waits WHERE run_id IN (VALUES ", 1, ")");
static FIND: Rows = Rows::new(
    "SELECT w.name, w.path, w.key, w.run_id, w.operation, w.condition, \
     CASE WHEN w.condition IS NOT NULL THEN (SELECT CASE WHEN e.large \
       THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
       FROM runs r JOIN events e ON e.id = r.event_id WHERE r.id = w.run_id) END \
     FROM waits w WHERE (w.kind, w.name, w.path, w.key) IN (VALUES ",
    4,
    ")",
);
pub(super) const HOLDER: &str = "SELECT w.run_id, w.operation FROM waits w WHERE w.kind = ? AND w.name = ? AND w.path = '' AND w.key = ''";
const STARTED_BY: &str = "SELECT CASE WHEN e.large \
     THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
     FROM runs r JOIN events e ON e.id = r.event_id WHERE r.id = ?";
pub(super) const RECEIVED: &str = "SELECT CASE WHEN e.large \
     THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
     FROM events e WHERE e.name = ? AND e.received_ms >= ? ORDER BY e.received_ms DESC, e.id DESC LIMIT ?";
const _: () = assert!(place::EVENT == -3);

/// Stores the waits that come with an append's entries. One that finds its event looking back is completed instead.
pub(super) async fn register(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    work: &mut Work,
    append: &Append,
) -> Result<()> {
    for wait in &append.waits {
        match &wait.on {
            WaitOn::Event(on) => {
                if let Some(event) = look_back(conn, append.run, on).await? {
                    work.complete(
                        append.run,
                        Completion {
                            operation: wait.operation,
                            at: append.now,
                            outcome: Ok(event),
                        },
                    );
                    continue;
                }
                remember_path(conn, cache, on).await?;
            }
            WaitOn::Signal(on) => {
                if let Some((other, operation)) = holder(conn, work, &on.signal).await? {
                    let completion = |operation, failure| Completion {
                        operation,
                        at: append.now,
                        outcome: Err(failure),
                    };
                    if !on.replace {
                        let failure = signal_taken(&on.signal, other);
                        work.complete(append.run, completion(wait.operation, failure));
                        continue;
                    }
                    work.load(conn, vec![other]).await?;
                    let failure = signal_replaced(&on.signal, append.run);
                    work.woke |= complete_in(work, other, completion(operation, failure))?;
                }
            }
        }
        work.wait(append.run, wait.clone());
    }
    Ok(())
}

/// Who waits for a signal, after what this batch has done so far.
async fn holder(conn: &mut SqliteConnection, work: &Work, signal: &str) -> Result<Option<(RunId, Seq)>> {
    let new = work
        .new_waits()
        .iter()
        .find(|(_, wait)| matches!(&wait.on, WaitOn::Signal(on) if on.signal == signal));
    if let Some((run, wait)) = new {
        return Ok(Some((*run, wait.operation)));
    }
    let stored = stored_holder(conn, signal).await?;
    Ok(stored.filter(|(run, operation)| !work.is_over(*run, *operation)))
}

async fn stored_holder(conn: &mut SqliteConnection, signal: &str) -> Result<Option<(RunId, Seq)>> {
    let rows = fetch(conn, HOLDER, |args| {
        args.int(kind::SIGNAL).text(signal);
    })
    .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let mut cells = Cells::of(row);
    Ok(Some((cells.run()?, cells.number()?)))
}

/// Completes the wait for a signal. True: its run was made ready.
pub(super) async fn signal(
    conn: &mut SqliteConnection,
    signal: &str,
    data: &Json,
    now: Timestamp,
) -> Result<(Option<RunId>, bool)> {
    let Some((run, operation)) = stored_holder(conn, signal).await? else {
        return Ok((None, false));
    };
    let completion = Completion {
        operation,
        at: now,
        outcome: Ok(data.clone()),
    };
    Ok((Some(run), complete(conn, vec![(run, completion)]).await?))
}

async fn remember_path(conn: &mut SqliteConnection, cache: &mut Cache, on: &EventWait) -> Result<()> {
    let paths = cache.wait_paths.entry(on.event.clone()).or_default();
    if !paths.contains(&on.path) {
        paths.push(on.path.clone());
        execute(
            conn,
            "INSERT OR IGNORE INTO wait_paths (name, path) VALUES (?, ?)",
            |args| {
                args.text(&on.event).text(&on.path);
            },
        )
        .await?;
    }
    Ok(())
}

/// The latest event that ends a wait, of those that it looks back to.
async fn look_back(conn: &mut SqliteConnection, run: RunId, on: &EventWait) -> Result<Option<Json>> {
    let Some(from) = on.lookback_from else {
        return Ok(None);
    };
    let received = fetch(conn, RECEIVED, |args| {
        args.text(&on.event)
            .time(from)
            .int(limit::LOOKBACK_EVENTS_MAX.into());
    })
    .await?;
    if received.is_empty() {
        return Ok(None);
    }
    let started_by = fetch(conn, STARTED_BY, |args| {
        args.run(run);
    })
    .await?;
    let started_by = match started_by.first() {
        Some(row) => read(Cells::of(row).text()?),
        None => Value::Null,
    };
    for row in &received {
        let text = Cells::of(row).text()?;
        if on.ends_by(&read(text), &started_by) {
            return Ok(Some(Json::trusted(text)));
        }
    }
    Ok(None)
}

/// What is stored was JSON when it came.
fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Ends the waits that new events end. True: some run was made ready.
pub(super) async fn end_by_events(
    conn: &mut SqliteConnection,
    cache: &Cache,
    events: &[(&NewEvent, Timestamp)],
) -> Result<bool> {
    let mut probes: Vec<Vec<(String, String, String)>> = Vec::with_capacity(events.len());
    let mut payloads = Vec::with_capacity(events.len());
    for (event, _) in events {
        let payload = read(event.payload.as_str());
        let paths = cache
            .wait_paths
            .get(&event.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let probe = |path: &String| {
            let key = if path.is_empty() {
                Some(String::new())
            } else {
                key(&payload, path)
            };
            key.map(|key| (event.name.clone(), path.clone(), key))
        };
        probes.push(paths.iter().filter_map(probe).collect());
        payloads.push(payload);
    }
    let mut wanted: Vec<&(String, String, String)> = probes.iter().flatten().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let rows = FIND
        .fetch(conn, &wanted, |args, (name, path, key)| {
            args.int(kind::EVENT).text(name).text(path).text(key);
        })
        .await?;
    if rows.is_empty() {
        return Ok(false);
    }
    struct Found<'r> {
        run: RunId,
        operation: Seq,
        condition: Option<(&'r str, Value)>,
    }
    let mut found: HashMap<(String, String, String), Vec<Found<'_>>> = HashMap::new();
    for row in &rows {
        let mut cells = Cells::of(row);
        let probe = (
            cells.text()?.to_owned(),
            cells.text()?.to_owned(),
            cells.text()?.to_owned(),
        );
        let (run, operation) = (cells.run()?, cells.number()?);
        let condition = match cells.text_or_null()? {
            Some(condition) => Some((condition, read(cells.text_or_null()?.unwrap_or("null")))),
            None => None,
        };
        found.entry(probe).or_default().push(Found {
            run,
            operation,
            condition,
        });
    }
    let mut ended: HashSet<(RunId, Seq)> = HashSet::new();
    let mut completions = Vec::new();
    for (((event, at), payload), probes) in events.iter().zip(&payloads).zip(&probes) {
        for wait in probes.iter().filter_map(|probe| found.get(probe)).flatten() {
            let fits = wait
                .condition
                .as_ref()
                .is_none_or(|(condition, started_by)| holds(condition, payload, started_by));
            if fits && ended.insert((wait.run, wait.operation)) {
                let completion = Completion {
                    operation: wait.operation,
                    at: *at,
                    outcome: Ok(event.payload.clone()),
                };
                completions.push((wait.run, completion));
            }
        }
    }
    complete(conn, completions).await
}

/// Completes waits, which are over with that, and makes their runs ready that wait. True: some run was made ready.
async fn complete(conn: &mut SqliteConnection, completions: Vec<(RunId, Completion)>) -> Result<bool> {
    let mut work = Work::default();
    work.load(conn, completions.iter().map(|(run, _)| *run).collect())
        .await?;
    let mut woken = false;
    for (run, completion) in completions {
        woken |= complete_in(&mut work, run, completion)?;
    }
    work.flush(conn).await?;
    Ok(woken)
}

/// Completes one wait of a run that is loaded.
fn complete_in(work: &mut Work, run: RunId, completion: Completion) -> Result<bool> {
    let at = completion.at;
    work.end_wait(run, completion.operation);
    work.complete(run, completion);
    let waits = work.get(run).is_some_and(|row| {
        matches!(
            row.state.phase,
            Some(Phase::Sleeping | Phase::Waiting | Phase::BackingOff | Phase::Limited)
        )
    });
    if waits {
        work.change(run, |row| row.ready(Event::Wake, at))?;
    }
    Ok(waits)
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
            };
        })
        .await
}

pub(super) async fn remove(
    conn: &mut SqliteConnection,
    ended: &[(RunId, Seq)],
    cleared: &[RunId],
) -> Result<()> {
    REMOVE
        .apply(conn, ended, |args, (run, operation)| {
            args.run(*run).int((*operation).into());
        })
        .await?;
    CLEAR
        .apply(conn, cleared, |args, run| {
            args.run(*run);
        })
        .await
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&INSERT, &REMOVE, &CLEAR, &FIND]
}
