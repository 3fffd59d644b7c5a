//! What runs wait for that others bring.
//!
//! A wait is a row, written with the entry that opens it, and it ends when it is completed, when the operation is
//! delivered or cancelled, or when the run ends or begins anew. What others need to know of it is in the row; nobody
//! reads a journal to find out who waits.

use dormouse_core::wait::{EventWait, SignalWait};
use dormouse_core::{Failure, Json, RunId, Seq};

/// A wait that an entry of an append opens.
#[derive(Clone, Debug, PartialEq)]
pub struct NewWait {
    /// The operation.
    pub operation: Seq,
    /// What it waits for.
    pub on: WaitOn,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
pub enum WaitOn {
    /// An event: the first that fits and is stored after the wait, or the latest that fits of those it looks back to.
    Event(EventWait),
    /// A signal. Only one wait for its name is stored: with another there, one of the two is completed with a failure in
    /// the same commit, as [`SignalWait::replace`] says.
    Signal(SignalWait),
    /// Another run's end.
    Child(ChildWait),
    /// Nothing: the operation is completed with this failure at once.
    Nothing(Failure),
}

/// A wait for the end of a run that has this one as its parent ([`crate::ingest::NewRun::parent`]): it is completed with
/// that run's outcome, in the commit of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildWait {
    /// The run.
    pub child: RunId,
    /// Whether the run is to be cancelled when the wait is given up: when the operation is delivered otherwise or
    /// cancelled, or this run ends or begins anew. It is then an orphan ([`crate::Store::cancel_orphans`]).
    pub cancels: bool,
}

/// A signal that an entry of an append sends: it ends the wait for it, as [`crate::Store::signal`] does.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSignal {
    /// The operation, completed with the run that waited; none when an entry closes it already.
    pub operation: Option<Seq>,
    /// The signal's name.
    pub signal: String,
    /// Its data.
    pub data: Json,
}
