//! Ends of runs: those that are told to whoever listens, and those that the clock brings.
//!
//! When somebody listens to how runs end, the commit that ends a run leaves a row that says so; the commit that stores the
//! events which tell of it, and the runs that these start, takes the row away. So each end is told once, whichever node
//! does it and whoever is killed meanwhile. Who listens is decided in the commit of the end: a version that is deployed
//! before it, a wait that is stored before it. Deciding what the events say is the core's.

use dormouse_core::RunId;
use dormouse_core::system::Kinds;

use crate::ingest::{Created, Ingest};

/// The end of a run that is yet to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untold {
    /// The run.
    pub run: RunId,
    /// The events that somebody listens to.
    pub kinds: Kinds,
}

/// An end that is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Tell {
    /// The run.
    pub run: RunId,
    /// The events that tell of it, and the runs that they start. Its runs are ready for any node; none asks for a lease.
    pub ingest: Ingest,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It is told; one answer per run, in order.
    Done(Vec<Created>),
    /// It was told before, and nothing was written.
    Before,
}

/// What came of looking at what may have taken too long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// How many runs were looked at.
    pub looked: u32,
    /// Those that were cancelled, in order of their ids.
    pub cancelled: Vec<RunId>,
}
