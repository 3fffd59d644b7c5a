//! Waiting: handing out what is there, earliest first; performing what the host performs; and leaving memory when
//! there is nothing to do but wait.

use std::time::Duration;

use dormouse_core::journal::OperationKind;
use dormouse_core::replay::Awaited;
use dormouse_core::run::Wait;
use dormouse_core::{Json, Outcome, RunId, Seq, Timestamp, invoke};
use dormouse_engine::Stop;
use dormouse_store::execute::{Appended, Then};

use super::leg::{Ending, LegHost};
use super::waiting::{self, is_external};
use crate::scheduler::Mail;

/// How often a run that is performing something looks for what others bring it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl LegHost {
    /// The guest waits for one of some operations.
    pub(super) async fn wait_for(&mut self, operations: &[Seq]) -> Result<u32, Stop> {
        loop {
            match self
                .replay
                .await_any(operations)
                .map_err(|divergence| self.diverged(divergence))?
            {
                Awaited::Ready(index) => return Ok(index),
                Awaited::Pending => {}
            }
            self.observe_replay();
            self.repeats_lines = false;
            self.check_mail()?;
            self.settle_tries();
            self.look_before_it_is_late(operations).await?;
            if let Some((operation, outcome)) = self.earliest(operations) {
                let at = self.time();
                self.replay.deliver(operation, outcome, at);
                continue;
            }
            self.perform_open().await?;
            if self.performing.has_arrived(operations) {
                continue;
            }
            if self.performing.is_under_way() {
                self.wait_while_performing(operations).await?;
            } else {
                self.suspend(operations).await?;
            }
        }
    }

    /// When a time has come for a run that also awaits what others bring, that may have come earlier: a run that was
    /// paused, or whose node was down, finds both at once.
    async fn look_before_it_is_late(&mut self, operations: &[Seq]) -> Result<(), Stop> {
        let now = self.worker.clock.now();
        let due = |(due_at, _): (Timestamp, bool)| due_at <= now;
        if !self.awaits_others(operations) || !self.soonest(operations).is_some_and(due) {
            return Ok(());
        }
        loop {
            match self.worker.store.completions(self.run.id).await {
                Ok(completions) => {
                    self.completions = completions;
                    return Ok(());
                }
                Err(error) => {
                    if !self.worker.pause(&error).await {
                        return Err(self.end(Ending::Gone));
                    }
                }
            }
        }
    }

    /// Of the awaited operations that have an outcome, the one that had it first.
    fn earliest(&mut self, operations: &[Seq]) -> Option<(Seq, Outcome)> {
        let now = self.worker.clock.now();
        let due = self
            .replay
            .open()
            .filter_map(|open| open.due_at.map(|due_at| (due_at, open.operation)))
            .filter(|(due_at, _)| *due_at <= now);
        let stored = self
            .completions
            .iter()
            .map(|completion| (completion.at, completion.operation));
        let arrived = self.performing.arrived();
        let (at, operation) = due
            .chain(stored)
            .chain(arrived)
            .filter(|(_, operation)| operations.contains(operation) && self.replay.is_open(*operation))
            .min()?;
        // One that came after its operation's own time has come too late.
        let stored = self
            .completions
            .iter()
            .position(|completion| completion.operation == operation && completion.at <= at);
        let outcome = match stored {
            Some(index) => self.completions.swap_remove(index).outcome,
            None => self.performing.take(operation).unwrap_or_else(|| {
                metrics::histogram!("dormouse_timer_lag_seconds").record(now.since(at).as_secs_f64());
                match self.invoked(operation) {
                    Some(child) => Err(invoke::timed_out(child)),
                    None => Ok(Json::null()),
                }
            }),
        };
        Some((operation, outcome))
    }

    /// The child of an open invoke.
    fn invoked(&self, operation: Seq) -> Option<RunId> {
        let open = self.replay.open().find(|open| open.operation == operation)?;
        (open.kind == Some(OperationKind::Invoke))
            .then(|| invoke::child(self.run.id, operation, open.started_at))
    }

    /// Waits for what the host performs, or for a time, whichever is first. The run keeps its slot.
    async fn wait_while_performing(&mut self, operations: &[Seq]) -> Result<(), Stop> {
        let due = self
            .soonest(operations)
            .map_or(Timestamp::MAX, |(due_at, _)| due_at);
        let clock = std::sync::Arc::clone(&self.worker.clock);
        let external = self.awaits_others(operations);
        tokio::select! {
            () = self.performing.next(&*clock) => Ok(()),
            // The run has its lease, so nobody is told when something comes for it: look.
            () = tokio::time::sleep(LOOK_EVERY), if external => {
                if let Ok(completions) = self.worker.store.completions(self.run.id).await {
                    self.completions = completions;
                }
                Ok(())
            }
            () = clock.sleep_until(due) => Ok(()),
            mail = self.mailbox.receiver.recv() => match mail {
                Some(Mail::Cancelled) | None => Err(self.end(Ending::Gone)),
                Some(Mail::Claimed(..) | Mail::Drain) => Ok(()),
            },
        }
    }

    /// Of the awaited operations, the one that comes due by itself soonest, and whether it is a back-off.
    fn soonest(&self, operations: &[Seq]) -> Option<(Timestamp, bool)> {
        self.replay
            .open()
            .filter(|open| operations.contains(&open.operation))
            .filter(|open| open.retry_at.is_none() || !self.performing.is_begun(open.operation))
            .filter_map(|open| {
                let backs_off = open.kind.is_none() || open.due_at.is_none();
                Some((open.due_at.or(open.retry_at)?, backs_off))
            })
            .min()
    }

    /// Commits that the run waits and leaves memory, or stays parked for a while. Returns when there may be something
    /// to deliver.
    async fn suspend(&mut self, operations: &[Seq]) -> Result<(), Stop> {
        if self.worker.verify.samples(&self.run.id, self.replay.next_seq()) {
            self.flush().await?;
            self.verify().await?;
        }
        let soonest = self.soonest(operations);
        let (wait, reason) = self.describe_wait(operations, soonest);
        let wake_at = soonest.map(|(due_at, _)| due_at);
        let known = self
            .completions
            .iter()
            .map(|completion| completion.operation)
            .collect();
        match self
            .append(Then::Suspend {
                wait,
                reason,
                wake_at,
                known,
            })
            .await?
        {
            Appended::Completions(completions) => {
                self.completions = completions;
                return Ok(());
            }
            Appended::Done | Appended::Paused | Appended::Lost(_) => {}
        }
        if let Some(wake_at) = wake_at {
            self.worker.scheduler.timer(wake_at);
        }
        self.slot = None;
        self.park(wake_at).await
    }

    /// Keeps the instance for a while, without a lease and without a slot.
    async fn park(&mut self, wake_at: Option<Timestamp>) -> Result<(), Stop> {
        let worker = self.worker.clone();
        let idle = worker.parking.idle();
        let soon = wake_at.is_none_or(|wake_at| wake_at.since(worker.clock.now()) <= idle);
        let place = if soon && !worker.scheduler.is_draining() {
            worker.parking.place(&worker.engine)
        } else {
            None
        };
        let Some(_place) = place else {
            return Err(self.end(Ending::Suspended));
        };
        /// A wake-up may be late; an instance that is due any moment is worth keeping that much longer.
        const LATE: Duration = Duration::from_secs(1);
        let mail = tokio::time::timeout(idle + LATE, self.mailbox.receiver.recv()).await;
        match mail {
            Ok(Some(Mail::Claimed(run, slot))) => {
                let stands_here = run.journal_next == self.replay.next_seq() && self.is_still_right(&run);
                self.run = *run;
                self.slot = Some(slot);
                if stands_here {
                    Ok(())
                } else {
                    Err(self.end(Ending::Reload))
                }
            }
            Ok(Some(Mail::Cancelled | Mail::Drain) | None) | Err(_) => Err(self.end(Ending::Suspended)),
        }
    }

    /// Whether something is awaited that others bring.
    fn awaits_others(&self, operations: &[Seq]) -> bool {
        self.replay
            .open()
            .any(|open| operations.contains(&open.operation) && open.kind.is_some_and(is_external))
    }

    fn describe_wait(&self, operations: &[Seq], soonest: Option<(Timestamp, bool)>) -> (Wait, String) {
        if self.awaits_others(operations) {
            let waited: Vec<String> = self
                .replay
                .open()
                .filter(|open| operations.contains(&open.operation) && open.kind.is_some_and(is_external))
                .map(|open| waiting::describe(&open))
                .take(3)
                .collect();
            let until = soonest.map_or(String::new(), |(due_at, _)| format!(", until {due_at}"));
            return (Wait::External, format!("waits for {}{until}", waited.join(", ")));
        }
        let names: Vec<String> = self
            .replay
            .open()
            .filter(|open| operations.contains(&open.operation))
            .map(|open| format!("\"{}\"", open.name))
            .take(3)
            .collect();
        let names = names.join(", ");
        match soonest {
            Some((due_at, true)) => (
                Wait::BackOff,
                format!("the next attempt of {names} is due at {due_at}"),
            ),
            Some((due_at, false)) => (Wait::Sleep, format!("{names} until {due_at}")),
            None => (Wait::External, format!("waits for {names}")),
        }
    }
}
