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
mod verify;
mod waiting;

use std::sync::{Arc, Weak};
use std::time::Duration;

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
            mailbox = self.drive_lease(*run, slot, mailbox).instrument(span).await;
            next = self.scheduler.table().leave(id, &mut mailbox);
        }
    }

    /// Drives a run under one lease, and under those that reach it while it is parked.
    async fn drive_lease(&self, run: ClaimedRun, slot: Slot, mailbox: Mailbox) -> Mailbox {
        let program = match self.program(&run).await {
            Ok(program) => program,
            Err(Some(message)) => {
                self.block(&run, RunError::new("version-unavailable", message))
                    .await;
                return mailbox;
            }
            // The node stops; whoever takes the run over loads it then.
            Err(None) => return mailbox,
        };
        let Some(replay) = self.load_journal(&run).await else {
            return mailbox;
        };
        let Some(events) = self.events(&run, &program).await else {
            return mailbox;
        };
        let mut host = LegHost::new(
            self.clone(),
            program.clone(),
            (run, events),
            slot,
            mailbox,
            replay,
        );
        loop {
            host.observe_begin();
            let leg = host.leg();
            let (end, back, stats) = self.engine.run_leg(leg, host).await;
            host = back;
            host.observe(&stats);
            match host.settle(end).await {
                Next::Over => return host.into_mailbox(),
                Next::Again => {
                    if !host.rewind() {
                        return host.into_mailbox();
                    }
                }
                Next::Reload => {
                    let Some(run) = host.still_owned().await else {
                        return host.into_mailbox();
                    };
                    let Some(replay) = self.load_journal(&run).await else {
                        return host.into_mailbox();
                    };
                    host.reload(run, replay);
                }
            }
        }
    }

    /// Loads what the run is driven with. `Err(None)`: the node stops.
    async fn program(&self, run: &ClaimedRun) -> Result<Program, Option<String>> {
        loop {
            match self.try_program(run).await {
                Ok(program) => return Ok(program),
                Err(Unloadable::Version(message)) => return Err(Some(message)),
                Err(Unloadable::Store(error)) => {
                    if !self.pause(&error).await {
                        return Err(None);
                    }
                }
            }
        }
    }

    async fn try_program(&self, run: &ClaimedRun) -> Result<Program, Unloadable> {
        let (module, function) = self.registry.load(&run.function, run.version).await?;
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
        let append = Append {
            run: run.id,
            owner: self.scheduler.node(),
            epoch: run.epoch,
            records: Vec::new(),
            logs: Vec::new(),
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            parent: None,
            then: Then::Block { error },
            now: self.clock.now(),
        };
        while let Err(error) = self.store.append(append.clone()).await {
            if !self.pause(&error).await {
                return;
            }
        }
        self.feed.run(run.id);
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
