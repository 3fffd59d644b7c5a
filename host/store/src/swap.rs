//! Runs that go over to another version of their module, and those that could not: with an append, in one commit with the
//! first thing that the new version does.

use dormouse_core::run::RunError;
use dormouse_core::{Digest, Timestamp};

/// An append is another version's than the run's own; or says why the run cannot go over to that version.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSwap {
    /// The run's module.
    pub module: String,
    /// The other version.
    pub to: Digest,
    /// Why the run stays on its own; none: it is the other's from this append on.
    pub stays: Option<RunError>,
    /// The registry's generation that this was decided on: with another one, nothing of the append is written
    /// ([`Error::StaleRegistry`](crate::Error::StaleRegistry)).
    pub generation: i64,
}

/// Runs to make ready so that they begin again on a module's active version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToRestart {
    /// The module.
    pub module: String,
    /// Its active version.
    pub to: Digest,
    /// The functions that it has.
    pub functions: Vec<String>,
    /// How many at most.
    pub limit: u32,
    /// The time.
    pub now: Timestamp,
}

/// The version that a person wants a run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The run's module.
    pub module: String,
    /// The version, which may be the one that the run has: then it stays there.
    pub version: Digest,
}

/// What a run's row says of its swaps, so that only who has some is asked for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// It has gone over to another version than it began on.
    pub moved: bool,
    /// It could not go over to some version.
    pub stayed: bool,
}

impl Swapped {
    /// From the number on disk.
    pub(crate) fn from_bits(bits: i64) -> Swapped {
        Swapped {
            moved: bits & 1 != 0,
            stayed: bits & 2 != 0,
        }
    }

    /// The number on disk.
    pub(crate) fn bits(self) -> i64 {
        i64::from(self.moved) | i64::from(self.stayed) << 1
    }
}
