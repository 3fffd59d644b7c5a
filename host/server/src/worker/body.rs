//! Bodies: opening one once everything before it is durable, and recording what came of it.

use std::time::Duration;

use dormouse_core::replay::Attempt;
use dormouse_core::retry::RetryPolicy;
use dormouse_core::step::StepOptions;
use dormouse_core::{Failure, Outcome, Retry, Timestamp};
use dormouse_engine::{AttemptTicket, Stop};
use dormouse_store::execute::Then;

use super::leg::{Ending, LegHost, idempotency_key};

/// A body that the guest is executing.
pub(super) struct OpenBody {
    policy: RetryPolicy,
    started_at: Timestamp,
}

impl LegHost {
    /// Opens a body: first makes everything before it durable.
    pub(super) async fn open_body(
        &mut self,
        attempt: Attempt,
        options: StepOptions,
    ) -> Result<AttemptTicket, Stop> {
        self.check_mail()?;
        if self.worker.scheduler.is_draining() {
            // A body may take long; another node, or this one after its restart, begins it.
            self.append(Then::Release { host_trap: false }).await?;
            return Err(self.end(Ending::Gone));
        }
        self.flush().await?;
        if !self.worker.scheduler.assure_lease().await {
            return Err(self.end(Ending::Gone));
        }
        // The lease was proven anew: another node may have had the run in between.
        self.check_mail()?;
        let function = &self.program.function;
        let timeout = options
            .timeout()
            .or(function.timeout_ms.map(Duration::from_millis))
            .unwrap_or(Duration::from_millis(self.program.grants.limits.body_ms));
        let started_at = self.time();
        self.body = Some(OpenBody {
            policy: options.policy(function.retry_policy()),
            started_at,
        });
        if attempt.number > 1 {
            metrics::counter!("dormouse_retries_total").increment(1);
        }
        Ok(AttemptTicket {
            idempotency_key: idempotency_key(self.run.id, &attempt.name, attempt.occurrence),
            step: attempt.name,
            number: attempt.number,
            deadline: started_at.after(timeout),
            started_at,
        })
    }

    /// Records a body's outcome. Ends the leg when the body will be tried again, or when the instance is no longer
    /// what a replay would give.
    pub(super) async fn close_body(
        &mut self,
        outcome: Outcome,
        state_changed: bool,
    ) -> Result<Result<(), Failure>, Stop> {
        if !self.record_body(outcome) {
            self.flush().await?;
            return Err(self.end(Ending::Again));
        }
        let failed = match self.replay.entries().last().map(|entry| &entry.event) {
            Some(dormouse_core::journal::Event::Step {
                outcome: Err(failure),
                ..
            }) => Some(failure.clone()),
            _ => None,
        };
        if state_changed {
            self.flush().await?;
            return Err(self.end(Ending::Again));
        }
        if self.worker.verify.bodies {
            self.flush().await?;
            self.verify().await?;
        }
        Ok(failed.map_or(Ok(()), Err))
    }

    /// Appends what came of the open body. False when it will be tried again.
    pub(super) fn record_body(&mut self, outcome: Outcome) -> bool {
        let (Some(body), Some(attempt)) = (self.body.take(), self.replay.attempt().cloned()) else {
            debug_assert!(false, "the engine finishes only what it began");
            return true;
        };
        let at = self.time();
        metrics::histogram!("dormouse_step_seconds").record(at.since(body.started_at).as_secs_f64());
        let failure = match outcome {
            Ok(output) => {
                self.replay.complete(Ok(output), body.started_at, at);
                return true;
            }
            Err(failure) => failure,
        };
        tracing::debug!(
            step = attempt.name,
            attempt = attempt.number,
            code = failure.code,
            error = failure.message,
            "an attempt has failed"
        );
        match body
            .policy
            .next(attempt.number, &failure, &self.run.seed, attempt.position)
        {
            Some(wait) => {
                self.replay.defer(failure, body.started_at, at.after(wait), at);
                false
            }
            None => {
                // What the guest is handed is final: whether to retry was decided here.
                let failure = Failure {
                    retry: Retry::Default,
                    ..failure
                };
                self.replay.complete(Err(failure), body.started_at, at);
                true
            }
        }
    }
}
