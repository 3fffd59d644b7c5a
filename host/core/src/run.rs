//! The states of a run and the transitions between them.
//!
//! [`State::on`] is the whole machine: one match in which every pair that is not listed is an error, never a silent
//! no-op. docs/state-machine.md draws the same table. Absent on purpose: leases and epochs, which decide *who* may
//! bring an event about and belong to the store.

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::json::Json;

/// A run's status, in Inngest's words. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Status {
    /// Created, never executed.
    Scheduled = 0,
    /// Executed at least once, not ended.
    Running = 1,
    /// Ended with an output.
    Completed = 2,
    /// Ended with an error.
    Failed = 3,
    /// Ended from outside: by a command, an event, or the clock.
    Cancelled = 4,
    /// Ended before it began, by flow control.
    Skipped = 5,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 6] = [
        Status::Scheduled,
        Status::Running,
        Status::Completed,
        Status::Failed,
        Status::Cancelled,
        Status::Skipped,
    ];

    /// Whether the run has ended.
    pub fn is_terminal(self) -> bool {
        self >= Status::Completed
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Scheduled => "Scheduled",
            Status::Running => "Running",
            Status::Completed => "Completed",
            Status::Failed => "Failed",
            Status::Cancelled => "Cancelled",
            Status::Skipped => "Skipped",
        }
    }

    /// From the word, in any case.
    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
    }

    /// From the number on disk.
    pub fn from_number(number: i64) -> Option<Status> {
        Status::ALL.into_iter().find(|status| *status as i64 == number)
    }
}

/// What a run that has not ended is doing. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Phase {
    /// Ready for a node to claim it.
    Queued = 0,
    /// A node drives it.
    Executing = 1,
    /// Until a time.
    Sleeping = 2,
    /// For something from outside: an event, a signal, another run.
    Waiting = 3,
    /// Until the next attempt of a step.
    BackingOff = 4,
    /// For flow control to let it on.
    Limited = 5,
    /// For an operator to resume it, or its function.
    Paused = 6,
    /// Something is wrong that only a person can mend: see the reason.
    Blocked = 7,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 8] = [
        Phase::Queued,
        Phase::Executing,
        Phase::Sleeping,
        Phase::Waiting,
        Phase::BackingOff,
        Phase::Limited,
        Phase::Paused,
        Phase::Blocked,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Executing => "executing",
            Phase::Sleeping => "sleeping",
            Phase::Waiting => "waiting",
            Phase::BackingOff => "backing-off",
            Phase::Limited => "limited",
            Phase::Paused => "paused",
            Phase::Blocked => "blocked",
        }
    }

    /// From the word.
    pub fn parse(text: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == text)
    }

    /// From the number on disk.
    pub fn from_number(number: i64) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| *phase as i64 == number)
    }
}

/// Status and phase together. A terminal status has no phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The status.
    pub status: Status,
    /// What it is doing, while it has not ended.
    pub phase: Option<Phase>,
}

/// What a run that leaves memory waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// A time.
    Sleep,
    /// Something from outside.
    External,
    /// The next attempt of a step.
    BackOff,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// With an output.
    Completed,
    /// With an error.
    Failed,
}

/// What happens to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A node takes it.
    Claim,
    /// Its node lets it go, to wait.
    Suspend(Wait),
    /// Its node lets it go without waiting: it drains, was lost, or another leg is due.
    Release,
    /// What it waited for has come.
    Wake,
    /// It cannot go on until a person does something.
    Block,
    /// A new version is there, or a person asks: try again.
    Unblock,
    /// Its function has returned.
    Finish(End),
    /// A person ends it.
    Cancel,
    /// A person holds it.
    Pause,
    /// A person lets it on.
    Resume,
    /// A person lets it on before the time at which it may begin.
    Delay,
    /// A person lets it on, and its throttle has yet to.
    Throttle,
    /// It may not be claimed before others let go of what it needs.
    Limit,
    /// Flow control drops it before it began.
    Skip,
}

/// An event that cannot happen to a run in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {} cannot {event:?}", .state.describe())]
pub struct Illegal {
    /// The run's state.
    pub state: State,
    /// The event.
    pub event: Event,
}

impl State {
    /// A new run, ready.
    pub const NEW: State = State {
        status: Status::Scheduled,
        phase: Some(Phase::Queued),
    };

    /// A state that has not ended.
    pub const fn live(status: Status, phase: Phase) -> State {
        State {
            status,
            phase: Some(phase),
        }
    }

    const fn ended(status: Status) -> State {
        State { status, phase: None }
    }

    /// The state in words.
    pub fn describe(self) -> String {
        match self.phase {
            Some(phase) => format!("{} ({})", self.status.as_str(), phase.as_str()),
            None => self.status.as_str().to_owned(),
        }
    }

    /// The state after an event.
    ///
    /// # Errors
    /// When the event cannot happen in this state.
    pub fn on(self, event: Event) -> Result<State, Illegal> {
        use Event as E;
        use Phase as P;
        let illegal = Err(Illegal { state: self, event });
        let Some(phase) = self.phase else {
            return illegal;
        };
        let to = |phase| Ok(State::live(self.status, phase));
        match (phase, event) {
            (P::Queued, E::Claim) => Ok(State::live(Status::Running, P::Executing)),
            // A wake may lease a run to the waking node in one step; so may a takeover.
            (P::Sleeping | P::Waiting | P::BackingOff | P::Limited, E::Claim) => {
                Ok(State::live(Status::Running, P::Executing))
            }

            (P::Executing, E::Suspend(Wait::Sleep)) => to(P::Sleeping),
            (P::Executing, E::Suspend(Wait::External)) => to(P::Waiting),
            (P::Executing, E::Suspend(Wait::BackOff)) => to(P::BackingOff),
            (P::Executing, E::Release) => to(P::Queued),
            (P::Executing, E::Finish(End::Completed)) => Ok(State::ended(Status::Completed)),
            (P::Executing, E::Finish(End::Failed)) => Ok(State::ended(Status::Failed)),

            (P::Sleeping | P::Waiting | P::BackingOff | P::Limited, E::Wake) => to(P::Queued),
            // Waking what is awake changes nothing, and racing wakes are ordinary.
            (P::Queued | P::Executing, E::Wake) => to(phase),

            (P::Queued, E::Limit) => to(P::Limited),

            (P::Queued | P::Executing, E::Block) => to(P::Blocked),
            (P::Blocked, E::Unblock) => to(P::Queued),

            (P::Paused, E::Resume) => to(P::Queued),
            (P::Paused, E::Delay) if self.status == Status::Scheduled => to(P::Sleeping),
            (P::Paused, E::Throttle) if self.status == Status::Scheduled => to(P::Limited),
            (P::Queued | P::Executing | P::Sleeping | P::Waiting | P::BackingOff | P::Limited, E::Pause) => {
                to(P::Paused)
            }

            (_, E::Cancel) => Ok(State::ended(Status::Cancelled)),
            (P::Queued | P::Limited, E::Skip) if self.status == Status::Scheduled => {
                Ok(State::ended(Status::Skipped))
            }

            (
                P::Queued
                | P::Executing
                | P::Sleeping
                | P::Waiting
                | P::BackingOff
                | P::Limited
                | P::Paused
                | P::Blocked,
                E::Claim
                | E::Suspend(_)
                | E::Release
                | E::Wake
                | E::Block
                | E::Unblock
                | E::Finish(_)
                | E::Pause
                | E::Resume
                | E::Delay
                | E::Throttle
                | E::Limit
                | E::Skip,
            ) => illegal,
        }
    }
}

/// Why a run failed or was blocked, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// A stable word.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The step it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The guest's own frames, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<String>,
    /// Anything else for a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
}

impl RunError {
    /// An error with a code and nothing else.
    pub fn new(code: &str, message: impl Into<String>) -> RunError {
        RunError {
            code: code.to_owned(),
            message: message.into(),
            step: None,
            frames: Vec::new(),
            details: None,
        }
    }
}

impl From<Failure> for RunError {
    fn from(failure: Failure) -> RunError {
        RunError {
            code: failure.code.unwrap_or_else(|| "function-failed".to_owned()),
            message: failure.message,
            step: None,
            frames: Vec::new(),
            details: failure.details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 17] = [
        Event::Claim,
        Event::Suspend(Wait::Sleep),
        Event::Suspend(Wait::External),
        Event::Suspend(Wait::BackOff),
        Event::Limit,
        Event::Release,
        Event::Wake,
        Event::Block,
        Event::Unblock,
        Event::Finish(End::Completed),
        Event::Finish(End::Failed),
        Event::Cancel,
        Event::Pause,
        Event::Resume,
        Event::Delay,
        Event::Throttle,
        Event::Skip,
    ];

    fn live_states() -> impl Iterator<Item = State> {
        Phase::ALL
            .into_iter()
            .flat_map(|phase| [Status::Scheduled, Status::Running].map(|status| State::live(status, phase)))
    }

    #[test]
    fn nothing_happens_to_a_run_that_has_ended() {
        for status in Status::ALL.into_iter().filter(|status| status.is_terminal()) {
            for event in EVENTS {
                assert!(
                    State { status, phase: None }.on(event).is_err(),
                    "{status:?} {event:?}"
                );
            }
        }
    }

    #[test]
    fn every_state_can_be_cancelled_and_has_a_way_to_an_end() {
        for state in live_states() {
            assert_eq!(
                state.on(Event::Cancel),
                Ok(State {
                    status: Status::Cancelled,
                    phase: None
                })
            );
        }
    }

    #[test]
    fn a_terminal_status_has_no_phase_and_a_live_one_has() {
        for state in live_states() {
            for event in EVENTS {
                if let Ok(next) = state.on(event) {
                    assert_eq!(
                        next.status.is_terminal(),
                        next.phase.is_none(),
                        "{state:?} {event:?}"
                    );
                    assert!(
                        next.status >= state.status,
                        "a status never goes back: {state:?} {event:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_its_node_finishes_or_suspends_a_run() {
        for state in live_states().filter(|state| state.phase != Some(Phase::Executing)) {
            for event in [
                Event::Finish(End::Completed),
                Event::Suspend(Wait::Sleep),
                Event::Release,
            ] {
                assert!(state.on(event).is_err(), "{state:?} {event:?}");
            }
        }
    }
}
