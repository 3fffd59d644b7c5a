//! What pages and the API show. Reads never wait for the writer.

use dormouse_core::flow::Decision;
use dormouse_core::run::{Phase, RunError, State, Status};
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Timestamp};

use crate::schedule::Incarnation;
use crate::swap::Swapped;

/// A run as lists and pages show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The function.
    pub function: FunctionName,
    /// The version it is pinned to.
    pub version: Digest,
    /// The event that started it.
    pub event_id: EventId,
    /// Its state.
    pub state: State,
    /// Why it is in that phase, for a person.
    pub reason: Option<String>,
    /// When it wakes by itself.
    pub wake_at: Option<Timestamp>,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When it was first claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its output. Lists leave it out.
    pub output: Option<Json>,
    /// Its error.
    pub error: Option<RunError>,
    /// Who drives it.
    pub owner: Option<Incarnation>,
    /// The lease's epoch.
    pub epoch: i64,
    /// The number its next entry will have.
    pub journal_next: u32,
    /// The number of its first entry.
    pub journal_base: u32,
    /// The run it is a rerun of.
    pub rerun_of: Option<RunId>,
    /// The run whose step has invoked it.
    pub parent: Option<RunId>,
    /// Whether it has gone over to another version, or could not.
    pub swapped: Swapped,
    /// The version that a person wants it on; none: it goes by its module's policy.
    pub asked: Option<Digest>,
}

/// Which runs to list. All members narrow; newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFilter {
    /// Any of these; empty means all.
    pub status: Vec<Status>,
    /// In this phase.
    pub phase: Option<Phase>,
    /// Of this module.
    pub module: Option<String>,
    /// Of this function, when the module is given too.
    pub function: Option<String>,
    /// Started by this event.
    pub event: Option<EventId>,
    /// Invoked by this run's steps.
    pub parent: Option<RunId>,
    /// Only older than this run (the last of the page before).
    pub before: Option<RunId>,
    /// How many at most.
    pub limit: u32,
}

/// An event as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// Its id.
    pub id: EventId,
    /// Its name.
    pub name: String,
    /// The sender's own id.
    pub external_id: Option<String>,
    /// When it happened.
    pub ts: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
    /// The whole event.
    pub payload: Json,
}

/// Why an event has started no run of its own of a function that it matches, or that it has cancelled runs of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// The function.
    pub function: FunctionName,
    /// What kept it.
    pub decision: Decision,
    /// When that was decided.
    pub at: Timestamp,
    /// The run that is there in its place, if it is one run's doing; the first that was cancelled.
    pub run: Option<RunId>,
    /// For a person.
    pub detail: String,
}

/// One of the events that a run starts with.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchEvent {
    /// Its id.
    pub id: EventId,
    /// The event as functions see it.
    pub payload: Json,
}

/// Which events to list, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// Of this name.
    pub name: Option<String>,
    /// Received at or after.
    pub received_after: Option<Timestamp>,
    /// Received at or before.
    pub received_before: Option<Timestamp>,
    /// Only older than this event.
    pub before: Option<EventId>,
    /// How many at most.
    pub limit: u32,
}

/// Numbers for the overview and the metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live runs by phase, in [`Phase::ALL`]'s order.
    pub live: [u64; 8],
    /// The oldest ready run's time in the queue, if any is ready.
    pub oldest_ready: Option<Timestamp>,
}
