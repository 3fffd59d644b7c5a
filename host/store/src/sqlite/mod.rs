//! The [`Store`] on SQLite: one file, one process, durable commits shared by all that write at the same time.
//!
//! | room | what it owns |
//! |---|---|
//! | `connect`, `lock` | opening: settings, schema, one process per data directory |
//! | `writer`, `cache` | the one writer and its transactions |
//! | `runs` | the rows of runs and everything that follows from them |
//! | `ingest`, `copies`, `execute`, `schedule`, `cron`, `command`, `cancellations`, `pausing`, `limits`, `throttles`, `registry`, `upkeep` | what each write does |
//! | `journal` | reading what a run recorded |
//! | `read` | what pages show |
//! | `components` | components as files |
//! | `sql`, `fault` | how statements are put together; what their errors mean |
//!
//! Decisions are not here: they are in `batch`, the same for every database.

mod cache;
mod cancellations;
mod command;
mod components;
mod connect;
mod copies;
mod cron;
mod ending;
mod ends;
mod examine;
mod execute;
mod fault;
mod ingest;
mod journal;
mod limits;
mod lock;
mod pausing;
#[cfg(test)]
mod plans;
mod read;
mod registry;
mod runs;
mod schedule;
mod slots;
mod sql;
mod swaps;
mod throttles;
mod upkeep;
mod waits;
mod windows;
mod writer;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_core::journal::Record;
use dormouse_core::swap::{Policy, Swap};
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Seq, Timestamp};
use sqlx::SqliteConnection;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqlitePool;
use tokio::sync::watch;

use self::components::Components;
use self::writer::Writer;
use crate::batch::queue::Queue;
use crate::batch::request::{Answer, Request};
use crate::cancellation::{Batch, Cancellation, CancellationId, Examined, NewCancellation};
use crate::command::{Commanded, Orphans};
use crate::contract::Store;
use crate::cron::{NewSchedules, Schedule, Tick, Ticked};
use crate::ends::{Expired, Tell, Told, Untold};
use crate::error::{Error, Result};
use crate::execute::{Append, Appended, Completion, LogLine};
use crate::ingest::{Created, Ingest};
use crate::read::{BatchEvent, Counts, Decided, EventFilter, Run, RunFilter, StoredEvent};
use crate::registry::{Changed, NewVersion, Registry, Stored, Version};
use crate::schedule::{
    Claim, ClaimedBatch, ClaimedRun, FireTimers, Fired, Glance, Incarnation, NewNode, Node, Standing,
};
use crate::swap::{Asked, ToRestart};

/// How to open a SQLite store.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory: holds `dormouse.db`, `modules/` and `lock`. Made if it is not there.
    pub dir: PathBuf,
    /// Writes that may wait for the writer; one more is answered with [`Error::Busy`].
    pub queue_capacity: usize,
    /// After how many pages of 4 KiB the write-ahead log is copied into the database.
    pub checkpoint_pages: u32,
}

impl Options {
    /// The defaults, for a data directory: 8,192 writes may wait, a checkpoint every 4,000 pages.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            queue_capacity: 8_192,
            checkpoint_pages: 4_000,
        }
    }
}

/// The store of one data directory, which it has for itself.
pub struct SqliteStore {
    queue: Queue,
    readers: SqlitePool,
    components: Components,
    /// Never sent to: there is no other node.
    hints: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens the data directory, makes it if needed, and brings its schema up to date.
    ///
    /// # Errors
    /// - [`Error::InUse`] when another process has the directory.
    /// - [`Error::NewerSchema`] when a newer release wrote it.
    /// - [`Error::Unavailable`] when it cannot be made, read or written; [`Error::Full`] when the disk is full.
    /// - [`Error::Corrupt`] when the database is not one, or not ours.
    pub async fn open(options: Options) -> Result<SqliteStore> {
        let dir = &options.dir;
        components::make_dir(dir)?;
        let lock = lock::DirectoryLock::take(dir)?;
        let components = Components::open(dir)?;
        let path = dir.join("dormouse.db");
        let in_words = |error| in_words(error, &path);
        let mut conn = connect::writer(&path, options.checkpoint_pages)
            .await
            .map_err(in_words)?;
        connect::migrate(&mut conn).await.map_err(in_words)?;
        // SQLite makes its log's entry in the directory durable, not the database's own.
        components::sync_dir(dir).map_err(|error| components::of_file(dir, &error))?;
        let readers = connect::readers(&path).await.map_err(in_words)?;
        let queue = Writer::start(conn, lock, options.queue_capacity)
            .await
            .map_err(in_words)?;
        Ok(SqliteStore {
            queue,
            readers,
            components,
            hints: watch::Sender::new(0),
        })
    }

    /// Writes that wait for the writer at the moment.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    async fn reader(&self) -> Result<PoolConnection<sqlx::Sqlite>> {
        match self.readers.acquire().await {
            Ok(conn) => Ok(conn),
            Err(sqlx::Error::PoolClosed) => Err(Error::Unavailable("the store is closed".to_owned())),
            Err(sqlx::Error::PoolTimedOut) => Err(Error::Busy),
            Err(error) => Err(fault::of_read(error.into())),
        }
    }

    async fn read<T>(&self, read: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>) -> Result<T> {
        let mut conn = self.reader().await?;
        read(&mut conn).await.map_err(fault::of_read)
    }
}

/// An error while opening, with the file's name, and without the alarm that one has while running.
fn in_words(error: Error, path: &Path) -> Error {
    match error {
        Error::Unavailable(message) => Error::Unavailable(format!("{}: {message}", path.display())),
        Error::Full(message) => Error::Full(format!("{}: {message}", path.display())),
        Error::Corrupt(message) | Error::Fatal(message) => {
            Error::Corrupt(format!("{}: {message}", path.display()))
        }
        other => other,
    }
}

/// Unpacks the writer's answer. Another kind of answer than was asked for cannot be.
macro_rules! expect {
    ($answer:expr, $pattern:pat => $value:expr) => {
        match $answer? {
            $pattern => Ok($value),
            other => Err(Error::Corrupt(format!("the writer answered {other:?}"))),
        }
    };
}

#[async_trait]
impl Store for SqliteStore {
    async fn join(&self, node: NewNode, now: Timestamp) -> Result<Standing> {
        expect!(self.queue.submit(Request::Join(node, now)).await, Answer::Standing(standing) => standing)
    }

    async fn heartbeat(&self, node: Incarnation, now: Timestamp) -> Result<Standing> {
        expect!(self.queue.submit(Request::Heartbeat(node, now)).await, Answer::Standing(standing) => standing)
    }

    async fn drain(&self, node: Incarnation, _now: Timestamp) -> Result<bool> {
        expect!(self.queue.submit(Request::Drain(node)).await, Answer::Count(count) => count > 0)
    }

    async fn take_over(&self, limit: u32, now: Timestamp) -> Result<u32> {
        expect!(self.queue.submit(Request::TakeOver(limit, now)).await, Answer::Count(count) => count as u32)
    }

    async fn leave(&self, node: Incarnation, _now: Timestamp) -> Result<()> {
        expect!(self.queue.submit(Request::Leave(node)).await, Answer::Done => ())
    }

    async fn nodes(&self, now: Timestamp) -> Result<Vec<Node>> {
        self.read(async |conn| schedule::nodes(conn, now).await).await
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Created>> {
        expect!(self.queue.submit(Request::Ingest(ingest)).await, Answer::Created(created) => created)
    }

    async fn claim(&self, claim: Claim) -> Result<ClaimedBatch> {
        expect!(self.queue.submit(Request::Claim(claim, false)).await, Answer::Claimed(batch) => batch)
    }

    async fn fire_timers(&self, fire: FireTimers) -> Result<Fired> {
        expect!(self.queue.submit(Request::FireTimers(fire)).await, Answer::Fired(fired) => fired)
    }

    async fn upcoming_timers(&self, until: Timestamp, limit: u32) -> Result<Vec<Timestamp>> {
        self.read(async |conn| schedule::upcoming_timers(conn, until, limit).await)
            .await
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        expect!(self.queue.submit(Request::Append(append)).await, Answer::Appended(appended) => appended)
    }

    async fn journal(&self, run: RunId, from: Seq) -> Result<Vec<Record>> {
        self.read(async |conn| journal::journal(conn, run, from).await)
            .await
    }

    async fn completions(&self, run: RunId) -> Result<Vec<Completion>> {
        self.read(async |conn| execute::completions(conn, run).await)
            .await
    }

    async fn signal(&self, signal: &str, data: Json, now: Timestamp) -> Result<Option<RunId>> {
        let request = Request::Signal(signal.to_owned(), data, now);
        expect!(self.queue.submit(request).await, Answer::Signalled(run) => run)
    }

    async fn woken(&self) {
        self.queue.woken().await;
    }

    async fn cancel(&self, run: RunId, now: Timestamp) -> Result<Commanded> {
        expect!(self.queue.submit(Request::Cancel(run, now)).await, Answer::Commanded(commanded) => commanded)
    }

    async fn cancel_orphans(&self, limit: u32, now: Timestamp) -> Result<Orphans> {
        // Asked often, and nearly always for nothing.
        if !self.read(async |conn| command::any_orphans(conn).await).await? {
            return Ok(Orphans::default());
        }
        let request = Request::CancelOrphans(limit, now);
        expect!(self.queue.submit(request).await, Answer::Orphans(orphans) => orphans)
    }

    async fn wake(&self, run: RunId, operation: Option<Seq>, now: Timestamp) -> Result<Commanded> {
        expect!(self.queue.submit(Request::Wake(run, operation, now)).await, Answer::Commanded(commanded) => commanded)
    }

    async fn unblock(&self, module: &str, now: Timestamp) -> Result<u64> {
        expect!(self.queue.submit(Request::Unblock(module.to_owned(), now)).await, Answer::Count(count) => count)
    }

    async fn retry_unreadable(&self, release: &str, limit: u32, now: Timestamp) -> Result<u32> {
        let request = Request::RetryUnreadable(release.to_owned(), limit, now);
        expect!(self.queue.submit(request).await, Answer::Count(count) => count as u32)
    }

    async fn pause(&self, run: RunId) -> Result<Commanded> {
        expect!(self.queue.submit(Request::Pause(run)).await, Answer::Commanded(commanded) => commanded)
    }

    async fn resume(&self, run: RunId, now: Timestamp) -> Result<Commanded> {
        expect!(self.queue.submit(Request::Resume(run, now)).await, Answer::Commanded(commanded) => commanded)
    }

    async fn pause_function(&self, function: &FunctionName, now: Timestamp) -> Result<Changed> {
        let request = Request::PauseFunction(function.clone(), now);
        expect!(self.queue.submit(request).await, Answer::Changed(changed) => changed)
    }

    async fn resume_function(&self, function: &FunctionName) -> Result<Changed> {
        let request = Request::ResumeFunction(function.clone());
        expect!(self.queue.submit(request).await, Answer::Changed(changed) => changed)
    }

    async fn release_held(&self, limit: u32, now: Timestamp) -> Result<u32> {
        expect!(self.queue.submit(Request::ReleaseHeld(limit, now)).await, Answer::Count(count) => count as u32)
    }

    async fn put_cancellation(&self, cancellation: NewCancellation) -> Result<Cancellation> {
        let request = Request::PutCancellation(cancellation);
        expect!(self.queue.submit(request).await, Answer::Cancellation(cancellation) => cancellation)
    }

    async fn cancellations(&self, limit: u32) -> Result<Vec<Cancellation>> {
        self.read(async |conn| cancellations::list(conn, limit).await)
            .await
    }

    async fn delete_cancellation(&self, id: CancellationId) -> Result<bool> {
        let request = Request::DeleteCancellation(id);
        expect!(self.queue.submit(request).await, Answer::Count(count) => count > 0)
    }

    async fn next_cancellation(&self, limit: u32) -> Result<Option<Batch>> {
        self.read(async |conn| cancellations::next(conn, limit).await)
            .await
    }

    async fn cancel_examined(&self, examined: Examined) -> Result<Vec<RunId>> {
        let request = Request::CancelExamined(examined);
        expect!(self.queue.submit(request).await, Answer::Cancelled(runs) => runs)
    }

    async fn put_schedules(&self, schedules: NewSchedules) -> Result<()> {
        let request = Request::PutSchedules(schedules);
        expect!(self.queue.submit(request).await, Answer::Done => ())
    }

    async fn schedules(&self) -> Result<Vec<Schedule>> {
        self.read(async |conn| cron::list(conn).await).await
    }

    async fn tick(&self, tick: Tick) -> Result<Ticked> {
        expect!(self.queue.submit(Request::Tick(tick)).await, Answer::Ticked(ticked) => ticked)
    }

    async fn untold(&self, limit: u32) -> Result<Vec<Untold>> {
        self.read(async |conn| ends::untold(conn, limit).await).await
    }

    async fn tell(&self, tell: Tell) -> Result<Told> {
        expect!(self.queue.submit(Request::Tell(tell)).await, Answer::Told(told) => told)
    }

    async fn next_deadline(&self) -> Result<Option<Timestamp>> {
        self.read(async |conn| ending::next(conn).await).await
    }

    async fn expire(&self, limit: u32, now: Timestamp) -> Result<Expired> {
        expect!(self.queue.submit(Request::Expire(limit, now)).await, Answer::Expired(expired) => expired)
    }

    async fn cancelled(&self) -> Vec<RunId> {
        self.queue.cancelled().await
    }

    async fn put_component(&self, digest: Digest, bytes: &[u8]) -> Result<()> {
        let components = self.components.clone();
        let bytes = bytes.to_vec();
        blocking(move || components.put(digest, &bytes)).await
    }

    async fn component(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        let components = self.components.clone();
        blocking(move || components.get(digest)).await
    }

    async fn put_version(&self, version: NewVersion) -> Result<Stored> {
        expect!(self.queue.submit(Request::PutVersion(version)).await, Answer::Stored(stored) => stored)
    }

    async fn activate(
        &self,
        module: &str,
        digest: Digest,
        policy: Option<Policy>,
        now: Timestamp,
    ) -> Result<Changed> {
        let request = Request::Activate(module.to_owned(), digest, policy, now);
        expect!(self.queue.submit(request).await, Answer::Changed(changed) => changed)
    }

    async fn delete_version(&self, module: &str, digest: Digest) -> Result<Changed> {
        let request = Request::DeleteVersion(module.to_owned(), digest);
        expect!(self.queue.submit(request).await, Answer::Changed(changed) => changed)
    }

    async fn registry(&self) -> Result<Registry> {
        self.read(async |conn| registry::registry(conn).await).await
    }

    async fn versions(&self, module: &str) -> Result<Vec<Version>> {
        self.read(async |conn| registry::versions(conn, module, None).await)
            .await
    }

    async fn version(&self, module: &str, digest: Digest) -> Result<Option<Version>> {
        let mut found = self
            .read(async |conn| registry::versions(conn, module, Some(digest)).await)
            .await?;
        Ok(found.pop())
    }

    async fn put_config(&self, document: Json, now: Timestamp) -> Result<i64> {
        expect!(self.queue.submit(Request::PutConfig(document, now)).await, Answer::Revision(revision) => revision)
    }

    async fn config(&self, revision: i64) -> Result<Option<Json>> {
        self.read(async |conn| registry::config(conn, revision).await)
            .await
    }

    async fn glance(&self, runs: &[RunId]) -> Result<Vec<Glance>> {
        self.read(async |conn| read::glance(conn, runs).await).await
    }

    async fn in_flight(&self, module: &str, limit: u32) -> Result<Vec<RunId>> {
        self.read(async |conn| examine::in_flight(conn, module, limit).await)
            .await
    }

    async fn examine(&self, runs: &[RunId]) -> Result<Vec<ClaimedRun>> {
        self.read(async |conn| examine::examine(conn, runs).await).await
    }

    async fn run(&self, run: RunId) -> Result<Option<Run>> {
        self.read(async |conn| read::run(conn, run).await).await
    }

    async fn runs(&self, filter: RunFilter) -> Result<Vec<Run>> {
        self.read(async |conn| read::runs(conn, &filter).await).await
    }

    async fn event(&self, event: EventId) -> Result<Option<StoredEvent>> {
        self.read(async |conn| read::event(conn, event).await).await
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<StoredEvent>> {
        self.read(async |conn| read::events(conn, &filter).await).await
    }

    async fn batch(&self, run: RunId) -> Result<Vec<BatchEvent>> {
        self.read(async |conn| windows::batch(conn, run).await).await
    }

    async fn ask_version(&self, run: RunId, asked: Option<Asked>, now: Timestamp) -> Result<Commanded> {
        let request = Request::AskVersion(run, asked, now);
        expect!(self.queue.submit(request).await, Answer::Commanded(commanded) => commanded)
    }

    async fn wake_to_restart(&self, restart: ToRestart) -> Result<u32> {
        let request = Request::WakeToRestart(restart);
        let count = expect!(self.queue.submit(request).await, Answer::Count(count) => count);
        Ok(count? as u32)
    }

    async fn swaps(&self, run: RunId) -> Result<Vec<Swap>> {
        self.read(async |conn| swaps::of(conn, run).await).await
    }

    async fn decisions(&self, event: EventId) -> Result<Vec<Decided>> {
        self.read(async |conn| limits::decisions(conn, event).await).await
    }

    async fn logs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<LogLine>> {
        self.read(async |conn| read::logs(conn, run, from, limit).await)
            .await
    }

    async fn counts(&self) -> Result<Counts> {
        self.read(async |conn| read::counts(conn).await).await
    }

    async fn probe(&self, now: Timestamp) -> Result<()> {
        expect!(self.queue.submit(Request::Probe(now)).await, Answer::Done => ())
    }

    async fn prune(&self, ended_before: Timestamp, limit: u32) -> Result<u32> {
        let request = Request::Prune(ended_before, limit);
        let pruned = expect!(self.queue.submit(request).await, Answer::Count(count) => count as u32)?;
        if pruned < limit {
            let needed = self
                .read(async |conn| upkeep::needed_components(conn).await)
                .await?;
            let components = self.components.clone();
            blocking(move || {
                components.sweep(&needed);
                Ok(())
            })
            .await?;
        }
        Ok(pruned)
    }

    async fn close(&self) {
        self.readers.close().await;
        self.queue.close().await;
    }
}

/// Does file work where it holds up no other task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => Err(Error::Unavailable(format!("file work ended early: {error}"))),
    }
}
