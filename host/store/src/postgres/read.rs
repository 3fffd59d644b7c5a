//! What pages and the API show: single statements, each of which sees one moment.

use dormouse_core::run::{Phase, RunError, Status};
use dormouse_core::{Digest, EventId, Json, RunId, Timestamp};
use sqlx::postgres::PgRow;

use super::fault::Attempt;
use super::sql::{Args, Cells, Conn};
use crate::batch::runs::{function_name, place, state};
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
    Status::Completed as u8 == 2
        && Status::Failed as u8 == 3
        && Phase::Blocked as u8 == 7
        && place::OUTPUT == -1
        && place::EVENT == -3
);

fn read_run(row: &PgRow) -> Result<Run> {
    let mut cells = Cells::of(row);
    let id = cells.run()?;
    let function = function_name(&cells.text()?, &cells.text()?)?;
    let version = Digest::from_bytes(cells.bytes()?);
    let event_id = cells.event()?;
    let state = state(cells.int()?, cells.int_or_null()?)?;
    let reason = cells.text_or_null()?;
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
        rerun_of: cells.run_or_null()?,
        parent: cells.run_or_null()?,
        swapped: Swapped::from_bits(cells.int()?),
        asked: cells.bytes_or_null()?.map(Digest::from_bytes),
        error: cells
            .text_or_null()?
            .map(|text| serde_json::from_str::<RunError>(&text))
            .transpose()
            .map_err(|error| Error::Corrupt(format!("run {id}: its error: {error}")))?,
        output: cells.text_or_null()?.map(Json::trusted),
    })
}

fn each<T>(rows: &[PgRow], read: impl Fn(&PgRow) -> Result<T>) -> Attempt<Vec<T>> {
    let read: Result<Vec<T>> = rows.iter().map(read).collect();
    Ok(read?)
}

/// What others change about runs, in order of their ids.
pub(super) async fn glance(conn: &mut Conn, runs: &[RunId]) -> Attempt<Vec<Glance>> {
    let rows = conn
        .fetch(
            "SELECT id, status, phase, owner, epoch, journal_next, log_lines FROM runs WHERE id = ANY($1) ORDER BY id",
            |args| {
                args.keys(runs.iter().copied());
            },
        )
        .await?;
    each(&rows, |row| {
        let mut cells = Cells::of(row);
        Ok(Glance {
            id: cells.run()?,
            state: state(cells.int()?, cells.int_or_null()?)?,
            owner: cells.node_or_null()?,
            epoch: cells.int()?,
            journal_next: cells.number()?,
            log_lines: cells.number()?,
        })
    })
}

pub(super) async fn run(conn: &mut Conn, id: RunId) -> Attempt<Option<Run>> {
    let text = format!(
        "SELECT {RUN_COLUMNS}, CASE WHEN r.status <> 2 THEN NULL WHEN o.large THEN \
         (SELECT b.bytes FROM blobs b WHERE b.owner_id = r.id AND b.seq = -1) ELSE o.output END \
         FROM runs r {RUN_JOINS} WHERE r.id = $1"
    );
    let rows = conn
        .fetch_dynamic(text, |args| {
            args.key(id);
        })
        .await?;
    Ok(each(&rows, read_run)?.pop())
}

/// A page of runs. Each condition that narrows by much has an index in the order of the ids, so that a page costs a page.
pub(super) async fn runs(conn: &mut Conn, filter: &RunFilter) -> Attempt<Vec<Run>> {
    let live_only = filter.phase.is_some()
        || !filter.status.is_empty() && filter.status.iter().all(|status| !status.is_terminal());
    let unhappy_only =
        !filter.status.is_empty() && filter.status.iter().all(|status| *status >= Status::Failed);
    let mut args = Args::default();
    let mut conditions = Vec::new();
    if live_only {
        conditions.push("r.live".to_owned());
    } else if unhappy_only {
        conditions.push("r.unhappy".to_owned());
    }
    if !filter.status.is_empty() {
        let numbers = filter.status.iter().map(|status| *status as i64);
        args.ints(numbers);
        conditions.push(format!("r.status = ANY(${})", args.len()));
    }
    if let Some(phase) = filter.phase {
        args.int(phase as i64);
        conditions.push(format!("r.phase = ${}", args.len()));
    }
    if let Some(event) = filter.event {
        args.key(event);
        conditions.push(format!(
            "r.id = ANY(ARRAY(SELECT id FROM runs WHERE event_id = ${0} \
             UNION SELECT run_id FROM batched WHERE event_id = ${0}))",
            args.len()
        ));
    }
    if let Some(parent) = filter.parent {
        args.key(parent);
        conditions.push(format!("r.parent_id = ${}", args.len()));
    }
    if let Some(before) = filter.before {
        args.key(before);
        conditions.push(format!("r.id < ${}", args.len()));
    }
    let narrowed = live_only || unhappy_only || filter.event.is_some() || filter.parent.is_some();
    let mut functions = None;
    if let Some(module) = &filter.module {
        args.text(module);
        let mut of = format!("f.module = ${}", args.len());
        if let Some(function) = &filter.function {
            args.text(function);
            of += &format!(" AND f.function = ${}", args.len());
        }
        functions = Some(of);
    }
    args.int(filter.limit.into());
    let limit = args.len();
    let all_of = |conditions: &[String]| match conditions.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", conditions.join(" AND ")),
    };
    // The page is found on the narrow table first; what it is joined with is looked up for its rows only.
    let page = match functions {
        // Each function's runs are in order; a module's are merged.
        Some(of) if !narrowed => {
            conditions.push("r.function_id = f.id".to_owned());
            format!(
                "SELECT p.* FROM functions f CROSS JOIN LATERAL (SELECT * FROM runs r {} ORDER BY r.id DESC LIMIT ${limit}) p \
                 WHERE {of} ORDER BY p.id DESC LIMIT ${limit}",
                all_of(&conditions)
            )
        }
        functions => {
            if let Some(of) = functions {
                conditions.push(format!(
                    "r.function_id IN (SELECT f.id FROM functions f WHERE {of})"
                ));
            }
            format!(
                "SELECT * FROM runs r {} ORDER BY r.id DESC LIMIT ${limit}",
                all_of(&conditions)
            )
        }
    };
    let text = format!("SELECT {RUN_COLUMNS}, NULL::text FROM ({page}) r {RUN_JOINS} ORDER BY r.id DESC");
    let rows = conn.fetch_dynamic_with(text, args).await?;
    each(&rows, read_run)
}

/// The cells of [`read_event`].
const EVENT_COLUMNS: &str = "e.id, e.name, e.external_id, e.ts_ms, e.received_ms, \
     CASE WHEN e.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = e.id AND b.seq = -3) ELSE e.payload END";

fn read_event(row: &PgRow) -> Result<StoredEvent> {
    let mut cells = Cells::of(row);
    Ok(StoredEvent {
        id: cells.event()?,
        name: cells.text()?,
        external_id: cells.text_or_null()?,
        ts: cells.time()?,
        received_at: cells.time()?,
        payload: Json::trusted(cells.text()?),
    })
}

pub(super) async fn event(conn: &mut Conn, id: EventId) -> Attempt<Option<StoredEvent>> {
    let text = format!("SELECT {EVENT_COLUMNS} FROM events e WHERE e.id = $1");
    let rows = conn
        .fetch_dynamic(text, |args| {
            args.key(id);
        })
        .await?;
    Ok(each(&rows, read_event)?.pop())
}

pub(super) async fn events(conn: &mut Conn, filter: &EventFilter) -> Attempt<Vec<StoredEvent>> {
    let mut args = Args::default();
    let mut conditions = Vec::new();
    if let Some(name) = &filter.name {
        args.text(name);
        conditions.push(format!("e.name = ${}", args.len()));
    }
    if let Some(after) = filter.received_after {
        args.time(after);
        conditions.push(format!("e.received_ms >= ${}", args.len()));
        // Ids begin with the time of receipt: without a bound on them a sparse list would read the whole table.
        let slack = std::time::Duration::from_secs(60);
        args.key(EventId::from_parts(after.before(slack), [0; 10]));
        conditions.push(format!("e.id >= ${}", args.len()));
    }
    if let Some(before) = filter.received_before {
        args.time(before);
        conditions.push(format!("e.received_ms <= ${}", args.len()));
    }
    if let Some(before) = filter.before {
        args.key(before);
        conditions.push(format!("e.id < ${}", args.len()));
    }
    args.int(filter.limit.into());
    let conditions = match conditions.is_empty() {
        true => String::new(),
        false => format!("WHERE {}", conditions.join(" AND ")),
    };
    let text = format!(
        "SELECT {EVENT_COLUMNS} FROM events e {conditions} ORDER BY e.id DESC LIMIT ${}",
        args.len()
    );
    let rows = conn.fetch_dynamic_with(text, args).await?;
    each(&rows, read_event)
}

pub(super) async fn logs(conn: &mut Conn, run: RunId, from: u32, limit: u32) -> Attempt<Vec<LogLine>> {
    let rows = conn
        .fetch(
            "SELECT number, at_ms, level, step, message, fields FROM logs WHERE run_id = $1 AND number >= $2 \
             ORDER BY number LIMIT $3",
            |args| {
                args.key(run).int(from.into()).int(limit.into());
            },
        )
        .await?;
    each(&rows, |row| {
        let mut cells = Cells::of(row);
        Ok(LogLine {
            number: cells.number()?,
            at: cells.time()?,
            level: cells.text()?,
            step: cells.text_or_null()?,
            message: cells.text()?,
            fields: cells.text_or_null()?.map(Json::trusted),
        })
    })
}

pub(super) async fn counts(conn: &mut Conn) -> Attempt<Counts> {
    let rows = conn
        .fetch(
            "SELECT phase, count(*) FROM runs WHERE live GROUP BY phase UNION ALL \
             SELECT NULL, (SELECT min(at_ms) FROM ready WHERE shard = 0)",
            |_| {},
        )
        .await?;
    let mut counts = Counts::default();
    for row in &rows {
        let mut cells = Cells::of(row);
        let Some(phase) = cells.int_or_null()? else {
            counts.oldest_ready = cells.int_or_null()?.map(Timestamp::from_millis);
            continue;
        };
        let slot = usize::try_from(phase)
            .ok()
            .and_then(|phase| counts.live.get_mut(phase));
        *slot.ok_or_else(|| Error::Corrupt(format!("{phase} is not a phase")))? +=
            cells.int()?.unsigned_abs();
    }
    Ok(counts)
}
