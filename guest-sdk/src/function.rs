//! What a function is: its arguments, its outcome, its definition in the module's manifest.
//!
//! `#[dormouse::function]` implements [`Function`] for a type of the same name; `dormouse::module!` makes entries of them.

use std::future::Future;
use std::pin::Pin;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::context::Context;
use crate::ends::Ends;
use crate::error::{Error, Result};
use crate::event::{self, Event, Events};
use crate::executor;
use crate::flow::Flow;
use crate::step::{Backoff, Step};

/// A boxed future of the thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A durable function. Implemented by `#[dormouse::function]`, for a type with the function's own name.
pub trait Function {
    /// Its id: `[a-z][a-z0-9-]{0,62}`.
    const ID: &'static str;

    /// The data of the event that it takes; any JSON when it takes none.
    type Data;

    /// What it returns.
    type Output;

    /// What the manifest says of it.
    fn definition() -> Definition;

    /// Begins it.
    ///
    /// # Errors
    /// `invalid-event-data`: an argument can't be made of the input.
    #[doc(hidden)]
    fn start(input: &Input) -> Result<BoxFuture<Result<Completion>>>;
}

/// A function's part of the manifest. What is not set, the host's defaults decide.
#[derive(Clone, Debug, Serialize)]
pub struct Definition {
    /// Its id.
    pub id: &'static str,
    /// What makes it start.
    pub triggers: Vec<Trigger>,
    /// How often a failed step is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How the waits between tries grow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Wall time of one try of a step's body, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How its runs start.
    #[serde(flatten)]
    pub flow: Flow,
    /// What follows when they end.
    #[serde(flatten)]
    pub ends: Ends,
}

/// What makes a function start.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Trigger {
    /// Events.
    Event {
        /// Their name, or a pattern that ends in `/*` or `.*`.
        event: &'static str,
        /// A CEL expression over `event` that must hold.
        #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
        condition: Option<&'static str>,
    },
    /// The clock.
    Cron {
        /// The expression, with its time zone before it.
        cron: &'static str,
        /// By how many milliseconds a tick is put off at most.
        #[serde(skip_serializing_if = "Option::is_none")]
        jitter_ms: Option<u64>,
        /// What becomes of a tick while the run of the tick before has not ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        overlap: Option<&'static str>,
        /// Which ticks are done afterwards that were missed.
        #[serde(skip_serializing_if = "Option::is_none")]
        catch_up: Option<&'static str>,
    },
}

/// What a function is started with.
#[doc(hidden)]
#[derive(Deserialize)]
pub struct Input {
    event: Option<Box<RawValue>>,
    #[serde(default)]
    events: Vec<Box<RawValue>>,
    #[serde(default)]
    continued: Option<Box<RawValue>>,
}

/// What an argument of a function may be: [`Event`], [`Events`], [`Step`], [`Context`], [`Continued`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an argument of a Dormouse function",
    label = "not an argument of a function",
    note = "arguments are `Event<T>`, `Events<T>`, `Step`, `Context` and `Continued<T>`, in any order, where `T: serde::de::DeserializeOwned`"
)]
pub trait Argument: Sized {
    /// Makes it of the input.
    ///
    /// # Errors
    /// `invalid-event-data`.
    #[doc(hidden)]
    fn from_input(input: &Input) -> Result<Self>;
}

impl<T: DeserializeOwned> Argument for Event<T> {
    fn from_input(input: &Input) -> Result<Event<T>> {
        let event = input
            .event
            .as_deref()
            .or(input.events.first().map(|first| &**first));
        event::parse(event.map_or("{}", RawValue::get))
    }
}

impl<T: DeserializeOwned> Argument for Events<T> {
    fn from_input(input: &Input) -> Result<Events<T>> {
        input
            .events
            .iter()
            .map(|event| event::parse(event.get()))
            .collect::<Result<_>>()
            .map(Events)
    }
}

impl Argument for Step {
    fn from_input(_: &Input) -> Result<Step> {
        Ok(Step::new())
    }
}

impl Argument for Context {
    fn from_input(_: &Input) -> Result<Context> {
        Ok(Context::new())
    }
}

/// The value that the run was continued with ([`Continue::With`]); none in its first turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Continued<T>(pub Option<T>);

impl<T: DeserializeOwned> Argument for Continued<T> {
    fn from_input(input: &Input) -> Result<Continued<T>> {
        let value = input.continued.as_deref().map_or("null", RawValue::get);
        serde_json::from_str(value).map(Continued).map_err(|error| {
            Error::non_retriable(format!(
                "the value the run was continued with does not fit: {error}"
            ))
            .code("invalid-continued")
        })
    }
}

/// The result of a function without an end: done, or to go on with an empty journal.
///
/// A journal has a bound, so a function that loops for ever hands its state on from turn to turn. It begins again at its
/// first line, under the same run id, with that state as its [`Continued`] argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Continue<T, C = T> {
    /// The run is complete; this is its output.
    Done(T),
    /// The run goes on with this.
    With(C),
}

/// A [`Continue`] as JSON.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub enum Completion {
    Done(String),
    ContinueWith(String),
}

/// What the `Ok` of a function may be: anything serde can write, or a [`Continue`].
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the result of a Dormouse function",
    label = "not the result of a function",
    note = "a function returns `dormouse::Result<T>` where `T: serde::Serialize`, or `dormouse::Result<Continue<T, C>>`"
)]
pub trait IntoCompletion {
    /// What whoever invokes the function is given.
    type Output;
    fn into_completion(self) -> Result<Completion>;
}

impl<T: Serialize> IntoCompletion for T {
    type Output = T;

    fn into_completion(self) -> Result<Completion> {
        to_json(&self).map(Completion::Done)
    }
}

impl<T: Serialize, C: Serialize> IntoCompletion for Continue<T, C> {
    type Output = T;

    fn into_completion(self) -> Result<Completion> {
        match self {
            Continue::Done(value) => to_json(&value).map(Completion::Done),
            Continue::With(value) => to_json(&value).map(Completion::ContinueWith),
        }
    }
}

/// What a function may return.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a Dormouse function returns `dormouse::Result<T>`, not `{Self}`",
    label = "not `dormouse::Result<T>`"
)]
pub trait Outcome {
    /// What whoever invokes the function is given.
    type Output;
    fn complete(self) -> Result<Completion>;
}

impl<T: IntoCompletion, E: Into<Error>> Outcome for std::result::Result<T, E> {
    type Output = T::Output;

    fn complete(self) -> Result<Completion> {
        self.map_err(Into::into)?.into_completion()
    }
}

/// JSON of a value that the run hands out.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::non_retriable(format!(
            "a {} can't be written as JSON: {error}",
            std::any::type_name::<T>()
        ))
        .code("invalid-json")
    })
}

/// One function of a module.
#[doc(hidden)]
pub struct Entry {
    id: &'static str,
    definition: fn() -> Definition,
    start: fn(&Input) -> Result<BoxFuture<Result<Completion>>>,
}

impl Entry {
    pub const fn of<F: Function>() -> Entry {
        Entry {
            id: F::ID,
            definition: F::definition,
            start: F::start,
        }
    }
}

/// Refuses two functions with one id, when the module is compiled.
#[doc(hidden)]
pub const fn assert_unique(ids: &[&str]) {
    let mut first = 0;
    while first < ids.len() {
        let mut second = first + 1;
        while second < ids.len() {
            if same(ids[first], ids[second]) {
                panic!("two functions of this module have the same id");
            }
            second += 1;
        }
        first += 1;
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The manifest.
#[doc(hidden)]
pub fn describe(entries: &[Entry]) -> String {
    #[derive(Serialize)]
    struct Manifest {
        schema: u32,
        sdk: &'static str,
        functions: Vec<Definition>,
    }
    let manifest = Manifest {
        schema: 1,
        sdk: concat!("dormouse-rust/", env!("CARGO_PKG_VERSION")),
        functions: entries.iter().map(|entry| (entry.definition)()).collect(),
    };
    // Strings and numbers alone: this can't fail.
    serde_json::to_string(&manifest).unwrap_or_default()
}

/// Runs one function to its end.
#[doc(hidden)]
pub fn run(entries: &[Entry], function: &str, input: &str) -> Result<Completion> {
    let entry = entries.iter().find(|entry| entry.id == function).ok_or_else(|| {
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        Error::non_retriable(format!(
            "this module has no function \"{function}\", it has: {}",
            ids.join(", ")
        ))
        .code("unknown-function")
    })?;
    let input: Input = serde_json::from_str(input).map_err(|error| {
        Error::non_retriable(format!("the host's input can't be read: {error}")).code("invalid-json")
    })?;
    executor::block_on((entry.start)(&input)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_is_none_in_the_first_turn() {
        for json in [r#"{"event":null}"#, r#"{"continued":null}"#, r#"{"events":[]}"#] {
            let input: Input = serde_json::from_str(json).expect("valid");
            assert_eq!(
                Continued::<u8>::from_input(&input).expect("none"),
                Continued(None),
                "{json}"
            );
        }
        let input: Input = serde_json::from_str(r#"{"continued":7}"#).expect("valid");
        assert_eq!(
            Continued::<u8>::from_input(&input).expect("some"),
            Continued(Some(7))
        );
        assert!(Continued::<String>::from_input(&input).is_err());
    }

    #[test]
    fn an_unknown_function_is_refused_with_the_known_ones() {
        let error = run(&[], "nope", "{}").expect_err("unknown");
        assert_eq!(error.get_code(), Some("unknown-function"));
    }

    #[test]
    fn same_compares_whole_texts() {
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab") && same("", ""));
    }
}
