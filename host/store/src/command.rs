//! What people ask of a run from outside. Each is one commit.

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
