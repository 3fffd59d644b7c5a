//! Storing events and creating runs: several requests at once, each all or nothing.

use std::collections::{HashMap, HashSet};

use dormouse_core::limit::EVENT_DEDUPE;
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{EventId, Json, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::runs::{INLINE_BYTES_MAX, insert_ready, insert_timers, place};
use super::sql::{Cells, Rows, execute};
use super::waits;
use crate::error::{Error, Result};
use crate::ingest::{Created, Ingest, NewEvent, NewRun};

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
     epoch, due_ms, queued_ms, started_ms, claims, reason, journal_base, journal_next, journal_bytes, log_lines, \
     host_traps, continued) \
     SELECT *, 0, 0, 0, 0, 0, 0 FROM (VALUES ",
    16,
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

type DedupeKey<'i> = (i64, &'i str);

/// A run that will be created.
struct Creation<'i> {
    run: &'i NewRun,
    function_id: i64,
    version_id: i64,
    leased: bool,
    now: Timestamp,
}

/// Everything the requests of one batch add.
#[derive(Default)]
struct Additions<'i> {
    events: Vec<(&'i NewEvent, bool)>,
    runs: Vec<Creation<'i>>,
    dedupe: HashMap<DedupeKey<'i>, (RunId, Timestamp)>,
    /// Events stored before that now have a run.
    referred: Vec<EventId>,
}

/// Stores several ingests, and ends the waits that their events end. An answer that is an error has stored nothing of its
/// request. True: some waiting run was made ready.
pub(super) async fn ingest(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    requests: &[&Ingest],
) -> Result<(Vec<Result<Vec<Created>>>, bool)> {
    let mut known = known_dedupe(conn, cache, requests).await?;
    let own: Vec<HashSet<EventId>> = requests
        .iter()
        .map(|request| request.events.iter().map(|event| event.id).collect())
        .collect();
    let stored_events = stored_events(conn, requests, &own).await?;
    let mut additions = Additions::default();
    let mut answers = Vec::with_capacity(requests.len());
    for (request, own) in requests.iter().zip(&own) {
        answers.push(match check(cache, request, own, &stored_events) {
            Ok(()) => Ok(add(conn, cache, request, own, &mut known, &mut additions).await?),
            Err(error) => Err(error),
        });
    }
    let now = requests
        .iter()
        .map(|request| request.now)
        .max()
        .unwrap_or_default();
    let awaited = awaited(conn, cache, &additions).await?;
    write(conn, cache, additions, now).await?;
    let woken = !awaited.is_empty() && waits::end_by_events(conn, cache, &awaited).await?;
    Ok((answers, woken))
}

/// Of the events that are about to be stored, those that are new and of a name that somebody may wait for.
async fn awaited<'i>(
    conn: &mut SqliteConnection,
    cache: &Cache,
    additions: &Additions<'i>,
) -> Result<Vec<(&'i NewEvent, Timestamp)>> {
    let mut awaited: Vec<(&NewEvent, Timestamp)> = additions
        .events
        .iter()
        .filter(|(event, _)| cache.wait_paths.contains_key(&event.name))
        .map(|(event, _)| (*event, event.received_at))
        .collect();
    if awaited.is_empty() {
        return Ok(awaited);
    }
    let rows = EVENTS_KNOWN
        .fetch(conn, &awaited, |args, (event, _)| {
            args.event(event.id);
        })
        .await?;
    let mut known: HashSet<EventId> = rows
        .iter()
        .map(|row| Cells::of(row).event())
        .collect::<Result<_>>()?;
    // Of two with one id, the second is no news either.
    awaited.retain(|(event, _)| known.insert(event.id));
    Ok(awaited)
}

/// What would make an ingest fail that comes with an append. Its runs name its own events alone.
pub(super) fn check_carried(cache: &Cache, ingest: &Ingest) -> Result<()> {
    let own = ingest.events.iter().map(|event| event.id).collect();
    check(cache, ingest, &own, &HashSet::new())
}

/// What would make a request fail, before anything of it is written.
fn check(
    cache: &Cache,
    request: &Ingest,
    own: &HashSet<EventId>,
    stored_events: &HashSet<EventId>,
) -> Result<()> {
    if request.generation != cache.generation {
        return Err(Error::StaleRegistry);
    }
    for run in &request.runs {
        if cache.version_id(run.function.module(), run.version).is_none() {
            return Err(Error::Corrupt(format!(
                "run {} of {} names a version that is not stored",
                run.id, run.function
            )));
        }
        if !own.contains(&run.event_id) && !stored_events.contains(&run.event_id) {
            return Err(Error::Corrupt(format!(
                "run {} names event {}, which is not stored",
                run.id, run.event_id
            )));
        }
    }
    Ok(())
}

/// What the dedupe table knows of the keys the requests name.
async fn known_dedupe<'i>(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    requests: &[&'i Ingest],
) -> Result<HashMap<(i64, String), (RunId, Timestamp)>> {
    let mut keys: Vec<DedupeKey<'i>> = Vec::new();
    for run in requests.iter().flat_map(|request| &request.runs) {
        if let Some(key) = &run.dedupe {
            keys.push((cache.function_id(conn, &run.function).await?, key));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    let rows = DEDUPE_KNOWN
        .fetch(conn, &keys, |args, (function_id, key)| {
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

/// Which of the events that runs name, beside those they come with, are stored.
async fn stored_events(
    conn: &mut SqliteConnection,
    requests: &[&Ingest],
    own: &[HashSet<EventId>],
) -> Result<HashSet<EventId>> {
    let mut named = Vec::new();
    for (request, own) in requests.iter().zip(own) {
        named.extend(
            request
                .runs
                .iter()
                .map(|run| run.event_id)
                .filter(|id| !own.contains(id)),
        );
    }
    let rows = EVENTS_KNOWN
        .fetch(conn, &named, |args, id| {
            args.event(*id);
        })
        .await?;
    rows.iter().map(|row| Cells::of(row).event()).collect()
}

async fn add<'i>(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    request: &'i Ingest,
    own: &HashSet<EventId>,
    known: &mut HashMap<(i64, String), (RunId, Timestamp)>,
    additions: &mut Additions<'i>,
) -> Result<Vec<Created>> {
    let now = request.now;
    let mut with_runs: HashSet<EventId> = HashSet::new();
    let mut created = Vec::with_capacity(request.runs.len());
    for run in &request.runs {
        let function_id = cache.function_id(conn, &run.function).await?;
        if let Some(key) = &run.dedupe {
            let found = known.get(&(function_id, key.clone())).copied();
            if let Some((earlier, _)) = found.filter(|(_, at)| at.after(EVENT_DEDUPE) > now) {
                created.push(Created::Duplicate(earlier));
                continue;
            }
            known.insert((function_id, key.clone()), (run.id, now));
            additions.dedupe.insert((function_id, key), (run.id, now));
        }
        let Some(version_id) = cache.version_id(run.function.module(), run.version) else {
            return Err(Error::Corrupt(format!(
                "run {} names a version that is not stored",
                run.id
            )));
        };
        let leased = run.start_at <= now && run.lease.is_some_and(|node| cache.nodes.contains(&node));
        if own.contains(&run.event_id) {
            with_runs.insert(run.event_id);
        } else {
            additions.referred.push(run.event_id);
        }
        additions.runs.push(Creation {
            run,
            function_id,
            version_id,
            leased,
            now,
        });
        created.push(Created::New { leased });
    }
    additions.events.extend(
        request
            .events
            .iter()
            .map(|event| (event, with_runs.contains(&event.id))),
    );
    Ok(created)
}

async fn write(
    conn: &mut SqliteConnection,
    cache: &mut Cache,
    mut additions: Additions<'_>,
    now: Timestamp,
) -> Result<()> {
    // In order of the key, so that rows that land side by side are written side by side. Of two with one id, the first
    // stays the first.
    additions.events.sort_by_key(|(event, _)| event.id);
    additions.runs.sort_unstable_by_key(|creation| creation.run.id);
    let large = |event: &NewEvent| event.payload.len() > INLINE_BYTES_MAX;
    EVENTS
        .apply(conn, &additions.events, |args, (event, has_runs)| {
            let inline = Some(event.payload.as_str()).filter(|_| !large(event));
            args.event(event.id)
                .text(&event.name)
                .text_or_null(event.external_id.as_deref())
                .time(event.ts)
                .time(event.received_at)
                .int((*has_runs).into())
                .int(large(event).into())
                .text_or_null(inline);
        })
        .await?;
    let blobs: Vec<(EventId, &Json)> = additions
        .events
        .iter()
        .filter(|(event, _)| large(event))
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
    RUNS.apply(
        conn,
        creations,
        |args,
         Creation {
             run,
             function_id,
             version_id,
             leased,
             now,
         }| {
            let birth = Birth::of(run, *leased, *now);
            args.run(run.id)
                .int(*function_id)
                .int(*version_id)
                .int(run.config_revision)
                .event(run.event_id)
                .run_or_null(run.rerun_of)
                .bytes(&run.seed)
                .int(birth.state.status as i64)
                .int_or_null(birth.state.phase.map(|phase| phase as i64))
                .node_or_null(run.lease.filter(|_| *leased))
                .int((*leased).into())
                .int_or_null(birth.due.map(Timestamp::as_millis))
                .time(run.start_at.max(*now))
                .int_or_null(leased.then_some(now.as_millis()))
                .int((*leased).into())
                .text_or_null(birth.reason.as_deref());
        },
    )
    .await?;
    let mut ready = Vec::new();
    let mut timers = Vec::new();
    for creation in creations {
        let birth = Birth::of(creation.run, creation.leased, creation.now);
        match birth.due {
            Some(due) if birth.state == State::NEW => ready.push((due, creation.run.id)),
            Some(due) => timers.push((due, creation.run.id)),
            None => {}
        }
    }
    insert_ready(conn, &ready).await?;
    insert_timers(conn, &timers).await
}

/// How a run comes into the world.
struct Birth {
    /// Its state.
    state: State,
    /// Its place in the ready queue or among the timers.
    due: Option<Timestamp>,
    /// Why it is in that phase.
    reason: Option<String>,
}

impl Birth {
    /// Leased, delayed or ready.
    fn of(run: &NewRun, leased: bool, now: Timestamp) -> Birth {
        if leased {
            let state = State::live(Status::Running, Phase::Executing);
            return Birth {
                state,
                due: None,
                reason: None,
            };
        }
        if run.start_at > now {
            // It is no part of the queue yet, so it must not look as if it were.
            return Birth {
                state: State::live(Status::Scheduled, Phase::Sleeping),
                due: Some(run.start_at),
                reason: Some(format!("starts at {}", run.start_at)),
            };
        }
        Birth {
            state: State::NEW,
            due: Some(now),
            reason: None,
        }
    }
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
