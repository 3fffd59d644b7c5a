//! The [`Store`] trait: what may be asked of a store and what each answer promises.
//!
//! What holds for every implementation:
//! - **One commit per call**, durable when the call returns `Ok`. A call that returns an error other than
//!   [`Error::Unknown`](crate::Error::Unknown) has written nothing.
//! - **Dropping a call's future** before it returns does not stop the write; its outcome is then unknown.
//! - **Fence**: a write that belongs to a run proves its lease (owner and epoch) in the transaction that makes it, or
//!   writes nothing ([`Appended::Lost`]).
//! - **Write, commit, then look**: a run may only wait while nothing for it is there; whoever brings something for a
//!   waiting run makes it ready in the same commit.
//! - **Nothing slips between a wait and what it waits for**: an event is matched against the stored waits in the commit
//!   that stores it, and a wait looks back, if it does, in the commit that stores the wait. One of the two must see the
//!   other. SQLite has one writer. On Postgres whoever stores events locks their names, shared, before it reads, and
//!   whoever stores a wait that looks back locks its name alone (`postgres/waits.rs`): two ingests don't hinder each
//!   other, such a wait and an ingest of the same name do.
//! - Time is an argument, except that leases between nodes are judged by the database's own clock.

use std::time::Duration;

use async_trait::async_trait;
use dormouse_core::journal::Record;
use dormouse_core::swap::{Policy, Swap};
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Seq, Timestamp};
use tokio::sync::watch;

use crate::cancellation::{Batch, Cancellation, CancellationId, Examined, NewCancellation};
use crate::command::{Commanded, Orphans};
use crate::cron::{NewSchedules, Schedule, Tick, Ticked};
use crate::ends::{Expired, Tell, Told, Untold};
use crate::error::Result;
use crate::execute::{Append, Appended, Completion, LogLine};
use crate::ingest::{Created, Ingest};
use crate::read::{BatchEvent, Counts, Decided, EventFilter, Run, RunFilter, StoredEvent};
use crate::registry::{Changed, NewVersion, Registry, Stored, Version};
use crate::schedule::{
    Claim, ClaimedBatch, ClaimedRun, FireTimers, Fired, Glance, Incarnation, NewNode, Node, Standing,
};
use crate::swap::{Asked, ToRestart};

/// A durable store. Cheap calls to make from many tasks at once: writes are grouped by the implementation.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // ---- nodes -------------------------------------------------------------------------------------------------

    /// Registers a node. On SQLite, whose data directory has one process at a time, every other node is declared
    /// dead by it.
    async fn join(&self, node: NewNode, now: Timestamp) -> Result<Standing>;

    /// Says that the node lives, and answers what others want of it.
    /// [`Error::DeclaredDead`](crate::Error::DeclaredDead) when it was given up.
    async fn heartbeat(&self, node: Incarnation, now: Timestamp) -> Result<Standing>;

    /// For how long a node may be silent before others may take its runs over. None where no others can be: one process
    /// holds the data directory.
    fn lease(&self) -> Option<Duration>;

    /// Marks a node as draining; it learns so with its next heartbeat. Nothing undoes it: a node that is to work
    /// again is started again. False: there is no such node.
    async fn drain(&self, node: Incarnation, now: Timestamp) -> Result<bool>;

    /// Takes up to `limit` runs from nodes that are dead and makes them ready (epoch + 1). Call until it returns 0.
    /// On a database that nodes share, nodes that were not heard of for too long are declared dead first.
    async fn take_over(&self, limit: u32, now: Timestamp) -> Result<u32>;

    /// Takes the node off the list. Runs it still owns are then taken over like a dead node's.
    async fn leave(&self, node: Incarnation, now: Timestamp) -> Result<()>;

    /// All nodes that live, in the order they joined. `now` is what their silence is measured by where the database
    /// has no clock of its own.
    async fn nodes(&self, now: Timestamp) -> Result<Vec<Node>>;

    /// A number that moves when another node may have made something ready or ended a run. A hint, for looking at once
    /// instead of at the next poll: it may come late, twice, for nothing, or not at all. With one process it never
    /// moves.
    fn hints(&self) -> watch::Receiver<u64>;

    // ---- from event to run -------------------------------------------------------------------------------------

    /// Stores events and creates runs, and completes the waits that the events end: each such run gets a completion
    /// with the event as its result, its wait is gone, and if it is waiting, it is ready. One wait is ended by one event;
    /// one event ends any number of waits. An event that was stored before ends none. Runs that it cancels
    /// ([`NewRun::ends`](crate::ingest::NewRun::ends)) end, as by [`Store::cancel`]. One answer per run, in order.
    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Created>>;

    /// Leases ready runs to a node, oldest first.
    async fn claim(&self, claim: Claim) -> Result<ClaimedBatch>;

    /// Fires due timers, earliest first.
    async fn fire_timers(&self, fire: FireTimers) -> Result<Fired>;

    /// When the `limit` soonest timers due before `until` are due, ascending. For sleeping until then, not for truth.
    async fn upcoming_timers(&self, until: Timestamp, limit: u32) -> Result<Vec<Timestamp>>;

    // ---- execution ---------------------------------------------------------------------------------------------

    /// Appends to a journal and moves the run on. A run's end completes the step that waits for it. Waits that come with the entries are stored; one that looks back and
    /// finds its event is completed at once instead.
    async fn append(&self, append: Append) -> Result<Appended>;

    /// The journal's rows from `from` on, in order.
    async fn journal(&self, run: RunId, from: Seq) -> Result<Vec<Record>>;

    /// Waits until commits made through this object have made waiting runs ready: somebody should claim. A hint, never
    /// the truth, for one listener; an implementation that gives none leaves it to polling, which guarantees progress.
    async fn woken(&self) {
        std::future::pending().await
    }

    /// The completions stored for a run, earliest first.
    async fn completions(&self, run: RunId) -> Result<Vec<Completion>>;

    /// Completes the wait for a signal with its data, and makes the run ready if it waits. None: nobody waits for it. (On
    /// Postgres, this and storing a wait for the signal take an exclusive lock on the hash of its name.)
    async fn signal(&self, signal: &str, data: Json, now: Timestamp) -> Result<Option<RunId>>;

    // ---- commands ----------------------------------------------------------------------------------------------

    /// Ends a run: terminal status, epoch + 1, its timer, ready row and completions deleted. A step that waits for its end is
    /// completed with a failure.
    async fn cancel(&self, run: RunId, now: Timestamp) -> Result<Commanded>;

    /// Cancels up to `limit` runs whose callers have given them up. Call until it takes none: each may have invoked others,
    /// which are orphans then.
    async fn cancel_orphans(&self, limit: u32, now: Timestamp) -> Result<Orphans>;

    /// Completes a sleeping or backing-off run's soonest open operation now (a completion with the result `null`
    /// for `operation`) and makes the run ready; tries a blocked run again. Refused when it has ended.
    /// `operation` is what the caller found open in the journal; none for a run that is not waiting.
    async fn wake(&self, run: RunId, operation: Option<Seq>, now: Timestamp) -> Result<Commanded>;

    /// Makes a module's blocked runs ready again: a new version is active. Returns how many.
    async fn unblock(&self, module: &str, now: Timestamp) -> Result<u64>;

    /// Makes up to `limit` runs ready again that are blocked because nodes of other releases than this one could not read
    /// their journals ([`unreadable`](crate::command::unreadable)). Call until it returns 0; any node may. Reads all runs
    /// that have not ended.
    async fn retry_unreadable(&self, release: &str, limit: u32, now: Timestamp) -> Result<u32>;

    /// Remembers which version a person wants a run on, whatever is active; none: it goes by its module's policy again. Tries a
    /// blocked run again. Refused when it has ended; [`Error::StaleRegistry`](crate::Error::StaleRegistry) when the module does
    /// not have that version.
    async fn ask_version(&self, run: RunId, asked: Option<Asked>, now: Timestamp) -> Result<Commanded>;

    /// Makes runs ready that sleep, wait or back off on other versions of a module than one, and about which no person has said
    /// anything: whoever claims them sees that they are to begin again. Call until it returns 0; any node may.
    async fn wake_to_restart(&self, restart: ToRestart) -> Result<u32>;

    /// Pauses a run: at once, or while it executes, with the next entries that its node appends
    /// ([`Appended::Paused`]). Done again for one that is paused; refused when it has ended or is blocked.
    async fn pause(&self, run: RunId) -> Result<Commanded>;

    /// Lets a paused run on: it is ready, or sleeps when the time at which it may begin has not come. Takes a pause back
    /// that has not happened yet. Refused when the run is not paused.
    async fn resume(&self, run: RunId, now: Timestamp) -> Result<Commanded>;

    /// Pauses a function: the generation moves, and new runs are created as [`NewRun::held`](crate::ingest::NewRun::held).
    /// Runs in flight go on.
    async fn pause_function(&self, function: &FunctionName, now: Timestamp) -> Result<Changed>;

    /// Ends a function's pause: the generation moves. Its held runs are let on by [`Store::release_held`].
    async fn resume_function(&self, function: &FunctionName) -> Result<Changed>;

    /// Lets up to `limit` held runs on whose functions are not paused. Call until it returns 0; any node may.
    async fn release_held(&self, limit: u32, now: Timestamp) -> Result<u32>;

    /// Stores a cancellation of many runs. Done by [`Store::next_cancellation`] and [`Store::cancel_examined`], in turns.
    async fn put_cancellation(&self, cancellation: NewCancellation) -> Result<Cancellation>;

    /// The cancellations, newest first.
    async fn cancellations(&self, limit: u32) -> Result<Vec<Cancellation>>;

    /// Deletes a cancellation: what it has not cancelled yet, it does not. False: there is none.
    async fn delete_cancellation(&self, id: CancellationId) -> Result<bool>;

    /// The next runs of the oldest cancellation that is not done, looking at up to `limit` runs. None: all are done.
    async fn next_cancellation(&self, limit: u32) -> Result<Option<Batch>>;

    /// Cancels what was found to be meant, and remembers how far the cancellation has got. Answers with the runs that
    /// were cancelled by it; none of them when the cancellation was deleted meanwhile.
    async fn cancel_examined(&self, examined: Examined) -> Result<Vec<RunId>>;

    // ---- schedules ---------------------------------------------------------------------------------------------

    /// Makes the schedules of some modules those that a generation of the registry has: others are removed, missing ones
    /// added, and those that were there keep their places. Done again it changes nothing.
    async fn put_schedules(&self, schedules: NewSchedules) -> Result<()>;

    /// All schedules, by the names of their functions and their expressions.
    async fn schedules(&self) -> Result<Vec<Schedule>>;

    /// Moves a schedule on, if it stands where it is believed to, and stores the event of the tick that is started and its
    /// run in the same commit. Flow control may keep the run from being created, which the schedule then says.
    async fn tick(&self, tick: Tick) -> Result<Ticked>;

    // ---- ends --------------------------------------------------------------------------------------------------

    /// Ends of runs that somebody listens to and that are yet to be told, in order of the runs' ids, up to `limit`.
    async fn untold(&self, limit: u32) -> Result<Vec<Untold>>;

    /// Tells an end, unless it was told before: stores its events and the runs that they start, and takes it off the list,
    /// in one commit.
    async fn tell(&self, tell: Tell) -> Result<Told>;

    /// When the next run may be over that has timeouts. For sleeping until then, not for truth.
    async fn next_deadline(&self) -> Result<Option<Timestamp>>;

    /// Looks at up to `limit` runs that may have taken too long, and cancels those that have. Call until it looks at fewer.
    async fn expire(&self, limit: u32, now: Timestamp) -> Result<Expired>;

    /// Waits until commits made through this object have cancelled runs by events, and answers with these. A hint, for one
    /// listener: nodes find out by themselves, later ([`Store::glance`]).
    async fn cancelled(&self) -> Vec<RunId> {
        std::future::pending().await
    }

    // ---- modules -----------------------------------------------------------------------------------------------

    /// Stores a component's bytes. Idempotent.
    async fn put_component(&self, digest: Digest, bytes: &[u8]) -> Result<()>;

    /// A component's bytes, checked against the digest.
    async fn component(&self, digest: Digest) -> Result<Option<Vec<u8>>>;

    /// Stores a version and, if asked, makes it active.
    async fn put_version(&self, version: NewVersion) -> Result<Stored>;

    /// Makes a version active, and says what becomes of runs in flight of the module's other versions. None: `pin`, or what
    /// was said before where the version is active already.
    async fn activate(
        &self,
        module: &str,
        digest: Digest,
        policy: Option<Policy>,
        now: Timestamp,
    ) -> Result<Changed>;

    /// Deletes a version that nothing needs.
    async fn delete_version(&self, module: &str, digest: Digest) -> Result<Changed>;

    /// The active versions.
    async fn registry(&self) -> Result<Registry>;

    /// A module's versions, newest first; empty when there is no such module.
    async fn versions(&self, module: &str) -> Result<Vec<Version>>;

    /// One version.
    async fn version(&self, module: &str, digest: Digest) -> Result<Option<Version>>;

    // ---- configuration -----------------------------------------------------------------------------------------

    /// Stores a configuration document and returns its revision; the same document has the same revision.
    async fn put_config(&self, document: Json, now: Timestamp) -> Result<i64>;

    /// A configuration document.
    async fn config(&self, revision: i64) -> Result<Option<Json>>;

    // ---- reads -------------------------------------------------------------------------------------------------

    /// What others change about runs, in order of their ids; those that are not there are left out. Cheap, and meant
    /// for up to 1,000 runs at once.
    async fn glance(&self, runs: &[RunId]) -> Result<Vec<Glance>>;

    /// A module's runs in flight, whichever version they are pinned to: up to `limit`, spread evenly over all of them (in
    /// the order of the random ends of their ids). Looks at every one of them, and holds `limit`.
    async fn in_flight(&self, module: &str, limit: u32) -> Result<Vec<RunId>>;

    /// Live runs as a claim would hand them out, in order of their ids, without a lease: for looking at, never for
    /// driving. Those that have ended or are not there are left out.
    async fn examine(&self, runs: &[RunId]) -> Result<Vec<ClaimedRun>>;

    /// The versions that a run has gone over to, and those that it could not go over to, oldest first.
    async fn swaps(&self, run: RunId) -> Result<Vec<Swap>>;

    /// One run.
    async fn run(&self, run: RunId) -> Result<Option<Run>>;

    /// A page of runs, newest first, without outputs.
    async fn runs(&self, filter: RunFilter) -> Result<Vec<Run>>;

    /// One event.
    async fn event(&self, event: EventId) -> Result<Option<StoredEvent>>;

    /// A page of events, newest first.
    async fn events(&self, filter: EventFilter) -> Result<Vec<StoredEvent>>;

    /// Why an event has started no run of its own, for each function that it matched and that is so: the first reason, by
    /// the functions' names. Kept as long as the event.
    async fn decisions(&self, event: EventId) -> Result<Vec<Decided>>;

    /// The events that a run starts with, in the order in which they came, if it was made to start with several
    /// (`batch_events`), or is the rerun of one that was; otherwise none.
    async fn batch(&self, run: RunId) -> Result<Vec<BatchEvent>>;

    /// A run's log lines from number `from` on.
    async fn logs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<LogLine>>;

    /// Numbers for the overview and the metrics. Cheap: never counts what has ended. With more than 10,000 live runs they
    /// may be a few seconds old.
    async fn counts(&self) -> Result<Counts>;

    // ---- upkeep ------------------------------------------------------------------------------------------------

    /// Whether a write would be durable now: makes one.
    async fn probe(&self, now: Timestamp) -> Result<()>;

    /// Deletes up to `limit` runs that ended before `ended_before`, with all that belongs to them, and events that no
    /// run refers to and that are as old. Returns how many runs.
    async fn prune(&self, ended_before: Timestamp, limit: u32) -> Result<u32>;

    /// Waits for what is queued and closes. Later calls answer [`Error::Unavailable`](crate::Error::Unavailable).
    async fn close(&self);
}
