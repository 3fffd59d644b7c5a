//! An application database on Postgres.
//!
//! | room | what it owns |
//! |---|---|
//! | this one | a database's few connections, and doing again what Postgres or a lost connection asks for |
//! | [`connect`] | from a URL to connections |
//! | [`wire`] | the bytes between sqlx and the server |
//! | [`tables`] | the host's own tables: where they are, and old rows in them |
//! | [`transaction`] | performing an operation in one transaction, exactly once |
//! | [`check`], [`lexer`] | what a statement's text may be |
//! | [`parameter`], [`value`] | values from JSON, and to JSON |
//! | [`kind`], [`numeric`], [`time`] | types that have a JSON form |
//! | [`migration`] | applying the operator's migrations |
//! | [`fault`] | what an error means |
//!
//! Everything happens in tasks that are never cancelled: a connection is either brought to a known state or closed.

mod check;
mod connect;
mod fault;
mod kind;
mod lexer;
mod migration;
mod numeric;
mod parameter;
mod tables;
mod time;
mod transaction;
mod value;
mod wire;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_core::{Failure, Json, Outcome, RunId, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::migration::read_all;
use super::statement::{Statement, at};
use super::{OperationKey, Unavailable, Unmigrated};
use connect::{Address, Link};
use fault::Fault;
use transaction::Perform;

/// Connections to one database, from one node.
const CONNECTIONS_MAX: usize = 4;
/// A connection that was not used for so long is closed when the next one is asked for.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How often a transaction is tried while Postgres asks for it to be done again.
const TRIES_MAX: u32 = 10;
/// Waits between the tries, growing.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The host's own statements take no longer than this.
const OWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Says whether a URL can be understood.
///
/// # Errors
/// A sentence, without a password.
pub(super) fn check_url(url: &str) -> Result<(), String> {
    Address::of(url).map(drop)
}

/// What is done on a connection, in one transaction. Tried again, it begins anew.
trait Job: Send + Sync + 'static {
    type Done: Send + 'static;

    fn run(&self, link: &mut Link, schema: &str) -> impl Future<Output = Result<Self::Done, Fault>> + Send;
}

/// The connections to a database.
pub(super) struct Pool {
    address: Address,
    idle: Mutex<Vec<(Instant, Link)>>,
    places: Arc<Semaphore>,
    /// The schema that has the host's tables, quoted, once it is known.
    schema: Mutex<Option<Arc<str>>>,
}

impl Pool {
    /// None is open yet.
    ///
    /// # Errors
    /// A sentence: the URL cannot be understood.
    pub(super) fn of(url: &str) -> Result<Pool, String> {
        Ok(Pool {
            address: Address::of(url)?,
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            schema: Mutex::default(),
        })
    }

    /// Performs an operation exactly once. Dropping the future gives up what has not been committed.
    pub(super) async fn perform(
        self: Arc<Pool>,
        key: OperationKey,
        statements: &Json,
        timeout: Duration,
    ) -> Result<Outcome, Unavailable> {
        let (statements, reads) = match read(statements) {
            Ok(read) => read,
            Err(failure) => return Ok(Err(failure)),
        };
        let abandoned = CancellationToken::new();
        let _abandon = abandoned.clone().drop_guard();
        let perform = Perform {
            key,
            statements,
            reads,
            timeout,
            abandoned: abandoned.clone(),
            address: self.address.clone(),
        };
        self.run(perform, abandoned).await
    }

    /// Applies the migrations of a directory.
    pub(super) async fn migrate(self: Arc<Pool>, directory: PathBuf) -> Result<(), Unmigrated> {
        for migration in read_all(&directory)? {
            let name = migration.name.clone();
            Arc::clone(&self)
                .run(migration, CancellationToken::new())
                .await?
                .map_err(|failure| format!("{}: migration {name}: {failure}", self.address.shown))?;
        }
        Ok(())
    }

    /// Up to `limit` runs behind `after` that have rows from before `before`, in order of their ids.
    pub(super) async fn old_runs(
        self: Arc<Pool>,
        after: Option<RunId>,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<RunId>, Unavailable> {
        let job = tables::OldRuns { after, before, limit };
        self.upkeep(job).await
    }

    /// Deletes the rows of runs that are from before `before`.
    pub(super) async fn forget(
        self: Arc<Pool>,
        runs: Vec<RunId>,
        before: Timestamp,
    ) -> Result<(), Unavailable> {
        self.upkeep(tables::Forget { runs, before }).await
    }

    async fn upkeep<J: Job>(self: Arc<Pool>, job: J) -> Result<J::Done, Unavailable> {
        let done = self.run(job, CancellationToken::new()).await?;
        done.map_err(|failure| Unavailable(failure.message))
    }

    /// Does a job in a task of its own, which goes on to a known state whoever waits for it.
    async fn run<J: Job>(
        self: Arc<Pool>,
        job: J,
        abandoned: CancellationToken,
    ) -> Result<Result<J::Done, Failure>, Unavailable> {
        let task = tokio::spawn(async move { self.tries(&job, &abandoned).await });
        task.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Tries a job until it is done, fails by itself, or cannot be done now.
    async fn tries<J: Job>(
        self: &Arc<Pool>,
        job: &J,
        abandoned: &CancellationToken,
    ) -> Result<Result<J::Done, Failure>, Unavailable> {
        let place = tokio::select! {
            place = Arc::clone(&self.places).acquire_owned() => place.map_err(|_| stopped())?,
            () = abandoned.cancelled() => return Err(stopped()),
        };
        let mut kept: Option<Link> = None;
        let mut pause = PAUSE_MIN;
        let mut tried = 0;
        loop {
            let (mut link, is_new) = match kept.take().or_else(|| self.idle()) {
                Some(link) => (link, false),
                None => match self.address.connect().await {
                    Ok(link) => (link, true),
                    Err(reason) => return Err(self.unavailable(&reason)),
                },
            };
            let result = match self.schema(&mut link).await {
                Ok(schema) => job.run(&mut link, &schema).await,
                Err(fault) => Err(fault),
            };
            match result {
                Ok(done) => {
                    self.give_back(link, place);
                    return Ok(Ok(done));
                }
                Err(Fault::Refused(failure)) => {
                    self.give_back(link, place);
                    return Ok(Err(failure));
                }
                Err(Fault::Again(reason)) => {
                    tried += 1;
                    kept = Some(link).filter(|link| !link.broken);
                    if tried == TRIES_MAX {
                        if let Some(link) = kept {
                            self.give_back(link, place);
                        }
                        return Err(self.unavailable(&format!("too much contention: {reason}")));
                    }
                    tokio::select! {
                        () = tokio::time::sleep(jittered(pause)) => {}
                        () = abandoned.cancelled() => return Err(stopped()),
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(Fault::Lost(reason)) => {
                    // The tables may be another database's by now.
                    *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    if is_new || abandoned.is_cancelled() {
                        return Err(self.unavailable(&reason));
                    }
                    // It may have been dead for long, as all of them since the server was restarted.
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
            }
        }
    }

    /// The schema of the host's tables, which are there afterwards.
    async fn schema(&self, link: &mut Link) -> Result<Arc<str>, Fault> {
        let known = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(schema) = known {
            return Ok(schema);
        }
        let schema: Arc<str> = bounded(tables::prepare(link)).await?.into();
        *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&schema));
        Ok(schema)
    }

    fn idle(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE_MAX);
        idle.pop().map(|(_, link)| link)
    }

    /// Keeps a connection for the next job, once it is clean. Its place is free only then.
    fn give_back(self: &Arc<Pool>, link: Link, place: OwnedSemaphorePermit) {
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(link) = link.cleaned().await {
                let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.push((Instant::now(), link));
            }
            drop(place);
        });
    }

    fn unavailable(&self, reason: &str) -> Unavailable {
        Unavailable(format!("{}: {reason}", self.address.shown))
    }
}

/// Reads the statements of an operation and checks what can be checked before anything runs.
fn read(statements: &Json) -> Result<(Vec<Statement<String>>, Vec<check::Read>), Failure> {
    let statements = Statement::read_all(statements, |value| Ok(value.to_owned()))?;
    let reads = statements.iter().enumerate().map(|(index, statement)| {
        check::step(&statement.sql).map_err(|failure| at(index, statements.len(), failure))
    });
    let reads = reads.collect::<Result<_, _>>()?;
    Ok((statements, reads))
}

/// The host's own statements take no longer than this, or the server is not there.
async fn bounded<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(OWN_TIMEOUT, work).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Lost(format!(
            "no answer within {} s",
            OWN_TIMEOUT.as_secs()
        ))),
    }
}

/// Between the half of a time and one and a half, so that those who got in each other's way don't do so again.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness it is the time itself.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause * u32::from(byte[0]) / 256
}

fn stopped() -> Unavailable {
    Unavailable("the operation was given up".to_owned())
}
