//! Events received and the runs they start: one commit, then the answer.

use dormouse_core::ending::Ends;
use dormouse_core::flow::{Admission, Decision};
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Seq, Timestamp};

use crate::schedule::Incarnation;

/// An event to store.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// Its name.
    pub name: String,
    /// The sender's own id, when it gave one.
    pub external_id: Option<String>,
    /// When it happened, by the sender or else by the clock.
    pub ts: Timestamp,
    /// When it was received.
    pub received_at: Timestamp,
    /// The whole event as functions see it: `{"id","name","data","ts",…}`.
    pub payload: Json,
}

/// A run to create.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub id: RunId,
    /// The function.
    pub function: FunctionName,
    /// The version it is pinned to.
    pub version: Digest,
    /// The configuration revision it keeps.
    pub config_revision: i64,
    /// The event that starts it: one of the batch's, or one stored before.
    pub event_id: EventId,
    /// What keeps a second run of the function from starting within 24 h: the event's external id. None: no dedupe.
    pub dedupe: Option<String>,
    /// The limits it has to pass, decided in the commit that creates it.
    pub admission: Admission,
    /// Its random seed.
    pub seed: [u8; 32],
    /// When it may begin: later than now for an event with a future `ts`.
    pub start_at: Timestamp,
    /// The node it is born leased to (epoch 1), which begins it as soon as the commit is done. None: ready for any.
    /// Ignored when `start_at` is in the future.
    pub lease: Option<Incarnation>,
    /// The run it is a rerun of.
    pub rerun_of: Option<RunId>,
    /// The run whose step invokes this one; that step waits for its end.
    pub parent: Option<RunId>,
    /// How many invokes lead to it.
    pub depth: u32,
    /// Its function is paused: the run is created and held until [`Store::release_held`](crate::Store::release_held) lets
    /// it on. Decided by the caller on the registry of [`Ingest::generation`], as what the run is created for.
    pub held: bool,
    /// What it begins with, of what another run recorded.
    pub copy: Option<Copied>,
    /// What may end it from outside by itself. Events cancel it that are stored after the one that starts it: of one ingest,
    /// those that stand behind that one, and none when it is of another.
    pub ends: Ends,
}

/// What a new run takes over from another: its entries from `base` to before `before`, under the same numbers, with its
/// random seed, what `continue-with` handed it, and the time at which it began, so that they replay as they did. A run that
/// begins so is not born leased. When the other is not there, or has not these entries, the ingest is answered with
/// [`Error::SourceGone`](crate::Error::SourceGone).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The other run.
    pub run: RunId,
    /// The number of its first entry.
    pub base: Seq,
    /// The number of the first entry that is not taken over.
    pub before: Seq,
    /// The bytes of those that are.
    pub bytes: u64,
}

/// Events and runs that are stored together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingest {
    /// The events, in order. One whose id is stored already stays as it was stored: a client that repeats a request
    /// repeats its ids, and [`NewRun::dedupe`] decides about its runs.
    pub events: Vec<NewEvent>,
    /// The runs.
    pub runs: Vec<NewRun>,
    /// The registry generation the runs were decided under. Another one in the store: [`crate::Error::StaleRegistry`].
    pub generation: i64,
    /// The time.
    pub now: Timestamp,
}

/// What became of one run of an ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was created, and is leased to the node that asked if it asked and the run may begin now.
    New {
        /// Whether it is leased.
        leased: bool,
    },
    /// It was created, and its function's throttle holds it back until then at least.
    Held {
        /// When it begins, or tries to.
        until: Timestamp,
    },
    /// Its event is one of those that start a run together, which waits for more of them.
    Gathered {
        /// That run.
        run: RunId,
        /// When it starts, as things are.
        until: Timestamp,
    },
    /// A run for the same function and event id exists already: this one.
    Duplicate(RunId),
    /// Flow control kept it from being created. Why is stored with the event.
    Dropped {
        /// What kept it.
        decision: Decision,
        /// The run that is there in its place, if it is one run's doing.
        run: Option<RunId>,
        /// When the next one may pass, where that is a matter of time.
        until: Option<Timestamp>,
    },
}
