//! Performing an operation: the marker row first, then the statements, then the answer into the marker, then COMMIT.
//!
//! Whoever inserts the same marker meanwhile waits in Postgres for this transaction to end, and is given the answer, or
//! begins itself. A connection that ends at COMMIT leaves it unknown whether the transaction stands; asking again with
//! the same key finds out. Absent on purpose: trying again.

use std::time::{Duration, Instant};

use dormouse_core::{Failure, Json};
use futures::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Either, Executor as _, SqlSafeStr as _, Statement as _};
use tokio_util::sync::CancellationToken;

use super::connect::{Address, Link, simple};
use super::fault::{Fault, foreign, own};
use super::tables::{OPERATIONS, cell, row, uuid};
use super::value::Columns;
use super::{Job, bounded, check, fault, parameter};
use crate::sql::OperationKey;
use crate::sql::answer::{Answers, too_large};
use crate::sql::statement::{Statement, at, invalid};

/// So many bytes may come from the server in one operation. JSON is rarely much shorter than Postgres' binary format
/// (an array of small numbers is, six times), so that a result of the size that is allowed comes through.
const BYTES_MAX: u64 = 32 << 20;
/// So much later than the statements' time the server's own clock must have ended them.
const GRACE: Duration = Duration::from_millis(500);
/// For so long a marker that somebody else has inserted is waited for.
const MARKER_TIMEOUT: &str = "20s";

/// An operation to perform.
pub(super) struct Perform {
    pub(super) key: OperationKey,
    pub(super) statements: Vec<Statement<String>>,
    /// What is known of each statement's text.
    pub(super) reads: Vec<check::Read>,
    pub(super) timeout: Duration,
    /// Cancelled when nobody waits for the answer any more.
    pub(super) abandoned: CancellationToken,
    /// For a second connection, which ends what the first one is stuck in.
    pub(super) address: Address,
}

/// What the attempt to insert the marker found.
enum Marked {
    /// It is ours; the number of the server's process.
    New(String),
    /// Somebody has performed the operation.
    Done(Json),
}

impl Job for Perform {
    type Done = Json;

    async fn run(&self, link: &mut Link, schema: &str) -> Result<Json, Fault> {
        link.wire.allow(BYTES_MAX);
        let result = self.attempt(link, schema).await;
        match &result {
            // Somebody else's answer too was read within a transaction; after a COMMIT there is none left to end.
            Ok((_, true)) => {}
            Ok((_, false)) | Err(Fault::Refused(_) | Fault::Again(_)) if !link.broken => {
                link.broken = bounded(rollback(link)).await.is_err();
            }
            Ok(_) | Err(_) => link.broken = true,
        }
        result.map(|(answer, _)| answer)
    }
}

impl Perform {
    /// The answer, and whether it was committed now.
    async fn attempt(&self, link: &mut Link, schema: &str) -> Result<(Json, bool), Fault> {
        let pid = match bounded(self.mark(link, schema)).await? {
            Marked::Done(answer) => return Ok((answer, false)),
            Marked::New(pid) => pid,
        };
        let answer = self.in_time(link, &pid).await?;
        let began = Instant::now();
        bounded(self.store(link, schema, &answer)).await?;
        let commit = tokio::time::timeout(self.timeout.max(super::OWN_TIMEOUT), end(link, commit())).await;
        match commit {
            Ok(Ok(())) => Ok((answer, true)),
            // Constraints may be checked at the end only: this can still be the statements' fault.
            Ok(Err(error)) => Err(match foreign(error) {
                Fault::Refused(failure) => Fault::Refused(Failure {
                    message: format!("at the end of the statements: {}", failure.message),
                    ..failure
                }),
                fault => fault,
            }),
            Err(_) => Err(Fault::Lost(format!(
                "no answer to COMMIT within {} s",
                began.elapsed().as_secs()
            ))),
        }
    }

    /// Begins the transaction and inserts the marker.
    async fn mark(&self, link: &mut Link, schema: &str) -> Result<Marked, Fault> {
        let (run, operation) = (uuid(self.key.run), self.key.operation);
        // Zero would be no bound at all, and more than this Postgres does not take.
        let millis = self.timeout.as_millis().clamp(1, i32::MAX as u128);
        let text = format!(
            "BEGIN READ WRITE; SET LOCAL client_min_messages = error; \
             SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL lock_timeout = '{MARKER_TIMEOUT}'; \
             INSERT INTO {schema}.{} (run, operation, answer) VALUES ('{run}', {operation}, '') ON CONFLICT DO NOTHING; \
             SET LOCAL lock_timeout = DEFAULT; SET LOCAL statement_timeout = {millis}; \
             SELECT pg_catalog.pg_backend_pid()",
            OPERATIONS.0
        );
        const INSERT: usize = 4;
        let mut counts = Vec::new();
        let mut pid = None;
        let mut results = sqlx::raw_sql(AssertSqlSafe(text)).fetch_many(&mut link.pg);
        while let Some(result) = results.try_next().await.map_err(not_marked)? {
            match result {
                Either::Left(done) => counts.push(done.rows_affected()),
                Either::Right(row) => pid = cell(&row, 0),
            }
        }
        drop(results);
        let pid = pid.ok_or_else(|| Fault::Lost("the server's process has no number".to_owned()))?;
        if counts.get(INSERT) == Some(&1) {
            return Ok(Marked::New(pid));
        }
        let text = format!(
            "SELECT answer FROM {schema}.{} WHERE run = '{run}' AND operation = {operation}",
            OPERATIONS.0
        );
        match row(&mut link.pg, text)
            .await
            .map_err(own)?
            .and_then(|row| cell(&row, 0))
        {
            Some(answer) => Json::parse(&answer)
                .map(Marked::Done)
                .map_err(|error| Fault::Lost(format!("the answer that is stored is damaged: {error}"))),
            // Committed after the transaction's snapshot, where the role's isolation level is stricter.
            None => Err(Fault::Again("the marker is not visible yet".to_owned())),
        }
    }

    /// Executes the statements, ending them when their time is over or nobody waits for the answer any more.
    async fn in_time(&self, link: &mut Link, pid: &str) -> Result<Json, Fault> {
        let start = Instant::now();
        let over = || {
            let message = format!(
                "the statements took longer than {} ms, and were rolled back",
                self.timeout.as_millis()
            );
            Failure::terminal("sql-timeout", message)
        };
        let result = tokio::select! {
            biased;
            result = self.execute_all(link) => Some(result),
            () = self.abandoned.cancelled() => None,
            () = tokio::time::sleep(self.timeout.saturating_add(GRACE)) => None,
        };
        if let Some(result) = result {
            return match result {
                Err(Fault::Lost(reason)) => match link.wire.has_overflowed() {
                    true => {
                        link.broken = true;
                        Err(too_large().into())
                    }
                    false => Err(Fault::Lost(reason)),
                },
                // Also when the last statement came to its end: the time was over all the same.
                _ if start.elapsed() >= self.timeout => Err(over().into()),
                result => result,
            };
        }
        // In the middle of a statement: the connection cannot be used again.
        link.broken = true;
        // That the server can be told tells that it is the statement that takes so long.
        let text = format!("SELECT pg_catalog.pg_terminate_backend({pid})");
        let told = async {
            let mut other = self.address.connect().await.map_err(Fault::Lost)?;
            simple(&mut other.pg, text).await.map_err(own)
        };
        bounded(told).await?;
        match self.abandoned.is_cancelled() {
            true => Err(Fault::Lost("nobody waits for the answer any more".to_owned())),
            false => Err(over().into()),
        }
    }

    async fn execute_all(&self, link: &mut Link) -> Result<Json, Fault> {
        let mut answers = Answers::new();
        let count = self.statements.len();
        for (index, statement) in self.statements.iter().enumerate() {
            // The same text may mean something else after what was between: types are asked for anew.
            let earlier = &self.statements[..index];
            if earlier.iter().any(|earlier| earlier.sql == statement.sql) {
                link.forget_statements().await.map_err(own)?;
            }
            let changes_rows = self.reads.get(index).is_some_and(check::Read::changes_rows);
            let executed = execute(link, statement, changes_rows, &mut answers).await;
            executed.map_err(|fault| match fault {
                Fault::Refused(failure) => Fault::Refused(at(index, count, failure)),
                fault => fault,
            })?;
        }
        Ok(answers.finish())
    }

    /// Stores the answer in the operation's marker.
    async fn store(&self, link: &mut Link, schema: &str, answer: &Json) -> Result<(), Fault> {
        let text = format!(
            "UPDATE {schema}.{} SET answer = $1 WHERE run = '{}' AND operation = {}",
            OPERATIONS.0,
            uuid(self.key.run),
            self.key.operation
        );
        let update = sqlx::query(AssertSqlSafe(text))
            .bind(answer.as_str())
            .persistent(false);
        let done = update
            .execute(&mut link.pg)
            .await
            .map_err(|error| match foreign(error) {
                // It could be inserted: the statements have changed what the role may do, or what the table is.
                Fault::Refused(failure) => Fault::Refused(Failure {
                    message: format!(
                        "after the statements, their answer cannot be stored: {}",
                        failure.message
                    ),
                    ..failure
                }),
                fault => fault,
            })?;
        match done.rows_affected() {
            1 => Ok(()),
            _ => Err(Failure::terminal(
                "sql-not-allowed",
                "the statements have removed the host's own row of this operation",
            )
            .into()),
        }
    }
}

async fn execute(
    link: &mut Link,
    statement: &Statement<String>,
    changes_rows: bool,
    answers: &mut Answers,
) -> Result<(), Fault> {
    let sql = || AssertSqlSafe(statement.sql.as_str()).into_sql_str();
    let prepared = link.pg.prepare(sql()).await.map_err(foreign)?;
    let types = match prepared.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    let arguments = parameter::bind(types, &statement.params).map_err(invalid)?;
    let columns = Columns::of(prepared.columns())?;
    answers.begin(&columns.names)?;
    let mut changed = 0;
    let mut results = link.pg.fetch_many(sqlx::query_with(sql(), arguments));
    while let Some(result) = results.try_next().await.map_err(foreign)? {
        match result {
            Either::Left(done) => changed = done.rows_affected(),
            Either::Right(row) => {
                if let Err(failure) = columns.write(&row, answers) {
                    drop(results);
                    // There may be any number of rows behind it.
                    link.broken = true;
                    return Err(failure.into());
                }
            }
        }
    }
    drop(results);
    answers.end(if changes_rows { changed } else { 0 })?;
    Ok(())
}

/// What ends a transaction for good. An answer goes into the run's journal at once: what it says must not be lost with
/// the server's power, whatever the role's settings are.
fn commit() -> String {
    "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
     WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'; COMMIT"
        .to_owned()
}

async fn rollback(link: &mut Link) -> Result<(), Fault> {
    end(link, "ROLLBACK".to_owned()).await.map_err(own)
}

/// Ends the transaction with a text of its own.
async fn end(link: &mut Link, text: String) -> sqlx::Result<()> {
    if link.pooled {
        link.forget_statements().await?;
    }
    simple(&mut link.pg, text).await
}

/// Why the marker could not be inserted.
fn not_marked(error: sqlx::Error) -> Fault {
    match fault::code(&error).as_deref() {
        Some("55P03") => Fault::Lost(format!(
            "somebody performs this operation, and has not ended within {MARKER_TIMEOUT}"
        )),
        Some("42501") => Fault::Lost(format!(
            "{}: GRANT SELECT, INSERT, UPDATE, DELETE ON {} to the role of the URL",
            fault::words(&error),
            OPERATIONS.0
        )),
        _ => own(error),
    }
}
