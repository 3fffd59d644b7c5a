//! One SQLite file, written by one thread: performing operations on it exactly once.
//!
//! What is the statements' own fault is a failure, final, with everything rolled back. What is the file's or the disk's
//! (locked, full, unreadable, an fsync that failed) is [`Unavailable`]: then it is not known whether the transaction
//! stands, and the marker row tells the one who asks again. Absent on purpose: a second connection. A step's statements
//! need the write lock for their marker anyway.

mod authorizer;
mod file;
mod migration;
mod parameter;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dormouse_core::{Failure, Json, Outcome, RunId, Timestamp};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, Row};
use tokio::sync::{mpsc, oneshot};

use super::answer::{Answers, unfit};
use super::migration::read_all;
use super::statement::at;
use super::{OperationKey, Unavailable, Unmigrated};
use authorizer::{Author, restrained};
pub(super) use file::open;
use file::{forget, mark, old_runs, store};
pub(super) use parameter::parameter;

/// A statement with the values that SQLite is given.
pub(super) type Statement = super::statement::Statement<Value>;

/// Every how many instructions of SQLite's machine the clock is looked at: some tens of microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Parsing and compiling recurse.
const STACK_BYTES: usize = 8 << 20;

/// What a writer is asked to do.
pub(super) enum Job {
    Migrate {
        directory: PathBuf,
        reply: oneshot::Sender<Result<(), Unmigrated>>,
    },
    Perform {
        key: OperationKey,
        statements: Vec<Statement>,
        timeout: Duration,
        /// Set when nobody waits for the answer any more.
        abandoned: Arc<AtomicBool>,
        reply: oneshot::Sender<Result<Outcome, Unavailable>>,
    },
    /// Up to `limit` runs behind `after` that have rows from before `before`, in order of their ids.
    OldRuns {
        after: Option<RunId>,
        before: Timestamp,
        limit: u32,
        reply: oneshot::Sender<Result<Vec<RunId>, Unavailable>>,
    },
    /// Deletes the rows of runs that are from before `before`.
    Forget {
        runs: Vec<RunId>,
        before: Timestamp,
        reply: oneshot::Sender<Result<(), Unavailable>>,
    },
}

/// The one that writes a file.
pub(super) struct Writer {
    path: PathBuf,
    busy_timeout: Duration,
    connection: Option<Connection>,
}

/// Why a transaction did not come about.
pub(super) enum Trouble {
    /// The statements' own fault.
    Failure(Failure),
    /// The database's.
    Unavailable(String),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failure(failure)
    }
}

impl Writer {
    /// Starts the thread. It ends, and closes the file, when the last sender of jobs is gone.
    pub(super) fn start(
        path: PathBuf,
        busy_timeout: Duration,
        jobs: mpsc::Receiver<Job>,
    ) -> std::io::Result<()> {
        let writer = Writer {
            path,
            busy_timeout,
            connection: None,
        };
        let thread = std::thread::Builder::new()
            .name("app-database".to_owned())
            .stack_size(STACK_BYTES);
        thread.spawn(move || writer.run(jobs)).map(drop)
    }

    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Migrate { directory, reply } => {
                    let _ = reply.send(self.migrate(&directory));
                }
                Job::Perform { abandoned, .. } if abandoned.load(Ordering::Relaxed) => {}
                Job::Perform {
                    key,
                    statements,
                    timeout,
                    abandoned,
                    reply,
                } => {
                    let _ = reply.send(self.perform(key, &statements, timeout, abandoned));
                }
                Job::OldRuns {
                    after,
                    before,
                    limit,
                    reply,
                } => {
                    let runs = self.upkeep(|connection| old_runs(connection, after, before, limit));
                    let _ = reply.send(runs);
                }
                Job::Forget { runs, before, reply } => {
                    let _ = reply.send(self.upkeep(|connection| forget(connection, &runs, before)));
                }
            }
        }
    }

    fn migrate(&mut self, directory: &Path) -> Result<(), Unmigrated> {
        let migrations = read_all(directory)?;
        for migration in &migrations {
            let path = self.path.display().to_string();
            self.transaction(|connection| migration::apply(migration, connection))
                .map_err(|trouble| match trouble {
                    Trouble::Failure(failure) => {
                        Unmigrated::Refused(format!("{path}: migration {}: {failure}", migration.name))
                    }
                    Trouble::Unavailable(message) => Unavailable(message).into(),
                })?;
        }
        Ok(())
    }

    fn perform(
        &mut self,
        key: OperationKey,
        statements: &[Statement],
        timeout: Duration,
        abandoned: Arc<AtomicBool>,
    ) -> Result<Outcome, Unavailable> {
        let result = self.transaction(|connection| {
            if let Some(answer) = mark(connection, key).map_err(|error| own(&error))? {
                return Ok(answer);
            }
            let answer = bounded(connection, timeout, abandoned, || {
                execute_all(connection, statements)
            })?;
            store(connection, key, &answer).map_err(|error| own(&error))?;
            Ok(answer)
        });
        match result {
            Ok(answer) => Ok(Ok(answer)),
            Err(Trouble::Failure(failure)) => Ok(Err(failure)),
            Err(Trouble::Unavailable(message)) => Err(Unavailable(message)),
        }
    }

    fn upkeep<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Unavailable> {
        let result = self.transaction(|connection| work(connection).map_err(|error| own(&error)));
        result.map_err(|trouble| match trouble {
            Trouble::Failure(failure) => Unavailable(failure.message),
            Trouble::Unavailable(reason) => Unavailable(reason),
        })
    }

    /// Runs `work` in a transaction that is committed when it succeeds and rolled back when it does not. After trouble
    /// with the database itself the connection is closed: what it believes of the file may be wrong.
    fn transaction<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.path, self.busy_timeout)
                .map_err(|reason| Trouble::Unavailable(format!("{}: {reason}", self.path.display())))?,
        };
        let result = begin_work_commit(&connection, work);
        // A statement may have ended the transaction by failing, as INSERT OR ROLLBACK does.
        let clean = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        match result {
            Err(Trouble::Unavailable(reason)) => {
                Err(Trouble::Unavailable(format!("{}: {reason}", self.path.display())))
            }
            result => {
                self.connection = clean.then_some(connection);
                result
            }
        }
    }
}

fn begin_work_commit<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(|error| own(&error))?;
    let result = work(connection)?;
    // Constraints may be checked at the end only: this can still be the statements' fault.
    connection.execute_batch("COMMIT").map_err(|error| {
        classify(&error, |message| {
            Failure::terminal("sql-error", format!("at the end of the statements: {message}"))
        })
    })?;
    Ok(result)
}

/// Runs `work`, ending it with `sql-timeout` when the time is over, or when nobody waits for it any more.
fn bounded<T>(
    connection: &Connection,
    timeout: Duration,
    abandoned: Arc<AtomicBool>,
    work: impl FnOnce() -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let start = Instant::now();
    let over = move || start.elapsed() >= timeout;
    let look = move || over() || abandoned.load(Ordering::Relaxed);
    let result = connection
        .progress_handler(STEPS_BETWEEN_LOOKS, Some(look.clone()))
        .map_err(|error| own(&error));
    let result = result.and_then(|()| work());
    connection
        .progress_handler(0, None::<fn() -> bool>)
        .map_err(|error| own(&error))?;
    match result {
        Err(Trouble::Unavailable(reason)) => Err(Trouble::Unavailable(reason)),
        // Also when the last statement came to its end without a look at the clock: the time was over all the same.
        _ if look() => {
            let message = format!(
                "the statements took longer than {} ms, and were rolled back",
                timeout.as_millis()
            );
            Err(Trouble::Failure(Failure::terminal("sql-timeout", message)))
        }
        result => result,
    }
}

fn execute_all(connection: &Connection, statements: &[Statement]) -> Result<Json, Trouble> {
    let mut answers = Answers::new();
    for (index, statement) in statements.iter().enumerate() {
        let at = |failure| at(index, statements.len(), failure);
        let (result, refusal) = restrained(connection, Author::Guest, || {
            execute(connection, statement, &mut answers)
        })
        .map_err(|error| own(&error))?;
        result.map_err(|stop| match (stop, refusal) {
            (Stop::Failure(failure), _) => Trouble::Failure(at(failure)),
            (Stop::Database(Error::MultipleStatement), _) => Trouble::Failure(at(Failure::terminal(
                "invalid-sql-input",
                "one statement only: give each its own entry",
            ))),
            (Stop::Database(_), Some(reason)) => {
                Trouble::Failure(at(Failure::terminal("sql-not-allowed", reason)))
            }
            (Stop::Database(error), None) => {
                classify(&error, |message| at(Failure::terminal("sql-error", message)))
            }
        })?;
    }
    Ok(answers.finish())
}

/// Why a statement was not executed to its end.
enum Stop {
    Failure(Failure),
    Database(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Database(error)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failure(failure)
    }
}

fn execute(connection: &Connection, statement: &Statement, answers: &mut Answers) -> Result<(), Stop> {
    let invalid = |reason: String| Stop::Failure(Failure::terminal("invalid-sql-input", reason));
    let mut prepared = connection.prepare(&statement.sql)?;
    let (expected, given) = (prepared.parameter_count(), statement.params.len());
    if expected != given {
        return Err(invalid(format!(
            "it has {expected} parameters, and {given} values are given"
        )));
    }
    let columns: Vec<String> = prepared.column_names().into_iter().map(str::to_owned).collect();
    if columns.is_empty() && prepared.expanded_sql().is_none_or(|sql| sql.is_empty()) {
        return Err(invalid("there is no statement in the text".to_owned()));
    }
    for (index, value) in statement.params.iter().enumerate() {
        prepared.raw_bind_parameter(index + 1, value)?;
    }
    answers.begin(&columns)?;
    let before = connection.total_changes();
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next()? {
        write_row(answers, &columns, row)?;
    }
    drop(rows);
    // `changes` is of the last statement that changed something, which may have been an earlier one.
    let changed = if connection.total_changes() == before {
        0
    } else {
        connection.changes()
    };
    answers.end(changed)?;
    Ok(())
}

fn write_row(answers: &mut Answers, columns: &[String], row: &Row<'_>) -> Result<(), Failure> {
    answers.open_row();
    for (index, column) in columns.iter().enumerate() {
        answers.column(column)?;
        let value = row
            .get_ref(index)
            .map_err(|error| unfit(column, &error.to_string()))?;
        match value {
            ValueRef::Null => answers.literal("null")?,
            ValueRef::Integer(number) => answers.value(&number)?,
            ValueRef::Real(number) => answers.float(column, number)?,
            ValueRef::Text(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| unfit(column, "the text is not UTF-8"))?;
                answers.text(text)?;
            }
            ValueRef::Blob(bytes) => answers.bytes(bytes)?,
        }
    }
    answers.close_row()
}

/// An error of the host's own statements is never a guest's fault.
fn own(error: &Error) -> Trouble {
    Trouble::Unavailable(error.to_string())
}

/// Whose fault an error of foreign statements is.
pub(super) fn classify(error: &Error, failure: impl FnOnce(String) -> Failure) -> Trouble {
    let Some(code) = error.sqlite_error_code() else {
        return Trouble::Failure(failure(error.to_string()));
    };
    match code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::PermissionDenied
        | ErrorCode::ReadOnly
        | ErrorCode::OutOfMemory
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::NoLargeFileSupport
        // Another process changed the schema again and again while the statement was compiled.
        | ErrorCode::SchemaChanged => Trouble::Unavailable(error.to_string()),
        _ => {
            let mut failure = failure(error.to_string());
            if let Some(code) = error.sqlite_error() {
                let details = format!("{{\"sqlite_code\":{}}}", code.extended_code);
                failure.details = Some(Json::trusted(details));
            }
            Trouble::Failure(failure)
        }
    }
}
