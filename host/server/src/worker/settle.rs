//! What becomes of a run when a leg has ended.

use dormouse_core::replay::Divergence;
use dormouse_core::run::RunError;
use dormouse_core::{Failure, Retry, limit};
use dormouse_engine::{LegEnd, Stop, Trap};
use dormouse_store::execute::Then;
use dormouse_store::schedule::ClaimedRun;

use super::leg::{Ending, LegHost};

/// What the run's task does next.
pub(super) enum Next {
    /// Nothing: the run waits, has ended, or is somebody else's.
    Over,
    /// Another leg on the journal as it is in memory.
    Again,
    /// Another leg on the journal as it is in the store.
    Reload,
}

impl Ending {
    /// Why a run stays on its own version when a leg on another one has ended so before it had done anything.
    fn refusal(&self) -> Option<RunError> {
        match self {
            Ending::Diverged(divergence) => Some(diverged(divergence)),
            Ending::Fail(error) | Ending::Block(error) => Some(error.clone()),
            Ending::Suspended | Ending::Again | Ending::Reload | Ending::Gone => None,
        }
    }
}

/// Code and journal disagree, as a run's error.
fn diverged(divergence: &Divergence) -> RunError {
    let mut error = RunError::new("diverged", divergence.to_string());
    error.details = dormouse_core::Json::from_value(divergence).ok();
    error
}

impl LegHost {
    /// Records how a leg ended.
    pub(super) async fn settle(&mut self, end: LegEnd) -> Next {
        self.observe_replay();
        let settled = match end {
            LegEnd::Stopped => Err(Stop),
            LegEnd::Done(output) => self.returned(false, Then::Complete { output }).await,
            LegEnd::ContinueWith(continued) => self.returned(false, Then::ContinueWith { continued }).await,
            LegEnd::Failed(failure) => {
                self.returned(
                    true,
                    Then::Fail {
                        error: RunError::from(failure),
                    },
                )
                .await
            }
            LegEnd::Trapped(trap) => self.trapped(trap).await,
        };
        if settled.is_ok() {
            return Next::Over;
        }
        // Ending a leg may itself find a reason to end it otherwise, once: what cannot be recorded is blocked.
        for _ in 0..2 {
            let ending = self.ending.take();
            if let Some(why) = ending
                .as_ref()
                .filter(|_| self.is_trial())
                .and_then(Ending::refusal)
            {
                // What it has logged is of a leg that never was.
                self.logs.clear();
                self.log_lines = self.run.log_lines;
                match self.append_staying(Then::Continue, Some(why)).await {
                    Ok(_) => return Next::Reload,
                    Err(Stop) => continue,
                }
            }
            let then = match ending {
                Some(Ending::Suspended | Ending::Gone) => return Next::Over,
                Some(Ending::Again) => return Next::Again,
                Some(Ending::Reload) => return Next::Reload,
                Some(Ending::Fail(error)) => Then::Fail { error },
                Some(Ending::Block(error)) => Then::Block { error },
                Some(Ending::Diverged(divergence)) => {
                    metrics::counter!("dormouse_divergences_total").increment(1);
                    Then::Block {
                        error: diverged(&divergence),
                    }
                }
                None => {
                    tracing::error!("a leg ended without a reason");
                    return Next::Over;
                }
            };
            if self.append(then).await.is_ok() {
                return Next::Over;
            }
        }
        Next::Over
    }

    /// The guest has returned.
    async fn returned(&mut self, failed: bool, then: Then) -> Result<(), Stop> {
        self.replay
            .finish(failed)
            .map_err(|divergence| self.diverged(divergence))?;
        let goes_on = matches!(then, Then::ContinueWith { .. });
        self.append(then).await?;
        if goes_on {
            self.worker.scheduler.nudge();
        }
        Ok(())
    }

    /// The guest has trapped.
    async fn trapped(&mut self, trap: Trap) -> Result<(), Stop> {
        if trap.code == "cancelled" {
            return Err(self.end(Ending::Gone));
        }
        if trap.step.is_some() && self.body.is_some() {
            let retry = if trap.retryable_body() {
                Retry::Default
            } else {
                Retry::Never
            };
            let failure = Failure {
                retry,
                ..trap.into_failure()
            };
            // Recorded either way; the instance is gone, so the next leg tells the guest.
            self.record_body(Err(failure));
            self.flush().await?;
            return Err(self.end(Ending::Again));
        }
        if trap.host_dependent && self.run.host_traps + 1 < limit::HOST_TRAP_TRIES_MAX {
            tracing::warn!(
                step = trap.step,
                code = trap.code,
                message = trap.message,
                "a leg is tried again"
            );
            self.append(Then::Release { host_trap: true }).await?;
            self.worker.scheduler.nudge();
            return Ok(());
        }
        let error = RunError {
            code: trap.code.to_owned(),
            message: trap.message,
            step: trap.step,
            frames: trap.frames,
            details: None,
        };
        Err(self.fail(error))
    }

    /// The run as the store has it, if this node still owns it under the same lease.
    pub(super) async fn still_owned(&self) -> Option<ClaimedRun> {
        loop {
            match self.worker.store.run(self.run.id).await {
                Ok(Some(run))
                    if run.owner == Some(self.worker.scheduler.node()) && run.epoch == self.run.epoch =>
                {
                    return Some(ClaimedRun {
                        journal_base: run.journal_base,
                        journal_next: run.journal_next,
                        log_lines: self.log_lines,
                        journal_bytes: self.journal_bytes,
                        version: run.version,
                        swapped: run.swapped,
                        asked: run.asked,
                        ..self.run.clone()
                    });
                }
                Ok(_) => return None,
                Err(error) => {
                    if !self.worker.pause(&error).await {
                        return None;
                    }
                }
            }
        }
    }
}
