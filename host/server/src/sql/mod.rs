//! Application databases: what `sql` steps run on.
//!
//! | room | what it owns |
//! |---|---|
//! | this one | the databases in use: a writer thread for each file, a few connections for each server's database |
//! | [`statement`] | what a step asks for, read and checked |
//! | [`sqlite`] | performing it on SQLite, exactly once |
//! | [`postgres`] | the same on Postgres |
//! | [`answer`] | what the statements answered, as JSON |
//! | [`migration`] | the operator's migrations, as files |
//! | [`upkeep`] | rows of operations that nobody will ask for again |
//!
//! Exactly once: the first thing in a step's transaction is a row that names run and operation, the last is the answer
//! in that row. Whoever performs the same operation again finds the row and hands out the answer. Absent on purpose:
//! the store's own database, and retrying, which the worker does.

mod answer;
mod migration;
mod postgres;
mod sqlite;
mod statement;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_core::{Failure, Json, Outcome, RunId, Seq, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::config::Database;
use postgres::Pool;
use sqlite::{Job, Writer};
pub(crate) use upkeep::prune;

/// The names of the host's own tables begin like this, in any case.
const OWN_PREFIX: &str = "_dormouse_";

/// For how long a writer waits for another process's lock on the file before it says that the database is busy.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How many jobs may wait for one database before callers wait for a place.
const QUEUE_MAX: usize = 64;

/// What an operation is known by in an application database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OperationKey {
    /// The run.
    pub(crate) run: RunId,
    /// The operation in its journal.
    pub(crate) operation: Seq,
}

/// The database cannot answer now: locked, full, gone, damaged. Nothing is known to have happened; asking again later
/// with the same key is always right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(pub(crate) String);

/// Why a database's migrations were not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unmigrated {
    /// Somebody must change the grant or the migrations.
    #[error("{0}")]
    Refused(String),
    /// The same may work later.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<String> for Unmigrated {
    fn from(message: String) -> Unmigrated {
        Unmigrated::Refused(message)
    }
}

/// The application databases in use. Cheap to clone; opens each when it is first needed and keeps it open.
#[derive(Clone)]
pub(crate) struct Databases {
    writers: Arc<Mutex<HashMap<PathBuf, mpsc::Sender<Job>>>>,
    pools: Arc<Mutex<HashMap<String, Arc<Pool>>>>,
    busy_timeout: Duration,
}

/// Which database system a grant's address names, and where in it.
enum Backend {
    Sqlite(PathBuf),
    Postgres(Arc<Pool>),
}

/// Whether an address is one of Postgres'; all others are files.
pub(crate) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// Checks an address of Postgres as a configuration has it.
///
/// # Errors
/// A sentence, without the password.
pub(crate) fn check_postgres(url: &str) -> Result<(), String> {
    postgres::check_url(url)
}

/// Tells a writer that nobody waits for the answer any more.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Databases {
    /// No database is open yet.
    pub(crate) fn new() -> Databases {
        Databases::with_busy_timeout(BUSY_TIMEOUT)
    }

    fn with_busy_timeout(busy_timeout: Duration) -> Databases {
        Databases {
            writers: Arc::default(),
            pools: Arc::default(),
            busy_timeout,
        }
    }

    fn backend(&self, database: &Database) -> Result<Backend, String> {
        let url = &database.url;
        if is_postgres(url) {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pool) = pools.get(url) {
                return Ok(Backend::Postgres(Arc::clone(pool)));
            }
            let pool = Arc::new(Pool::of(url)?);
            pools.insert(url.clone(), Arc::clone(&pool));
            return Ok(Backend::Postgres(pool));
        }
        match url.strip_prefix("sqlite:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Backend::Sqlite(PathBuf::from(path))),
            _ => Err(format!(
                "\"{url}\" is not supported: write sqlite: and an absolute path, or postgres://"
            )),
        }
    }

    /// Applies the migrations of a grant that are not applied yet, in the order of their numbers, each in one
    /// transaction. Without a directory of migrations it does nothing.
    ///
    /// # Errors
    /// The database cannot be used now; or the directory cannot be read, a file is misnamed or fails, or one that was
    /// applied has been changed since.
    pub(crate) async fn migrate(&self, database: &Database) -> Result<(), Unmigrated> {
        let Some(directory) = database.migrations.clone() else {
            return Ok(());
        };
        let path = match self.backend(database)? {
            Backend::Sqlite(path) => path,
            Backend::Postgres(pool) => return pool.migrate(directory).await,
        };
        let (reply, answer) = oneshot::channel();
        self.send(path, Job::Migrate { directory, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Performs an operation's statements in one transaction, exactly once for its key: asked again, it answers as the
    /// first time. `timeout` bounds the statements, not the waiting for their turn. Dropping the future gives up what
    /// has not been committed.
    ///
    /// A failure is final, and nothing of the operation was kept: `invalid-sql-input` (not the documented shape, a
    /// parameter no column can hold), `sql-not-allowed` (transactions, ATTACH, PRAGMA, SET, the host's tables, …),
    /// `sql-error` (the database's own message), `sql-timeout`, `invalid-sql-result` (no JSON form),
    /// `output-too-large`, `not-supported` (the kind of database).
    ///
    /// # Errors
    /// [`Unavailable`]: try again later.
    pub(crate) async fn perform(
        &self,
        database: &Database,
        key: OperationKey,
        statements: &Json,
        timeout: Duration,
    ) -> Result<Outcome, Unavailable> {
        let path = match self.backend(database) {
            Ok(Backend::Sqlite(path)) => path,
            Ok(Backend::Postgres(pool)) => return pool.perform(key, statements, timeout).await,
            Err(message) => return Ok(Err(Failure::terminal("not-supported", message))),
        };
        let statements = match sqlite::Statement::read_all(statements, sqlite::parameter) {
            Ok(statements) => statements,
            Err(failure) => return Ok(Err(failure)),
        };
        let abandoned = Arc::new(AtomicBool::new(false));
        let _abandon = Abandon(Arc::clone(&abandoned));
        let (reply, answer) = oneshot::channel();
        self.send(
            path,
            Job::Perform {
                key,
                statements,
                timeout,
                abandoned,
                reply,
            },
        )
        .await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Whether this node has used a database since it started.
    fn is_open(&self, database: &Database) -> bool {
        if is_postgres(&database.url) {
            let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            return pools.contains_key(&database.url);
        }
        let path = database.url.strip_prefix("sqlite:").map(PathBuf::from);
        let writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        path.is_some_and(|path| writers.contains_key(&one_spelling(path)))
    }

    /// Up to `limit` runs behind `after` that have performed operations before `before`, in order of their ids.
    ///
    /// # Errors
    /// [`Unavailable`]: try again later.
    async fn old_runs(
        &self,
        database: &Database,
        after: Option<RunId>,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<RunId>, Unavailable> {
        match self.backend(database).map_err(Unavailable)? {
            Backend::Sqlite(path) => {
                let (reply, answer) = oneshot::channel();
                let job = Job::OldRuns {
                    after,
                    before,
                    limit,
                    reply,
                };
                self.send(path, job).await?;
                answer.await.map_err(|_| stopped())?
            }
            Backend::Postgres(pool) => pool.old_runs(after, before, limit).await,
        }
    }

    /// Forgets what runs have performed before `before`: asked for again, it would be performed again.
    ///
    /// # Errors
    /// [`Unavailable`]: try again later.
    async fn forget(
        &self,
        database: &Database,
        runs: Vec<RunId>,
        before: Timestamp,
    ) -> Result<(), Unavailable> {
        match self.backend(database).map_err(Unavailable)? {
            Backend::Sqlite(path) => {
                let (reply, answer) = oneshot::channel();
                self.send(path, Job::Forget { runs, before, reply }).await?;
                answer.await.map_err(|_| stopped())?
            }
            Backend::Postgres(pool) => pool.forget(runs, before).await,
        }
    }

    /// Hands a job to the file's writer, which is started if there is none.
    async fn send(&self, path: PathBuf, job: Job) -> Result<(), Unavailable> {
        let path = one_spelling(path);
        let writer = {
            let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
            match writers.get(&path) {
                Some(writer) if !writer.is_closed() => writer.clone(),
                _ => {
                    let (sender, jobs) = mpsc::channel(QUEUE_MAX);
                    Writer::start(path.clone(), self.busy_timeout, jobs)
                        .map_err(|error| Unavailable(format!("no thread for {}: {error}", path.display())))?;
                    writers.insert(path, sender.clone());
                    sender
                }
            }
        };
        writer.send(job).await.map_err(|_| stopped())
    }
}

fn stopped() -> Unavailable {
    Unavailable("the database's writer has stopped; it is started again".to_owned())
}

/// The same path for the same file, however a grant spells it: two writers would lock each other out.
fn one_spelling(path: PathBuf) -> PathBuf {
    if let Ok(canonical) = path.canonicalize() {
        return canonical;
    }
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => path,
    }
}
