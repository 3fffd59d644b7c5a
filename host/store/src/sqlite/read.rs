//! What pages and the API show, from connections that cannot write.

use dormouse_core::run::{Phase, RunError, Status};
use dormouse_core::{EventId, Json, RunId, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::sql::{Cells, Rows, fetch, fetch_dynamic};
use crate::batch::runs::{SHARD, function_name, place, state};
use crate::error::{Error, Result};
use crate::execute::LogLine;
use crate::read::{Counts, EventFilter, Run, RunFilter, StoredEvent};
use crate::schedule::Glance;
use crate::swap::Swapped;

/// The cells of [`read_run`], but for the output, which comes last.
const RUN_COLUMNS: &str = "r.id, f.module, f.function, v.digest, r.event_id, r.status, r.phase, r.reason, r.due_ms, \
     r.queued_ms, r.started_ms, r.ended_ms, r.owner, r.epoch, r.journal_next, r.journal_base, r.rerun_of, r.parent_id, r.swapped, \
     CASE WHEN r.asked_id IS NOT NULL THEN (SELECT a.digest FROM versions a WHERE a.id = r.asked_id) END, \
     CASE WHEN r.status = 3 OR r.phase = 7 THEN o.error END";

const RUN_JOINS: &str = "LEFT JOIN functions f ON f.id = r.function_id LEFT JOIN versions v ON v.id = r.version_id \
     LEFT JOIN outcomes o ON o.run_id = r.id";

const _: () = assert!(
    Status::Failed as u8 == 3 && Phase::Blocked as u8 == 7 && place::OUTPUT == -1 && place::EVENT == -3
);

fn read_run(row: &SqliteRow) -> Result<Run> {
    let mut cells = Cells::of(row);
    let id = cells.run()?;
    let function = function_name(cells.text()?, cells.text()?)?;
    let version = dormouse_core::Digest::from_bytes(cells.bytes()?);
    let event_id = cells.event()?;
    let state = state(cells.int()?, cells.int_or_null()?)?;
    let reason = cells.text_or_null()?.map(str::to_owned);
    let due = cells.time_or_null()?;
    Ok(Run {
        id,
        function,
        version,
        event_id,
        state,
        reason,
        // A queued run's due time is its place in the queue.
        wake_at: due.filter(|_| state.phase != Some(Phase::Queued)),
        queued_at: cells.time()?,
        started_at: cells.time_or_null()?,
        ended_at: cells.time_or_null()?,
        owner: cells.node_or_null()?,
        epoch: cells.int()?,
        journal_next: cells.number()?,
        journal_base: cells.number()?,
        rerun_of: cells.bytes_or_null()?.map(RunId::from_bytes),
        parent: cells.bytes_or_null()?.map(RunId::from_bytes),
        swapped: Swapped::from_bits(cells.int()?),
        asked: cells.bytes_or_null()?.map(Digest::from_bytes),
        error: cells
            .text_or_null()?
            .map(serde_json::from_str::<RunError>)
            .transpose()
            .map_err(|error| Error::Corrupt(format!("run {id}: its error: {error}")))?,
        output: cells.text_or_null()?.map(Json::trusted),
    })
}

static GLANCE: Rows = Rows::new(
    "SELECT id, status, phase, owner, epoch, journal_next, log_lines FROM runs WHERE id IN (VALUES ",
    1,
    ")",
);

/// What others change about runs.
pub(super) async fn glance(conn: &mut SqliteConnection, runs: &[RunId]) -> Result<Vec<Glance>> {
    let rows = GLANCE
        .fetch(conn, runs, |args, id| {
            args.run(*id);
        })
        .await?;
    let mut glances = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        glances.push(Glance {
            id: cells.run()?,
            state: state(cells.int()?, cells.int_or_null()?)?,
            owner: cells.node_or_null()?,
            epoch: cells.int()?,
            journal_next: cells.number()?,
            log_lines: cells.number()?,
        });
    }
    glances.sort_unstable_by_key(|glance| glance.id);
    // A run that was asked for twice, in different statements, is answered once.
    glances.dedup_by_key(|glance| glance.id);
    Ok(glances)
}

pub(super) async fn run(conn: &mut SqliteConnection, id: RunId) -> Result<Option<Run>> {
    let text = format!(
        "SELECT {RUN_COLUMNS}, CASE WHEN r.status <> 2 THEN NULL WHEN o.large THEN \
         (SELECT b.bytes FROM blobs b WHERE b.owner_id = r.id AND b.seq = -1) ELSE o.output END \
         FROM runs r {RUN_JOINS} WHERE r.id = ?"
    );
    let rows = fetch_dynamic(conn, text, |args| {
        args.run(id);
    })
    .await?;
    rows.first().map(read_run).transpose()
}

/// Where a list of runs is read from: an index that is already in order, so that a page costs a page.
enum Source {
    /// Newest first through all runs.
    All,
    /// An event's runs.
    Event(EventId),
    /// Runs that start with an event and others before it.
    Batched(EventId),
    /// The runs that a run has invoked.
    Parent(RunId),
    /// Runs that have not ended.
    Live,
    /// Failed, cancelled and skipped runs.
    Unhappy,
    /// One function's runs.
    Function(i64),
}

pub(super) async fn runs(conn: &mut SqliteConnection, filter: &RunFilter) -> Result<Vec<Run>> {
    let live_only = filter.phase.is_some()
        || !filter.status.is_empty() && filter.status.iter().all(|status| !status.is_terminal());
    let unhappy_only =
        !filter.status.is_empty() && filter.status.iter().all(|status| *status >= Status::Failed);
    let functions = match &filter.module {
        Some(module) => Some(function_ids(conn, module, filter.function.as_deref()).await?),
        None => None,
    };
    // SQLite has no plan for a list without members from an index that it is told to use.
    if functions.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    // A query of none of no functions is one that SQLite finds no plan for with the index it is told to use.
    if functions.as_ref().is_some_and(Vec::is_empty) {
        return Ok(found);
    }
    if let Some(event) = filter.event {
        found = page(conn, filter, &Source::Event(event), functions.as_deref()).await?;
        found.extend(page(conn, filter, &Source::Batched(event), functions.as_deref()).await?);
        found.sort_unstable_by_key(|run| std::cmp::Reverse(run.id));
        found.dedup_by_key(|run| run.id);
        found.truncate(filter.limit as usize);
    } else if let Some(parent) = filter.parent {
        found = page(conn, filter, &Source::Parent(parent), functions.as_deref()).await?;
    } else if live_only {
        found = page(conn, filter, &Source::Live, functions.as_deref()).await?;
    } else if unhappy_only {
        found = page(conn, filter, &Source::Unhappy, functions.as_deref()).await?;
    } else if let Some(functions) = &functions {
        // Each function's runs are in order; a module's are merged.
        for id in functions {
            found.extend(page(conn, filter, &Source::Function(*id), None).await?);
        }
        found.sort_unstable_by_key(|run| std::cmp::Reverse(run.id));
        found.truncate(filter.limit as usize);
    } else {
        found = page(conn, filter, &Source::All, None).await?;
    }
    Ok(found)
}

async fn function_ids(conn: &mut SqliteConnection, module: &str, function: Option<&str>) -> Result<Vec<i64>> {
    let rows = fetch(
        conn,
        "SELECT id FROM functions WHERE module = ?1 AND (?2 IS NULL OR function = ?2)",
        |args| {
            args.text(module).text_or_null(function);
        },
    )
    .await?;
    rows.iter().map(|row| Cells::of(row).int()).collect()
}

async fn page(
    conn: &mut SqliteConnection,
    filter: &RunFilter,
    source: &Source,
    functions: Option<&[i64]>,
) -> Result<Vec<Run>> {
    let mut conditions = Vec::new();
    let index = match source {
        Source::All => "NOT INDEXED",
        Source::Event(_) => {
            conditions.push("r.event_id = ?1".to_owned());
            "INDEXED BY runs_by_event"
        }
        Source::Batched(_) => {
            let batches = "SELECT b.run_id FROM batched b WHERE b.event_id = ?1 AND b.position > 0";
            conditions.push(format!("r.id IN ({batches})"));
            ""
        }
        Source::Parent(_) => {
            conditions.push("r.parent_id = ?1".to_owned());
            "INDEXED BY runs_by_parent"
        }
        Source::Live => {
            conditions.push("r.phase IS NOT NULL AND r.version_id IN (SELECT id FROM versions)".to_owned());
            "INDEXED BY runs_live"
        }
        Source::Unhappy => {
            conditions.push("r.status >= 3".to_owned());
            "INDEXED BY runs_unhappy"
        }
        Source::Function(id) => {
            conditions.push(format!("r.function_id = {id}"));
            "INDEXED BY runs_by_function"
        }
    };
    if !filter.status.is_empty() {
        let numbers: Vec<String> = filter
            .status
            .iter()
            .map(|status| (*status as u8).to_string())
            .collect();
        conditions.push(format!("r.status IN ({})", numbers.join(",")));
    }
    if let Some(phase) = filter.phase {
        conditions.push(format!("r.phase = {}", phase as u8));
    }
    if let Some(functions) = functions {
        let numbers: Vec<String> = functions.iter().map(i64::to_string).collect();
        conditions.push(format!("r.function_id IN ({})", numbers.join(",")));
    }
    // Beside an event, which leads to fewer runs.
    if let Some(parent) = filter.parent
        && filter.event.is_some()
    {
        let hex: String = parent
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        conditions.push(format!("r.parent_id = x'{hex}'"));
    }
    if filter.before.is_some() {
        conditions.push("r.id < ?2".to_owned());
    }
    let conditions = match conditions.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", conditions.join(" AND ")),
    };
    // The page is found on the narrow table first; what it is joined with is looked up for its rows only.
    let text = format!(
        "SELECT {RUN_COLUMNS}, NULL FROM (SELECT * FROM runs r {index} {conditions} ORDER BY r.id DESC LIMIT ?3) r \
         {RUN_JOINS} ORDER BY r.id DESC"
    );
    let rows = fetch_dynamic(conn, text, |args| {
        match source {
            Source::Event(event) | Source::Batched(event) => args.event(*event),
            Source::Parent(parent) => args.run(*parent),
            _ => args.int_or_null(None),
        };
        args.run_or_null(filter.before).int(filter.limit.into());
    })
    .await?;
    rows.iter().map(read_run).collect()
}

/// The cells of [`read_event`].
const EVENT_COLUMNS: &str = "e.id, e.name, e.external_id, e.ts_ms, e.received_ms, \
     CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END";

fn read_event(row: &SqliteRow) -> Result<StoredEvent> {
    let mut cells = Cells::of(row);
    Ok(StoredEvent {
        id: cells.event()?,
        name: cells.text()?.to_owned(),
        external_id: cells.text_or_null()?.map(str::to_owned),
        ts: cells.time()?,
        received_at: cells.time()?,
        payload: Json::trusted(cells.text()?),
    })
}

pub(super) async fn event(conn: &mut SqliteConnection, id: EventId) -> Result<Option<StoredEvent>> {
    let rows = fetch_dynamic(
        conn,
        format!("SELECT {EVENT_COLUMNS} FROM events e WHERE e.id = ?"),
        |args| {
            args.event(id);
        },
    )
    .await?;
    rows.first().map(read_event).transpose()
}

pub(super) async fn events(conn: &mut SqliteConnection, filter: &EventFilter) -> Result<Vec<StoredEvent>> {
    let mut conditions = Vec::new();
    let mut index = "NOT INDEXED";
    if filter.name.is_some() {
        conditions.push("e.name = ?1");
        index = "INDEXED BY events_by_name";
    }
    if filter.received_after.is_some() {
        conditions.push("e.received_ms >= ?2");
        // Ids begin with the time of receipt: without a bound on them a sparse list would read the whole table.
        conditions.push("e.id >= ?5");
    }
    if filter.received_before.is_some() {
        conditions.push("e.received_ms <= ?3");
    }
    if filter.before.is_some() {
        conditions.push("e.id < ?4");
    }
    let conditions = match conditions.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", conditions.join(" AND ")),
    };
    let text =
        format!("SELECT {EVENT_COLUMNS} FROM events e {index} {conditions} ORDER BY e.id DESC LIMIT ?6");
    let rows = fetch_dynamic(conn, text, |args| {
        let lowest = filter.received_after.map(|after| {
            let slack = std::time::Duration::from_secs(60);
            EventId::from_parts(after.before(slack), [0; 10]).to_bytes()
        });
        args.text_or_null(filter.name.as_deref())
            .int_or_null(filter.received_after.map(Timestamp::as_millis))
            .int_or_null(filter.received_before.map(Timestamp::as_millis))
            .bytes_or_null(
                filter
                    .before
                    .map(EventId::to_bytes)
                    .as_ref()
                    .map(<[u8; 16]>::as_slice),
            )
            .bytes_or_null(lowest.as_ref().map(<[u8; 16]>::as_slice))
            .int(filter.limit.into());
    })
    .await?;
    rows.iter().map(read_event).collect()
}

pub(super) async fn logs(
    conn: &mut SqliteConnection,
    run: RunId,
    from: u32,
    limit: u32,
) -> Result<Vec<LogLine>> {
    let rows = fetch(
        conn,
        "SELECT number, at_ms, level, step, message, fields FROM logs WHERE run_id = ? AND number >= ? \
         ORDER BY number LIMIT ?",
        |args| {
            args.run(run).int(from.into()).int(limit.into());
        },
    )
    .await?;
    rows.iter()
        .map(|row| {
            let mut cells = Cells::of(row);
            Ok(LogLine {
                number: cells.number()?,
                at: cells.time()?,
                level: cells.text()?.to_owned(),
                step: cells.text_or_null()?.map(str::to_owned),
                message: cells.text()?.to_owned(),
                fields: cells.text_or_null()?.map(Json::trusted),
            })
        })
        .collect()
}

pub(super) async fn counts(conn: &mut SqliteConnection) -> Result<Counts> {
    let mut counts = Counts::default();
    // In the index's own order, so that nothing is sorted.
    let rows = fetch(
        conn,
        "SELECT phase, count(*) FROM runs INDEXED BY runs_live WHERE phase IS NOT NULL GROUP BY version_id, phase",
        |_| {},
    )
    .await?;
    for row in &rows {
        let mut cells = Cells::of(row);
        let (phase, number) = (cells.int()?, cells.int()?.unsigned_abs());
        let slot = usize::try_from(phase)
            .ok()
            .and_then(|phase| counts.live.get_mut(phase));
        *slot.ok_or_else(|| Error::Corrupt(format!("{phase} is not a phase")))? += number;
    }
    let rows = fetch(
        conn,
        "SELECT at_ms FROM ready WHERE shard = ? ORDER BY at_ms LIMIT 1",
        |args| {
            args.int(SHARD);
        },
    )
    .await?;
    counts.oldest_ready = rows.first().map(|row| Cells::of(row).time()).transpose()?;
    Ok(counts)
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&GLANCE]
}
