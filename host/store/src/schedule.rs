//! Who drives which run, and what wakes them: nodes, leases, claims, timers.
//!
//! A lease is the pair (owner, epoch) on the run's row. Every claim raises the epoch, so that a write can prove that
//! it comes from the one current owner. Waiting runs have no owner and exactly one timer if they wait for a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::run::{RunError, State};
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Seq, Timestamp};

use crate::swap::Swapped;

/// One life of a host process: random at each boot, so that a process that comes back is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node as it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// This life's id.
    pub incarnation: Incarnation,
    /// A name for people: host name and process id.
    pub name: String,
    /// The release it runs.
    pub release: String,
    /// Where people and other nodes reach its API: `http://127.0.0.1:8288`. Empty: nowhere.
    pub url: String,
}

/// How a node stands with the others, as it is told when it joins and with each heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The time by the clock that all nodes share: the database's. On one that has none of its own (SQLite, the
    /// model), the time the caller gave.
    pub now: Timestamp,
    /// Somebody asked the node to drain: it should claim nothing more, hand back what it has, and end.
    pub draining: bool,
    /// Nodes of another release live beside it, as of this heartbeat: an upgrade is under way. Not known yet when it joins.
    pub mixed: bool,
    /// The registry's generation: whoever knows it already has nothing to read.
    pub generation: i64,
}

/// A node as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// This life's id.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: String,
    /// The release it runs.
    pub release: String,
    /// Where its API is reached; empty when it did not say.
    pub url: String,
    /// When it joined.
    pub joined_at: Timestamp,
    /// When it was last heard of.
    pub heartbeat_at: Timestamp,
    /// For how long it has not been heard of, by the clock that all nodes share.
    pub silent_for: Duration,
    /// Whether it was asked to drain.
    pub draining: bool,
    /// How many runs are leased to it.
    pub runs: u64,
}

/// What others change about a run, read for many runs at once: how a node notices that a run it drives was cancelled
/// or taken over, and how it follows runs that other nodes drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The run.
    pub id: RunId,
    /// Its state.
    pub state: State,
    /// Who drives it.
    pub owner: Option<Incarnation>,
    /// The lease's epoch.
    pub epoch: i64,
    /// The number its next entry will have: it has moved when there are new entries.
    pub journal_next: Seq,
    /// Log lines kept so far: it has moved when there are new ones.
    pub log_lines: u32,
}

/// A run that a node may now drive, with all it needs but the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedRun {
    /// The run.
    pub id: RunId,
    /// The lease's epoch: every write names it.
    pub epoch: i64,
    /// The function.
    pub function: FunctionName,
    /// The version the run is pinned to.
    pub version: Digest,
    /// The configuration revision it keeps.
    pub config_revision: i64,
    /// The event that started it.
    pub event_id: EventId,
    /// That event's payload.
    pub event: Json,
    /// What `continue-with` handed on.
    pub continued: Option<Json>,
    /// Its random seed.
    pub seed: [u8; 32],
    /// The run whose step has invoked it.
    pub parent: Option<RunId>,
    /// How many invokes lead to it.
    pub depth: u32,
    /// When it was queued, or for a delayed one, due; for one that begins with what another recorded, when that began:
    /// the guest's first `now`.
    pub queued_at: Timestamp,
    /// The number of its first entry (greater than 0 after `continue-with`).
    pub journal_base: Seq,
    /// The number its next entry will have. A parked instance that stands at the same number may go on.
    pub journal_next: Seq,
    /// Log lines kept so far.
    pub log_lines: u32,
    /// Bytes of journal so far.
    pub journal_bytes: u64,
    /// How often a leg has ended at a host-dependent limit outside a body since the last entry.
    pub host_traps: u32,
    /// Whether it has gone over to another version, or could not.
    pub swapped: Swapped,
    /// The version that a person wants it on; none: it goes by its module's policy.
    pub asked: Option<Digest>,
}

/// A request for ready runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// For whom.
    pub node: Incarnation,
    /// How many at most.
    pub limit: u32,
    /// Only runs of these versions, which the node has loaded. None: of any.
    pub versions: Option<Arc<[Digest]>>,
    /// The time.
    pub now: Timestamp,
}

/// A request to fire what is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FireTimers {
    /// For whom.
    pub node: Incarnation,
    /// Timers due at or before this time fire.
    pub now: Timestamp,
    /// How many timers at most.
    pub limit: u32,
    /// How many of their runs to lease to the node at once; the others become ready.
    pub claim_limit: u32,
    /// Lease only runs of these versions; the others become ready. None: of any.
    pub versions: Option<Arc<[Digest]>>,
}

/// What fired.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fired {
    /// Runs leased to the node.
    pub claimed: Vec<ClaimedRun>,
    /// How many became ready beside those.
    pub readied: u32,
    /// How many timers fired in all. Equal to the limit: there may be more.
    pub fired: u32,
    /// Runs that were blocked instead of claimed again ([`dormouse_core::limit::CLAIMS_WITHOUT_ENTRY_MAX`]).
    pub blocked: Vec<RunId>,
    /// Runs whose throttle holds them back further: until when.
    pub held: Vec<Timestamp>,
}

/// Runs claimed from the ready queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimedBatch {
    /// Runs leased to the node.
    pub claimed: Vec<ClaimedRun>,
    /// Runs that were blocked instead.
    pub blocked: Vec<RunId>,
    /// Versions of other ready runs that were not asked for, in order: what the node may load to claim them too. Told when
    /// there were fewer runs than the limit, and of the [`LACKING_MAX`] oldest runs.
    pub lacking: Vec<Digest>,
    /// Ready runs that need a slot of which none is free: they wait in a line now.
    pub waiting: u32,
    /// Something could not be looked at, because another node was about to: it is to be looked at again soon.
    pub again: bool,
}

/// How many ready runs are looked at for versions that were not asked for.
pub const LACKING_MAX: u32 = 1_000;

/// The error a crash-looping run is blocked with.
pub fn crash_loop() -> RunError {
    RunError::new(
        "crash-loop",
        format!(
            "the run was claimed {} times without getting any further: the process that drove it ended each time. \
             Look for a crash in the server's log, then wake the run to try again, or cancel it",
            dormouse_core::limit::CLAIMS_WITHOUT_ENTRY_MAX
        ),
    )
}
