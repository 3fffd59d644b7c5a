//! What the engine asks of whoever drives a run: the seam between a guest's calls and the journal.
//!
//! The engine knows instances, limits and bindings; it knows no journal and no store. The worker implements
//! [`RunHost`] and decides what each call is answered with.

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_core::journal::OperationKind;
use dormouse_core::{Failure, Json, Outcome, Seq, Timestamp};

/// The host has ended the leg in the middle of a call: suspended, diverged, cancelled, lost, … It knows which; to the
/// engine it only means that the instance is dropped without the guest noticing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop;

/// The answer to `begin-run`.
#[derive(Debug, Clone, PartialEq)]
pub enum RunStart {
    /// The step has its outcome.
    Recorded(Outcome),
    /// Run the body now. Everything before it is durable.
    Execute(AttemptTicket),
    /// The last attempt failed; this operation comes due when the next may begin.
    Deferred(Seq),
}

/// What a body may know of its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptTicket {
    /// The step's name, for errors and log lines.
    pub step: String,
    /// From 1.
    pub number: u32,
    /// When the engine ends the body with `step-timeout`. From the host's clock; the engine measures the time left
    /// from `started_at` on a clock that cannot be set.
    pub deadline: Timestamp,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// The same over all attempts.
    pub idempotency_key: String,
}

/// An operation a guest starts.
#[derive(Debug, Clone, PartialEq)]
pub struct StartCall {
    /// What to perform.
    pub kind: OperationKind,
    /// The step's name.
    pub name: String,
    /// What is needed to perform it, as JSON: `{"duration_ms"}`, `{"time_ms"}`, `{"database","statements"}`,
    /// `{"event"}`, `{"signal"}`, `{"function","data"}`, `{"events"}`, `{"signal","data"}`, `{"method","url","headers","body"}` (base 64); the
    /// last six with the call's `options`, when it has any ([`OperationKind::options_are_input`]).
    pub input: Json,
    /// The call's options, unread, where they are not in the input.
    pub options: Option<Json>,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The finest.
    Trace,
    /// For developers.
    Debug,
    /// For operators.
    Info,
    /// Something to look at.
    Warn,
    /// Something has failed.
    Error,
}

/// What drives a run. One value per leg; the engine calls it from one task, never at the same time twice.
///
/// Order matters: each call is one event in the total order that the journal records.
#[async_trait]
pub trait RunHost: Send + 'static {
    /// A body is about to begin. Returns `Execute` only once everything the body depends on is durable.
    async fn begin_run(&mut self, name: String, options: Option<Json>) -> Result<RunStart, Stop>;

    /// The open body has an outcome. `state_changed`: the instance is no longer what a replay would give.
    /// `Ok(Err(failure))`: recorded, but as this failure.
    async fn finish_run(
        &mut self,
        outcome: Outcome,
        state_changed: bool,
    ) -> Result<Result<(), Failure>, Stop>;

    /// An operation is started. Returns its number.
    async fn start(&mut self, call: StartCall) -> Result<Seq, Stop>;

    /// Waits for one of the operations (never empty, none cancelled). Returns its index.
    async fn await_any(&mut self, operations: &[Seq]) -> Result<u32, Stop>;

    /// The outcome of an operation, once delivered.
    fn outcome(&mut self, operation: Seq) -> Option<Outcome>;

    /// The bytes that came with a delivered outcome: the response body of a fetch.
    fn body(&mut self, operation: Seq) -> Option<Bytes> {
        let _ = operation;
        None
    }

    /// The guest has given an operation up (by `cancel` or by dropping it before its delivery; at most once each).
    async fn cancel(&mut self, operation: Seq) -> Result<(), Stop>;

    /// The time as the guest sees it outside bodies: of the last recorded answer. Never decreasing.
    fn now(&self) -> Timestamp;

    /// A log line; `fields` is a JSON object. `in_body`: written by a body. The host drops what a replay repeats.
    fn log(&mut self, level: LogLevel, message: String, fields: Option<Json>, in_body: bool);

    /// The word that stands for a secret.
    ///
    /// # Errors
    /// As the operator's grants say.
    fn placeholder(&self, name: &str) -> Result<String, Failure>;

    /// A configuration value of the run's revision.
    fn config(&self, key: &str) -> Option<Json>;

    /// The leg has ended by a [`Stop`] of this host; `frames` finds out where in the guest's own code that was, innermost
    /// first, which costs more than most legs that end want to know.
    fn stopped_at(&mut self, frames: &dyn Fn() -> Vec<String>) {
        let _ = frames;
    }
}
