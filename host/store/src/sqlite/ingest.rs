//! Storing events and creating runs: several requests at once, each all or nothing.

use std::collections::{HashMap, HashSet};

use dormouse_core::limit::EVENT_DEDUPE;
use dormouse_core::{EventId, Json, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::copies;
use super::runs::{insert_ready, insert_timers};
use super::sql::{Cells, Rows, execute};
use super::{ending, limits, singletons, slots, waits, windows};
use crate::batch;
use crate::batch::ending::{born, places as event_places};
use crate::batch::ingest::{
    Additions, Creation, DedupeKey, Known, accepted, decide, dedupe_keys, foreign_events, places, sources,
};
use crate::batch::limits::limit_keys;
use crate::batch::runs::{inline, is_large, place};
use crate::batch::slots::needed;
use crate::batch::waits::Arrivals;
use crate::error::Result;
use crate::ingest::{Created, Ingest};

/// An event that is there already stays as it is, but for having runs.
static EVENTS: Rows = Rows::new(
    "INSERT INTO events (id, name, external_id, ts_ms, received_ms, has_runs, large, payload) SELECT * FROM (VALUES ",
    8,
    ") WHERE column1 IS NOT NULL ON CONFLICT (id) DO UPDATE SET has_runs = max(has_runs, excluded.has_runs)",
);
static EVENTS_KNOWN: Rows = Rows::new("SELECT id FROM events WHERE id IN (VALUES ", 1, ")");
static EVENTS_HAVE_RUNS: Rows = Rows::new(
    "UPDATE events SET has_runs = 1 WHERE has_runs = 0 AND id IN (VALUES ",
    1,
    ")",
);
static EVENT_BLOBS: Rows = Rows::insert(
    "INSERT OR IGNORE INTO blobs (owner_id, seq, bytes) SELECT * FROM (VALUES ",
    3,
);
/// What a new run has that no other has; the rest is the same for all.
static RUNS: Rows = Rows::insert(
    "INSERT INTO runs (id, function_id, version_id, config_revision, event_id, rerun_of, seed, status, phase, owner, \
     epoch, due_ms, queued_ms, started_ms, claims, reason, parent_id, depth, hold, needs_slots, journal_base, journal_next, journal_bytes, log_lines, \
     host_traps, continued) \
     SELECT *, 0, 0, 0, 0, 0, 0 FROM (VALUES ",
    20,
);
static DEDUPE_KNOWN: Rows = Rows::new(
    "SELECT function_id, key, run_id, at_ms FROM dedupe WHERE (function_id, key) IN (VALUES ",
    2,
    ")",
);
static DEDUPE: Rows = Rows::insert(
    "INSERT OR REPLACE INTO dedupe (function_id, key, run_id, at_ms) SELECT * FROM (VALUES ",
    4,
);

/// Sweep out twice as many as came in, so that the table does not outgrow a day.
const SWEEP_EVERY: usize = 64;

/// What came of several ingests.
pub(super) struct Ingested {
    /// An answer that is an error has stored nothing of its request.
    pub(super) answers: Vec<Result<Vec<Created>>>,
    /// Some waiting run was made ready.
    pub(super) woken: bool,
    /// Runs that events, and what they start, have cancelled.
    pub(super) cancelled: Vec<RunId>,
}

/// Stores several ingests, and ends the waits and the runs that their events end.
pub(super) async fn ingest(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    requests: &[&Ingest],
) -> Result<Ingested> {
    for run in requests.iter().flat_map(|request| &request.runs) {
        cache.number_function(conn, &run.function).await?;
    }
    let keys = limit_keys(cache, requests)?;
    let limits = limits::known(conn, &keys).await?;
    let mut known = Known {
        dedupe: known_dedupe(conn, &dedupe_keys(cache, requests)?).await?,
        events: stored_events(conn, &foreign_events(requests)).await?,
        sources: copies::sources(conn, &sources(requests)).await?,
        living: singletons::living(conn, &limits, &keys).await?,
        limits,
        ..Known::default()
    };
    let mut work = windows::load(conn, &mut known, (&keys, requests)).await?;
    let (answers, mut additions) = decide(cache, &mut known, requests)?;
    let gatherings = std::mem::take(&mut additions.gatherings);
    let consequences = std::mem::take(&mut additions.consequences);
    let now = requests
        .iter()
        .map(|request| request.now)
        .max()
        .unwrap_or_default();
    let paths = batch::ending::new_paths(cache, &additions.runs);
    if !paths.is_empty() {
        waits::store_paths(conn, cache, paths).await?;
    }
    let mut arrivals = Arrivals::of(cache, accepted(requests, &answers));
    waits::keep_news(conn, &mut arrivals).await?;
    let born = match arrivals.is_empty() {
        true => HashMap::new(),
        false => born(&additions.runs, &event_places(accepted(requests, &answers))),
    };
    write(conn, cache, additions, now).await?;
    windows::write(conn, &mut work, gatherings).await?;
    let (woken, cancelled) = match arrivals.is_empty() && consequences.is_empty() {
        true => (false, Vec::new()),
        false => waits::end(conn, cache, &arrivals, (&born, consequences), now).await?,
    };
    Ok(Ingested {
        answers,
        woken,
        cancelled,
    })
}

/// What the dedupe table knows of keys.
async fn known_dedupe(
    conn: &mut SqliteConnection,
    keys: &[DedupeKey<'_>],
) -> Result<HashMap<(i64, String), (RunId, Timestamp)>> {
    let rows = DEDUPE_KNOWN
        .fetch(conn, keys, |args, (function_id, key)| {
            args.int(*function_id).text(key);
        })
        .await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        known.insert(
            (cells.int()?, cells.text()?.to_owned()),
            (cells.run()?, cells.time()?),
        );
    }
    Ok(known)
}

/// Which events are stored.
pub(super) async fn stored_events(
    conn: &mut SqliteConnection,
    named: &[EventId],
) -> Result<HashSet<EventId>> {
    let rows = EVENTS_KNOWN
        .fetch(conn, named, |args, id| {
            args.event(*id);
        })
        .await?;
    rows.iter().map(|row| Cells::of(row).event()).collect()
}

async fn write(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    additions: Additions<'_>,
    now: Timestamp,
) -> Result<()> {
    EVENTS
        .apply(conn, &additions.events, |args, (event, has_runs)| {
            args.event(event.id)
                .text(&event.name)
                .text_or_null(event.external_id.as_deref())
                .time(event.ts)
                .time(event.received_at)
                .int((*has_runs).into())
                .int(is_large(&event.payload).into())
                .text_or_null(inline(Some(&event.payload)));
        })
        .await?;
    let blobs: Vec<(EventId, &Json)> = additions
        .events
        .iter()
        .filter(|(event, _)| is_large(&event.payload))
        .map(|(event, _)| (event.id, &event.payload))
        .collect();
    EVENT_BLOBS
        .apply(conn, &blobs, |args, (id, payload)| {
            args.event(*id).int(place::EVENT).text(payload.as_str());
        })
        .await?;
    EVENTS_HAVE_RUNS
        .apply(conn, &additions.referred, |args, id| {
            args.event(*id);
        })
        .await?;
    write_runs(conn, &additions.runs).await?;
    ending::insert(conn, &batch::ending::rows(&additions.runs)).await?;
    copies::write(conn, &additions.runs).await?;
    limits::write(conn, cache, &additions, now).await?;
    let dedupe: Vec<_> = additions.dedupe.into_iter().collect();
    DEDUPE
        .apply(conn, &dedupe, |args, ((function_id, key), (run, at))| {
            args.int(*function_id).text(key).run(*run).time(*at);
        })
        .await?;
    cache.unswept += dedupe.len();
    if cache.unswept >= SWEEP_EVERY {
        let limit = cache.unswept * 2;
        execute(
            conn,
            "DELETE FROM dedupe WHERE (function_id, key) IN \
             (SELECT function_id, key FROM dedupe WHERE at_ms <= ? ORDER BY at_ms LIMIT ?)",
            |args| {
                args.time(now.before(EVENT_DEDUPE)).int(limit as i64);
            },
        )
        .await?;
        cache.unswept = 0;
    }
    Ok(())
}

async fn write_runs(conn: &mut SqliteConnection, creations: &[Creation<'_>]) -> Result<()> {
    RUNS.apply(conn, creations, |args, creation| {
        let Creation {
            run,
            function_id,
            version_id,
            leased,
            now,
            event_id,
            config_revision,
            ..
        } = creation;
        let birth = creation.birth();
        args.run(run.id)
            .int(*function_id)
            .int(*version_id)
            .int(*config_revision)
            .event(*event_id)
            .run_or_null(run.rerun_of)
            .bytes(&run.seed)
            .int(birth.state.status as i64)
            .int_or_null(birth.state.phase.map(|phase| phase as i64))
            .node_or_null(run.lease.filter(|_| *leased))
            .int((*leased).into())
            .int_or_null(birth.due.map(Timestamp::as_millis))
            .time(creation.begins())
            .int_or_null(leased.then_some(now.as_millis()))
            .int((*leased).into())
            .text_or_null(birth.reason.as_deref())
            .run_or_null(run.parent)
            .int(run.depth.into())
            .int(creation.hold() as i64)
            .int(i64::from(!run.admission.concurrency.is_empty()));
    })
    .await?;
    slots::insert(conn, &needed(creations)).await?;
    let (ready, timers) = places(creations);
    insert_ready(conn, &ready).await?;
    insert_timers(conn, &timers).await
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![
        &EVENTS,
        &EVENTS_KNOWN,
        &EVENTS_HAVE_RUNS,
        &EVENT_BLOBS,
        &RUNS,
        &DEDUPE_KNOWN,
        &DEDUPE,
    ]
}
