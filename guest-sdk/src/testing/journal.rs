//! The harness's journal: what the function asked for and what it was answered, in one order.

use std::fmt;

use serde_json::Value;

use crate::error::Failure;
use crate::http::Request;
use crate::step::Statement;

/// What a function asks the host to perform.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// `step.sleep`.
    Sleep {
        /// How long.
        millis: u64,
    },
    /// `step.sleep_until`.
    SleepUntil {
        /// Unix time in milliseconds.
        time: u64,
    },
    /// `step.wait_for_event`.
    WaitForEvent {
        /// The event's name.
        event: String,
    },
    /// `step.wait_for_signal`.
    WaitForSignal {
        /// The signal's name.
        signal: String,
    },
    /// `step.invoke`.
    Invoke {
        /// Which function.
        function: String,
        /// Its event's data.
        data: Value,
    },
    /// `step.send_events`.
    SendEvents {
        /// An array of events.
        events: Value,
    },
    /// `step.send_signal`. When the test says nothing, nobody waits for it.
    SendSignal {
        /// The signal's name.
        signal: String,
        /// What whoever waits is given.
        data: Value,
    },
    /// `step.fetch`.
    Fetch(Request),
    /// `step.sql`, `step.transaction`.
    Sql {
        /// Which database.
        database: String,
        /// The transaction's statements.
        statements: Vec<Statement>,
    },
}

impl Operation {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Operation::Sleep { .. } => "sleep",
            Operation::SleepUntil { .. } => "sleep-until",
            Operation::WaitForEvent { .. } => "wait-for-event",
            Operation::WaitForSignal { .. } => "wait-for-signal",
            Operation::Invoke { .. } => "invoke",
            Operation::SendEvents { .. } => "send-events",
            Operation::SendSignal { .. } => "send-signal",
            Operation::Fetch(_) => "fetch",
            Operation::Sql { .. } => "sql",
        }
    }
}

/// What the function asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Call {
    Run { name: String },
    Start { name: String, operation: Operation },
    Cancel { operation: usize },
    Await { operations: Vec<usize> },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Run { name } => write!(f, "run \"{name}\""),
            Call::Start { name, operation } => write!(f, "{} \"{name}\" {operation:?}", operation.kind()),
            Call::Cancel { operation } => write!(f, "cancel of operation {operation}"),
            Call::Await { operations } => write!(f, "a wait for operations {operations:?}"),
        }
    }
}

/// What it was answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Recorded(Result<String, Failure>),
    Deferred(Retrying),
    Started(Performed),
    Cancelled,
    Delivered { index: usize, now: u64 },
}

/// A step between two attempts.
#[derive(Clone, Debug)]
pub(super) struct Retrying {
    /// Attempts so far.
    pub(super) failures: u32,
    /// When the next may begin.
    pub(super) due: u64,
    /// Which of the report's steps.
    pub(super) record: usize,
}

/// An operation and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Performed {
    /// When its result is there; never, if none.
    pub(super) due: Option<u64>,
    pub(super) result: Result<String, Failure>,
    pub(super) body: Option<Vec<u8>>,
    /// Which of the report's steps.
    pub(super) record: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) call: Call,
    pub(super) answer: Answer,
}
