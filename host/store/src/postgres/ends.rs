//! Ends of runs that are yet to be told. Whether anybody listens is asked in the statement that writes what a batch does to
//! its runs: by then their rows are locked, so whoever has stored a wait before and held them is seen.

use dormouse_core::RunId;
use dormouse_core::system::Kinds;

use super::fault::Attempt;
use super::sql::{Cells, Conn, Together};
use crate::batch::ends::LISTEN;
use crate::ends::Untold;

const INSERT: &str = "INSERT INTO ends (run_id, kinds) SELECT v.run_id, v.kinds & (g.listened | g.awaited) \
     FROM UNNEST($1::uuid[], $2::int8[]) AS v(run_id, kinds) CROSS JOIN registry g WHERE v.kinds & (g.listened | g.awaited) <> 0 \
     ON CONFLICT DO NOTHING";
const UNTOLD: &str = "SELECT run_id, kinds FROM ends ORDER BY run_id LIMIT $1";

/// Adds the ends that somebody listens to.
pub(super) fn insert(together: &mut Together, ends: &[(RunId, Kinds)]) {
    together.add(ends, INSERT, |args, rows| {
        args.keys(rows.iter().map(|(run, _)| *run))
            .ints(rows.iter().map(|(_, kinds)| kinds.bits()));
    });
}

/// Those that are yet to be told.
pub(super) async fn untold(conn: &mut Conn, limit: u32) -> Attempt<Vec<Untold>> {
    let rows = conn
        .fetch(UNTOLD, |args| {
            args.int(limit.into());
        })
        .await?;
    let mut untold = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        untold.push(Untold {
            run: cells.run()?,
            kinds: Kinds::from_bits(cells.int()?),
        });
    }
    Ok(untold)
}

/// Takes an end away. False: it is not there.
pub(super) async fn take(conn: &mut Conn, run: RunId) -> Attempt<bool> {
    let taken = conn
        .execute("DELETE FROM ends WHERE run_id = $1", |args| {
            args.key(run);
        })
        .await?;
    Ok(taken > 0)
}

/// Decides anew what versions listen to, under the registry's lock.
pub(super) async fn listen(conn: &mut Conn) -> Attempt<()> {
    conn.execute(LISTEN, |_| {}).await.map(drop)
}

/// Remembers what is waited for.
pub(super) async fn await_too(conn: &mut Conn, kinds: Kinds) -> Attempt<()> {
    if kinds.is_empty() {
        return Ok(());
    }
    let text = "UPDATE registry SET awaited = awaited | $1";
    conn.execute(text, |args| {
        args.int(kinds.bits());
    })
    .await
    .map(drop)
}
