//! Write durable functions for Dormouse.
//!
//! A function is an `async fn` that takes its event and a [`Step`]. What it does between steps may be done again at
//! any time, by replay; what a step came to is recorded once and stays.
//!
//! ```
//! use dormouse::prelude::*;
//! use std::time::Duration;
//!
//! #[derive(Deserialize)]
//! struct Signup {
//!     email: String,
//! }
//!
//! /// Greets a new user a day later.
//! #[dormouse::function(id = "greet", on(event = "user/signed.up"), retries = 5)]
//! async fn greet(event: Event<Signup>, step: Step) -> dormouse::Result<String> {
//!     step.sleep("wait a day", Duration::from_secs(86_400)).await?;
//!     let greeting = step
//!         .run("write greeting", || Ok(format!("Hello {}!", event.data.email)))
//!         .await?;
//!     Ok(greeting)
//! }
//!
//! dormouse::module!(greet);
//! # fn main() {}
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`mod@function`] | what a function is: its arguments, its outcome, its definition in the manifest |
//! | [`event`], [`context`] | what a run knows of itself |
//! | [`ends`] | how runs end: what events carry that tell of it |
//! | [`step`] | bodies and operations, and the futures that stand for them |
//! | [`error`] | failures, and what they say about trying again |
//! | [`http`] | a blocking client for bodies |
//! | [`collections`] | maps whose order is the same on every replay |
//! | [`log`] | the run's log lines |
//! | [`time`] | RFC 3339 and Unix milliseconds |
//! | [`testing`] | runs a function natively, on a journal in memory, replaying after every step |
//!
//! Deliberately absent: a runtime of any kind (what waits, waits in the host), threads, files, sockets.

// The macros name this crate as `::dormouse`, also when they are used in it.
extern crate self as dormouse;

pub mod collections;
pub mod context;
pub mod ends;
pub mod error;
pub mod event;
mod executor;
mod flow;
pub mod function;
mod hash_keys;
mod host;
pub mod http;
mod join;
pub mod log;
pub mod step;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod time;

pub use collections::{HashMap, HashSet};
pub use context::Context;
pub use dormouse_macros::{function, join, module, select, try_join};
pub use ends::{RunEnded, RunError};
pub use error::{Error, Ok, Result, ResultExt, StepError};
pub use event::{Event, Events, ScheduledTimer};
pub use function::{Continue, Continued, Function};
pub use join::{join_all, try_join_all};
pub use step::{Attempt, Backoff, Step};

/// The guide's code is compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/functions.md")]
struct Guide;

/// So is that of how runs end.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/ends.md")]
struct EndsGuide;

/// So is that of several events.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/together.md")]
struct TogetherGuide;

/// What most functions need: `use dormouse::prelude::*;`.
pub mod prelude {
    pub use crate::ends::{RunEnded, RunError};
    pub use crate::error::{Error, ResultExt as _, StepError};
    pub use crate::event::{Event, Events, ScheduledTimer};
    pub use crate::function::{Continue, Continued};
    pub use crate::step::{Attempt, Backoff, Step};
    pub use crate::{Context, join, join_all, params, select, try_join};
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};
}

/// What the macros' expansions use. Not part of the interface: may change in any version.
#[doc(hidden)]
pub mod __private {
    pub use crate::ends::{CancelOn, Ends, Timeouts};
    pub use crate::flow::{Batch, Concurrency, Debounce, Flow, Rate, Singleton};
    pub use crate::function::{
        Argument, BoxFuture, Completion, Definition, Entry, Input, Outcome, assert_unique, describe, run,
    };
    pub use serde_json::{Value as JsonValue, json};

    #[cfg(target_family = "wasm")]
    pub use crate::host::exports::{Guest, WitCompletion, WitFailure, bindings, export, guest_run};
}
