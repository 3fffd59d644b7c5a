//! Where schedules stand. Which there are is written under the registry's lock, taken alone, so that no tick is decided on
//! what it changes; a tick locks its schedule's row, after the runs that its batch is about and before all else.

use super::cache::Cache;
use super::fault::Attempt;
use super::sql::{Cells, Conn};
use crate::batch::cron::{ScheduleKey, changes, last, left, previous, skipped};
use crate::batch::ingest::Small as _;
use crate::batch::runs::function_name;
use crate::cron::{NewSchedules, Schedule, Tick};
use crate::error::Error;
use crate::ingest::Created;

/// Makes the stored schedules of some modules the wanted ones. Those that were there keep their places.
pub(super) async fn put(conn: &mut Conn, cache: &mut Cache, new: &NewSchedules) -> Attempt<()> {
    if new.generation != cache.generation() {
        return Err(Error::StaleRegistry.into());
    }
    let functions: Vec<_> = cache.unnumbered(new.schedules.iter().map(|schedule| &schedule.function));
    if !functions.is_empty() {
        cache.number_functions(conn, &functions).await?;
    }
    let mut wanted = Vec::with_capacity(new.schedules.len());
    for schedule in &new.schedules {
        let key = (cache.function_id(&schedule.function)?, schedule.cron.clone());
        wanted.push((key, schedule.next));
    }
    let rows = conn
        .fetch(
            "SELECT s.function_id, s.cron FROM schedules s JOIN functions f ON f.id = s.function_id \
             WHERE f.module = ANY($1)",
            |args| {
                args.texts(new.modules.iter().map(String::as_str));
            },
        )
        .await?;
    let mut stored: Vec<ScheduleKey> = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        stored.push((cells.int()?, cells.text()?));
    }
    let (removed, added) = changes(stored, wanted);
    if !removed.is_empty() {
        conn.execute(
            "DELETE FROM schedules s USING UNNEST($1::int8[], $2::text[]) AS v(function_id, cron) \
             WHERE s.function_id = v.function_id AND s.cron = v.cron",
            |args| {
                args.ints(removed.iter().map(|(function_id, _)| *function_id))
                    .texts(removed.iter().map(|(_, cron)| cron.as_str()));
            },
        )
        .await?;
    }
    if !added.is_empty() {
        conn.execute(
            "INSERT INTO schedules (function_id, cron, next_ms) SELECT * FROM UNNEST($1::int8[], $2::text[], $3::int8[])",
            |args| {
                args.ints(added.iter().map(|((function_id, _), _)| *function_id))
                    .texts(added.iter().map(|((_, cron), _)| cron.as_str()))
                    .ints(added.iter().map(|(_, next)| next.as_millis()));
            },
        )
        .await?;
    }
    Ok(())
}

/// Moves a schedule on from where it is believed to stand. False: it does not stand there.
pub(super) async fn move_on(conn: &mut Conn, tick: &Tick) -> Attempt<bool> {
    let moved = conn
        .execute(
            "UPDATE schedules SET next_ms = $1 WHERE cron = $2 AND next_ms = $3 \
             AND function_id = (SELECT id FROM functions WHERE module = $4 AND function = $5)",
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
pub(super) async fn leave(conn: &mut Conn, tick: &Tick, created: Option<Created>) -> Attempt<()> {
    let (last, skipped) = left(tick, created);
    if let Some(last) = last {
        conn.execute(
            "UPDATE schedules SET last_ms = $1, last_run_id = $2 WHERE cron = $3 \
             AND function_id = (SELECT id FROM functions WHERE module = $4 AND function = $5)",
            |args| {
                args.time(last.tick)
                    .key(last.run)
                    .text(&tick.cron)
                    .text(tick.function.module())
                    .text(tick.function.function());
            },
        )
        .await?;
    }
    if let Some(skipped) = skipped {
        conn.execute(
            "UPDATE schedules SET skipped_ms = $1, decided_ms = $2, reason = $3 WHERE cron = $4 \
             AND function_id = (SELECT id FROM functions WHERE module = $5 AND function = $6)",
            |args| {
                args.time(skipped.tick)
                    .time(skipped.at)
                    .text(&skipped.reason)
                    .text(&tick.cron)
                    .text(tick.function.module())
                    .text(tick.function.function());
            },
        )
        .await?;
    }
    Ok(())
}

/// All schedules.
pub(super) async fn list(conn: &mut Conn) -> Attempt<Vec<Schedule>> {
    let rows = conn
        .fetch(
            "SELECT f.module, f.function, s.cron, s.next_ms, s.last_ms, s.last_run_id, s.skipped_ms, s.decided_ms, s.reason, \
             r.id IS NOT NULL, coalesce(r.live, false), r.ended_ms \
             FROM schedules s JOIN functions f ON f.id = s.function_id LEFT JOIN runs r ON r.id = s.last_run_id \
             ORDER BY f.module COLLATE \"C\", f.function COLLATE \"C\", s.cron COLLATE \"C\"",
            |_| {},
        )
        .await?;
    let mut list = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        list.push(Schedule {
            function: function_name(&cells.text()?, &cells.text()?)?,
            cron: cells.text()?,
            next: cells.time()?,
            last: last(cells.time_or_null()?, cells.run_or_null()?)?,
            skipped: skipped(
                cells.time_or_null()?,
                cells.time_or_null()?,
                cells.text_or_null()?,
            )?,
            previous: previous(cells.flag()?, cells.flag()?, cells.time_or_null()?),
        });
    }
    Ok(list)
}
