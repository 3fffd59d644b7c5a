//! The [`Store`] on Postgres: any number of nodes, no leader, nothing between them but the database.
//!
//! | room | what it owns |
//! |---|---|
//! | `connect`, `wire` | from a URL to connections; the schema |
//! | `writer`, `cache` | the one writer of this node and its transactions |
//! | `readers` | single statements: reads, heartbeats |
//! | `hints` | NOTIFY and LISTEN |
//! | `marks` | where the queues begin |
//! | `runs` | the rows of runs and everything that follows from them |
//! | `waits` | what runs wait for, and which locks keep events from missing it |
//! | `limits`, `throttles` | what flow control remembers, and whom it holds back; which locks keep nodes from granting the same twice |
//! | `ingest`, `execute`, `schedule`, `cron`, `command`, `registry`, `components`, `upkeep` | what each write does |
//! | `read` | what pages show |
//! | `sql`, `fault` | how values go there and back; what errors mean |
//!
//! Decisions are not here: they are in `batch`, the same for every database. There is no state in a session: a pooler
//! may give each transaction another connection.

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
mod hints;
mod ingest;
mod limits;
mod marks;
mod pausing;
mod read;
mod readers;
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
mod wire;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dormouse_core::journal::Record;
use dormouse_core::swap::{Policy, Swap};
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Seq, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use self::connect::Migration;
use self::connect::{Address, Purpose};
use self::marks::Marks;
use self::readers::Readers;
use self::sql::{Cells, Conn};
use self::writer::Writer;
use crate::batch::queue::{Queue, queue};
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

/// Counting reads all live runs. Up to so many, it is done each time;
const COUNTED_EACH_TIME: u64 = 10_000;
/// beyond, the last numbers are given again for so many times as long as counting took.
const COUNTS_SHARE: u32 = 20;

/// Owners of runs that are neither node nor grave are looked for this often: it reads all live runs.
const SEARCH_EVERY: Duration = Duration::from_secs(300);

/// How to open a Postgres store.
#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host:5432/database`, with `?sslmode=…` and the other parameters of libpq that sqlx
    /// knows, and `pgbouncer=true` when a pooler in transaction mode is in between.
    pub url: String,
    /// Writes that may wait for the writer; one more is answered with [`Error::Busy`].
    pub queue_capacity: usize,
    /// Connections for reads, at most.
    pub readers: usize,
    /// A node that was not heard of for so long is declared dead.
    pub lease: Duration,
    /// Changes of the schema that a later release brings: applied after this one's, and then known. Empty but in tests of
    /// upgrades, where this store stands for that release's.
    pub later: Vec<Migration>,
}

impl std::fmt::Debug for Options {
    /// Without the URL, which has the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("queue_capacity", &self.queue_capacity)
            .field("readers", &self.readers)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults, for a URL: 8,192 writes may wait, four connections read, leases last 10 s.
    pub fn new(url: impl Into<String>) -> Options {
        Options {
            url: url.into(),
            queue_capacity: 8_192,
            readers: 4,
            lease: Duration::from_secs(10),
            later: Vec::new(),
        }
    }
}

/// The store of one database, which other nodes have open too.
pub struct PostgresStore {
    queue: Queue,
    readers: Readers,
    /// The connection of heartbeats and of notifications: neither waits for a page.
    desk: Readers,
    /// The connection of components, which are large: nothing else waits for them.
    uploads: Readers,
    marks: Arc<Marks>,
    lease: Duration,
    hints: watch::Sender<u64>,
    /// Other nodes live, as of the last heartbeat: there is somebody to tell.
    others: Arc<AtomicBool>,
    searched: Mutex<Option<Instant>>,
    counted: Mutex<Option<(Instant, Duration, Counts)>>,
    tasks: Vec<JoinHandle<()>>,
}

impl PostgresStore {
    /// Connects, and brings the schema up to date; several nodes may do so at once. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// - [`Error::BadUrl`] when the URL is not understood.
    /// - [`Error::NewerSchema`] when a newer release wrote the database.
    /// - [`Error::Unavailable`] when it cannot be reached, refuses the password, or may not be written.
    pub async fn open(options: Options) -> Result<PostgresStore> {
        let address = Arc::new(Address::of(&options.url)?);
        let opened = PostgresStore::prepare(&address, &options.later).await;
        let (conn, name) = opened.map_err(|fault| match fault.into_error() {
            Error::Unavailable(message) if !message.contains(&address.shown) => {
                Error::Unavailable(format!("{}: {message}", address.shown))
            }
            other => other,
        })?;
        let (queue, inbox) = queue(options.queue_capacity);
        let marks = Arc::new(Marks::new());
        let tell = Arc::new(Notify::new());
        let hints = watch::Sender::new(0);
        let others = Arc::new(AtomicBool::new(false));
        let readers = Readers::new(Arc::clone(&address), options.readers.max(1), false);
        let desk = Readers::new(Arc::clone(&address), 1, true);
        let uploads = Readers::new(Arc::clone(&address), 1, true);
        let writer = Writer::new(
            Arc::clone(&address),
            conn,
            inbox,
            Arc::clone(&marks),
            Arc::clone(&tell),
            name,
        );
        tokio::spawn(writer.run());
        let own = Incarnation(name).to_string();
        let mut tasks = vec![tokio::spawn(hints::tell(
            tell,
            Arc::clone(&others),
            desk.clone(),
            own.clone(),
            address.pooled,
        ))];
        // Behind a pooler nobody would hear anything: polling is all there is.
        if !address.pooled {
            tasks.push(tokio::spawn(hints::listen(address, hints.clone(), own)));
        }
        Ok(PostgresStore {
            queue,
            readers,
            desk,
            uploads,
            marks,
            lease: options.lease,
            hints,
            others,
            searched: Mutex::new(None),
            counted: Mutex::new(None),
            tasks,
        })
    }

    /// The writer's connection on an up-to-date schema, and a name for the writer.
    async fn prepare(address: &Address, later: &[Migration]) -> fault::Attempt<(Conn, [u8; 16])> {
        let mut conn = address.connect(Purpose::Write).await?;
        connect::migrate(&mut conn, later).await?;
        conn.simple(address.begin(Purpose::Write)).await?;
        conn.execute(
            "DELETE FROM receipts WHERE at_ms < (extract(epoch FROM clock_timestamp()) * 1000)::int8 - 86400000",
            |_| {},
        )
        .await?;
        let rows = conn.fetch("SELECT uuid_send(gen_random_uuid())", |_| {}).await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::Corrupt("no random number".to_owned()))?;
        let name = Cells::of(row).bytes()?;
        conn.simple("COMMIT").await?;
        Ok((conn, name))
    }

    /// Writes that wait for the writer at the moment.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a takeover looks for what nobody thought of: at first, and now and then.
    fn time_to_search(&self) -> bool {
        let mut searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        let due = searched.is_none_or(|at| at.elapsed() >= SEARCH_EVERY);
        if due {
            *searched = Some(Instant::now());
        }
        due
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
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

/// Runs a statement on a connection of a small pool: `on!(pool, (what it needs) conn => future)`. What it needs is cloned
/// for each attempt.
macro_rules! on {
    ($pool:expr, ($($needed:ident),*) $conn:ident => $work:expr) => {
        $pool.run(move |mut connection: Conn| {
            $(let $needed = $needed.clone();)*
            async move {
                let $conn = &mut connection;
                let answer = $work.await;
                (connection, answer)
            }
        })
    };
}

#[async_trait]
impl Store for PostgresStore {
    async fn join(&self, node: NewNode, _now: Timestamp) -> Result<Standing> {
        on!(self.desk, (node) conn => schedule::join(conn, &node)).await
    }

    async fn heartbeat(&self, node: Incarnation, _now: Timestamp) -> Result<Standing> {
        let (standing, others) = on!(self.desk, () conn => schedule::heartbeat(conn, node)).await?;
        self.others.store(others, Ordering::Release);
        Ok(standing)
    }

    async fn drain(&self, node: Incarnation, _now: Timestamp) -> Result<bool> {
        on!(self.desk, () conn => schedule::drain(conn, node)).await
    }

    async fn take_over(&self, limit: u32, now: Timestamp) -> Result<u32> {
        let lease = self.lease;
        if self.time_to_search() {
            on!(self.desk, () conn => schedule::search(conn)).await?;
        }
        if !on!(self.desk, () conn => schedule::bury(conn, lease)).await? {
            return Ok(0);
        }
        expect!(self.queue.submit(Request::TakeOver(limit, now)).await, Answer::Count(count) => count as u32)
    }

    async fn leave(&self, node: Incarnation, _now: Timestamp) -> Result<()> {
        on!(self.desk, () conn => schedule::leave(conn, node)).await
    }

    async fn nodes(&self, _now: Timestamp) -> Result<Vec<Node>> {
        on!(self.readers, () conn => schedule::nodes(conn)).await
    }

    fn lease(&self) -> Option<Duration> {
        Some(self.lease)
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Created>> {
        expect!(self.queue.submit(Request::Ingest(ingest)).await, Answer::Created(created) => created)
    }

    async fn claim(&self, claim: Claim) -> Result<ClaimedBatch> {
        let (node, low) = (claim.node, self.marks.ready.low_or_sweep());
        let (lives, first, freed) =
            on!(self.readers, () conn => schedule::first_ready(conn, node, low)).await?;
        if !lives {
            return Err(Error::DeclaredDead);
        }
        self.marks.ready.seen(low, first.unwrap_or(claim.now));
        if first.is_none() && !freed {
            return Ok(ClaimedBatch::default());
        }
        expect!(self.queue.submit(Request::Claim(claim, freed)).await, Answer::Claimed(batch) => batch)
    }

    async fn fire_timers(&self, fire: FireTimers) -> Result<Fired> {
        let (node, now, low) = (fire.node, fire.now, self.marks.timers.low_or_sweep());
        let (lives, anything) =
            on!(self.readers, () conn => schedule::anything_due(conn, node, low, now)).await?;
        if !lives {
            return Err(Error::DeclaredDead);
        }
        if !anything {
            self.marks.timers.seen(low, now);
            return Ok(Fired::default());
        }
        expect!(self.queue.submit(Request::FireTimers(fire)).await, Answer::Fired(fired) => fired)
    }

    async fn upcoming_timers(&self, until: Timestamp, limit: u32) -> Result<Vec<Timestamp>> {
        let low = self.marks.timers.low();
        on!(self.readers, () conn => schedule::upcoming_timers(conn, low, until, limit)).await
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        expect!(self.queue.submit(Request::Append(append)).await, Answer::Appended(appended) => appended)
    }

    async fn journal(&self, run: RunId, from: Seq) -> Result<Vec<Record>> {
        on!(self.readers, () conn => execute::journal(conn, run, from)).await
    }

    async fn completions(&self, run: RunId) -> Result<Vec<Completion>> {
        on!(self.readers, () conn => execute::completions(conn, run)).await
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
        if !on!(self.readers, () conn => command::any_orphans(conn)).await? {
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
        on!(self.readers, () conn => cancellations::list(conn, limit)).await
    }

    async fn delete_cancellation(&self, id: CancellationId) -> Result<bool> {
        let request = Request::DeleteCancellation(id);
        expect!(self.queue.submit(request).await, Answer::Count(count) => count > 0)
    }

    async fn next_cancellation(&self, limit: u32) -> Result<Option<Batch>> {
        on!(self.readers, () conn => cancellations::next(conn, limit)).await
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
        on!(self.readers, () conn => cron::list(conn)).await
    }

    async fn tick(&self, tick: Tick) -> Result<Ticked> {
        expect!(self.queue.submit(Request::Tick(tick)).await, Answer::Ticked(ticked) => ticked)
    }

    async fn untold(&self, limit: u32) -> Result<Vec<Untold>> {
        on!(self.readers, (limit) conn => ends::untold(conn, limit)).await
    }

    async fn tell(&self, tell: Tell) -> Result<Told> {
        expect!(self.queue.submit(Request::Tell(tell)).await, Answer::Told(told) => told)
    }

    async fn next_deadline(&self) -> Result<Option<Timestamp>> {
        on!(self.readers, () conn => ending::next(conn)).await
    }

    async fn expire(&self, limit: u32, now: Timestamp) -> Result<Expired> {
        expect!(self.queue.submit(Request::Expire(limit, now)).await, Answer::Expired(expired) => expired)
    }

    async fn cancelled(&self) -> Vec<RunId> {
        self.queue.cancelled().await
    }

    async fn put_component(&self, digest: Digest, bytes: &[u8]) -> Result<()> {
        if Digest::of(bytes) != digest {
            return Err(Error::Corrupt(format!(
                "the component's bytes do not have the digest {digest}"
            )));
        }
        let bytes: Arc<[u8]> = bytes.into();
        on!(self.uploads, (bytes) conn => components::put(conn, digest, &bytes)).await
    }

    async fn component(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        on!(self.readers, () conn => components::get(conn, digest)).await
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
        on!(self.readers, () conn => registry::registry(conn)).await
    }

    async fn versions(&self, module: &str) -> Result<Vec<Version>> {
        let module = module.to_owned();
        on!(self.readers, (module) conn => registry::versions(conn, &module, None)).await
    }

    async fn version(&self, module: &str, digest: Digest) -> Result<Option<Version>> {
        let module = module.to_owned();
        let mut found =
            on!(self.readers, (module) conn => registry::versions(conn, &module, Some(digest))).await?;
        Ok(found.pop())
    }

    async fn put_config(&self, document: Json, now: Timestamp) -> Result<i64> {
        expect!(self.queue.submit(Request::PutConfig(document, now)).await, Answer::Revision(revision) => revision)
    }

    async fn config(&self, revision: i64) -> Result<Option<Json>> {
        on!(self.readers, () conn => registry::config(conn, revision)).await
    }

    async fn glance(&self, runs: &[RunId]) -> Result<Vec<Glance>> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let runs: Arc<[RunId]> = runs.into();
        on!(self.readers, (runs) conn => read::glance(conn, &runs)).await
    }

    async fn in_flight(&self, module: &str, limit: u32) -> Result<Vec<RunId>> {
        let module = module.to_owned();
        on!(self.readers, (module) conn => examine::in_flight(conn, &module, limit)).await
    }

    async fn examine(&self, runs: &[RunId]) -> Result<Vec<ClaimedRun>> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let runs: Arc<[RunId]> = runs.into();
        on!(self.readers, (runs) conn => examine::examine(conn, &runs)).await
    }

    async fn run(&self, run: RunId) -> Result<Option<Run>> {
        on!(self.readers, () conn => read::run(conn, run)).await
    }

    async fn runs(&self, filter: RunFilter) -> Result<Vec<Run>> {
        on!(self.readers, (filter) conn => read::runs(conn, &filter)).await
    }

    async fn event(&self, event: EventId) -> Result<Option<StoredEvent>> {
        on!(self.readers, () conn => read::event(conn, event)).await
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<StoredEvent>> {
        on!(self.readers, (filter) conn => read::events(conn, &filter)).await
    }

    async fn batch(&self, run: RunId) -> Result<Vec<BatchEvent>> {
        on!(self.readers, () conn => windows::batch(conn, run)).await
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
        on!(self.readers, () conn => swaps::of(conn, run)).await
    }

    async fn decisions(&self, event: EventId) -> Result<Vec<Decided>> {
        on!(self.readers, () conn => limits::decisions(conn, event)).await
    }

    async fn logs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<LogLine>> {
        on!(self.readers, () conn => read::logs(conn, run, from, limit)).await
    }

    async fn counts(&self) -> Result<Counts> {
        let before = self
            .counted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((at, took, counts)) = before
            && counts.live.iter().sum::<u64>() > COUNTED_EACH_TIME
            && at.elapsed() < took * COUNTS_SHARE
        {
            return Ok(counts);
        }
        let began = Instant::now();
        let counts = on!(self.readers, () conn => read::counts(conn)).await?;
        let kept = (Instant::now(), began.elapsed(), counts.clone());
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(counts)
    }

    async fn probe(&self, now: Timestamp) -> Result<()> {
        expect!(self.queue.submit(Request::Probe(now)).await, Answer::Done => ())
    }

    async fn prune(&self, ended_before: Timestamp, limit: u32) -> Result<u32> {
        let request = Request::Prune(ended_before, limit);
        let pruned = expect!(self.queue.submit(request).await, Answer::Count(count) => count as u32)?;
        if pruned < limit {
            on!(self.uploads, () conn => components::sweep(conn)).await?;
        }
        Ok(pruned)
    }

    async fn close(&self) {
        for task in &self.tasks {
            task.abort();
        }
        self.readers.close();
        self.desk.close();
        self.uploads.close();
        self.queue.close().await;
    }
}
