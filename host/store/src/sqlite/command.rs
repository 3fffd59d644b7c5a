//! Cancel, wake, unblock.

use dormouse_core::run::{Event, Phase, Status};
use dormouse_core::{Json, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;

use super::execute::is_open;
use super::runs::{RunRow, Work, hot_columns};
use super::sql::{Cells, fetch};
use crate::command::Commanded;
use crate::error::Result;
use crate::execute::Completion;

pub(super) async fn cancel(conn: &mut SqliteConnection, run: RunId, now: Timestamp) -> Result<Commanded> {
    let mut work = Work::default();
    work.load(conn, vec![run]).await?;
    let Some(row) = work.get(run) else {
        return Ok(Commanded::NotFound);
    };
    if row.state.status.is_terminal() {
        return Ok(Commanded::Refused(row.state));
    }
    let state = work.change(run, |row| {
        row.on(Event::Cancel, None)?;
        row.owner = None;
        row.epoch += 1;
        row.ended_at = Some(now);
        Ok(row.state)
    })?;
    work.clear_completions(run);
    work.clear_waits(run);
    work.flush(conn).await?;
    Ok(Commanded::Done(state))
}

pub(super) async fn wake(
    conn: &mut SqliteConnection,
    run: RunId,
    operation: Option<Seq>,
    now: Timestamp,
) -> Result<Commanded> {
    let mut work = Work::default();
    work.load(conn, vec![run]).await?;
    let Some(row) = work.get(run) else {
        return Ok(Commanded::NotFound);
    };
    let state = row.state;
    let Some(phase) = state.phase else {
        return Ok(Commanded::Refused(state));
    };
    match phase {
        Phase::Paused => return Ok(Commanded::Refused(state)),
        Phase::Blocked => unblock_row(&mut work, run, now)?,
        Phase::Queued
        | Phase::Executing
        | Phase::Sleeping
        | Phase::Waiting
        | Phase::BackingOff
        | Phase::Limited => {
            match operation {
                // A completion of an operation that is no longer open would never be taken away.
                Some(operation) if !is_open(conn, run, operation).await? => {
                    return Ok(Commanded::Refused(state));
                }
                Some(operation) => {
                    let outcome = Ok(Json::null());
                    work.complete(
                        run,
                        Completion {
                            operation,
                            at: now,
                            outcome,
                        },
                    );
                }
                None if matches!(phase, Phase::Queued | Phase::Executing) => {
                    return Ok(Commanded::Refused(state));
                }
                None => {}
            }
            if !matches!(phase, Phase::Queued | Phase::Executing) {
                work.change(run, |row| {
                    row.ready(Event::Wake, now)?;
                    // A delayed run that is begun early begins now.
                    if row.state.status == Status::Scheduled {
                        row.queued_at = now;
                    }
                    Ok(())
                })?;
            }
        }
    }
    let state = work.get(run).map_or(state, |row| row.state);
    work.flush(conn).await?;
    Ok(Commanded::Done(state))
}

fn unblock_row(work: &mut Work, run: RunId, now: Timestamp) -> Result<()> {
    work.change(run, |row| {
        row.ready(Event::Unblock, now)?;
        row.claims = 0;
        row.host_traps = 0;
        Ok(())
    })
}

pub(super) async fn unblock(conn: &mut SqliteConnection, module: &str, now: Timestamp) -> Result<u64> {
    let rows = fetch(
        conn,
        concat!(
            "SELECT ",
            hot_columns!(),
            " FROM runs r WHERE r.phase = 7 AND r.version_id IN (SELECT id FROM versions WHERE module = ?)"
        ),
        |args| {
            args.text(module);
        },
    )
    .await?;
    let mut work = Work::default();
    for row in &rows {
        let row = RunRow::read(&mut Cells::of(row))?;
        let id = row.id;
        work.add(row);
        unblock_row(&mut work, id, now)?;
    }
    work.flush(conn).await?;
    Ok(rows.len() as u64)
}

// The statements above name phases by their numbers on disk.
const _: () = assert!(Phase::Blocked as u8 == 7 && Phase::Executing as u8 == 1);
