//! Where schedules stand.

use dormouse_core::RunId;
use sqlx::SqliteConnection;

use super::cache::Cache;
use super::sql::{Cells, Rows, execute, fetch};
use crate::batch::cron::{ScheduleKey, changes, last, left, previous, skipped};
use crate::batch::ingest::Small as _;
use crate::batch::runs::function_name;
use crate::cron::{NewSchedules, Schedule, Tick};
use crate::error::{Error, Result};
use crate::ingest::Created;

static REMOVE: Rows = Rows::new(
    "DELETE FROM schedules WHERE (function_id, cron) IN (VALUES ",
    2,
    ")",
);
static ADD: Rows = Rows::insert(
    "INSERT INTO schedules (function_id, cron, next_ms) SELECT * FROM (VALUES ",
    3,
);

/// Makes the stored schedules of some modules the wanted ones. Those that were there keep their places.
pub(super) async fn put(conn: &mut SqliteConnection, cache: &mut Cache, new: &NewSchedules) -> Result<()> {
    if new.generation != cache.generation() {
        return Err(Error::StaleRegistry);
    }
    let mut wanted = Vec::with_capacity(new.schedules.len());
    for schedule in &new.schedules {
        cache.number_function(conn, &schedule.function).await?;
        let key = (cache.function_id(&schedule.function)?, schedule.cron.clone());
        wanted.push((key, schedule.next));
    }
    let rows = fetch(
        conn,
        "SELECT f.module, s.function_id, s.cron FROM schedules s JOIN functions f ON f.id = s.function_id",
        |_| {},
    )
    .await?;
    let mut stored: Vec<ScheduleKey> = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let module = cells.text()?;
        if new.modules.iter().any(|of| of == module) {
            stored.push((cells.int()?, cells.text()?.to_owned()));
        }
    }
    let (removed, added) = changes(stored, wanted);
    REMOVE
        .apply(conn, &removed, |args, (function_id, cron)| {
            args.int(*function_id).text(cron);
        })
        .await?;
    ADD.apply(conn, &added, |args, ((function_id, cron), next)| {
        args.int(*function_id).text(cron).time(*next);
    })
    .await
}

/// Moves a schedule on from where it is believed to stand. False: it does not stand there.
pub(super) async fn move_on(conn: &mut SqliteConnection, tick: &Tick) -> Result<bool> {
    let moved = execute(
        conn,
        "UPDATE schedules SET next_ms = ?1 WHERE cron = ?2 AND next_ms = ?3 \
         AND function_id = (SELECT id FROM functions WHERE module = ?4 AND function = ?5)",
        |args| {
            args.time(tick.to)
                .text(&tick.cron)
                .time(tick.from)
                .text(tick.function.module())
                .text(tick.function.function());
        },
    )
    .await?;
    Ok(moved > 0)
}

/// Leaves on a schedule what became of a tick.
pub(super) async fn leave(conn: &mut SqliteConnection, tick: &Tick, created: Option<Created>) -> Result<()> {
    let (last, skipped) = left(tick, created);
    execute(
        conn,
        "UPDATE schedules SET last_ms = coalesce(?1, last_ms), last_run_id = coalesce(?2, last_run_id), \
         skipped_ms = coalesce(?3, skipped_ms), decided_ms = coalesce(?4, decided_ms), reason = coalesce(?5, reason) \
         WHERE cron = ?6 AND function_id = (SELECT id FROM functions WHERE module = ?7 AND function = ?8)",
        |args| {
            args.int_or_null(last.map(|last| last.tick.as_millis()))
                .run_or_null(last.map(|last| last.run))
                .int_or_null(skipped.as_ref().map(|skipped| skipped.tick.as_millis()))
                .int_or_null(skipped.as_ref().map(|skipped| skipped.at.as_millis()))
                .text_or_null(skipped.as_ref().map(|skipped| skipped.reason.as_str()))
                .text(&tick.cron)
                .text(tick.function.module())
                .text(tick.function.function());
        },
    )
    .await?;
    Ok(())
}

/// All schedules.
pub(super) async fn list(conn: &mut SqliteConnection) -> Result<Vec<Schedule>> {
    let rows = fetch(
        conn,
        "SELECT f.module, f.function, s.cron, s.next_ms, s.last_ms, s.last_run_id, s.skipped_ms, s.decided_ms, s.reason, \
         r.id IS NOT NULL, r.phase IS NOT NULL, r.ended_ms \
         FROM schedules s JOIN functions f ON f.id = s.function_id LEFT JOIN runs r ON r.id = s.last_run_id \
         ORDER BY f.module, f.function, s.cron",
        |_| {},
    )
    .await?;
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        list.push(Schedule {
            function: function_name(cells.text()?, cells.text()?)?,
            cron: cells.text()?.to_owned(),
            next: cells.time()?,
            last: last(
                cells.time_or_null()?,
                cells.bytes_or_null()?.map(RunId::from_bytes),
            )?,
            skipped: skipped(
                cells.time_or_null()?,
                cells.time_or_null()?,
                cells.text_or_null()?.map(str::to_owned),
            )?,
            previous: previous(cells.flag()?, cells.flag()?, cells.time_or_null()?),
        });
    }
    Ok(list)
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&REMOVE, &ADD]
}
