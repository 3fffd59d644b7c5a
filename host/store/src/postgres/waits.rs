//! Waits on Postgres, where an event and a wait for it may come in at two nodes at once.
//!
//! Under READ COMMITTED neither transaction sees the other's rows. For most waits that is right: whoever is not seen was
//! first or last, and nobody can tell. It is not for a wait that looks back, which must not be missed by an event that it
//! does not find either. So whoever stores events locks their names, shared, before reading anything, and whoever stores
//! a wait that looks back, or one with a path that events of the name are not asked for yet, locks the name alone. What
//! was committed before the lock was given is seen by every statement after it.
//!
//! A signal's name is locked alone by whoever stores a wait for it or sends it: so there is one such wait at most.
//!
//! The order of locks: the registry's, names in the order of their slots, rows of runs in the order of their ids. Which
//! runs an event may wake is found out before the batch locks its own runs, so that all of them are locked together.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use dormouse_core::{Digest, EventId, Json, RunId, Seq, Timestamp};

use super::cache::Cache;
use super::execute::Writing;
use super::fault::Attempt;
use super::runs::{flush, load};
use super::sql::{Args, Cells, Conn, Together};
use super::writer::Effects;
use super::{ending, ends, throttles};
use crate::batch;
use crate::batch::ends::awaited;
use crate::batch::ingest::Small;
use crate::batch::request::Request;
use crate::batch::runs::{Changes, Work, place};
use crate::batch::singletons::{self, Consequences};
use crate::batch::throttles::waiting;
use crate::batch::waits::{Arrivals, Found, Probe, child_name, child_path, complete, kind, new_paths};
use crate::error::Result;
use crate::ingest::Ingest;
use crate::wait::WaitOn;

const INSERT: &str = "INSERT INTO waits (run_id, operation, kind, name, path, key, condition) \
     SELECT v.run_id, v.operation, v.kind, v.name, v.path, v.key, v.condition \
     FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[]) \
     AS v(run_id, operation, kind, name, path, key, condition) ON CONFLICT (run_id, operation) DO UPDATE \
     SET kind = excluded.kind, name = excluded.name, path = excluded.path, key = excluded.key, \
     condition = excluded.condition";
const HOLDERS: &str = "SELECT w.run_id, w.operation FROM waits w \
     WHERE w.kind = 2 AND w.name = ANY($1) AND w.path = '' AND w.key = ''";
const REMOVE: &str = "DELETE FROM waits w USING UNNEST($1::uuid[], $2::int8[]) AS v(run_id, operation) \
     WHERE w.run_id = v.run_id AND w.operation = v.operation";
/// What may end the run stays.
const RESET: &str = "DELETE FROM waits WHERE kind < 4 AND run_id = ANY($1::uuid[])";
const CLEAR: &str = "DELETE FROM waits WHERE run_id = ANY($1::uuid[])";
const FIND: &str = "SELECT w.kind, w.until_ms, w.name, w.path, w.key, w.run_id, w.operation, w.condition, \
     CASE WHEN w.condition IS NOT NULL THEN (SELECT CASE WHEN e.large \
       THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
       FROM runs r JOIN events e ON e.id = r.event_id WHERE r.id = w.run_id) END \
     FROM UNNEST($1::text[], $2::text[], $3::text[]) AS v(name, path, key) \
     JOIN waits w ON w.kind IN (1, 4) AND w.name = v.name AND w.path = v.path AND w.key = v.key \
     ORDER BY w.run_id, w.operation";
/// In order of the keys, so that two nodes that insert the same ones wait for each other one way only.
const PATHS: &str = "INSERT INTO wait_paths (name, path) \
     SELECT * FROM UNNEST($1::text[], $2::text[]) ON CONFLICT DO NOTHING";
const STARTED_BY: &str = "SELECT CASE WHEN e.large \
     THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
     FROM runs r JOIN events e ON e.id = r.event_id WHERE r.id = $1";
const RECEIVED: &str = "SELECT CASE WHEN e.large \
     THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END \
     FROM events e WHERE e.name = $1 AND e.received_ms >= $2 ORDER BY e.received_ms DESC, e.id DESC LIMIT $3";
const CALLER: &str = "SELECT w.operation FROM waits w \
     WHERE w.kind = 3 AND w.name = $1 AND w.path IN ('abandon', 'cancel') AND w.key = '' AND w.run_id = $2";
const ORPHANS_OF: &str = "INSERT INTO orphans (run_id) SELECT w.name::uuid \
     FROM UNNEST($1::uuid[], $2::int8[]) AS v(run_id, operation) \
     JOIN waits w ON w.run_id = v.run_id AND w.operation = v.operation \
     WHERE w.kind = 3 AND w.path = 'cancel' ON CONFLICT DO NOTHING";
const ORPHANS_OF_ALL: &str = "INSERT INTO orphans (run_id) SELECT w.name::uuid FROM waits w \
     WHERE w.run_id = ANY($1::uuid[]) AND w.kind = 3 AND w.path = 'cancel' ON CONFLICT DO NOTHING";
const ORPHANS: &str = "INSERT INTO orphans (run_id) SELECT * FROM UNNEST($1::uuid[]) ON CONFLICT DO NOTHING";
const _: () = assert!(
    place::EVENT == -3 && kind::EVENT == 1 && kind::SIGNAL == 2 && kind::CHILD == 3 && kind::CANCELS == 4
);

/// The first half of the locks' names. The second is a slot.
const NAMES_LOCK: i32 = 0x646f_726d;
/// Names share this many locks: a server has room for some thousands in all, and two names that share one only wait for
/// each other now and then.
const SLOTS: u16 = 256;

fn slot(name: &str) -> u16 {
    let digest = Digest::of(name.as_bytes());
    let [first, second, ..] = digest.as_bytes();
    u16::from_be_bytes([*first, *second]) % SLOTS
}

/// Signals have the same locks as events, under names that no event has.
fn signal_slot(signal: &str) -> u16 {
    slot(&format!("\0{signal}"))
}

/// Statements that take the locks of names: of the events that come in, and of those that are waited for.
pub(super) fn lock_names(cache: &Cache, requests: &[&Request], ingests: &[&Ingest]) -> String {
    // Whether a slot is locked alone.
    let mut slots: BTreeMap<u16, bool> = BTreeMap::new();
    let mut names: HashSet<&str> = HashSet::new();
    for event in ingests.iter().flat_map(|ingest| &ingest.events) {
        if names.insert(&event.name) {
            slots.insert(slot(&event.name), false);
        }
    }
    for request in requests {
        match request {
            Request::Signal(signal, ..) => {
                slots.insert(signal_slot(signal), true);
            }
            Request::Append(append) => {
                for sent in &append.signals {
                    slots.insert(signal_slot(&sent.signal), true);
                }
                for wait in &append.waits {
                    match &wait.on {
                        // What is remembered is stored, and other nodes read it.
                        WaitOn::Event(on)
                            if on.lookback_from.is_some()
                                || !cache.wait_paths(&on.event).contains(&on.path) =>
                        {
                            slots.insert(slot(&on.event), true);
                        }
                        WaitOn::Event(_) | WaitOn::Child(_) | WaitOn::Nothing(_) => {}
                        WaitOn::Signal(on) => {
                            slots.insert(signal_slot(&on.signal), true);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    let cancels = ingests.iter().flat_map(|ingest| &ingest.runs);
    for cancels in cancels.flat_map(|run| &run.ends.cancel_on) {
        if !cache.wait_paths(&cancels.event).contains(&cancels.path) {
            slots.insert(slot(&cancels.event), true);
        }
    }
    let mut text = String::new();
    for (slot, alone) in slots {
        let shared = if alone { "" } else { "_shared" };
        text += &format!("; SELECT pg_advisory_xact_lock{shared}({NAMES_LOCK}, {slot})");
    }
    text
}

/// The runs that a batch may wake: by its events, and by sending or taking the signals that they wait for.
pub(super) async fn candidates(
    conn: &mut Conn,
    cache: &Cache,
    requests: &[&Request],
    ingests: &[&Ingest],
) -> Attempt<Vec<RunId>> {
    let events = ingests.iter().flat_map(|ingest| &ingest.events);
    let arrivals = Arrivals::of(cache, events);
    let ending = arrivals.ends(&find(conn, &arrivals).await?, &HashMap::new(), &HashSet::new());
    let mut runs = ending.runs();
    let cancelled: Vec<RunId> = ending.cancelled().collect();
    if !cancelled.is_empty() {
        runs.extend(parents(conn, &cancelled).await?);
    }
    let replaced = requests.iter().flat_map(|request| match request {
        Request::Append(append) => append.waits.as_slice(),
        _ => &[],
    });
    let replaced = replaced.filter_map(|wait| match &wait.on {
        WaitOn::Signal(on) if on.replace => Some(on.signal.as_str()),
        _ => None,
    });
    let sent = requests.iter().flat_map(|request| match request {
        Request::Append(append) => append.signals.as_slice(),
        _ => &[],
    });
    let signals: Vec<&str> = replaced.chain(sent.map(|sent| sent.signal.as_str())).collect();
    if !signals.is_empty() {
        let holders = signal_holders(conn, &signals).await?;
        runs.extend(holders.into_iter().map(|(run, _)| run));
    }
    Ok(runs)
}

/// The runs whose steps may wait for the ends of some. Who a run's parent is never changes.
pub(super) async fn parents(conn: &mut Conn, runs: &[RunId]) -> Attempt<Vec<RunId>> {
    let rows = conn
        .fetch(
            "SELECT DISTINCT parent_id FROM runs WHERE id = ANY($1) AND parent_id IS NOT NULL",
            |args| {
                args.keys(runs.iter().copied());
            },
        )
        .await?;
    let mut parents = Vec::with_capacity(rows.len());
    for row in &rows {
        parents.push(Cells::of(row).run()?);
    }
    Ok(parents)
}

/// The runs and the operations that wait for some signals.
pub(super) async fn signal_holders(conn: &mut Conn, signals: &[&str]) -> Attempt<Vec<(RunId, Seq)>> {
    let rows = conn
        .fetch(HOLDERS, |args| {
            args.texts(signals.iter().copied());
        })
        .await?;
    let mut holders = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        holders.push((cells.run()?, cells.number()?));
    }
    Ok(holders)
}

/// The operation of a run that waits for another's end.
pub(super) async fn caller(conn: &mut Conn, parent: RunId, child: RunId) -> Attempt<Option<Seq>> {
    let rows = conn
        .fetch(CALLER, |args| {
            args.text(&child_name(child)).key(parent);
        })
        .await?;
    Ok(match rows.first() {
        Some(row) => Some(Cells::of(row).number()?),
        None => None,
    })
}

/// Hands a signal to the run that waits for it.
pub(super) async fn signal(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    signal: &str,
    data: &Json,
    now: Timestamp,
) -> Attempt<Option<RunId>> {
    let mut work = Work::default();
    let mut writing = Writing::on(conn);
    let signalled = batch::waits::signal(&mut writing, &mut work, signal, data, now).await;
    let (run, woken) = writing.settle(signalled)?;
    effects.woke |= woken;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(run)
}

/// Of events that are about to be stored, keeps those that are not there yet.
pub(super) async fn keep_news(conn: &mut Conn, arrivals: &mut Arrivals<'_>) -> Attempt<()> {
    if arrivals.is_empty() {
        return Ok(());
    }
    let rows = conn
        .fetch("SELECT id FROM events WHERE id = ANY($1)", |args| {
            args.keys(arrivals.ids().into_iter());
        })
        .await?;
    let stored: Result<HashSet<EventId>> = rows.iter().map(|row| Cells::of(row).event()).collect();
    arrivals.keep_news(stored?);
    Ok(())
}

/// Ends the waits that new events end, of runs whose rows are locked, and the runs that make room for new ones. A wait that came in since these were found counts
/// as later than the events.
pub(super) async fn end(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    arrivals: &Arrivals<'_>,
    locked: &HashSet<RunId>,
    (born, consequences): (&HashMap<RunId, usize>, Consequences),
    now: Timestamp,
) -> Attempt<()> {
    // Once more: only now that their rows are locked nobody ends these waits any more. Nobody else sees those that are new.
    let mut found = find(conn, arrivals).await?;
    found.retain(|wait| locked.contains(&wait.run) || born.contains_key(&wait.run));
    let mut ends = arrivals.ends(&found, born, &consequences.displaced());
    ends.cancels.splice(..0, consequences.displaced);
    if ends.is_empty() && consequences.refused.is_empty() {
        return Ok(());
    }
    let mut work = Work::default();
    load(conn, &mut work, ends.runs()).await?;
    let waited = waiting(&work, &ends.cancelled().collect::<Vec<_>>());
    effects.woke |= complete(&mut work, ends.completions)?;
    if !ends.cancels.is_empty() {
        let mut writing = Writing::on(conn);
        let cancelled = batch::ending::cancel(&mut writing, &mut work, ends.cancels).await;
        let cancelled = writing.settle(cancelled)?;
        ending::decided(conn, &batch::ending::by_events(&cancelled)).await?;
        effects.cancelled.extend(cancelled.iter().map(|one| one.run));
        throttles::left(conn, &mut work, &waited, Some(now)).await?;
    }
    let mut writing = Writing::on(conn);
    let told = singletons::tell(&mut writing, &mut work, consequences.refused).await;
    writing.settle(told)?;
    effects.woke |= work.woke;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(())
}

async fn find(conn: &mut Conn, arrivals: &Arrivals<'_>) -> Attempt<Vec<Found>> {
    let mut found = Vec::new();
    if arrivals.is_empty() {
        return Ok(found);
    }
    let probes = arrivals.probes();
    let rows = conn
        .fetch(FIND, |args| {
            args.texts(probes.iter().map(|probe| probe.name.as_str()))
                .texts(probes.iter().map(|probe| probe.path.as_str()))
                .texts(probes.iter().map(|probe| probe.key.as_str()));
        })
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row);
        let (kind, until) = (cells.int()?, cells.time_or_null()?);
        found.push(Found {
            kind,
            until,
            probe: Probe {
                name: cells.text()?,
                path: cells.text()?,
                key: cells.text()?,
            },
            run: cells.run()?,
            operation: cells.number()?,
            condition: cells.text_or_null()?,
            started_by: cells.text_or_null()?.map(Json::trusted),
        });
    }
    Ok(found)
}

/// Stores the paths of waits that a batch is going to store.
pub(super) async fn remember_paths(conn: &mut Conn, cache: &mut Cache, work: &Work) -> Attempt<()> {
    let paths = new_paths(cache, work);
    store_paths(conn, cache, paths).await
}

/// Stores paths of events that nobody has asked for yet.
pub(super) async fn store_paths(
    conn: &mut Conn,
    cache: &mut Cache,
    paths: Vec<(String, String)>,
) -> Attempt<()> {
    if paths.is_empty() {
        return Ok(());
    }
    conn.execute(PATHS, |args| {
        args.texts(paths.iter().map(|(name, _)| name.as_str()))
            .texts(paths.iter().map(|(_, path)| path.as_str()));
    })
    .await?;
    ends::await_too(conn, awaited(&paths)).await?;
    for (name, path) in paths {
        cache.remember_path(name, path);
    }
    Ok(())
}

/// Payloads of a name's events since some time, the latest first.
pub(super) async fn received(conn: &mut Conn, name: &str, from: Timestamp, limit: u32) -> Attempt<Vec<Json>> {
    let rows = conn
        .fetch(RECEIVED, |args| {
            args.text(name).time(from).int(limit.into());
        })
        .await?;
    let mut payloads = Vec::with_capacity(rows.len());
    for row in &rows {
        payloads.push(Json::trusted(Cells::of(row).text()?));
    }
    Ok(payloads)
}

/// The payload of the event that started a run.
pub(super) async fn started_by(conn: &mut Conn, run: RunId) -> Attempt<Option<Json>> {
    let rows = conn
        .fetch(STARTED_BY, |args| {
            args.key(run);
        })
        .await?;
    Ok(match rows.first() {
        Some(row) => Some(Json::trusted(Cells::of(row).text()?)),
        None => None,
    })
}

/// Adds what a batch does to waits.
pub(super) fn write(together: &mut Together, changes: &Changes) {
    let runs = |args: &mut Args, rows: &[RunId]| {
        args.keys(rows.iter().copied());
    };
    together.add(&changes.waits_given_up, ORPHANS_OF, |args, rows| {
        args.keys(rows.iter().map(|(id, _)| *id))
            .ints(rows.iter().map(|(_, operation)| i64::from(*operation)));
    });
    together.add(&changes.waits_cleared, ORPHANS_OF_ALL, runs);
    together.add(&changes.orphans, ORPHANS, runs);
    together.add(&changes.waits_reset, ORPHANS_OF_ALL, runs);
    together.add(&changes.waits_reset, RESET, runs);
    together.add(&changes.waits_cleared, CLEAR, runs);
    together.add(&changes.waits_ended, REMOVE, |args, rows| {
        args.keys(rows.iter().map(|(id, _)| *id))
            .ints(rows.iter().map(|(_, operation)| i64::from(*operation)));
    });
    together.add(&changes.waits, INSERT, |args, rows| {
        let on = || rows.iter().map(|(_, wait)| columns(&wait.on));
        let names: Vec<Cow<'_, str>> = on().map(|on| on.name).collect();
        args.keys(rows.iter().map(|(id, _)| *id))
            .ints(rows.iter().map(|(_, wait)| wait.operation.into()))
            .ints(on().map(|on| on.kind))
            .texts(names.iter().map(AsRef::as_ref))
            .texts(on().map(|on| on.path))
            .texts(on().map(|on| on.key))
            .texts_or_null(on().map(|on| on.condition));
    });
}

/// What a wait is looked up by, as it is stored.
struct Columns<'w> {
    kind: i64,
    name: Cow<'w, str>,
    path: &'w str,
    key: &'w str,
    condition: Option<&'w str>,
}

fn columns(on: &WaitOn) -> Columns<'_> {
    match on {
        WaitOn::Event(on) => Columns {
            kind: kind::EVENT,
            name: on.event.as_str().into(),
            path: &on.path,
            key: &on.key,
            condition: on.condition.as_deref(),
        },
        WaitOn::Signal(on) => Columns {
            kind: kind::SIGNAL,
            name: on.signal.as_str().into(),
            path: "",
            key: "",
            condition: None,
        },
        WaitOn::Child(on) => Columns {
            kind: kind::CHILD,
            name: child_name(on.child).into(),
            path: child_path(on),
            key: "",
            condition: None,
        },
        // It was completed instead of being stored.
        WaitOn::Nothing(_) => Columns {
            kind: 0,
            name: "".into(),
            path: "",
            key: "",
            condition: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_same_slot_on_every_node() {
        assert_eq!(slot("shop/ordered"), slot("shop/ordered"));
        assert_eq!((slot("a"), slot("b")), (151, 35));
        let names: HashSet<u16> = (0..10_000)
            .map(|number| slot(&format!("event/{number}")))
            .collect();
        assert_eq!(names.len(), usize::from(SLOTS));
    }
}
