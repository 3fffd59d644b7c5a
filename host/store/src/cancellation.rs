//! Cancelling many runs with one command: a row that says which, worked off in batches.
//!
//! A cancellation is about runs that were created before it was. It remembers how far it has got, so that any node can go
//! on with it after any other, and examines each run once; two nodes that work on the same batch cancel each run once all
//! the same. Deciding which of the examined runs are meant is the caller's, since conditions are the core's.

use dormouse_core::{EventId, FunctionName, Json, RunId, Timestamp};

/// Which runs are to be cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCancellation {
    /// Its id. Runs whose ids are greater are not meant: an id begins with its time.
    pub id: CancellationId,
    /// The function whose runs are meant.
    pub function: FunctionName,
    /// Only runs that were created at this time or later.
    pub started_after: Option<Timestamp>,
    /// Only runs that were created before this time.
    pub started_before: Option<Timestamp>,
    /// Only runs of events for which this holds.
    pub condition: Option<String>,
    /// The time.
    pub now: Timestamp,
}

impl NewCancellation {
    /// The runs that are meant have ids greater than the first and less than the second.
    pub(crate) fn bounds(&self) -> (RunId, RunId) {
        let least = |at: Timestamp| RunId::from_parts(at, [0; 10]);
        let after = self.started_after.unwrap_or_default().max(Timestamp::default());
        let own = RunId::from_bytes(self.id.to_bytes());
        let until = self
            .started_before
            .map_or(own, |before| own.min(least(before.max(Timestamp::default()))));
        // No run has the least id of a millisecond: ten of its bytes are random.
        (least(after), until)
    }

    /// As it is stored, with nothing done.
    pub(crate) fn fresh(&self) -> Cancellation {
        Cancellation {
            id: self.id,
            function: self.function.clone(),
            started_after: self.started_after,
            started_before: self.started_before,
            condition: self.condition.clone(),
            created_at: self.now,
            done_at: None,
            cancelled: 0,
        }
    }
}

/// A cancellation's id. It is an id of an event's form, since both are made the same way.
pub type CancellationId = EventId;

/// A cancellation and how far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// Its id.
    pub id: CancellationId,
    /// The function whose runs are meant.
    pub function: FunctionName,
    /// Only runs that were created at this time or later.
    pub started_after: Option<Timestamp>,
    /// Only runs that were created before this time.
    pub started_before: Option<Timestamp>,
    /// Only runs of events for which this holds.
    pub condition: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When the last run was examined.
    pub done_at: Option<Timestamp>,
    /// How many runs it has cancelled so far.
    pub cancelled: u64,
}

/// Which cancellations to list. All members narrow; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CancellationFilter {
    /// This one.
    pub id: Option<CancellationId>,
    /// Of runs of these modules. None: of all.
    pub modules: Option<Vec<String>>,
    /// How many at most.
    pub limit: u32,
}

impl CancellationFilter {
    /// The newest of all.
    pub fn newest(limit: u32) -> CancellationFilter {
        CancellationFilter {
            limit,
            ..CancellationFilter::default()
        }
    }
}

/// A run to be examined: it had not ended when it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The run.
    pub run: RunId,
    /// The event that started it, when the cancellation has a condition.
    pub event: Option<Json>,
}

/// The next runs of the oldest cancellation that is not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The cancellation.
    pub cancellation: Cancellation,
    /// Runs to be examined, of those that were looked at.
    pub candidates: Vec<Candidate>,
    /// The last run that was looked at: where the next batch goes on. None: there are no more.
    pub last: Option<RunId>,
}

/// What came of examining a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The cancellation.
    pub id: CancellationId,
    /// The runs that are to be cancelled.
    pub runs: Vec<RunId>,
    /// As in the batch.
    pub last: Option<RunId>,
    /// The time.
    pub now: Timestamp,
}
