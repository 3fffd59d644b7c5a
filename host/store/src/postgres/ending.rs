//! What may end runs from outside by itself: their rows among the waits. Whoever looks at deadlines locks the runs first, as
//! everyone who writes rows of theirs, and then reads them again.

use std::collections::BTreeSet;

use dormouse_core::{EventId, RunId, Timestamp};
use sqlx::postgres::PgRow;

use super::command::load_to_end;
use super::execute::Writing;
use super::fault::Attempt;
use super::runs::flush;
use super::sql::{Cells, Conn, Together};
use super::throttles;
use super::writer::Effects;
use crate::batch;
use crate::batch::ending::{Row, Stored, settle};
use crate::batch::runs::Work;
use crate::batch::throttles::waiting;
use crate::batch::waits::kind;
use crate::ends::Expired;
use crate::error::Result;

const INSERT: &str = "INSERT INTO waits (run_id, operation, kind, name, path, key, condition, until_ms) \
     SELECT * FROM UNNEST($1::uuid[], $2::int8[], $3::int8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int8[])";
/// In a statement of its own: one that inserts runs does not see them.
const HAVE: &str = "UPDATE runs SET waits = true WHERE id = ANY($1::uuid[])";
const KEPT: &str = "DELETE FROM waits w USING UNNEST($1::uuid[], $2::int8[]) AS v(run_id, operation) \
     WHERE w.run_id = v.run_id AND w.operation = v.operation";
const LATER: &str = "UPDATE waits SET until_ms = v.until_ms \
     FROM UNNEST($1::uuid[], $2::int8[], $3::int8[]) AS v(run_id, operation, until_ms) \
     WHERE waits.run_id = v.run_id AND waits.operation = v.operation";
const NEXT: &str = "SELECT until_ms FROM waits WHERE kind = 5 ORDER BY until_ms LIMIT 1";
const DUE: &str = "SELECT run_id, operation, name, path, until_ms FROM waits \
     WHERE kind = 5 AND until_ms <= $1 ORDER BY until_ms, run_id LIMIT $2";
const DUE_OF: &str = "SELECT run_id, operation, name, path, until_ms FROM waits \
     WHERE kind = 5 AND until_ms <= $1 AND run_id = ANY($2) ORDER BY until_ms, run_id";
const _: () = assert!(kind::DEADLINE == 5);

/// Stores what may end new runs, which are stored.
pub(super) async fn insert(conn: &mut Conn, rows: &[Row<'_>]) -> Attempt<()> {
    let runs: BTreeSet<RunId> = rows.iter().map(|row| row.run).collect();
    let runs: Vec<RunId> = runs.into_iter().collect();
    let mut together = Together::default();
    together.add(rows, INSERT, |args, rows| {
        args.keys(rows.iter().map(|row| row.run))
            .ints(rows.iter().map(|row| row.operation.into()))
            .ints(rows.iter().map(|row| row.kind))
            .texts(rows.iter().map(|row| row.name))
            .texts(rows.iter().map(|row| row.path.as_str()))
            .texts(rows.iter().map(|row| row.key))
            .texts_or_null(rows.iter().map(|row| row.condition))
            .ints_or_null(rows.iter().map(|row| row.until.map(Timestamp::as_millis)));
    });
    together.add(&runs, HAVE, |args, runs| {
        args.keys(runs.iter().copied());
    });
    together.run(conn).await
}

/// The function of each is known by its row. Of a function's runs, the first stands for all.
const DECIDED: &str = "INSERT INTO decisions (event_id, function_id, decision, at_ms, run_id, detail) \
     SELECT v.event_id, r.function_id, 12, min(v.at_ms), (array_agg(r.id ORDER BY r.id))[1], \
     CASE count(*) WHEN 1 THEN 'it has cancelled a run' ELSE 'it has cancelled ' || count(*) || ' runs' END \
     FROM UNNEST($1::uuid[], $2::uuid[], $3::int8[]) AS v(event_id, run_id, at_ms) JOIN runs r ON r.id = v.run_id \
     GROUP BY v.event_id, r.function_id ON CONFLICT DO NOTHING";

/// Keeps beside events which runs they have cancelled.
pub(super) async fn decided(conn: &mut Conn, cancelled: &[(EventId, RunId, Timestamp)]) -> Attempt<()> {
    let mut together = Together::default();
    together.add(cancelled, DECIDED, |args, rows| {
        args.keys(rows.iter().map(|(event, ..)| *event))
            .keys(rows.iter().map(|(_, run, _)| *run))
            .ints(rows.iter().map(|(.., at)| at.as_millis()));
    });
    together.run(conn).await
}

/// When the next deadline is due.
pub(super) async fn next(conn: &mut Conn) -> Attempt<Option<Timestamp>> {
    let rows = conn.fetch(NEXT, |_| {}).await?;
    Ok(rows.first().map(|row| Cells::of(row).time()).transpose()?)
}

/// Looks at what is due.
pub(super) async fn expire(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    limit: u32,
    now: Timestamp,
) -> Attempt<Expired> {
    let rows = conn
        .fetch(DUE, |args| {
            args.time(now).int(limit.into());
        })
        .await?;
    let runs: BTreeSet<RunId> = read(&rows)?.iter().map(|stored| stored.run).collect();
    let runs: Vec<RunId> = runs.into_iter().collect();
    if runs.is_empty() {
        return Ok(Expired::default());
    }
    let mut work = Work::default();
    load_to_end(conn, &mut work, runs.clone()).await?;
    let rows = conn
        .fetch(DUE_OF, |args| {
            args.time(now).keys(runs.iter().copied());
        })
        .await?;
    let settled = settle(&work, &read(&rows)?, now);
    let over: Vec<RunId> = settled.over.iter().map(|over| over.run).collect();
    let waited = waiting(&work, &over);
    let mut writing = Writing::on(conn);
    let cancelled = batch::ending::cancel(&mut writing, &mut work, settled.over).await;
    let cancelled = writing.settle(cancelled)?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    effects.woke |= work.woke;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    let mut together = Together::default();
    together.add(&settled.kept, KEPT, |args, rows| {
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints(rows.iter().map(|(_, operation)| i64::from(*operation)));
    });
    together.add(&settled.later, LATER, |args, rows| {
        args.keys(rows.iter().map(|(run, ..)| *run))
            .ints(rows.iter().map(|(_, operation, _)| i64::from(*operation)))
            .ints(rows.iter().map(|(.., at)| at.as_millis()));
    });
    together.run(conn).await?;
    let mut cancelled: Vec<RunId> = cancelled.iter().map(|one| one.run).collect();
    cancelled.sort_unstable();
    Ok(Expired {
        looked: runs.len() as u32,
        cancelled,
    })
}

fn read(rows: &[PgRow]) -> Result<Vec<Stored>> {
    let mut due = Vec::with_capacity(rows.len());
    for row in rows {
        let mut cells = Cells::of(row);
        let (run, operation) = (cells.run()?, cells.number()?);
        let (name, path) = (cells.text()?, cells.text()?);
        due.push(Stored::read(run, operation, &name, &path, cells.time()?)?);
    }
    Ok(due)
}
