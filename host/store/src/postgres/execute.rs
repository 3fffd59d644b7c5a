//! Reading journals and completions.

use dormouse_core::journal::Record;
use dormouse_core::{Json, RunId, Seq, Timestamp};

use super::fault::{Attempt, Fault};
use super::runs::load;
use super::sql::{Cells, Conn};
use super::waits;
use crate::batch::execute::{Look, completion_outcome, record_kind};
use crate::batch::runs::Work;
use crate::error::{Error, Result};
use crate::execute::Completion;

/// The cells of [`read_record`].
const JOURNAL_FROM: &str = "SELECT j.seq, j.kind, j.name, j.at_ms, j.meta, \
     CASE WHEN j.large THEN (SELECT b.bytes FROM blobs b WHERE b.owner_id = j.run_id AND b.seq = j.seq) \
     ELSE j.payload END \
     FROM journal j WHERE j.run_id = $1 AND j.seq >= $2 ORDER BY j.seq";

const COMPLETIONS: &str =
    "SELECT operation, at_ms, failed, payload FROM completions WHERE run_id = $1 ORDER BY at_ms, operation";

/// The writer's connection, for decisions that have to look something up. It is read after the run's row was locked, in
/// a statement of its own, so it sees what was committed before the lock was given.
pub(super) struct Writing<'c> {
    conn: &'c mut Conn,
    fault: Option<Fault>,
}

impl<'c> Writing<'c> {
    pub(super) fn on(conn: &'c mut Conn) -> Writing<'c> {
        Writing { conn, fault: None }
    }

    /// A decision's answer; what went wrong with the connection meanwhile comes first.
    pub(super) fn settle<T>(&mut self, answer: Result<T>) -> Attempt<T> {
        match (answer, self.fault.take()) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Some(fault)) => Err(fault),
            (Err(error), None) => Err(error.into()),
        }
    }

    fn keep<T>(&mut self, read: Attempt<T>) -> Result<T> {
        read.map_err(|fault| {
            self.fault = Some(fault);
            Error::Unavailable("the connection failed".to_owned())
        })
    }
}

impl Look for Writing<'_> {
    async fn journal(&mut self, run: RunId, from: Seq) -> Result<Vec<Record>> {
        let read = journal(self.conn, run, from).await;
        self.keep(read)
    }

    async fn completions(&mut self, run: RunId) -> Result<Vec<Completion>> {
        let read = completions(self.conn, run).await;
        self.keep(read)
    }

    async fn received(&mut self, name: &str, from: Timestamp, limit: u32) -> Result<Vec<Json>> {
        let read = waits::received(self.conn, name, from, limit).await;
        self.keep(read)
    }

    async fn started_by(&mut self, run: RunId) -> Result<Option<Json>> {
        let read = waits::started_by(self.conn, run).await;
        self.keep(read)
    }

    async fn signal_holder(&mut self, signal: &str) -> Result<Option<(RunId, Seq)>> {
        let read = waits::signal_holders(self.conn, &[signal]).await;
        Ok(self.keep(read)?.first().copied())
    }

    async fn caller(&mut self, parent: RunId, child: RunId) -> Result<Option<Seq>> {
        let read = waits::caller(self.conn, parent, child).await;
        self.keep(read)
    }

    async fn load(&mut self, work: &mut Work, run: RunId) -> Result<()> {
        let loaded = load(self.conn, work, vec![run]).await;
        self.keep(loaded)
    }
}

/// A run's completions, earliest first.
pub(super) async fn completions(conn: &mut Conn, run: RunId) -> Attempt<Vec<Completion>> {
    let rows = conn
        .fetch(COMPLETIONS, |args| {
            args.key(run);
        })
        .await?;
    let mut completions = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells::of(row);
        let (operation, at, failed) = (cells.number()?, cells.time()?, cells.flag()?);
        let outcome = completion_outcome(operation, failed, Json::trusted(cells.text()?))?;
        completions.push(Completion {
            operation,
            at,
            outcome,
        });
    }
    Ok(completions)
}

/// A run's journal from an entry on.
pub(super) async fn journal(conn: &mut Conn, run: RunId, from: Seq) -> Attempt<Vec<Record>> {
    let rows = conn
        .fetch(JOURNAL_FROM, |args| {
            args.key(run).int(from.into());
        })
        .await?;
    let mut records = Vec::with_capacity(rows.len());
    for row in &rows {
        records.push(read_record(&mut Cells::of(row))?);
    }
    Ok(records)
}

fn read_record(cells: &mut Cells<'_>) -> Result<Record> {
    let seq = cells.number()?;
    Ok(Record {
        seq,
        kind: record_kind(seq, cells.int()?)?,
        name: cells.text()?,
        at: cells.time()?,
        meta: cells.text()?,
        payload: cells.text_or_null()?.map(Json::trusted),
    })
}
