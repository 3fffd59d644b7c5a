//! Who gets to execute, and when: slots, the ready queue, timers, and the table of runs this node drives.
//!
//! ```text
//!   router ──born leased──┐
//!   claim loop ──claimed──┼──► dispatch ──► a parked instance of the run, if there is one
//!   timer loop ──fired────┘              └─► else a new task that drives it (worker)
//! ```
//!
//! A claimed run always comes with a slot, so no more than [`SLOTS`] bodies and stretches execute at once. A run that
//! waits has no slot. Absent on purpose: what a leg does, and deciding what is due (the store's, in its commits).

mod expiring;
mod held;
mod lease;
mod loops;
mod many;
mod others;
mod restarting;
mod table;
mod telling;
mod ticking;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dormouse_core::{Digest, RunId, Timestamp};
use dormouse_store::Store;
use dormouse_store::ingest::Created;
use dormouse_store::schedule::{ClaimedRun, Incarnation};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock as _, SharedClock};
use crate::feed::Feed;
use crate::router::Routed;
use crate::worker::{WeakWorker, Worker};

use lease::Lease;
pub(crate) use table::{Mail, Mailbox, Table};

/// How many runs may execute at once on a node. Bodies wait on networks more than they compute.
pub(crate) const SLOTS: usize = 256;

/// The right to execute one run.
pub(crate) type Slot = OwnedSemaphorePermit;

/// The scheduler's handle. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scheduler(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: SharedClock,
    feed: Feed,
    node: Incarnation,
    /// The release that this node runs, and whether nodes of others live beside it.
    release: String,
    mixed: AtomicBool,
    /// The registry's generation of which the store told last.
    told: watch::Sender<i64>,
    lease: Lease,
    slots: Arc<Semaphore>,
    table: Table,
    /// Timers due soon, as far as this node knows: a reason to look, not the truth.
    due: Mutex<BTreeSet<Timestamp>>,
    due_changed: Notify,
    /// Timers may be due soon that nobody here knows of.
    ahead: Notify,
    /// Something may be ready.
    ready: Notify,
    /// Runs may have been given up.
    orphaned: Notify,
    /// Runs may have ended that somebody listens to; and whether anybody listens, as far as this node knows.
    ends: Notify,
    listened: AtomicBool,
    /// When the next run may be over, as far as this node knows; and that it has become sooner.
    deadline: AtomicI64,
    deadlines: Notify,
    /// A function was resumed.
    resumed: Notify,
    /// Many runs are to be cancelled.
    cancellations: Notify,
    /// Runs may have to begin again.
    restarts: Notify,
    tasks: TaskTracker,
    /// Set once, when everything else is there.
    worker: std::sync::OnceLock<WeakWorker>,
    draining: AtomicBool,
    /// Stops the loops.
    stop: CancellationToken,
    /// Somebody asked the node to drain.
    asked_to_drain: Mutex<Option<oneshot::Sender<()>>>,
    /// The node can't go on: why.
    fatal: Mutex<Option<oneshot::Sender<String>>>,
}

impl Scheduler {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: SharedClock,
        feed: Feed,
        node: Incarnation,
        release: String,
        fatal: oneshot::Sender<String>,
        asked_to_drain: oneshot::Sender<()>,
    ) -> Scheduler {
        Scheduler(Arc::new(Inner {
            lease: Lease::new(store.lease()),
            feed,
            asked_to_drain: Mutex::new(Some(asked_to_drain)),
            store,
            clock,
            node,
            release,
            mixed: AtomicBool::new(false),
            told: watch::Sender::new(0),
            slots: Arc::new(Semaphore::new(SLOTS)),
            table: Table::default(),
            due: Mutex::default(),
            due_changed: Notify::new(),
            ahead: Notify::new(),
            ready: Notify::new(),
            orphaned: Notify::new(),
            ends: Notify::new(),
            deadline: AtomicI64::new(i64::MAX),
            deadlines: Notify::new(),
            listened: AtomicBool::new(false),
            resumed: Notify::new(),
            cancellations: Notify::new(),
            restarts: Notify::new(),
            tasks: TaskTracker::new(),
            worker: std::sync::OnceLock::new(),
            draining: AtomicBool::new(false),
            stop: CancellationToken::new(),
            fatal: Mutex::new(Some(fatal)),
        }))
    }

    /// Tells the scheduler of its worker and starts the loops. The worker has the scheduler, so the scheduler does not keep
    /// it: neither would ever end, nor the engine with the address space that it reserves.
    pub(crate) fn start(&self, worker: &Worker) {
        let first = self.0.worker.set(worker.downgrade()).is_ok();
        debug_assert!(first, "a scheduler is started once");
        for task in loops::all(self).into_iter().chain(others::all(self)) {
            self.0.tasks.spawn(task);
        }
    }

    /// The worker, once the scheduler was started and while the server is there.
    fn worker(&self) -> Option<Worker> {
        self.0.worker.get()?.upgrade()
    }

    /// A slot, if one is free.
    pub(crate) fn try_slot(&self) -> Option<Slot> {
        if self.is_draining() {
            return None;
        }
        Arc::clone(&self.0.slots).try_acquire_owned().ok()
    }

    /// The versions whose runs this node takes. None: all, since there is no other node to leave the others to.
    fn takes(&self) -> Option<Arc<[Digest]>> {
        let worker = self.worker().filter(|_| self.0.lease.is_shared())?;
        Some(worker.registry.known())
    }

    /// Whether a new run of a version may be leased to this node at once.
    pub(crate) fn takes_version(&self, version: Digest) -> bool {
        let worker = self.worker().filter(|_| self.0.lease.is_shared());
        worker.is_none_or(|worker| worker.registry.knows(version))
    }

    /// Loads versions whose runs wait, and then looks for these.
    fn load(&self, versions: Vec<Digest>) {
        let Some(worker) = self.worker() else { return };
        for version in versions {
            let (scheduler, worker) = (self.clone(), worker.clone());
            self.0.tasks.spawn(async move {
                tokio::select! {
                    news = worker.registry.learn(version) => if news {
                        scheduler.nudge();
                    },
                    () = scheduler.0.stop.cancelled() => {}
                }
            });
        }
    }

    /// Waits for a slot. None when the node stops.
    pub(crate) async fn slot(&self) -> Option<Slot> {
        tokio::select! {
            slot = Arc::clone(&self.0.slots).acquire_owned() => slot.ok(),
            () = self.0.stop.cancelled() => None,
        }
    }

    /// Begins the runs of a request. Returns the ids of those that were created.
    pub(crate) fn begin(&self, runs: Vec<Routed>) -> Vec<RunId> {
        let mut ids = Vec::with_capacity(runs.len());
        let mut queued = false;
        let now = self.0.clock.now();
        for Routed {
            run,
            created,
            slot,
            start_at,
            held,
            deadline,
        } in runs
        {
            if matches!(
                created,
                Created::New { .. } | Created::Held { .. } | Created::Gathered { .. }
            ) {
                self.deadline(deadline);
            }
            match created {
                Created::New { leased } => {
                    ids.push(run.id);
                    match slot {
                        Some(slot) if leased => self.dispatch(run, slot),
                        _ if held => {}
                        _ if start_at > now => self.timer(start_at),
                        _ => queued = true,
                    }
                }
                Created::Held { until } => {
                    ids.push(run.id);
                    self.timer(until);
                }
                Created::Gathered { run, until } => {
                    ids.push(run);
                    self.timer(until);
                }
                Created::Duplicate(existing) => {
                    tracing::debug!(%existing, "the event id has started a run before")
                }
                Created::Dropped { decision, .. } => {
                    let decision = decision.as_str();
                    tracing::debug!(function = %run.function, decision, "the event starts no run");
                    metrics::counter!("dormouse_runs_dropped_total", "decision" => decision).increment(1);
                }
            }
        }
        if queued {
            self.nudge();
        }
        ids
    }

    /// Something may be ready: look.
    pub(crate) fn nudge(&self) {
        self.0.ready.notify_one();
    }

    /// Runs may have been given up by their callers: look.
    pub(crate) fn orphaned(&self) {
        self.0.orphaned.notify_one();
    }

    /// A function was resumed: what its pause held may go on.
    pub(crate) fn resumed(&self) {
        self.0.resumed.notify_one();
    }

    /// Many runs are to be cancelled.
    pub(crate) fn cancelling(&self) {
        self.0.cancellations.notify_one();
    }

    /// Another version is active: runs may have to begin again on it.
    pub(crate) fn restarting(&self) {
        self.0.restarts.notify_one();
    }

    /// Timers were set whose times only the store knows: read ahead.
    pub(crate) fn look_ahead(&self) {
        self.0.ahead.notify_one();
    }

    /// A timer was set.
    pub(crate) fn timer(&self, due: Timestamp) {
        let mut soon = self.0.due.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = soon.first().is_none_or(|first| due < *first);
        if soon.len() < loops::DUE_MAX || earliest {
            soon.insert(due);
        }
        drop(soon);
        if earliest {
            self.0.due_changed.notify_one();
        }
    }

    /// Hands a leased run to whoever drives it.
    pub(crate) fn dispatch(&self, run: ClaimedRun, slot: Slot) {
        let id = run.id;
        if let Some((run, slot, mailbox)) = self.0.table.deliver(id, Box::new(run), slot) {
            let Some(worker) = self.worker() else { return };
            // Boxed: a future of this size is otherwise copied several times on its way into its task.
            self.0.tasks.spawn(Box::pin(worker.drive(*run, slot, mailbox)));
        }
    }

    /// A run was cancelled: whoever drives it must end.
    pub(crate) fn cancelled(&self, run: RunId) {
        self.0.table.cancel(run);
    }

    pub(crate) fn table(&self) -> &Table {
        &self.0.table
    }

    pub(crate) fn node(&self) -> Incarnation {
        self.0.node
    }

    /// The release that this node runs.
    pub(crate) fn release(&self) -> &str {
        &self.0.release
    }

    /// Whether legs should leave at the next place where they can.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// The node can't go on.
    pub(crate) fn fatal(&self, reason: String) {
        let sender = self.0.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            tracing::error!(reason, "this node stops");
            // The receiver is the server's main loop, which is there as long as the process is.
            let _ = sender.send(reason);
        }
    }

    /// Lets executing legs come to a place where they can be left, for at most `timeout`; then ends them.
    /// Returns how many had to be ended.
    pub(crate) async fn drain(&self, timeout: std::time::Duration) -> usize {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.stop.cancel();
        self.0.table.drain();
        self.0.tasks.close();
        if tokio::time::timeout(timeout, self.0.tasks.wait()).await.is_ok() {
            return 0;
        }
        let ended = self.0.table.interrupt_all();
        // What was interrupted ends at once; a guest that does not is dropped with the runtime.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.0.tasks.wait()).await;
        ended
    }
}
