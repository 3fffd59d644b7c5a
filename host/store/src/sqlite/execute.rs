//! Reading journals and completions.

use dormouse_core::journal::Record;
use dormouse_core::{Json, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;

use super::journal::journal;
use super::runs::load;
use super::sql::{Cells, fetch};
use super::waits;
use crate::batch::execute::{Look, completion_outcome};
use crate::batch::runs::Work;
use crate::error::Result;
use crate::execute::Completion;

const COMPLETIONS: &str =
    "SELECT operation, at_ms, failed, payload FROM completions WHERE run_id = ? ORDER BY at_ms, operation";

/// The writer's connection, for decisions that have to look something up.
pub(super) struct Writing<'c>(pub(super) &'c mut SqliteConnection);

impl Look for Writing<'_> {
    async fn journal(&mut self, run: RunId, from: Seq) -> Result<Vec<Record>> {
        journal(self.0, run, from).await
    }

    async fn completions(&mut self, run: RunId) -> Result<Vec<Completion>> {
        completions(self.0, run).await
    }

    async fn received(&mut self, name: &str, from: Timestamp, limit: u32) -> Result<Vec<Json>> {
        waits::received(self.0, name, from, limit).await
    }

    async fn started_by(&mut self, run: RunId) -> Result<Option<Json>> {
        waits::started_by(self.0, run).await
    }

    async fn signal_holder(&mut self, signal: &str) -> Result<Option<(RunId, Seq)>> {
        waits::signal_holder(self.0, signal).await
    }

    async fn caller(&mut self, parent: RunId, child: RunId) -> Result<Option<Seq>> {
        waits::caller(self.0, parent, child).await
    }

    async fn load(&mut self, work: &mut Work, run: RunId) -> Result<()> {
        load(self.0, work, vec![run]).await
    }
}

fn read_completion(cells: &mut Cells<'_>) -> Result<Completion> {
    let (operation, at, failed) = (cells.number()?, cells.time()?, cells.flag()?);
    let outcome = completion_outcome(operation, failed, Json::trusted(cells.text()?))?;
    Ok(Completion {
        operation,
        at,
        outcome,
    })
}

/// A run's completions, earliest first.
pub(super) async fn completions(conn: &mut SqliteConnection, run: RunId) -> Result<Vec<Completion>> {
    let rows = fetch(conn, COMPLETIONS, |args| {
        args.run(run);
    })
    .await?;
    rows.iter()
        .map(|row| read_completion(&mut Cells::of(row)))
        .collect()
}
