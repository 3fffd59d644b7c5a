//! What people ask of a run from outside. Each is one commit.
//!
//! A run is paused at once, or when its node has recorded the next entry. What it waits for goes on meanwhile: its timer
//! is gone, but what is due is due when it is resumed, and what others bring is kept as a completion.

use dormouse_core::run::{RunError, State};
use dormouse_core::{Json, RunId};

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

/// The error that a run is blocked with whose journal a node of a release cannot read. It says which release, so that nodes
/// of others try for themselves ([`Store::retry_unreadable`](crate::Store::retry_unreadable)).
pub fn unreadable(message: impl Into<String>, release: &str) -> RunError {
    let details = serde_json::json!({ "release": release });
    RunError {
        details: Json::from_value(&details).ok(),
        ..RunError::new("journal-unreadable", message)
    }
}

/// How the text of such an error begins as it is stored, and what of it says that it is this release's.
pub(crate) fn unreadable_as_stored(release: &str) -> (&'static str, String) {
    (
        "{\"code\":\"journal-unreadable\",",
        format!("\"details\":{{\"release\":\"{release}\"}}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_of_an_unreadable_journal_is_found_by_its_text() {
        let error = unreadable("entry 7 has \"details\":{\"release\":\"0.3.0\"}", "0.2.0");
        let stored = serde_json::to_string(&error).expect("it serialises");
        for (release, own) in [("0.2.0", true), ("0.3.0", false), ("0.2", false)] {
            let (begins, is_own) = unreadable_as_stored(release);
            assert!(stored.starts_with(begins), "{stored}");
            assert_eq!(stored.contains(&is_own), own, "{stored}");
        }
    }
}
