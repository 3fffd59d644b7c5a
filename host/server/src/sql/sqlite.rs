//! One SQLite file, written by one thread: opening it, and performing operations on it exactly once.
//!
//! What is the statements' own fault is a failure, final, with everything rolled back. What is the file's or the disk's
//! (locked, full, unreadable, an fsync that failed) is [`Unavailable`]: then it is not known whether the transaction
//! stands, and the marker row tells the one who asks again. Absent on purpose: a second connection. A step's statements
//! need the write lock for their marker anyway.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dormouse_core::{Failure, Json, Outcome};
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, OptionalExtension};
use tokio::sync::{mpsc, oneshot};

use super::answer::Answers;
use super::authorizer::{Author, restrained};
use super::migration;
use super::statement::Statement;
use super::{OperationKey, Unavailable};

/// The longest text, blob or row in bytes. Some functions of SQLite take time in its square and can't be interrupted.
const VALUE_BYTES_MAX: i32 = 16 << 20;
/// The longest text of a statement in bytes.
const SQL_BYTES_MAX: i32 = 1 << 20;
/// The longest pattern of LIKE and GLOB in bytes: matching takes time in its product with the text.
const PATTERN_BYTES_MAX: i32 = 1_000;
/// Every how many instructions of SQLite's machine the clock is looked at: some tens of microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Parsing and compiling recurse.
const STACK_BYTES: usize = 8 << 20;

/// What a writer is asked to do.
pub(super) enum Job {
    Migrate {
        directory: PathBuf,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Perform {
        key: OperationKey,
        statements: Vec<Statement>,
        timeout: Duration,
        /// Set when nobody waits for the answer any more.
        abandoned: Arc<AtomicBool>,
        reply: oneshot::Sender<Result<Outcome, Unavailable>>,
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
            }
        }
    }

    fn migrate(&mut self, directory: &Path) -> Result<(), String> {
        let migrations = migration::read_all(directory)?;
        for migration in &migrations {
            let path = self.path.display().to_string();
            self.transaction(|connection| migration.apply(connection))
                .map_err(|trouble| match trouble {
                    Trouble::Failure(failure) => format!("{path}: migration {}: {failure}", migration.name),
                    Trouble::Unavailable(message) => message,
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

/// Opens the file, creating it and its directory where they are missing, and the host's tables in it.
pub(super) fn open(path: &Path, busy_timeout: Duration) -> Result<Connection, String> {
    let is_new = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
    if is_new && let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        std::fs::create_dir(directory)
            .map_err(|error| format!("the directory {} cannot be created: {error}", directory.display()))?;
    }
    let configured = || -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(busy_timeout)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        for (limit, most) in [
            (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES_MAX),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES_MAX),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
        ] {
            connection.set_limit(limit, most)?;
        }
        if is_new {
            connection.pragma_update(None, "journal_mode", "WAL")?;
        }
        // An answer goes into the run's journal at once: what it says must not be lost with the power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        let exists: Option<i64> = connection
            .query_row(
                "SELECT 1 FROM sqlite_schema WHERE name = '_dormouse_operations'",
                [],
                |row| row.get(0),
            )
            .optional()?;
        if exists.is_none() {
            connection.execute_batch(
                "CREATE TABLE IF NOT EXISTS _dormouse_operations (
                    run BLOB NOT NULL,
                    operation INTEGER NOT NULL,
                    performed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
                    answer TEXT NOT NULL,
                    PRIMARY KEY (run, operation)
                ) STRICT",
            )?;
        }
        Ok(connection)
    };
    configured().map_err(|error| error.to_string())
}

/// Inserts the operation's marker. Answers with what is stored when it was there.
fn mark(connection: &Connection, key: OperationKey) -> rusqlite::Result<Option<Json>> {
    let (run, operation) = (key.run.to_bytes(), key.operation);
    let inserted = connection.execute(
        "INSERT INTO _dormouse_operations (run, operation, answer) VALUES (?1, ?2, '') ON CONFLICT DO NOTHING",
        rusqlite::params![run, operation],
    )?;
    if inserted == 1 {
        return Ok(None);
    }
    let answer: String = connection.query_row(
        "SELECT answer FROM _dormouse_operations WHERE run = ?1 AND operation = ?2",
        rusqlite::params![run, operation],
        |row| row.get(0),
    )?;
    Ok(Some(Json::trusted(answer)))
}

/// Stores the answer in the operation's marker.
fn store(connection: &Connection, key: OperationKey, answer: &Json) -> rusqlite::Result<()> {
    let changed = connection.execute(
        "UPDATE _dormouse_operations SET answer = ?3 WHERE run = ?1 AND operation = ?2",
        rusqlite::params![key.run.to_bytes(), key.operation, answer.as_str()],
    )?;
    if changed == 1 {
        Ok(())
    } else {
        Err(Error::StatementChangedRows(changed))
    }
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
        let at = |failure: Failure| Failure {
            message: format!(
                "statement {} of {}: {}",
                index + 1,
                statements.len(),
                failure.message
            ),
            ..failure
        };
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
        answers.row(&columns, row)?;
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
