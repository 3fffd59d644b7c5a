//! Telling of runs that have ended to whoever listens: the events, the functions that they start, the handlers of failures.
//!
//! The commit of an end leaves a row when somebody listens; this loop stores the events in the commit that takes the row
//! away. Whoever dies in between is no loss, and of several nodes that tell the same end one does. While nobody listens
//! there are no rows. Absent on purpose: what the events say (the core's), and who is started (the router's).

use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_core::FunctionName;
use dormouse_core::run::Status;
use dormouse_core::system::{Ended, is_handler};
use dormouse_store::Error;
use dormouse_store::ends::{Tell, Told, Untold};
use dormouse_store::ingest::{Created, Ingest};

use super::Scheduler;
use super::loops::trouble;
use crate::clock::Clock as _;
use crate::registry::Unloadable;
use crate::router::{Handler, first_deadline, told};
use crate::worker::Worker;

/// How many ends are handed to the store at once: they share commits.
const AT_ONCE: u32 = 64;
/// How often it is looked without being told: what another node's end may cost.
const EVERY: Duration = Duration::from_secs(2);
/// The same while, as far as this node knows, nobody listens: each look is a query of an idle node.
const SELDOM: Duration = Duration::from_secs(5);

impl Scheduler {
    /// A run has ended: if somebody listens, as far as this node knows, that is told.
    pub(crate) fn ended(&self) {
        if self.0.listened.load(Ordering::Relaxed) {
            self.0.ends.notify_one();
        }
    }

    /// From now on somebody may listen to how runs end.
    pub(crate) fn listens(&self) {
        self.0.listened.store(true, Ordering::Relaxed);
    }
}

pub(super) async fn telling(scheduler: Scheduler) {
    loop {
        // Held no longer than this: what drives runs ends with the server.
        let Some(worker) = scheduler.worker() else {
            return;
        };
        let round = round(&scheduler, &worker).await;
        match round {
            Ok(true) => continue,
            Ok(false) => {}
            Err(Error::StaleRegistry) => {
                if let Err(error) = worker.registry.refresh().await
                    && !trouble(&scheduler, "read what is active", error).await
                {
                    return;
                }
                continue;
            }
            Err(error) => {
                drop(worker);
                if !trouble(&scheduler, "tell of runs that have ended", error).await {
                    return;
                }
                continue;
            }
        }
        drop(worker);
        let every = match scheduler.0.listened.load(Ordering::Relaxed) {
            true => EVERY,
            false => SELDOM,
        };
        tokio::select! {
            () = scheduler.0.ends.notified() => {}
            () = tokio::time::sleep(every) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Tells some ends. True: there may be more.
async fn round(scheduler: &Scheduler, worker: &Worker) -> Result<bool, Error> {
    if !worker.registry.snapshot().listens.is_empty() {
        scheduler.listens();
    }
    let untold = worker.store.untold(AT_ONCE).await?;
    if untold.is_empty() {
        return Ok(false);
    }
    scheduler.listens();
    let tells = untold.iter().map(|untold| tell(scheduler, worker, *untold));
    // To the last: what was stored must also begin.
    let mut failed = None;
    for told in futures::future::join_all(tells).await {
        failed = failed.or(told.err());
    }
    failed.map_or(Ok(true), Err)
}

/// Tells one end.
async fn tell(scheduler: &Scheduler, worker: &Worker, untold: Untold) -> Result<(), Error> {
    let (ingest, told) = match store(scheduler, worker, untold, true).await {
        // The version whose handler it was to be has been deleted just now.
        Err(Error::Corrupt(why)) => {
            tracing::warn!(run_id = %untold.run, why, "a failure is not handled");
            store(scheduler, worker, untold, false).await?
        }
        stored => stored?,
    };
    let Told::Done(created) = told else {
        return Ok(());
    };
    for (run, created) in ingest.runs.iter().zip(created) {
        if matches!(
            created,
            Created::New { .. } | Created::Held { .. } | Created::Gathered { .. }
        ) {
            scheduler.deadline(first_deadline(run));
        }
        match created {
            Created::New { .. } => {
                scheduler.nudge();
                scheduler.0.feed.run(run.id);
            }
            Created::Held { until } => {
                scheduler.timer(until);
                scheduler.0.feed.run(run.id);
            }
            Created::Gathered { run, until } => {
                scheduler.timer(until);
                scheduler.0.feed.run(run);
            }
            Created::Duplicate(_) => {}
            Created::Dropped { decision, .. } => {
                let decision = decision.as_str();
                metrics::counter!("dormouse_runs_dropped_total", "decision" => decision).increment(1);
            }
        }
    }
    Ok(())
}

async fn store(
    scheduler: &Scheduler,
    worker: &Worker,
    untold: Untold,
    handled: bool,
) -> Result<(Ingest, Told), Error> {
    let now = scheduler.0.clock.now();
    let snapshot = worker.registry.snapshot();
    let mut ingest = Ingest {
        events: Vec::new(),
        runs: Vec::new(),
        generation: snapshot.generation,
        now,
    };
    // One that was deleted since has nothing to tell.
    if let Some(run) = worker.store.run(untold.run).await? {
        let event = worker.store.event(run.event_id).await?.map(|event| event.payload);
        let ended = Ended {
            run: run.id,
            function: &run.function,
            status: run.state.status,
            at: run.ended_at.unwrap_or(now),
            event: event.as_ref(),
            output: run.output.as_ref(),
            error: run.error.as_ref(),
            reason: run.reason.as_deref(),
        };
        let handles = event
            .as_ref()
            .and_then(|event| is_handler(run.id, event))
            .is_some();
        let handler = match run.state.status == Status::Failed && handled && !handles {
            true => handler(worker, &run.function, run.version).await?,
            false => None,
        };
        ingest = told(
            &worker.registry,
            &snapshot,
            &ended,
            untold.kinds,
            handler.as_ref(),
            now,
        );
    }
    let tell = Tell {
        run: untold.run,
        ingest: ingest.clone(),
    };
    Ok((ingest, worker.store.tell(tell).await?))
}

/// Who handles the failures of a function, as the version says that its run was pinned to.
async fn handler(
    worker: &Worker,
    function: &FunctionName,
    version: dormouse_core::Digest,
) -> Result<Option<Handler>, Error> {
    let manifest = match worker.registry.manifest(function.module(), version).await {
        Ok(manifest) => manifest,
        Err(Unloadable::Store(error)) => return Err(error),
        Err(Unloadable::Version(_)) => return Ok(None),
    };
    let definition = manifest.function(function.function());
    let handler = definition.and_then(|definition| definition.on_failure.as_deref());
    let name = handler.and_then(|handler| FunctionName::new(function.module(), handler).ok());
    Ok(name.map(|function| Handler { function, version }))
}
