//! The pure core of Dormouse: what is decided, apart from who does it.
//!
//! Everything here is a function of its arguments. Time, ids and randomness come in as values; nothing is read,
//! written or waited for. That is what makes replay, retries and matching testable by the million, and it is held by
//! the manifest: no async runtime, database, engine, clock or random source among the dependencies.
//!
//! | room | what it decides |
//! |---|---|
//! | [`replay`] | what a guest's call is answered with: recorded, to execute, to wait, or diverged |
//! | [`preflight`] | what a new version would do to a run in flight |
//! | [`journal`] | what a run's record consists of, and how it is encoded |
//! | [`run`] | the states of a run and the transitions between them |
//! | [`retry`] | whether and when a failed attempt is followed by another |
//! | [`event`], [`trigger`] | what a valid event is, and which functions it starts |
//! | [`ending`] | which events cancel a run, and when it has taken too long |
//! | [`system`] | which events tell of runs that end, and what they say |
//! | [`cron`] | when functions start by the clock, and what becomes of ticks that nobody took |
//! | [`flow`] | what becomes of a run that its function limits |
//! | [`wait`] | which events end a wait |
//! | [`condition`] | CEL over events: which expressions are taken, and whether one holds |
//! | [`manifest`] | what a module says of its functions, and whether that makes sense |
//! | [`rerun`] | what a rerun takes over from an earlier run |
//! | [`swap`] | what becomes of runs in flight when another version becomes active |
//! | [`step`], [`operation`], [`invoke`], [`fetch`] | the options of a body, and what an operation asks for |
//! | [`failure`], [`json`], [`id`], [`digest`], [`name`], [`time`] | the values the rooms speak of |
//! | [`limit`] | every limit by name, with its default and its reason |
#![forbid(unsafe_code)]

pub mod condition;
pub mod cron;
pub mod digest;
pub mod ending;
pub mod event;
pub mod failure;
pub mod fetch;
pub mod flow;
pub mod id;
pub mod invoke;
pub mod journal;
pub mod json;
pub mod limit;
pub mod manifest;
pub mod name;
pub mod operation;
pub mod preflight;
pub mod replay;
pub mod rerun;
pub mod retry;
pub mod run;
pub mod step;
pub mod swap;
pub mod system;
pub mod time;
pub mod trigger;
pub mod wait;

pub use digest::Digest;
pub use failure::{Failure, Outcome, Retry};
pub use id::{EventId, RunId};
pub use journal::{Entry, Seq};
pub use json::Json;
pub use name::FunctionName;
pub use time::Timestamp;
