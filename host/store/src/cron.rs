//! Where the schedules of functions stand: a row for each cron that an active function has, with its next tick.
//!
//! The rows follow what is active: [`Store::put_schedules`](crate::Store::put_schedules) makes them those of the registry
//! of a generation, as often as it is called. One that was there keeps its place. A tick is one commit: the schedule moves
//! on from where whoever asks believes it to stand, so that of many who ask at once one is right; and the event of the tick
//! and its run are stored with that. What becomes of ticks is the core's to decide.

use dormouse_core::cron::Previous;
use dormouse_core::{FunctionName, RunId, Timestamp};

use crate::ingest::{Created, Ingest};

/// The schedules of some modules, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSchedules {
    /// The modules. Schedules of others stay as they are.
    pub modules: Vec<String>,
    /// Their schedules.
    pub schedules: Vec<NewSchedule>,
    /// The registry generation that says so. Another one in the store: [`crate::Error::StaleRegistry`].
    pub generation: i64,
}

/// A schedule of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSchedule {
    /// The function.
    pub function: FunctionName,
    /// The expression: with the function, what a schedule is known by.
    pub cron: String,
    /// Its next tick, if it is not there yet.
    pub next: Timestamp,
}

/// A schedule as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The function.
    pub function: FunctionName,
    /// The expression.
    pub cron: String,
    /// Its next tick.
    pub next: Timestamp,
    /// The last tick that started a run.
    pub last: Option<LastTick>,
    /// The last tick that started none.
    pub skipped: Option<SkippedTick>,
    /// What became of the last tick's run. None: it is not there any more.
    pub previous: Previous,
}

/// A tick that started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastTick {
    /// The tick.
    pub tick: Timestamp,
    /// The run.
    pub run: RunId,
}

/// A tick that started no run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedTick {
    /// The tick.
    pub tick: Timestamp,
    /// When that was decided.
    pub at: Timestamp,
    /// Why, for a person.
    pub reason: String,
}

/// A step of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// The function.
    pub function: FunctionName,
    /// The expression.
    pub cron: String,
    /// Where it is believed to stand.
    pub from: Timestamp,
    /// Where it stands afterwards.
    pub to: Timestamp,
    /// The tick that is started.
    pub start: Option<StartTick>,
    /// The latest tick that is left out, and why.
    pub skipped: Option<(Timestamp, String)>,
    /// The registry generation this was decided under. Another one in the store: [`crate::Error::StaleRegistry`].
    pub generation: i64,
    /// The time.
    pub now: Timestamp,
}

/// A tick that is started.
#[derive(Clone, Debug, PartialEq)]
pub struct StartTick {
    /// The tick.
    pub tick: Timestamp,
    /// Its event and its one run, of the same generation.
    pub ingest: Ingest,
}

/// What came of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticked {
    /// The schedule has moved on, and this became of the run, if one was to start.
    Done(Option<Created>),
    /// It is not there, or does not stand there any more: nothing was written.
    Lost,
}
