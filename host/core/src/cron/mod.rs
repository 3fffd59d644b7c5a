//! Crons: when a function starts by the clock, and what becomes of the ticks that nobody could take.
//!
//! A [`Cron`] is an expression in a time zone. A [`Schedule`] is one with what its trigger says beside it: by how much its
//! ticks are put off so that not all functions start at once, what happens while the run of the tick before goes on, and
//! which of the ticks are done afterwards that came due while no server was there. [`Schedule::decide`] says what to do
//! with a schedule that stands somewhere. Time is an argument; the rules of time zones are those that come with this
//! release, so that all nodes have the same ones whatever machines they run on.
//!
//! | room | what it decides |
//! |---|---|
//! | [`expression`] | which expressions are taken, and when their ticks are |
//! | [`schedule`] | what a trigger may say beside the expression, and when a tick is due |
//! | [`decision`] | what becomes of ticks that are due |

pub mod decision;
pub mod expression;
pub mod schedule;

pub use decision::{Decision, Move, Previous, Reason, Skipped, Standing};
pub use expression::Cron;
pub use schedule::{CatchUp, Overlap, Schedule};

/// The name of the events that ticks are.
pub const EVENT: &str = "dormouse/scheduled.timer";
