//! Operations that the host performs while the run executes: SQL, and requests (`fetching`).
//!
//! Performing begins only once the operation's entry is durable. Whoever performs may be killed and another begins
//! anew: each kind makes its effect exactly once by its own means.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dormouse_core::journal::OperationKind;
use dormouse_core::{Failure, Json, Outcome, Seq, Timestamp, limit};
use dormouse_engine::Stop;
use dormouse_store::execute::Then;
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument as _;

use super::fetching::Trying;
use super::leg::{Ending, LegHost};
use crate::clock::Clock;
use crate::sql::{Databases, OperationKey};

/// What the host performs for a leg, and what has come of it.
#[derive(Default)]
pub(super) struct Performing {
    tasks: JoinSet<(Seq, Outcome)>,
    handles: Vec<(Seq, AbortHandle)>,
    begun: HashSet<Seq>,
    arrived: Vec<(Timestamp, Seq, Outcome)>,
    /// Tries of requests that are under way or have ended and are not recorded.
    pub(super) trying: HashMap<Seq, Trying>,
}

impl Performing {
    /// Whether something is on its way. What has arrived and is not waited for is no reason to stay: it is found again.
    pub(super) fn is_under_way(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whether an operation is being performed, or was.
    pub(super) fn is_begun(&self, operation: Seq) -> bool {
        self.begun.contains(&operation)
    }

    pub(super) fn arrived(&self) -> impl Iterator<Item = (Timestamp, Seq)> {
        self.arrived.iter().map(|(at, operation, _)| (*at, *operation))
    }

    pub(super) fn has_arrived(&self, operations: &[Seq]) -> bool {
        self.arrived
            .iter()
            .any(|(_, operation, _)| operations.contains(operation))
    }

    pub(super) fn take(&mut self, operation: Seq) -> Option<Outcome> {
        let index = self
            .arrived
            .iter()
            .position(|(_, arrived, _)| *arrived == operation)?;
        Some(self.arrived.swap_remove(index).2)
    }

    /// Waits for the next outcome. Never returns when nothing is being performed.
    pub(super) async fn next(&mut self, clock: &dyn Clock) {
        match self.tasks.join_next().await {
            Some(Ok((operation, outcome))) => self.arrived.push((clock.now(), operation, outcome)),
            // An aborted one has no outcome.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    pub(super) fn abort(&mut self, operation: Seq) {
        self.trying.remove(&operation);
        for (_, handle) in self
            .handles
            .iter()
            .filter(|(performed, _)| *performed == operation)
        {
            handle.abort();
        }
        self.arrived.retain(|(_, arrived, _)| *arrived != operation);
    }

    /// Performs an operation, beside the leg.
    pub(super) fn spawn(
        &mut self,
        operation: Seq,
        performing: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let handle = self
            .tasks
            .spawn(async move { (operation, performing.await) }.in_current_span());
        self.handles.push((operation, handle));
        self.begun.insert(operation);
    }

    /// Failures of tries that have ended.
    pub(super) fn failures(&self) -> Vec<(Seq, Failure)> {
        let failed = self.arrived.iter().filter_map(|(_, operation, outcome)| {
            let failure = outcome.as_ref().err()?;
            self.trying
                .contains_key(operation)
                .then(|| (*operation, failure.clone()))
        });
        failed.collect()
    }

    /// A try has ended and another follows.
    pub(super) fn forget(&mut self, operation: Seq) {
        self.arrived.retain(|(_, arrived, _)| *arrived != operation);
        self.begun.remove(&operation);
    }

    /// The last try has ended: its outcome is this.
    pub(super) fn conclude(&mut self, operation: Seq, outcome: Outcome) {
        for (_, _, arrived) in self.arrived.iter_mut().filter(|(_, of, _)| *of == operation) {
            *arrived = outcome.clone();
        }
    }

    pub(super) fn answer(&mut self, at: Timestamp, operation: Seq, outcome: Outcome) {
        self.begun.insert(operation);
        self.arrived.push((at, operation, outcome));
    }
}

/// What of the journal an operation is performed from.
struct ToPerform {
    operation: Seq,
    kind: OperationKind,
    input: Json,
    started_at: Timestamp,
    name: String,
    tries: u32,
}

impl LegHost {
    /// Begins to perform what is open and not yet being performed. Its entries are made durable first.
    pub(super) async fn perform_open(&mut self) -> Result<(), Stop> {
        let now = self.time();
        let to_perform: Vec<ToPerform> = self
            .replay
            .open()
            .filter(|open| open.due_at.is_none() && !self.performing.begun.contains(&open.operation))
            .filter(|open| open.retry_at.is_none_or(|retry_at| retry_at <= now))
            .filter_map(|open| {
                Some(ToPerform {
                    operation: open.operation,
                    kind: open.kind?,
                    input: open.input?.clone(),
                    started_at: open.started_at,
                    name: open.name.to_owned(),
                    tries: open.tries,
                })
            })
            .collect();
        // What the next commit carries, and what is only refused, needs none of its own before it.
        let any = |kind| to_perform.iter().any(|to_perform| to_perform.kind == kind);
        if any(OperationKind::Fetch) && self.worker.scheduler.is_draining() {
            // A request may take long; another node, or this one after its restart, begins it.
            self.append(Then::Release { host_trap: false }).await?;
            return Err(self.end(Ending::Gone));
        }
        if any(OperationKind::Sql) || any(OperationKind::Fetch) {
            self.flush().await?;
        }
        for ToPerform {
            operation,
            kind,
            input,
            started_at,
            name,
            tries,
        } in to_perform
        {
            match kind {
                OperationKind::Sql => self.perform_sql(operation, &name, &input),
                OperationKind::Sleep | OperationKind::SleepUntil => {
                    let days = limit::SLEEP_MS_MAX / 86_400_000;
                    let failure =
                        Failure::terminal("invalid-duration", format!("a sleep is at most {days} days long"));
                    self.performing.answer(now, operation, Err(failure));
                }
                OperationKind::SendEvents => {
                    let outcome = self.sent(operation, &input, started_at);
                    self.performing.answer(now, operation, outcome);
                }
                OperationKind::WaitForEvent
                | OperationKind::WaitForSignal
                | OperationKind::SendSignal
                | OperationKind::Invoke => {
                    match self.refused_wait(kind, operation, &input, started_at) {
                        Some(failure) => self.performing.answer(now, operation, Err(failure)),
                        // Others bring it.
                        None => {
                            self.performing.begun.insert(operation);
                        }
                    }
                }
                OperationKind::Fetch => self.perform_fetch(operation, &name, tries, &input),
            }
        }
        Ok(())
    }

    fn perform_sql(&mut self, operation: Seq, name: &str, input: &Json) {
        /// A statement's time when the call does not say.
        const TIMEOUT: Duration = Duration::from_secs(30);
        #[derive(serde::Deserialize)]
        struct Input {
            database: String,
            statements: Json,
        }
        #[derive(serde::Deserialize, Default)]
        #[serde(deny_unknown_fields)]
        struct Options {
            timeout_ms: Option<u64>,
        }
        let now = self.time();
        let refuse = |code, message| Err(Failure::terminal(code, message));
        let input: Input = match input.read() {
            Ok(input) => input,
            Err(error) => {
                return self.performing.answer(
                    now,
                    operation,
                    refuse("invalid-sql-input", error.to_string()),
                );
            }
        };
        let options = self
            .options
            .get(&operation)
            .map_or(Ok(Options::default()), Json::read);
        let options = match options {
            Ok(options) => options,
            Err(error) => {
                return self
                    .performing
                    .answer(now, operation, refuse("invalid-options", error.to_string()));
            }
        };
        let module = self.run.function.module();
        let Some(database) = self.program.grants.databases.get(&input.database).cloned() else {
            let name = &input.database;
            let message = format!(
                "module \"{module}\" is not granted a database \"{name}\": name it in the server's configuration file, \
                 [modules.{module}] databases.{name} = {{ url = \"sqlite:PATH\" }}, and send SIGHUP; runs that start \
                 afterwards have it"
            );
            return self
                .performing
                .answer(now, operation, refuse("grant-missing", message));
        };
        let timeout = options.timeout_ms.map_or(TIMEOUT, Duration::from_millis);
        let key = OperationKey {
            run: self.run.id,
            operation,
        };
        let step = name.to_owned();
        let databases = self.worker.databases.clone();
        let scheduler = self.worker.scheduler.clone();
        self.performing.spawn(operation, async move {
            if !scheduler.assure_lease().await {
                // The node stops, and with it the leg that would take an answer.
                std::future::pending::<()>().await;
            }
            perform_until_available(&databases, &database, key, &input.statements, timeout, &step).await
        });
    }
}

/// Asks an application database until it can answer: a locked or full one is waited out.
async fn perform_until_available(
    databases: &Databases,
    database: &crate::config::Database,
    key: OperationKey,
    statements: &Json,
    timeout: Duration,
    step: &str,
) -> Outcome {
    const PAUSE_MIN: Duration = Duration::from_millis(50);
    const PAUSE_MAX: Duration = Duration::from_secs(5);
    let mut pause = PAUSE_MIN;
    loop {
        match databases.perform(database, key, statements, timeout).await {
            Ok(outcome) => return outcome,
            Err(unavailable) => {
                tracing::warn!(step, %unavailable, "an application database is not available");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
