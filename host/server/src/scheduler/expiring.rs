//! Ending runs that have taken too long, and noticing those that events have cancelled.
//!
//! When a run may be over stands in the store, from its creation on. This loop sleeps until the next such time, and what is
//! over then is cancelled in the commit that finds it so; whoever dies in between is no loss. Runs that events cancel are
//! cancelled in the commits of the events: what is left to do is to end what drives them here. Absent on purpose: what is
//! over, which is the core's to say.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_core::{RunId, Timestamp};
use dormouse_store::Error;

use super::Scheduler;
use super::loops::trouble;
use crate::clock::Clock as _;

/// How many runs are looked at in one commit.
const BATCH: u32 = 500;
/// How often it is looked where other nodes create runs too: how late one may be ended whose node has died.
const EVERY: Duration = Duration::from_secs(5);

impl Scheduler {
    /// A run was created that may be over then.
    pub(crate) fn deadline(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return };
        if self.0.deadline.fetch_min(at.as_millis(), Ordering::AcqRel) > at.as_millis() {
            self.0.deadlines.notify_one();
        }
    }

    /// Runs were cancelled by nobody's command: whoever drives them here must end, and whoever looks is told.
    fn were_cancelled(&self, runs: Vec<RunId>) {
        if runs.is_empty() {
            return;
        }
        // What they leave of their throttles' lines may let others begin earlier; what they have invoked may be given up.
        self.look_ahead();
        self.orphaned();
        self.ended();
        for run in runs {
            metrics::counter!("dormouse_runs_total", "status" => "Cancelled").increment(1);
            self.cancelled(run);
            self.0.feed.run(run);
        }
    }
}

/// Passes on which runs events have cancelled.
pub(super) async fn hearing(scheduler: Scheduler) {
    loop {
        tokio::select! {
            runs = scheduler.0.store.cancelled() => scheduler.were_cancelled(runs),
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Ends runs that have taken too long.
pub(super) async fn expiring(scheduler: Scheduler) {
    loop {
        if let Err(error) = round(&scheduler).await {
            if !trouble(&scheduler, "end runs that have taken too long", error).await {
                return;
            }
            continue;
        }
        let next = Timestamp::from_millis(scheduler.0.deadline.load(Ordering::Acquire));
        let shared = scheduler.0.lease.is_shared();
        tokio::select! {
            () = scheduler.0.clock.sleep_until(next) => {}
            () = scheduler.0.deadlines.notified() => {}
            () = tokio::time::sleep(EVERY), if shared => {}
            () = scheduler.0.stop.cancelled() => return,
        }
    }
}

/// Ends what is over, and finds out when to look again.
async fn round(scheduler: &Scheduler) -> Result<(), Error> {
    loop {
        // Before the question: what comes meanwhile lowers it again.
        scheduler.0.deadline.store(i64::MAX, Ordering::Release);
        let next = scheduler.0.store.next_deadline().await?;
        let now = scheduler.0.clock.now();
        let Some(next) = next else { return Ok(()) };
        if next > now {
            scheduler.0.deadline.fetch_min(next.as_millis(), Ordering::AcqRel);
            return Ok(());
        }
        let expired = scheduler.0.store.expire(BATCH, now).await?;
        scheduler.were_cancelled(expired.cancelled);
    }
}
