//! The audit log: who asked for what, and what came of it. Records are added and never changed.

use dormouse_core::key::KeyId;
use dormouse_core::{EventId, Timestamp};

/// A record's id. It is an id of an event's form, since both are made the same way.
pub type RecordId = EventId;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id, in the order of time.
    pub id: RecordId,
    /// When it had been done or refused.
    pub at: Timestamp,
    /// The key that was shown, if there was one.
    pub key: Option<KeyId>,
    /// Who: the key's name at that time, `open` where no key was needed, `offline` at the database itself.
    pub who: String,
    /// The address it came from, as this server saw it.
    pub from: String,
    /// What was asked for, as `run.cancel`.
    pub action: String,
    /// On what: a run's id, a module's name.
    pub target: String,
    /// `done`, or the code of the error.
    pub result: String,
    /// What else names it, as the digest of a version. Never what anybody's data are.
    pub detail: Option<String>,
}

/// Which records to list. All members narrow; newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// By this key.
    pub key: Option<KeyId>,
    /// This action.
    pub action: Option<String>,
    /// On this.
    pub target: Option<String>,
    /// At this time or later.
    pub after: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Only older than this record (the last of the page before).
    pub before: Option<RecordId>,
    /// How many at most.
    pub limit: u32,
}
