//! What other nodes do to what this one cares about: runs it drives that are cancelled or taken over, runs that its
//! clients follow and others drive, work that others made ready.
//!
//! The store's hints say when to look at once; looking again after a while is what makes it sure. Nothing of this runs
//! when there can be no other node. Absent on purpose: finding out that a node is dead (the store's, on its own clock).

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dormouse_core::RunId;
use dormouse_store::schedule::Glance;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::loops::trouble;
use super::{Scheduler, loops};

/// How often runs that are driven here are looked at: what a cancel at another node may take to be noticed.
const DRIVEN_EVERY: Duration = Duration::from_millis(750);
/// How often runs that are followed here are looked at.
const FOLLOWED_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked whether anything is followed: costs no query.
const IDLE_EVERY: Duration = Duration::from_millis(100);
/// At most so many looks in answer to hints: `1 / HINT_EVERY` a second.
const HINT_EVERY: Duration = Duration::from_millis(25);
/// Runs in one look.
const GLANCE_MAX: usize = 1_000;

pub(super) fn all(scheduler: &Scheduler) -> Vec<loops::Task> {
    if !scheduler.0.lease.is_shared() {
        return Vec::new();
    }
    vec![
        Box::pin(loops::keeping_up(scheduler.clone())),
        Box::pin(hinted(scheduler.clone())),
        Box::pin(noticing(scheduler.clone())),
        Box::pin(following(scheduler.clone())),
    ]
}

/// Passes hints on to whoever waits for work or shows lists.
async fn hinted(scheduler: Scheduler) {
    let mut hints = scheduler.0.store.hints();
    loop {
        tokio::select! {
            hint = hints.changed() => if hint.is_err() { return },
            () = scheduler.0.stop.cancelled() => return,
        }
        scheduler.nudge();
        scheduler.0.feed.elsewhere();
        sleep(HINT_EVERY).await;
    }
}

/// Ends what this node drives and no longer owns.
async fn noticing(scheduler: Scheduler) {
    loop {
        tokio::select! {
            () = sleep(DRIVEN_EVERY) => {}
            () = scheduler.0.stop.cancelled() => return,
        }
        let driven = scheduler.0.table.leases();
        for chunk in driven.chunks(GLANCE_MAX) {
            let ids: Vec<RunId> = chunk.iter().map(|(run, _)| *run).collect();
            let glances = match scheduler.0.store.glance(&ids).await {
                Ok(glances) => glances,
                Err(error) => {
                    if !trouble(&scheduler, "look at runs", error).await {
                        return;
                    }
                    break;
                }
            };
            let seen: HashMap<RunId, Glance> =
                glances.into_iter().map(|glance| (glance.id, glance)).collect();
            for (run, epoch) in chunk {
                // A run that is not there was pruned: nothing of it can be written any more.
                let gone = seen
                    .get(run)
                    .is_none_or(|glance| is_lost(glance, *epoch, scheduler.0.node));
                if gone {
                    scheduler.0.table.cancel_lease(*run, *epoch);
                }
            }
        }
    }
}

/// Whether a run was ended, or leased anew to somebody else, since it was leased to this node under `epoch`.
fn is_lost(glance: &Glance, epoch: i64, node: dormouse_store::schedule::Incarnation) -> bool {
    glance.state.status.is_terminal() || (glance.epoch > epoch && glance.owner != Some(node))
}

/// Tells followers about runs that other nodes move.
async fn following(scheduler: Scheduler) {
    let mut hints = scheduler.0.store.hints();
    let mut known: HashMap<RunId, Glance> = HashMap::new();
    loop {
        let followed = scheduler.0.feed.followed();
        known.retain(|run, _| followed.contains(run));
        if followed.is_empty() {
            tokio::select! {
                () = sleep(IDLE_EVERY) => {}
                () = scheduler.0.stop.cancelled() => return,
            }
            continue;
        }
        for chunk in followed.chunks(GLANCE_MAX) {
            match scheduler.0.store.glance(chunk).await {
                Ok(glances) => {
                    for glance in glances {
                        let id = glance.id;
                        if known.insert(id, glance).is_none_or(|before| before != glance) {
                            scheduler.0.feed.run(id);
                        }
                    }
                }
                Err(error) => {
                    if !trouble(&scheduler, "follow runs", error).await {
                        return;
                    }
                }
            }
        }
        if !next_look(&scheduler, &mut hints).await {
            return;
        }
    }
}

/// Waits for the next look at what is followed: a hint, or a while. False when the node stops.
async fn next_look(scheduler: &Scheduler, hints: &mut watch::Receiver<u64>) -> bool {
    let looked = Instant::now();
    tokio::select! {
        hint = hints.changed() => {
            if hint.is_err() {
                return false;
            }
            sleep_until(looked + HINT_EVERY).await;
        }
        () = sleep(FOLLOWED_EVERY) => {}
        () = scheduler.0.stop.cancelled() => return false,
    }
    true
}

impl Scheduler {
    /// Makes sure that nobody has taken this node's runs over, before something begins that the store cannot fence.
    /// False when the node stops, which it must when it was declared dead.
    pub(crate) async fn assure_lease(&self) -> bool {
        while !self.0.lease.holds() {
            tracing::warn!(
                "this node has not been able to say that it lives for a while: nothing begins before it has"
            );
            if let Err(error) = self.beat().await
                && !trouble(self, "say that the node lives", error).await
            {
                return false;
            }
        }
        true
    }

    /// Says that the node lives, and takes in what the store answers.
    pub(super) async fn beat(&self) -> Result<(), dormouse_store::Error> {
        let sent = super::lease::awake();
        let asked = self.0.clock.ask();
        let standing = self.0.store.heartbeat(self.0.node, asked.given()).await?;
        self.0.lease.prove(sent);
        self.0.clock.correct(asked, standing.now);
        self.0.mixed.store(standing.mixed, Ordering::Relaxed);
        self.0.told.send_replace(standing.generation);
        if standing.draining {
            let asked = self
                .0
                .asked_to_drain
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(asked) = asked {
                tracing::info!("this node was asked to drain");
                // The receiver is the server's main loop, which is there as long as the process is.
                let _ = asked.send(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dormouse_core::Timestamp;
    use dormouse_core::run::{Event, State};
    use dormouse_store::schedule::Incarnation;

    use super::*;

    const ME: Incarnation = Incarnation([1; 16]);
    const OTHER: Incarnation = Incarnation([2; 16]);

    fn glance(state: State, owner: Option<Incarnation>, epoch: i64) -> Glance {
        Glance {
            id: RunId::from_parts(Timestamp::from_millis(1), [0; 10]),
            state,
            owner,
            epoch,
            journal_next: 0,
            log_lines: 0,
        }
    }

    #[test]
    fn a_run_is_lost_when_it_has_ended_or_another_node_has_it() {
        let executing = State::NEW.on(Event::Claim).expect("a new run can be claimed");
        let cancelled = executing
            .on(Event::Cancel)
            .expect("an executing run can be cancelled");
        assert!(!is_lost(&glance(executing, Some(ME), 3), 3, ME));
        // Leased here again since the epoch was read.
        assert!(!is_lost(&glance(executing, Some(ME), 4), 3, ME));
        // Suspended by its own leg, which is about to know.
        assert!(!is_lost(&glance(executing, None, 3), 3, ME));
        assert!(is_lost(&glance(executing, Some(OTHER), 4), 3, ME));
        assert!(is_lost(&glance(State::NEW, None, 4), 3, ME));
        assert!(is_lost(&glance(cancelled, None, 4), 3, ME));
    }
}
