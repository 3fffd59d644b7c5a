//! Appending to a run's journal, and what follows the append in the same commit.

use dormouse_core::journal::Record;
use dormouse_core::run::{RunError, Wait};
use dormouse_core::{Json, Outcome, RunId, Seq, Timestamp};

use crate::ingest::Ingest;
use crate::schedule::Incarnation;
use crate::swap::NewSwap;
use crate::wait::{NewSignal, NewWait};

/// Entries to append and what the run does next: one commit, or nothing of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// Who appends.
    pub owner: Incarnation,
    /// Under which lease.
    pub epoch: i64,
    /// The entries, numbered on from the journal's last. May be empty.
    pub records: Vec<Record>,
    /// Log lines.
    pub logs: Vec<LogLine>,
    /// Events that the entries send, with the runs that these start: stored in the same commit, after the fence, or not
    /// at all; when the entries are stored already (the append is a repetition), so are these. Its generation is looked at
    /// first: another one is [`Error::StaleRegistry`](crate::Error::StaleRegistry), and nothing of the append is written.
    /// Its runs are ready for any node; none asks for a lease.
    pub ingest: Option<Ingest>,
    /// Waits that the entries open, of operations that none of them closes. Repeated as the ingest is.
    pub waits: Vec<NewWait>,
    /// Signals that the entries send, after their waits are stored. Repeated as the ingest is.
    pub signals: Vec<NewSignal>,
    /// The run whose step has invoked this one, as the claim said: a run's end concerns it too, and its row is locked with
    /// this one's.
    pub parent: Option<RunId>,
    /// The append is another version's than the run's own, or the run cannot go over to that. Nearly always none.
    pub swap: Option<NewSwap>,
    /// What the run does next.
    pub then: Then,
    /// The time.
    pub now: Timestamp,
}

/// What a run does after an append.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// Goes on; the lease stays.
    Continue,
    /// Waits and gives up its lease, unless a completion that is not yet delivered is there already.
    Suspend {
        /// For what.
        wait: Wait,
        /// In words, for the run page.
        reason: String,
        /// When it wakes by itself.
        wake_at: Option<Timestamp>,
        /// Operations whose stored completions the caller has seen and cannot deliver yet, because the guest does
        /// not wait for them: these do not keep the run from waiting.
        known: Vec<Seq>,
    },
    /// Gives up its lease and is ready at once, for any node: drain, or a leg that must be begun again.
    Release {
        /// The leg ended at a host-dependent limit: counts towards [`dormouse_core::limit::HOST_TRAP_TRIES_MAX`].
        host_trap: bool,
    },
    /// Ends with an output.
    Complete {
        /// The output.
        output: Json,
    },
    /// Ends with an error.
    Fail {
        /// The error.
        error: RunError,
    },
    /// Begins anew under its id: the journal's rows are deleted, numbering goes on, and the run is ready.
    ContinueWith {
        /// What the next round is given.
        continued: Json,
    },
    /// Begins again from its event, under its id: as with `ContinueWith`, but with nothing handed on.
    Restart,
    /// Cannot go on until a person does something.
    Block {
        /// Why.
        error: RunError,
    },
}

/// What came of an append.
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    /// All of it is durable.
    Done,
    /// The entries are durable, but these completions (all that are stored for the run, earliest first) came in
    /// before the run could wait. It keeps its lease: deliver one, or ask again with those it cannot deliver as
    /// `known` (completions of operations that a record delivers or cancels are removed by that append).
    Completions(Vec<Completion>),
    /// The entries are durable, and the run is now paused, as somebody had asked: its lease is given up.
    Paused,
    /// Nothing was written: the lease is gone.
    Lost(Lost),
}

/// Why a lease is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The run was cancelled.
    Cancelled,
    /// Another owner or epoch has it, or it has ended otherwise.
    TakenOver,
    /// The run does not exist (any more).
    Gone,
}

/// An operation's outcome that is not yet delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The operation.
    pub operation: Seq,
    /// When it came.
    pub at: Timestamp,
    /// The outcome.
    pub outcome: Outcome,
}

/// A line of a run's log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// Its number within the run, from 0.
    pub number: u32,
    /// When.
    pub at: Timestamp,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The step whose body wrote it.
    pub step: Option<String>,
    /// The text.
    pub message: String,
    /// A JSON object.
    pub fields: Option<Json>,
}
