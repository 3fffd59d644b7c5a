//! What is said when code and journal disagree: the entry, and both sides.

use serde::{Deserialize, Serialize};

use crate::journal::{OperationKind, Seq, describe_operation, quoted};
use crate::json::Json;

/// Code and journal disagree. No effect has been executed and nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("entry {seq}: the journal has {journal}, the code asked for {code}")]
pub struct Divergence {
    /// Where.
    pub seq: Seq,
    /// What the journal has there.
    pub journal: String,
    /// What the code asked for.
    pub code: String,
}

impl Divergence {
    pub(super) fn run(name: &str, occurrence: u32) -> String {
        format!("run {}", quoted(name, occurrence))
    }

    pub(super) fn start(kind: OperationKind, name: &str, occurrence: u32, input: &Json) -> String {
        describe_operation(kind, name, occurrence, input)
    }

    pub(super) fn await_any(operations: &[Seq]) -> String {
        let list: Vec<String> = operations.iter().map(Seq::to_string).collect();
        format!("the result of one of the entries {}", list.join(", "))
    }

    pub(super) fn cancel(operation: Seq) -> String {
        format!("the cancellation of entry {operation}")
    }

    pub(super) fn returned(failed: bool) -> String {
        if failed {
            "the end, with a failure".to_owned()
        } else {
            "the end, with an output".to_owned()
        }
    }
}
