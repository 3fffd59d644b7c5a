//! One run at a time: whether another may start while one of the same key has not ended, or takes its place.
//!
//! A key is held by the last run that was started with it, from its creation to its end, whatever it does meanwhile. Nothing is
//! written when it ends: who comes next looks whether it still lives. That is the store's to look up, in the commit that would
//! create the next run; [`Singleton::decide`] says what follows from it.

use serde::{Deserialize, Serialize};

use super::admission::of_key;
use crate::failure::Failure;
use crate::id::RunId;

/// What a definition says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingletonOptions {
    /// A CEL expression over `event`: each of its values has one run at a time. Without it the function has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What becomes of an event that comes while a run has not ended.
    pub mode: Mode,
}

/// What becomes of an event that comes while a run of its key has not ended, in Inngest's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It starts nothing.
    Skip,
    /// That run is cancelled, and the event starts one.
    Cancel,
}

/// The one run at a time that a new run would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Singleton {
    /// What becomes of it when another lives.
    pub mode: Mode,
    /// The key's value; empty when there is no key.
    pub key: String,
}

/// What becomes of a new run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is the one.
    Free,
    /// It is the one, and this one is cancelled for it.
    Displaces(RunId),
    /// It is not created, since this one lives.
    Skipped(RunId),
}

impl Singleton {
    /// Decides. `living`: the run of the key that has not ended. `invoked_by`: the run whose step waits for the new one. Were that
    /// cancelled, nobody would be left to wait, so nothing is gained by it.
    pub fn decide(&self, living: Option<RunId>, invoked_by: Option<RunId>) -> Turn {
        match (living, self.mode) {
            (None, _) => Turn::Free,
            (Some(run), Mode::Skip) => Turn::Skipped(run),
            (Some(run), Mode::Cancel) if invoked_by == Some(run) => Turn::Skipped(run),
            (Some(run), Mode::Cancel) => Turn::Displaces(run),
        }
    }

    /// Why an event starts nothing, for a person.
    pub fn detail(&self, living: RunId) -> String {
        format!(
            "run {living}{} has not ended, and there is one at a time (singleton)",
            of_key(&self.key)
        )
    }

    /// Why a run was cancelled, for a person.
    pub fn reason(&self, by: RunId) -> String {
        format!(
            "cancelled by run {by}, which came later{}: there is one at a time (singleton)",
            of_key(&self.key)
        )
    }
}

/// What an invoke comes to whose function has a run that lives.
pub fn skipped(detail: &str) -> Failure {
    Failure::terminal("invoke-skipped", format!("no run was started: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn run(number: u8) -> RunId {
        RunId::from_parts(Timestamp::from_millis(1_790_000_000_000), [number; 10])
    }

    #[test]
    fn one_that_lives_keeps_others_away_or_makes_room() {
        let of = |mode| Singleton {
            mode,
            key: "\"ann\"".to_owned(),
        };
        for (mode, living, invoked_by, turn) in [
            (Mode::Skip, None, None, Turn::Free),
            (Mode::Cancel, None, Some(run(2)), Turn::Free),
            (Mode::Skip, Some(run(1)), None, Turn::Skipped(run(1))),
            (Mode::Skip, Some(run(1)), Some(run(2)), Turn::Skipped(run(1))),
            (Mode::Cancel, Some(run(1)), None, Turn::Displaces(run(1))),
            (Mode::Cancel, Some(run(1)), Some(run(2)), Turn::Displaces(run(1))),
            (Mode::Cancel, Some(run(1)), Some(run(1)), Turn::Skipped(run(1))),
        ] {
            assert_eq!(
                of(mode).decide(living, invoked_by),
                turn,
                "{mode:?} {living:?} {invoked_by:?}"
            );
        }
        assert_eq!(
            of(Mode::Skip).detail(run(1)),
            format!(
                "run {} for \"ann\" has not ended, and there is one at a time (singleton)",
                run(1)
            )
        );
    }
}
