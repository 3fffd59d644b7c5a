//! Runs a function natively, without Wasm and without a server, on a journal in memory.
//!
//! Time is virtual: sleeps and back-offs pass at once. After every body and every wait the function is thrown away and
//! replayed from its first line, and once more when it is done: a function that is not deterministic is found
//! ([`Ending::Diverged`]). It is stricter there than the real host in one thing: the order of standard hash maps differs
//! from leg to leg.
//!
//! ```
//! use dormouse::prelude::*;
//! use dormouse::testing::Harness;
//!
//! #[dormouse::function(id = "greet", on(event = "user/signed.up"))]
//! async fn greet(event: Event<Value>, step: Step) -> dormouse::Result<String> {
//!     step.sleep("wait a day", std::time::Duration::from_secs(86_400)).await?;
//!     Ok(format!("Hello {}!", event.data["name"].as_str().unwrap_or("you")))
//! }
//!
//! let report = Harness::of::<greet>().event("user/signed.up", json!({"name": "Ada"})).run();
//! assert_eq!(report.output::<String>(), "Hello Ada!");
//! assert_eq!(report.elapsed.as_secs(), 86_400);
//! ```
//!
//! Absent: limits, grants, the wait between attempts of `fetch`, and jitter.

mod journal;
pub(crate) mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, Failure, Result};
use crate::executor;
use crate::function::{self, Completion, Entry, Function, Trigger};
use crate::http::{Request, Response};
use crate::log::Level;
use crate::step::{Backoff, Rows, Statement};
use world::{Leave, Setup, World};

pub use journal::Operation;

/// What the test answers an operation with.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The result, at once.
    Now(Value),
    /// The result, after this long.
    After(Duration, Value),
    /// Nothing, until the operation's timeout if it has one.
    Never,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// With this output.
    Done(Value),
    /// It asked to go on with this value.
    ContinueWith(Value),
    /// With this error.
    Failed(Error),
    /// The function did not do on replay what it did before: which entry of the journal, what is recorded there and what
    /// the function asked for.
    Diverged(String),
}

/// A step as the run did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Its name.
    pub name: String,
    /// `run`, `sleep`, `sql`, …
    pub kind: &'static str,
    /// How often its body was run; 1 for an operation.
    pub attempts: u32,
    /// It was given up before it was done.
    pub cancelled: bool,
    /// Its body said, or was found, to change what lives on after it.
    pub state_changed: bool,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// Its steps, in the order they were first begun.
    pub steps: Vec<StepRecord>,
    /// How long it took in virtual time.
    pub elapsed: Duration,
    /// How often the function was begun.
    pub legs: u32,
    /// The events it sent, where the test did not answer for the host ([`Harness::answer`]).
    pub sent: Vec<Value>,
    /// Its log lines.
    pub logs: Vec<(Level, String)>,
}

impl Report {
    /// The output.
    ///
    /// # Panics
    /// When the run ended otherwise, or with something else than a `T`.
    #[track_caller]
    pub fn output<T: DeserializeOwned>(&self) -> T {
        match &self.ending {
            Ending::Done(value) => match serde_json::from_value(value.clone()) {
                Ok(output) => output,
                Err(error) => panic!("the output is {value}: {error}"),
            },
            other => panic!("the run did not complete: {other:?}"),
        }
    }

    /// The error it failed with.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn error(&self) -> &Error {
        match &self.ending {
            Ending::Failed(error) => error,
            other => panic!("the run did not fail: {other:?}"),
        }
    }

    /// The names of its steps.
    pub fn step_names(&self) -> Vec<&str> {
        self.steps.iter().map(|step| step.name.as_str()).collect()
    }
}

/// Sets up a run of one function.
pub struct Harness {
    entry: Entry,
    world: World,
    continued: Value,
}

impl Harness {
    /// A run of the function `F`, started by its first trigger: an event without data, or a tick.
    pub fn of<F: Function>() -> Harness {
        let definition = F::definition();
        let (name, data) = match definition.triggers.first() {
            None => ("test/event", json!({})),
            Some(Trigger::Event { event, .. }) => (*event, json!({})),
            Some(Trigger::Cron { cron, .. }) => (
                "dormouse/scheduled.timer",
                json!({"cron": cron, "scheduled_at": world::START}),
            ),
        };
        let setup = Setup {
            run_id: "01K00000000000000000000000".to_owned(),
            function: F::ID,
            attempts: definition.retries.unwrap_or(4) + 1,
            backoff: definition
                .backoff
                .unwrap_or(Backoff::exponential(Duration::from_secs(1))),
            events: vec![event(0, name, data)],
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            replay: true,
        };
        Harness {
            entry: Entry::of::<F>(),
            world: World::new(setup),
            continued: Value::Null,
        }
    }

    /// The event that starts it.
    pub fn event(mut self, name: &str, data: impl Serialize) -> Harness {
        self.world.setup.events = vec![event(0, name, to_value(data))];
        self
    }

    /// Another event that starts it, after the first.
    pub fn and_event(mut self, name: &str, data: impl Serialize) -> Harness {
        let number = self.world.setup.events.len();
        self.world.setup.events.push(event(number, name, to_value(data)));
        self
    }

    /// The value it was continued with.
    pub fn continued(mut self, value: impl Serialize) -> Harness {
        self.continued = to_value(value);
        self
    }

    /// A configuration value.
    pub fn config(mut self, key: &str, value: impl Serialize) -> Harness {
        self.world.setup.config.insert(key.to_owned(), to_value(value));
        self
    }

    /// A secret that was granted to it.
    pub fn secret(mut self, name: &str, secret: &str) -> Harness {
        self.world
            .setup
            .secrets
            .insert(name.to_owned(), secret.to_owned());
        self
    }

    /// Answers its SQL: the database and the statements of one transaction, an answer for each statement.
    pub fn sql(mut self, answer: impl FnMut(&str, &[Statement]) -> Result<Vec<Rows>> + 'static) -> Harness {
        self.world.handlers.sql = Some(Box::new(answer));
        self
    }

    /// Answers its HTTP requests, those of bodies and those of `step.fetch`.
    pub fn http(mut self, answer: impl FnMut(&Request) -> Result<Response> + 'static) -> Harness {
        self.world.handlers.http = Some(Box::new(answer));
        self
    }

    /// Answers its other operations: the step's name, and what is asked for. Without it, events that it sends are taken
    /// and kept for the report.
    pub fn answer(mut self, answer: impl FnMut(&str, &Operation) -> Result<Reply> + 'static) -> Harness {
        self.world.handlers.other = Some(Box::new(answer));
        self
    }

    /// Leaves the function in memory instead of replaying it after every step, as a host does that parks instances.
    pub fn parked(mut self) -> Harness {
        self.world.setup.replay = false;
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When the function panics, runs steps inside of a body, or waits for what never comes.
    #[track_caller]
    pub fn run(self) -> Report {
        let events = &self.world.setup.events;
        let input =
            json!({"event": events.first(), "events": events, "continued": self.continued}).to_string();
        let entries = [self.entry];
        world::install(self.world);

        let mut first: Option<Result<Completion>> = None;
        let ending = loop {
            world::with(World::begin_leg);
            let function = world::with(|world| world.setup.function);
            match catch_unwind(AssertUnwindSafe(|| function::run(&entries, function, &input))) {
                Ok(outcome) => {
                    if let Some(reason) = world::with(|world| world.left_over()) {
                        break Ending::Diverged(reason);
                    }
                    match first.take() {
                        // Once more from the first line, with nothing left to do but to replay.
                        None => {
                            world::with(World::seal);
                            first = Some(outcome);
                        }
                        Some(before) if before == outcome => break ending(outcome),
                        Some(before) => {
                            break Ending::Diverged(format!(
                                "the run ended with {before:?}, on replay with {outcome:?}"
                            ));
                        }
                    }
                }
                Err(payload) if payload.is::<Leave>() => {
                    executor::reset();
                    if let Some(reason) = world::with(|world| world.diverged()) {
                        break Ending::Diverged(reason);
                    }
                }
                Err(payload) => {
                    drop(world::remove());
                    executor::reset();
                    resume_unwind(payload);
                }
            }
        };
        let world = world::remove();
        Report {
            ending,
            elapsed: world.elapsed(),
            steps: world.steps,
            legs: world.legs,
            sent: world.sent,
            logs: world.logs,
        }
    }
}

fn ending(outcome: Result<Completion>) -> Ending {
    match outcome {
        Ok(Completion::Done(json)) => Ending::Done(world::value(&json)),
        Ok(Completion::ContinueWith(json)) => Ending::ContinueWith(world::value(&json)),
        Err(error) => Ending::Failed(error),
    }
}

fn event(number: usize, name: &str, data: Value) -> Value {
    json!({"id": format!("event-{number}"), "name": name, "data": data, "ts": world::START_MS, "user": null, "v": null})
}

#[track_caller]
fn to_value(value: impl Serialize) -> Value {
    match serde_json::to_value(value) {
        Ok(value) => value,
        Err(error) => panic!("the test's value can't be written as JSON: {error}"),
    }
}

/// For answers that the test has not prepared.
fn no_answer(what: &str) -> Failure {
    Error::non_retriable(format!(
        "the test has no answer for {what}: give it one on the Harness"
    ))
    .code("no-answer")
    .into_failure()
}
