//! Storing events and creating runs: several requests at once, each all or nothing.

use std::collections::{HashMap, HashSet};

use dormouse_core::limit::EVENT_DEDUPE;
use dormouse_core::{EventId, Json, RunId, Timestamp};

use super::cache::Cache;
use super::copies;
use super::fault::{Attempt, Fault};
use super::runs::{READY, TIMERS, bind_places};
use super::sql::{Cells, Conn, Together};
use super::writer::{Effects, Locked};
use super::{ending, limits, singletons, slots, throttles, waits, windows};
use crate::batch;
use crate::batch::ending::{born, places as event_places};
use crate::batch::ingest::{
    Additions, Birth, Creation, DedupeKey, Known, accepted, decide, dedupe_keys, foreign_events, places,
    sources,
};
use crate::batch::limits::{LimitKey, limit_keys};
use crate::batch::runs::{inline, is_large, place};
use crate::batch::singletons::is_singleton;
use crate::batch::slots::needed;
use crate::batch::throttles::throttled;
use crate::batch::waits::Arrivals;
use crate::error::Result;
use crate::ingest::{Created, Ingest, NewEvent};

/// An event that is there already stays as it is, but for having runs.
const EVENTS: &str = "INSERT INTO events (id, name, external_id, ts_ms, received_ms, has_runs, large, payload) \
     SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::bool[], $7::bool[], $8::text[]) \
     ON CONFLICT (id) DO UPDATE SET has_runs = true WHERE excluded.has_runs AND NOT events.has_runs";
const EVENTS_HAVE_RUNS: &str =
    "UPDATE events SET has_runs = true WHERE NOT has_runs AND id = ANY($1::uuid[])";
const EVENT_BLOBS: &str = "INSERT INTO blobs (owner_id, seq, bytes) \
     SELECT v.id, -3, v.bytes FROM UNNEST($1::uuid[], $2::text[]) AS v(id, bytes) ON CONFLICT DO NOTHING";
const _: () = assert!(place::EVENT == -3);
/// What a new run has that no other has; the rest is the same for all.
const RUNS: &str = "INSERT INTO runs (id, function_id, version_id, config_revision, event_id, rerun_of, seed, status, \
     phase, owner, epoch, due_ms, queued_ms, started_ms, claims, reason, parent_id, depth, hold, needs_slots, live, unhappy, journal_base, journal_next, \
     journal_bytes, log_lines, host_traps, continued, completions, waits) \
     SELECT v.*, true, false, 0, 0, 0, 0, 0, false, false, false FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::int8[], \
     $5::uuid[], $6::uuid[], $7::bytea[], $8::int8[], $9::int8[], $10::uuid[], $11::int8[], $12::int8[], $13::int8[], \
     $14::int8[], $15::int8[], $16::text[], $17::uuid[], $18::int8[], $19::int8[], $20::bool[]) AS v";
const DEDUPE_KNOWN: &str = "SELECT d.function_id, d.key, d.run_id, d.at_ms \
     FROM UNNEST($1::int8[], $2::text[]) AS v(function_id, key) \
     JOIN dedupe d ON d.function_id = v.function_id AND d.key = v.key";
/// In order of the keys, so that two nodes that insert the same ones wait for each other one way only.
const DEDUPE: &str = "INSERT INTO dedupe (function_id, key, run_id, at_ms) \
     SELECT * FROM UNNEST($1::int8[], $2::text[], $3::uuid[], $4::int8[]) AS v(function_id, key, run_id, at_ms) \
     ON CONFLICT (function_id, key) DO UPDATE SET run_id = excluded.run_id, at_ms = excluded.at_ms \
     WHERE dedupe.at_ms <= excluded.at_ms - $5";
const DEDUPE_SWEEP: &str = "DELETE FROM dedupe WHERE (function_id, key) IN \
     (SELECT function_id, key FROM dedupe WHERE at_ms <= $1 ORDER BY at_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// Sweep out twice as many as came in, so that the table does not outgrow a day.
const SWEEP_EVERY: usize = 64;

/// Stores several ingests, and ends the waits that their events end, of runs that are locked, if there are waits.
/// The small tables were read in this transaction. An answer that is an error has stored nothing of its request.
pub(super) async fn ingest(
    conn: &mut Conn,
    cache: &mut Cache,
    effects: &mut Effects<'_>,
    requests: &[&Ingest],
    locked: &Locked,
) -> Attempt<Vec<Result<Vec<Created>>>> {
    let keys = limit_keys(cache, requests)?;
    // Those of singletons are locked already.
    let others: Vec<LimitKey> = keys.iter().filter(|key| !is_singleton(key)).cloned().collect();
    let mut limits = limits::locked(conn, &others).await?;
    limits.extend(&locked.singletons);
    let mut known = Known {
        dedupe: known_dedupe(conn, &dedupe_keys(cache, requests)?).await?,
        events: stored_events(conn, &foreign_events(requests)).await?,
        sources: copies::sources(conn, &sources(requests)).await?,
        living: singletons::living(conn, &limits, &keys).await?,
        limits,
        ..Known::default()
    };
    let mut work = windows::load(conn, &mut known, (&keys, requests), &locked.runs).await?;
    let (answers, mut additions) = decide(cache, &mut known, requests)?;
    let gatherings = std::mem::take(&mut additions.gatherings);
    let consequences = std::mem::take(&mut additions.consequences);
    let now = requests
        .iter()
        .map(|request| request.now)
        .max()
        .unwrap_or_default();
    let paths = batch::ending::new_paths(cache, &additions.runs);
    waits::store_paths(conn, cache, paths).await?;
    if !locked.awaiting && consequences.is_empty() {
        write(conn, cache, effects, additions, now).await?;
        windows::write(conn, effects, &mut work, gatherings).await?;
        return Ok(answers);
    }
    let mut arrivals = Arrivals::of(cache, accepted(requests, &answers));
    waits::keep_news(conn, &mut arrivals).await?;
    let born = born(&additions.runs, &event_places(accepted(requests, &answers)));
    write(conn, cache, effects, additions, now).await?;
    windows::write(conn, effects, &mut work, gatherings).await?;
    waits::end(conn, effects, &arrivals, &locked.runs, (&born, consequences), now).await?;
    Ok(answers)
}

/// What the dedupe table knows of keys.
async fn known_dedupe(
    conn: &mut Conn,
    keys: &[DedupeKey<'_>],
) -> Attempt<HashMap<(i64, String), (RunId, Timestamp)>> {
    let mut known = HashMap::new();
    if keys.is_empty() {
        return Ok(known);
    }
    let rows = conn
        .fetch(DEDUPE_KNOWN, |args| {
            args.ints(keys.iter().map(|(function_id, _)| *function_id))
                .texts(keys.iter().map(|(_, key)| *key));
        })
        .await?;
    for row in &rows {
        let mut cells = Cells::of(row);
        known.insert((cells.int()?, cells.text()?), (cells.run()?, cells.time()?));
    }
    Ok(known)
}

/// Which events are stored.
async fn stored_events(conn: &mut Conn, named: &[EventId]) -> Attempt<HashSet<EventId>> {
    let mut stored = HashSet::new();
    if named.is_empty() {
        return Ok(stored);
    }
    // Pruning must not take them before this transaction's runs refer to them.
    let rows = conn
        .fetch(
            "SELECT id FROM events WHERE id = ANY($1) ORDER BY id FOR KEY SHARE",
            |args| {
                args.keys(named.iter().copied());
            },
        )
        .await?;
    for row in &rows {
        stored.insert(Cells::of(row).event()?);
    }
    Ok(stored)
}

async fn write(
    conn: &mut Conn,
    cache: &mut Cache,
    effects: &mut Effects<'_>,
    additions: Additions<'_>,
    now: Timestamp,
) -> Attempt<()> {
    write_dedupe(conn, cache, &additions, now).await?;
    // One statement may not write a row twice: of two events with one id the first stays, with runs if either has.
    let mut events: Vec<(&NewEvent, bool)> = Vec::with_capacity(additions.events.len());
    for (event, has_runs) in additions.events {
        match events.last_mut().filter(|(last, _)| last.id == event.id) {
            Some((_, also)) => *also |= has_runs,
            None => events.push((event, has_runs)),
        }
    }
    let large: Vec<(EventId, &Json)> = events
        .iter()
        .filter(|(event, _)| is_large(&event.payload))
        .map(|(event, _)| (event.id, &event.payload))
        .collect();
    let (ready, timers) = places(&additions.runs);
    let mut together = Together::default();
    together.add(&events, EVENTS, |args, rows| {
        let events = || rows.iter().map(|(event, _)| event);
        args.keys(events().map(|event| event.id))
            .texts(events().map(|event| event.name.as_str()))
            .texts_or_null(events().map(|event| event.external_id.as_deref()))
            .ints(events().map(|event| event.ts.as_millis()))
            .ints(events().map(|event| event.received_at.as_millis()))
            .flags(rows.iter().map(|(_, has_runs)| *has_runs))
            .flags(events().map(|event| is_large(&event.payload)))
            .texts_or_null(events().map(|event| inline(Some(&event.payload))));
    });
    together.add(&large, EVENT_BLOBS, |args, rows| {
        args.keys(rows.iter().map(|(id, _)| *id))
            .texts(rows.iter().map(|(_, payload)| payload.as_str()));
    });
    together.add(&additions.referred, EVENTS_HAVE_RUNS, |args, rows| {
        args.keys(rows.iter().copied());
    });
    add_runs(&mut together, &additions.runs);
    limits::add(&mut together, &additions.limits, &additions.decisions);
    throttles::insert(&mut together, &throttled(&additions.runs));
    slots::insert(&mut together, &needed(&additions.runs));
    together.add(&ready, READY, bind_places);
    together.add(&timers, TIMERS, bind_places);
    together.run(conn).await?;
    copies::write(conn, &additions.runs).await?;
    ending::insert(conn, &batch::ending::rows(&additions.runs)).await?;
    limits::sweep(conn, cache, additions.limits.len(), now).await?;
    effects.marks.lower(&ready, &timers);
    effects.tell |= !ready.is_empty();
    Ok(())
}

async fn write_dedupe(
    conn: &mut Conn,
    cache: &mut Cache,
    additions: &Additions<'_>,
    now: Timestamp,
) -> Attempt<()> {
    if additions.dedupe.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<_> = additions.dedupe.iter().collect();
    rows.sort_unstable_by_key(|(key, _)| **key);
    let written = conn
        .execute(DEDUPE, |args| {
            args.ints(rows.iter().map(|((function_id, _), _)| *function_id))
                .texts(rows.iter().map(|((_, key), _)| *key))
                .keys(rows.iter().map(|(_, (run, _))| *run))
                .ints(rows.iter().map(|(_, (_, at))| at.as_millis()))
                .int(EVENT_DEDUPE.as_millis() as i64);
        })
        .await?;
    if written != rows.len() as u64 {
        return Err(Fault::Again("another node stored the same event".to_owned()));
    }
    cache.unswept += rows.len();
    if cache.unswept >= SWEEP_EVERY {
        let limit = cache.unswept * 2;
        conn.execute(DEDUPE_SWEEP, |args| {
            args.time(now.before(EVENT_DEDUPE)).int(limit as i64);
        })
        .await?;
        cache.unswept = 0;
    }
    Ok(())
}

fn add_runs(together: &mut Together, creations: &[Creation<'_>]) {
    together.add(creations, RUNS, |args, rows| {
        let births: Vec<Birth> = rows.iter().map(Creation::birth).collect();
        let runs = || rows.iter().map(|creation| creation.run);
        let leased = || rows.iter().map(|creation| creation.leased);
        args.keys(runs().map(|run| run.id))
            .ints(rows.iter().map(|creation| creation.function_id))
            .ints(rows.iter().map(|creation| creation.version_id))
            .ints(rows.iter().map(|creation| creation.config_revision))
            .keys(rows.iter().map(|creation| creation.event_id))
            .keys_or_null(runs().map(|run| run.rerun_of))
            .byteses(runs().map(|run| run.seed.as_slice()))
            .ints(births.iter().map(|birth| birth.state.status as i64))
            .ints_or_null(
                births
                    .iter()
                    .map(|birth| birth.state.phase.map(|phase| phase as i64)),
            )
            .keys_or_null(
                rows.iter()
                    .map(|creation| creation.run.lease.filter(|_| creation.leased)),
            )
            .ints(leased().map(i64::from))
            .ints_or_null(births.iter().map(|birth| birth.due.map(Timestamp::as_millis)))
            .ints(rows.iter().map(|creation| creation.begins().as_millis()))
            .ints_or_null(
                rows.iter()
                    .map(|creation| creation.leased.then_some(creation.now.as_millis())),
            )
            .ints(leased().map(i64::from))
            .texts_or_null(births.iter().map(|birth| birth.reason.as_deref()))
            .keys_or_null(runs().map(|run| run.parent))
            .ints(runs().map(|run| run.depth.into()))
            .ints(rows.iter().map(|creation| creation.hold() as i64))
            .flags(runs().map(|run| !run.admission.concurrency.is_empty()));
    });
}
