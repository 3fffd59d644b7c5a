//! What may end runs from outside by itself: their rows among the waits.

use std::collections::HashSet;

use dormouse_core::{EventId, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;

use super::execute::Writing;
use super::runs::{flush, load};
use super::sql::{Cells, Rows, fetch};
use super::throttles;
use crate::batch;
use crate::batch::ending::{Row, Stored, settle};
use crate::batch::runs::Work;
use crate::batch::throttles::waiting;
use crate::batch::waits::kind;
use crate::ends::Expired;
use crate::error::Result;

static INSERT: Rows = Rows::insert(
    "INSERT OR REPLACE INTO waits (run_id, operation, kind, name, path, key, condition, until_ms) SELECT * FROM (VALUES ",
    8,
);
static KEPT: Rows = Rows::new("DELETE FROM waits WHERE (run_id, operation) IN (VALUES ", 2, ")");
static LATER: Rows = Rows::new(
    "UPDATE waits SET until_ms = v.column3 FROM (VALUES ",
    3,
    ") AS v WHERE waits.run_id = v.column1 AND waits.operation = v.column2",
);
// The index of names begins with the kind, too, and would be read to its end.
pub(super) const NEXT: &str = "SELECT until_ms FROM waits INDEXED BY waits_due WHERE kind = 5 AND until_ms >= 0 \
     ORDER BY until_ms LIMIT 1";
/// All that is due of the first runs.
pub(super) const DUE: &str = "SELECT w.run_id, w.operation, w.name, w.path, w.until_ms FROM waits w \
     WHERE w.run_id IN (SELECT run_id FROM waits INDEXED BY waits_due WHERE kind = 5 AND until_ms <= ?1 ORDER BY until_ms, run_id LIMIT ?2) \
     AND +w.kind = 5 AND w.until_ms <= ?1";
const _: () = assert!(kind::DEADLINE == 5);

/// Stores what may end new runs.
pub(super) async fn insert(conn: &mut SqliteConnection, rows: &[Row<'_>]) -> Result<()> {
    INSERT
        .apply(conn, rows, |args, row| {
            args.run(row.run)
                .int(row.operation.into())
                .int(row.kind)
                .text(row.name)
                .text(&row.path)
                .text(row.key)
                .text_or_null(row.condition)
                .int_or_null(row.until.map(Timestamp::as_millis));
        })
        .await
}

/// The function of each is known by its row. Of a function's runs, the first stands for all.
static DECIDED: Rows = Rows::new(
    "INSERT OR IGNORE INTO decisions (event_id, function_id, decision, at_ms, run_id, detail) \
     SELECT v.column1, r.function_id, 12, v.column3, min(r.id), \
     CASE count(*) WHEN 1 THEN 'it has cancelled a run' ELSE 'it has cancelled ' || count(*) || ' runs' END \
     FROM (VALUES ",
    3,
    ") AS v JOIN runs r ON r.id = v.column2 GROUP BY v.column1, r.function_id",
);

/// Keeps beside events which runs they have cancelled.
pub(super) async fn decided(
    conn: &mut SqliteConnection,
    cancelled: &[(EventId, RunId, Timestamp)],
) -> Result<()> {
    DECIDED
        .apply(conn, cancelled, |args, (event, run, at)| {
            args.event(*event).run(*run).time(*at);
        })
        .await
}

/// When the next deadline is due.
pub(super) async fn next(conn: &mut SqliteConnection) -> Result<Option<Timestamp>> {
    let rows = fetch(conn, NEXT, |_| {}).await?;
    rows.first().map(|row| Cells::of(row).time()).transpose()
}

/// Looks at what is due. True: some waiting run was made ready.
pub(super) async fn expire(
    conn: &mut SqliteConnection,
    limit: u32,
    now: Timestamp,
) -> Result<(Expired, bool)> {
    let rows = fetch(conn, DUE, |args| {
        args.time(now).int(limit.into());
    })
    .await?;
    let mut due = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let (run, operation) = (cells.run()?, cells.number()?);
        let (name, path) = (cells.text()?, cells.text()?);
        due.push(Stored::read(run, operation, name, path, cells.time()?)?);
    }
    let runs: HashSet<RunId> = due.iter().map(|stored| stored.run).collect();
    let looked = runs.len() as u32;
    let mut work = Work::default();
    load(conn, &mut work, runs.into_iter().collect()).await?;
    let settled = settle(&work, &due, now);
    let over: Vec<RunId> = settled.over.iter().map(|over| over.run).collect();
    let waited = waiting(&work, &over);
    let cancelled = batch::ending::cancel(&mut Writing(conn), &mut work, settled.over).await?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    let woken = work.woke;
    flush(conn, &mut work).await?;
    KEPT.apply(conn, &settled.kept, |args, (run, operation): &(RunId, Seq)| {
        args.run(*run).int((*operation).into());
    })
    .await?;
    LATER
        .apply(conn, &settled.later, |args, (run, operation, at)| {
            args.run(*run).int((*operation).into()).time(*at);
        })
        .await?;
    let mut cancelled: Vec<RunId> = cancelled.iter().map(|one| one.run).collect();
    cancelled.sort_unstable();
    Ok((Expired { looked, cancelled }, woken))
}

/// All multi-row statements of this room, for the check of their plans.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static Rows> {
    vec![&INSERT, &KEPT, &LATER, &DECIDED]
}
