//! Starting functions by the clock: when a schedule's next tick is due, it is moved on, in a commit that starts the tick's
//! run. Of many nodes that do so one is right, and the others look again.
//!
//! A loop over what the store holds: it makes the stored schedules those of what is active, does what is due, and waits for
//! the next tick, for another generation of the registry, or for the end of a run that a tick waits for. While nothing of
//! that happens it asks the store next to nothing. Absent on purpose: what becomes of ticks (the core's).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dormouse_core::cron::{Decision, Move, Previous, Standing};
use dormouse_core::{FunctionName, RunId, Timestamp};
use dormouse_store::cron::{LastTick, Schedule};
use dormouse_store::ingest::Created;
use dormouse_store::{Error, Store};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Scheduler;
use super::loops::trouble;
use crate::clock::Clock as _;
use crate::feed::Change;
use crate::registry::{ActiveSchedule, Snapshot};
use crate::router::{Router, Stepped};
use crate::worker::Worker;

/// How many steps are handed to the store at once: those that are due at the same second share commits.
const AT_ONCE: usize = 64;
/// How often a run that a tick waits for is looked at without being told: it may end at another node.
const WAITING_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked without any reason: until when it waits may have been decided by a clock that was wrong.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How soon it is looked again after it did something.
const CHANGED_EVERY: Duration = Duration::from_millis(50);

/// What to wait for.
#[derive(Default)]
struct Wait {
    /// The next time at which something is due.
    until: Option<Timestamp>,
    /// Runs whose ends ticks wait for.
    runs: HashSet<RunId>,
}

pub(super) async fn ticking(scheduler: Scheduler) {
    let Some(mut generations) = scheduler.worker().map(|worker| worker.registry.generations()) else {
        return;
    };
    let mut changes: Option<broadcast::Receiver<Change>> = None;
    loop {
        generations.borrow_and_update();
        // Held no longer than this: what drives runs ends with the server.
        let Some(worker) = scheduler.worker() else {
            return;
        };
        let wait = match round(&scheduler, &worker).await {
            Ok(wait) => wait,
            Err(error) => {
                drop(worker);
                if !trouble(&scheduler, "start functions by the clock", error).await {
                    return;
                }
                continue;
            }
        };
        drop(worker);
        if wait.runs.is_empty() {
            changes = None;
        } else if changes.is_none() {
            // From now on their ends are heard of; one that came just before is found by looking once more.
            changes = Some(scheduler.0.feed.subscribe());
            continue;
        }
        tokio::select! {
            () = until(&scheduler, wait.until) => {}
            moved = generations.changed() => if moved.is_err() { return },
            () = changed(&mut changes, &wait.runs) => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Waits for a time, or for ever.
async fn until(scheduler: &Scheduler, time: Option<Timestamp>) {
    match time {
        Some(time) => scheduler.0.clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until one of some runs may have ended.
async fn changed(changes: &mut Option<broadcast::Receiver<Change>>, runs: &HashSet<RunId>) {
    let Some(changes) = changes else {
        return std::future::pending().await;
    };
    let told = async {
        loop {
            match changes.recv().await {
                Ok(Change::Run(run)) if !runs.contains(&run) => {}
                Ok(Change::Registry | Change::Elsewhere) => {}
                Ok(Change::Run(_)) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
        tokio::time::sleep(CHANGED_EVERY).await;
    };
    tokio::select! {
        () = told => {}
        () = tokio::time::sleep(WAITING_EVERY) => {}
    }
}

/// Does all that is due. Answers with what to wait for then.
async fn round(scheduler: &Scheduler, worker: &Worker) -> Result<Wait, Error> {
    let (store, registry) = (&worker.store, &worker.registry);
    let router = Router::new(
        store.clone(),
        registry.clone(),
        scheduler.clone(),
        scheduler.node(),
    );
    loop {
        let snapshot = registry.snapshot();
        if snapshot.generation == 0 {
            registry.refresh().await?;
            continue;
        }
        match look(scheduler, &router, &**store, &snapshot).await {
            Ok(Some(wait)) => return Ok(wait),
            // Somebody else has moved a schedule on.
            Ok(None) => {}
            Err(Error::StaleRegistry) => {
                registry.refresh().await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Does all that is due on one snapshot of what is active.
async fn look(
    scheduler: &Scheduler,
    router: &Router,
    store: &dyn Store,
    snapshot: &Snapshot,
) -> Result<Option<Wait>, Error> {
    let mut stored = by_key(store.schedules().await?);
    if !agree(snapshot, &stored) {
        store.put_schedules(snapshot.wanted_schedules()).await?;
        stored = by_key(store.schedules().await?);
    }
    pass(scheduler, router, snapshot, stored).await
}

type Key = (FunctionName, String);

fn by_key(schedules: Vec<Schedule>) -> HashMap<Key, Schedule> {
    let each = schedules.into_iter();
    each.map(|schedule| ((schedule.function.clone(), schedule.cron.clone()), schedule))
        .collect()
}

/// Whether the stored schedules of the modules that are active here are those that they have.
fn agree(snapshot: &Snapshot, stored: &HashMap<Key, Schedule>) -> bool {
    let ours = stored
        .keys()
        .filter(|(function, _)| snapshot.modules.contains_key(function.module()));
    ours.count() == snapshot.schedules.len()
        && snapshot
            .schedules
            .iter()
            .all(|active| stored.contains_key(&(active.function.clone(), active.cron.clone())))
}

/// Moves schedules on until nothing is due. None: one does not stand where it was believed to.
async fn pass(
    scheduler: &Scheduler,
    router: &Router,
    snapshot: &Snapshot,
    mut stored: HashMap<Key, Schedule>,
) -> Result<Option<Wait>, Error> {
    loop {
        let now = scheduler.0.clock.now();
        let mut wait = Wait::default();
        let mut steps: Vec<(&ActiveSchedule, Timestamp, Move)> = Vec::new();
        for active in &snapshot.schedules {
            let Some(stands) = stored.get(&(active.function.clone(), active.cron.clone())) else {
                return Ok(None);
            };
            let standing = Standing {
                next: stands.next,
                previous: stands.previous,
                paused: snapshot.paused.contains(&active.function),
            };
            match active.schedule.decide(&standing, now) {
                Decision::Later(at) => wait.until = Some(wait.until.map_or(at, |until| until.min(at))),
                Decision::AfterPrevious => wait.runs.extend(stands.last.map(|last| last.run)),
                Decision::Paused => {}
                Decision::Move(step) => steps.push((active, stands.next, step)),
            }
        }
        if steps.is_empty() || scheduler.is_draining() {
            return Ok(Some(wait));
        }
        let (mut lost, mut failed) = (false, None);
        let mut made = Vec::with_capacity(steps.len());
        for together in steps.chunks(AT_ONCE) {
            let making: Vec<BoxFuture<'_, _>> = together
                .iter()
                .map(|(active, from, step)| router.step(snapshot, active, *from, step.clone(), now).boxed())
                .collect();
            made.extend(futures::future::join_all(making).await);
        }
        // To the last: what was stored must also begin.
        for ((active, _, step), made) in steps.into_iter().zip(made) {
            let routed = match made {
                Ok(Stepped::Made(routed)) => routed,
                Ok(Stepped::Lost) => {
                    lost = true;
                    continue;
                }
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            let key = (active.function.clone(), active.cron.clone());
            if let Some(stands) = stored.get_mut(&key) {
                stands.next = step.next;
                let created = routed
                    .as_ref()
                    .filter(|routed| matches!(routed.created, Created::New { .. } | Created::Held { .. }));
                if let Some((routed, tick)) = created.zip(step.start) {
                    let run = routed.run.id;
                    stands.last = Some(LastTick { tick, run });
                    stands.previous = Previous::Live;
                }
            }
            told(active, &step, now);
            if let Some(routed) = routed {
                let run = routed.run.id;
                scheduler.begin(vec![*routed]);
                scheduler.0.feed.run(run);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if lost {
            return Ok(None);
        }
    }
}

/// Says what became of ticks, to whoever reads logs and metrics.
fn told(active: &ActiveSchedule, step: &Move, now: Timestamp) {
    let (function, cron) = (&active.function, active.cron.as_str());
    if let Some(skipped) = step.skipped {
        tracing::info!(%function, cron, tick = %skipped.tick, reason = %skipped.reason, "a tick is left out");
        metrics::counter!("dormouse_ticks_total", "outcome" => "skipped").increment(1);
    }
    if let Some(tick) = step.start {
        tracing::debug!(%function, cron, %tick, "a tick is started");
        metrics::counter!("dormouse_ticks_total", "outcome" => "started").increment(1);
        metrics::histogram!("dormouse_tick_lag_seconds")
            .record(now.since(active.schedule.due(tick)).as_secs_f64());
    }
}
