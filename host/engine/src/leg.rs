//! One leg: what it is given, and how it ends.

use std::time::Duration;

use dormouse_core::limit::ModuleLimits;
use dormouse_core::{Digest, Failure, FunctionName, Json, RunId};

use crate::bindings::exports::dormouse::function::functions::Completion;
use crate::bindings::types;
use crate::guest_json::{failure, payload};
use crate::interrupt::Interrupt;
use crate::module::Module;
use crate::policy::HttpPolicy;
use crate::trap::Trap;

/// One instantiation that drives a run forward.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The version to run.
    pub module: Module,
    /// The function's id within the module.
    pub function: String,
    /// `{"event", "events", "continued"}`.
    pub input: Json,
    /// What the run may know of itself.
    pub context: RunContext,
    /// Of everything random outside bodies. Secret; stored with the run.
    pub seed: [u8; 32],
    /// What it may use.
    pub limits: ModuleLimits,
    /// Which hosts its bodies may reach.
    pub http: HttpPolicy,
    /// The caller's way to end it.
    pub interrupt: Interrupt,
}

/// What a run knows of itself.
#[derive(Clone, Debug)]
pub struct RunContext {
    /// The run.
    pub run_id: RunId,
    /// The function's full name.
    pub function: FunctionName,
    /// The version that answers.
    pub version: Digest,
    /// The event that started the run; with several, the first.
    pub event: Json,
    /// All of them: an array.
    pub events: Json,
}

/// How a leg ended.
#[derive(Clone, Debug, PartialEq)]
pub enum LegEnd {
    /// The run is complete; this is its output.
    Done(Json),
    /// The run goes on with an empty journal and this value.
    ContinueWith(Json),
    /// The function returned a failure, or an output that is refused (`invalid-json`, `output-too-large`).
    Failed(Failure),
    /// The run's host has ended it.
    Stopped,
    /// The guest was ended. `Trap::step` says whether in a body.
    Trapped(Trap),
}

/// What a leg used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegStats {
    /// Processor time, of the guest and of the host's answers on the same thread.
    pub cpu: Duration,
    /// The instance's linear memory at its end, which is the most it ever had, in bytes.
    pub memory_bytes: usize,
    /// How often the run's host was asked.
    pub host_calls: u64,
    /// How often the guest was made to yield to others.
    pub yields: u64,
}

/// Reads what the function returned.
pub(crate) fn completion(returned: Result<Completion, types::Failure>) -> LegEnd {
    let checked = |text: &str| payload(text, "the function's output");
    match returned {
        Ok(Completion::Done(text)) => checked(&text).map_or_else(LegEnd::Failed, LegEnd::Done),
        Ok(Completion::ContinueWith(text)) => {
            checked(&text).map_or_else(LegEnd::Failed, LegEnd::ContinueWith)
        }
        Err(reason) => LegEnd::Failed(failure(reason)),
    }
}
