//! What people ask of a run from outside. Each is one commit.
//!
//! A run is paused at once, or when its node has recorded the next entry. What it waits for goes on meanwhile: its timer
//! is gone, but what is due is due when it is resumed, and what others bring is kept as a completion.

use dormouse_core::RunId;
use dormouse_core::run::State;

/// What came of a command on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commanded {
    /// It was done; the run's state is now this.
    Done(State),
    /// There is nothing to do: the run is in this state.
    Refused(State),
    /// There is no such run.
    NotFound,
}

/// What came of looking for orphans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// How many there were, those among them that had ended by themselves.
    pub taken: u32,
    /// Runs that were cancelled.
    pub cancelled: Vec<RunId>,
}
