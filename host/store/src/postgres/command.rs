//! Cancel, wake, unblock.

use dormouse_core::run::Phase;
use dormouse_core::{RunId, Seq, Timestamp};

use super::execute::Writing;
use super::fault::Attempt;
use super::runs::{flush, hot_columns, load, take};
use super::sql::Conn;
use super::throttles;
use super::writer::Effects;
use crate::batch;
use crate::batch::runs::Work;
use crate::batch::throttles::waiting;
use crate::command::Commanded;

pub(super) async fn cancel(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    run: RunId,
    now: Timestamp,
) -> Attempt<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let commanded = batch::command::cancel(&mut work, run, now)?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(commanded)
}

pub(super) async fn wake(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    run: RunId,
    operation: Option<Seq>,
    now: Timestamp,
) -> Attempt<Commanded> {
    let mut work = Work::default();
    load(conn, &mut work, vec![run]).await?;
    let waited = waiting(&work, &[run]);
    let mut writing = Writing::on(conn);
    let commanded = batch::command::wake(&mut writing, &mut work, run, operation, now).await;
    let commanded = writing.settle(commanded)?;
    throttles::left(conn, &mut work, &waited, Some(now)).await?;
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(commanded)
}

pub(super) async fn unblock(
    conn: &mut Conn,
    effects: &mut Effects<'_>,
    module: &str,
    now: Timestamp,
) -> Attempt<u64> {
    let rows = conn
        .fetch(
            concat!(
                "SELECT ",
                hot_columns!(),
                " FROM runs r WHERE r.live AND r.phase = 7 AND r.version_id IN (SELECT id FROM versions WHERE module = $1) \
                 ORDER BY r.id FOR NO KEY UPDATE OF r"
            ),
            |args| {
                args.text(module);
            },
        )
        .await?;
    let (mut work, ids) = take(&rows)?;
    for id in &ids {
        batch::command::unblock(&mut work, *id, now)?;
    }
    effects.tell |= flush(conn, &mut work, effects.marks).await?;
    Ok(rows.len() as u64)
}

// The statement above names the phase by its number on disk.
const _: () = assert!(Phase::Blocked as u8 == 7);
