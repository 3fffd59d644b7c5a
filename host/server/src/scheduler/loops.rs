//! The scheduler's loops: claim what is ready, fire what is due, stay alive, take over from the dead, clean up.
//!
//! Each is a loop over state that the store holds; a missed nudge costs at most one poll interval.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_core::Timestamp;
use dormouse_store::Error;
use dormouse_store::schedule::{Claim, FireTimers};
use std::sync::PoisonError;

use super::{SLOTS, Scheduler};
use crate::clock::Clock as _;

/// How many due times are held in memory at most; the rest is read when the window moves on.
pub(super) const DUE_MAX: usize = 100_000;
/// How far ahead due times are read.
const WINDOW: Duration = Duration::from_secs(60);
/// How often they are read: half the window, so that there is never a gap.
const WINDOW_EVERY: Duration = Duration::from_secs(30);
/// How many runs are claimed at once.
const CLAIM_BATCH: usize = 128;
/// How many timers fire in one commit.
const FIRE_BATCH: u32 = 1_000;
/// How soon the ready queue is looked at again without a nudge, after there was something in it,
const CLAIM_POLL_MIN: Duration = Duration::from_millis(100);
/// when another node was about to look at the same,
const CLAIM_POLL_AGAIN: Duration = Duration::from_millis(20);
/// and, twice as late each time, after there was nothing: what a lost nudge may cost.
const CLAIM_POLL_MAX: Duration = Duration::from_secs(1);
/// How often timers are looked at where other nodes set some too: how late one may fire whose node has died.
const FIRE_POLL: Duration = Duration::from_millis(1_500);
/// How often a node says that it lives.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(2);
/// How often a version that could not be loaded is tried again.
const KEEP_UP_EVERY: Duration = Duration::from_secs(2);
/// How often dead nodes' runs are looked for: half of what may go by between the end of a lease and the end of its runs.
const TAKEOVER_EVERY: Duration = Duration::from_millis(2_500);
/// How often it is tried again what nodes of other releases could not read, while there are any.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(5);
/// How many runs are taken over, or tried again, in one commit.
const TAKEOVER_BATCH: u32 = 1_000;
/// How often runs are looked for that their callers have given up, without a nudge.
const ORPHANS_EVERY: Duration = Duration::from_secs(2);
/// How many of them are cancelled in one commit.
const ORPHANS_BATCH: u32 = 500;
/// How long to wait after the store had trouble.
const TROUBLE_PAUSE: Duration = Duration::from_millis(250);

pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) fn all(scheduler: &Scheduler) -> Vec<Task> {
    let of = |task: fn(Scheduler) -> Task| task(scheduler.clone());
    vec![
        of(|scheduler| Box::pin(claiming(scheduler))),
        of(|scheduler| Box::pin(firing(scheduler))),
        of(|scheduler| Box::pin(hearing(scheduler))),
        of(|scheduler| Box::pin(reading_ahead(scheduler))),
        of(|scheduler| Box::pin(beating(scheduler))),
        of(|scheduler| Box::pin(taking_over(scheduler))),
        of(|scheduler| Box::pin(cancelling_orphans(scheduler))),
        of(|scheduler| Box::pin(trying_again(scheduler))),
        of(|scheduler| Box::pin(super::held::releasing(scheduler))),
        of(|scheduler| Box::pin(super::many::cancelling(scheduler))),
        of(|scheduler| Box::pin(super::restarting::restarting(scheduler))),
        of(|scheduler| Box::pin(super::ticking::ticking(scheduler))),
        of(|scheduler| Box::pin(super::telling::telling(scheduler))),
        of(|scheduler| Box::pin(super::expiring::expiring(scheduler))),
        of(|scheduler| Box::pin(super::expiring::hearing(scheduler))),
    ]
}

/// Claims what is ready, as long as there are slots.
async fn claiming(scheduler: Scheduler) {
    let mut poll = CLAIM_POLL_MIN;
    loop {
        let Some(slot) = scheduler.slot().await else {
            return;
        };
        let mut slots = vec![slot];
        while slots.len() < CLAIM_BATCH
            && let Some(slot) = scheduler.try_slot()
        {
            slots.push(slot);
        }
        let limit = slots.len() as u32;
        let claim = Claim {
            node: scheduler.0.node,
            limit,
            versions: scheduler.takes(),
            now: scheduler.0.clock.now(),
        };
        match scheduler.0.store.claim(claim).await {
            Ok(batch) => {
                blocked(&batch.blocked);
                scheduler.load(batch.lacking);
                // What was put into lines has made room for others in the queue.
                let full = batch.claimed.len() as u32 + batch.waiting >= limit;
                poll = match batch.claimed.is_empty() {
                    _ if batch.again => CLAIM_POLL_AGAIN,
                    true => CLAIM_POLL_MAX.min(poll * 2),
                    false => CLAIM_POLL_MIN,
                };
                for (run, slot) in batch.claimed.into_iter().zip(slots) {
                    scheduler.dispatch(run, slot);
                }
                if full {
                    continue;
                }
            }
            Err(error) => {
                drop(slots);
                if !trouble(&scheduler, "claim runs", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = scheduler.0.ready.notified() => {}
            () = tokio::time::sleep(poll) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Passes on that runs were made ready by what they waited for.
async fn hearing(scheduler: Scheduler) {
    loop {
        tokio::select! {
            () = scheduler.0.store.woken() => scheduler.nudge(),
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Fires timers when they are due.
async fn firing(scheduler: Scheduler) {
    loop {
        let next = scheduler
            .0
            .due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .first()
            .copied();
        let shared = scheduler.0.lease.is_shared();
        tokio::select! {
            () = scheduler.0.clock.sleep_until(next.unwrap_or(Timestamp::MAX)) => {}
            // A timer that another node set and no longer fires is known to nobody else until it is read ahead.
            () = tokio::time::sleep(FIRE_POLL), if shared => {}
            () = scheduler.0.due_changed.notified() => continue,
            () = scheduler.0.stop.cancelled() => return,
        }
        if !fire(&scheduler).await {
            return;
        }
    }
}

/// Fires all that is due. False when the node stops.
async fn fire(scheduler: &Scheduler) -> bool {
    loop {
        let now = scheduler.0.clock.now();
        let mut slots = Vec::new();
        while slots.len() < SLOTS
            && let Some(slot) = scheduler.try_slot()
        {
            slots.push(slot);
        }
        let fire = FireTimers {
            node: scheduler.0.node,
            now,
            limit: FIRE_BATCH,
            claim_limit: slots.len() as u32,
            versions: scheduler.takes(),
        };
        match scheduler.0.store.fire_timers(fire).await {
            Ok(fired) => {
                blocked(&fired.blocked);
                for (run, slot) in fired.claimed.into_iter().zip(slots) {
                    scheduler.dispatch(run, slot);
                }
                if fired.readied > 0 {
                    scheduler.nudge();
                }
                for until in fired.held {
                    scheduler.timer(until);
                }
                if fired.fired < FIRE_BATCH {
                    let mut due = scheduler.0.due.lock().unwrap_or_else(PoisonError::into_inner);
                    *due = due.split_off(&Timestamp::from_millis(now.as_millis() + 1));
                    return true;
                }
            }
            Err(error) => {
                drop(slots);
                if !trouble(scheduler, "fire timers", error).await {
                    return false;
                }
            }
        }
    }
}

/// Reads what is due in the next window, so that timers set by others or before a restart are known in time.
async fn reading_ahead(scheduler: Scheduler) {
    loop {
        // Before the question: while that is on its way, the clock may jump.
        let from = scheduler.0.clock.now();
        let until = from.after(WINDOW);
        match scheduler.0.store.upcoming_timers(until, DUE_MAX as u32).await {
            Ok(times) => {
                for time in times {
                    scheduler.timer(time);
                }
            }
            Err(error) => {
                if !trouble(&scheduler, "read timers", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = scheduler.0.clock.sleep_until(from.after(WINDOW_EVERY)) => {}
            () = scheduler.0.ahead.notified() => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Says that the node lives.
async fn beating(scheduler: Scheduler) {
    loop {
        match scheduler.beat().await {
            Ok(()) => {}
            Err(error) => {
                if !trouble(&scheduler, "say that the node lives", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(HEARTBEAT_EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Keeps up with what is deployed at other nodes, and loads it before its first run waits for that.
pub(super) async fn keeping_up(scheduler: Scheduler) {
    let mut told = scheduler.0.told.subscribe();
    loop {
        let generation = *told.borrow_and_update();
        if let Some(worker) = scheduler.worker() {
            let registry = &worker.registry;
            if generation > registry.snapshot().generation
                && let Err(error) = registry.refresh().await
            {
                tracing::warn!(%error, "what is active could not be read");
            } else {
                registry.preload().await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(KEEP_UP_EVERY) => {}
            _ = told.changed() => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Makes the runs of dead nodes ready.
async fn taking_over(scheduler: Scheduler) {
    loop {
        match scheduler
            .0
            .store
            .take_over(TAKEOVER_BATCH, scheduler.0.clock.now())
            .await
        {
            Ok(0) => {}
            Ok(count) => {
                metrics::counter!("dormouse_lease_takeovers_total").increment(u64::from(count));
                tracing::info!(count, "runs of nodes that ended are taken over");
                scheduler.nudge();
                continue;
            }
            Err(error) => {
                if !trouble(&scheduler, "take runs over", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(TAKEOVER_EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Cancels runs that their callers have given up, and those that these have invoked.
async fn cancelling_orphans(scheduler: Scheduler) {
    loop {
        let now = scheduler.0.clock.now();
        match scheduler.0.store.cancel_orphans(ORPHANS_BATCH, now).await {
            Ok(orphans) if orphans.taken == 0 => {}
            Ok(orphans) => {
                if !orphans.cancelled.is_empty() {
                    // What they leave of their throttles' lines may let others begin earlier.
                    scheduler.look_ahead();
                }
                scheduler.ended();
                for run in orphans.cancelled {
                    scheduler.cancelled(run);
                    scheduler.0.feed.run(run);
                    metrics::counter!("dormouse_runs_total", "status" => "Cancelled").increment(1);
                }
                continue;
            }
            Err(error) => {
                if !trouble(&scheduler, "cancel runs that were given up", error).await {
                    return;
                }
                continue;
            }
        }
        tokio::select! {
            () = scheduler.0.orphaned.notified() => {}
            () = tokio::time::sleep(ORPHANS_EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Tries again what nodes of other releases could not read: when this one starts, while there are others, and once more when
/// there are none.
async fn trying_again(scheduler: Scheduler) {
    let mut before = true;
    loop {
        let mixed = scheduler.0.mixed.load(Ordering::Relaxed);
        if before || mixed {
            let (release, now) = (scheduler.release(), scheduler.0.clock.now());
            match scheduler
                .0
                .store
                .retry_unreadable(release, TAKEOVER_BATCH, now)
                .await
            {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(
                        count,
                        "runs that nodes of another release could not read are tried again"
                    );
                    scheduler.nudge();
                    // Others may block them again at once; that is no reason to hurry.
                    if count == TAKEOVER_BATCH {
                        continue;
                    }
                }
                Err(error) => {
                    if !trouble(&scheduler, "try runs again", error).await {
                        return;
                    }
                    continue;
                }
            }
        }
        before = mixed;
        tokio::select! {
            () = tokio::time::sleep(TRY_AGAIN_EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

fn blocked(runs: &[dormouse_core::RunId]) {
    for run in runs {
        tracing::error!(run_id = %run, "blocked: claimed again and again without getting any further");
    }
}

/// What to do about the store's trouble: wait a moment and go on, or stop. False when the node stops.
pub(super) async fn trouble(scheduler: &Scheduler, what: &str, error: Error) -> bool {
    if matches!(error, Error::DeclaredDead | Error::Fatal(_)) {
        scheduler.fatal(format!("could not {what}: {error}"));
        return false;
    }
    tracing::warn!(%error, "could not {what}");
    tokio::select! {
        () = tokio::time::sleep(TROUBLE_PAUSE) => true,
        () = scheduler.0.stop.cancelled() => false,
    }
}
