//! Keys as they are kept: which there are, and what came of making and revoking one.
//!
//! All of them fit in memory, and every node holds them there. A number, the generation, moves with each change. Which keys
//! may be made and revoked is the core's to decide, in the transaction that does it.

use dormouse_core::key::{self, Key};

/// The keys there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Moves with every change.
    pub generation: i64,
    /// All keys, those that are revoked too, the oldest first.
    pub keys: Vec<Key>,
}

/// What came of making a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    Done,
    /// Why it is not.
    Refused(key::Refused),
}

/// What came of revoking a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// It is good for nothing from now on.
    Done(Key),
    /// It was revoked before.
    Before(Key),
    /// It is the last one that can make others.
    Last,
    /// There is no such key.
    NotFound,
}
