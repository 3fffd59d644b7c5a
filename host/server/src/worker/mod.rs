//! Driving runs: one task per run that executes or is parked, one leg after the other.
//!
//! ```text
//!   claimed ──► leg ──► guest calls ──► LegHost ──► core::replay decides
//!                │                        │ ├──► append (one commit), then the effect
//!                │                        │ └──► suspend: commit, give the slot back, park or drop
//!                └── how it ended ──► settle: complete, fail, try again, block
//! ```
//!
//! What holds: nothing external happens before the journal prefix it depends on is durable; the guest runs ahead in
//! between, so that an output and the sleep or end that follows share one commit. Absent on purpose: who may execute
//! (scheduler), what a call is answered with (core), instances and limits (engine).

mod body;
mod events;
mod fetching;
mod invoking;
mod journal;
mod leg;
mod operation;
mod parking;
mod probe;
mod sending;
mod settle;
mod suspend;
mod swapping;
mod verify;
mod waiting;

use std::sync::{Arc, Weak};
use std::time::Duration;

use dormouse_core::Digest;
use dormouse_core::manifest::Function;
use dormouse_core::run::RunError;
use dormouse_engine::{Engine, HttpPolicy, Module};
use dormouse_store::Store;
use dormouse_store::execute::{Append, Then};
use dormouse_store::schedule::ClaimedRun;
use tracing::Instrument as _;

use crate::clock::Clock;
use crate::config::ModuleGrants;
use crate::feed::Feed;
use crate::registry::{Registry, Unloadable};
use crate::scheduler::{Mailbox, Scheduler, Slot};
use crate::sql::Databases;

pub(crate) use parking::Parking;
pub(crate) use verify::Verify;

pub(crate) use events::all as all_events;
pub(crate) use journal::replay_of;
pub(crate) use leg::leg_of;
pub(crate) use probe::{Probed, probe};

use leg::LegHost;
use settle::Next;
use swapping::{Chosen, NotDriven};

/// How long to wait before asking a store that has trouble again.
const TROUBLE_PAUSE: Duration = Duration::from_millis(250);

/// What driving a run needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) engine: Engine,
    pub(crate) registry: Arc<Registry>,
    pub(crate) scheduler: Scheduler,
    pub(crate) feed: Feed,
    pub(crate) databases: Databases,
    pub(crate) parking: Parking,
    pub(crate) verify: Verify,
}

/// What a run is driven with: the same for all its legs under one lease.
#[derive(Clone)]
struct Program {
    module: Module,
    function: Function,
    grants: Arc<ModuleGrants>,
    http: HttpPolicy,
}

/// A run with what it needs to be driven.
type Lease = (Box<ClaimedRun>, Slot);

/// A worker that whoever holds this does not keep.
#[derive(Clone)]
pub(crate) struct WeakWorker(Weak<Inner>);

impl WeakWorker {
    /// The worker, while the server is there that has it.
    pub(crate) fn upgrade(&self) -> Option<Worker> {
        self.0.upgrade().map(Worker)
    }
}

impl std::ops::Deref for Worker {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Worker {
    pub(crate) fn new(inner: Inner) -> Worker {
        Worker(Arc::new(inner))
    }

    pub(crate) fn downgrade(&self) -> WeakWorker {
        WeakWorker(Arc::downgrade(&self.0))
    }

    /// Drives a run until it waits elsewhere than here, has ended, or belongs to somebody else.
    pub(crate) async fn drive(self, run: ClaimedRun, slot: Slot, mut mailbox: Mailbox) {
        let id = run.id;
        let mut next = Some((Box::new(run), slot));
        while let Some((run, slot)) = next {
            // Every line that is logged on the way carries these, also where only errors are let through.
            let span = tracing::error_span!("run", run_id = %id, module = run.function.module(), function = %run.function, version = %run.version);
            (mailbox, next) = self.drive_lease(*run, slot, mailbox).instrument(span).await;
            if next.is_none() {
                next = self.scheduler.table().leave(id, &mut mailbox);
            }
        }
    }

    /// Drives a run under one lease, and under those that reach it while it is parked. Answers with the run when it is to be
    /// begun with anew under the lease it has: on the journal as it is in the store, and maybe on another version.
    async fn drive_lease(&self, run: ClaimedRun, slot: Slot, mailbox: Mailbox) -> (Mailbox, Option<Lease>) {
        let chosen = match self.program(&run).await {
            Ok(chosen) => chosen,
            Err(Some(message)) => {
                self.block(&run, RunError::new("version-unavailable", message))
                    .await;
                return (mailbox, None);
            }
            // The run is somebody else's, or the node stops; whoever takes the run over loads it then.
            Err(None) => return (mailbox, None),
        };
        let Some(replay) = self.load_journal(&run).await else {
            return (mailbox, None);
        };
        let Some(events) = self.events(&run, &chosen).await else {
            return (mailbox, None);
        };
        let mut host = LegHost::new(self.clone(), chosen, (run, events), slot, mailbox, replay);
        loop {
            host.observe_begin();
            let leg = host.leg();
            let (end, back, stats) = self.engine.run_leg(leg, host).await;
            host = back;
            host.observe(&stats);
            match host.settle(end).await {
                Next::Over => return (host.into_mailbox(), None),
                Next::Again => {
                    if !host.rewind() {
                        return (host.into_mailbox(), None);
                    }
                }
                Next::Reload => {
                    let run = host.still_owned().await;
                    let slot = host.slot.take();
                    let lease = run.zip(slot).map(|(run, slot)| (Box::new(run), slot));
                    return (host.into_mailbox(), lease);
                }
            }
        }
    }

    /// Loads what the run is driven with. `Err(None)`: it is not driven here.
    async fn program(&self, run: &ClaimedRun) -> Result<Chosen, Option<String>> {
        loop {
            match self.choose(run).await {
                Ok(chosen) => return Ok(chosen),
                Err(NotDriven::Over) => return Err(None),
                Err(NotDriven::Again) => {}
                Err(NotDriven::Unloadable(Unloadable::Version(message))) => return Err(Some(message)),
                Err(NotDriven::Unloadable(Unloadable::Store(error))) => {
                    if !self.pause(&error).await {
                        return Err(None);
                    }
                }
            }
        }
    }

    async fn try_program(&self, run: &ClaimedRun, version: Digest) -> Result<Program, Unloadable> {
        let (module, function) = self.registry.load(&run.function, version).await?;
        let grants = self
            .registry
            .grants(run.config_revision)
            .await?
            .module(run.function.module());
        let http = HttpPolicy::parse(&grants.http)
            .map_err(|error| Unloadable::Version(format!("the granted hosts cannot be read: {error}")))?;
        Ok(Program {
            module,
            function,
            grants: Arc::new(grants),
            http,
        })
    }

    /// Blocks a run that cannot even begin a leg.
    async fn block(&self, run: &ClaimedRun, error: RunError) {
        tracing::error!(code = error.code, message = error.message, "blocked");
        let append = self.nothing(run, Then::Block { error });
        while let Err(error) = self.store.append(append.clone()).await {
            if !self.pause(&error).await {
                return;
            }
        }
        self.feed.run(run.id);
    }

    /// An append of no entries.
    fn nothing(&self, run: &ClaimedRun, then: Then) -> Append {
        Append {
            run: run.id,
            owner: self.scheduler.node(),
            epoch: run.epoch,
            records: Vec::new(),
            logs: Vec::new(),
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            parent: None,
            swap: None,
            then,
            now: self.clock.now(),
        }
    }

    /// Waits a moment after the store had trouble. False when the node stops.
    async fn pause(&self, error: &dormouse_store::Error) -> bool {
        use dormouse_store::Error;
        if matches!(error, Error::DeclaredDead | Error::Fatal(_)) {
            self.scheduler.fatal(error.to_string());
            return false;
        }
        if self.scheduler.is_draining() {
            return false;
        }
        tracing::warn!(%error, "the store has trouble");
        tokio::time::sleep(TROUBLE_PAUSE).await;
        true
    }
}
