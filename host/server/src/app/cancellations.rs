//! Cancelling many runs with one command, which any node works off.

use dormouse_core::condition::{Condition, Scope};
use dormouse_core::{FunctionName, Timestamp};
use dormouse_store::cancellation::{Cancellation, CancellationId, NewCancellation};

use super::{App, uncancelled};
use crate::problem::Problem;

impl App {
    /// Cancels all runs of a function that were created before this call: from `started_after` on, before
    /// `started_before`, and of events for which the condition, CEL over `event`, holds. Returns once the command is durable;
    /// it is done in the background, and goes on after a restart.
    ///
    /// # Errors
    /// `invalid-cancellation` for bounds or a condition that make no sense.
    pub async fn cancel_many(
        &self,
        function: FunctionName,
        started_after: Option<Timestamp>,
        started_before: Option<Timestamp>,
        condition: Option<String>,
    ) -> Result<Cancellation, Problem> {
        self.accepting()?;
        let invalid = |message: String| Problem::new(400, "invalid-cancellation", message);
        if let (Some(after), Some(before)) = (started_after, started_before)
            && after >= before
        {
            return Err(invalid(format!(
                "no run started after {after} and before {before}"
            )));
        }
        if let Some(source) = &condition {
            Condition::compile(source, Scope::Trigger).map_err(|error| invalid(error.to_string()))?;
        }
        let now = self.now();
        let new = NewCancellation {
            id: self.0.router.new_event_id(now),
            function,
            started_after,
            started_before,
            condition,
            now,
        };
        let app = self.clone();
        uncancelled(async move {
            let stored = app.0.store.put_cancellation(new).await?;
            app.0.scheduler.cancelling();
            tracing::info!(id = %stored.id, function = %stored.function, "runs are being cancelled");
            Ok(stored)
        })
        .await
    }

    /// Ends a cancellation: runs that it has not cancelled yet, it does not.
    ///
    /// # Errors
    /// `not-found`.
    pub async fn delete_cancellation(&self, id: CancellationId) -> Result<(), Problem> {
        let app = self.clone();
        uncancelled(async move {
            match app.0.store.delete_cancellation(id).await? {
                true => Ok(()),
                false => Err(Problem::not_found("cancellation", id)),
            }
        })
        .await
    }
}
