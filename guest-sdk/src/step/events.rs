//! Operations on events, signals and other functions.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result, StepError};
use crate::event::{self, Event};
use crate::executor::Wait;
use crate::function::to_json;
use crate::host::{self, Operation};
use crate::step::body::decode;
use crate::step::options::Options;

/// What these operations have in common: begun at the first poll, then waited for.
#[derive(Debug)]
struct Begun {
    name: String,
    options: Options,
    wait: Option<Wait>,
}

impl Begun {
    fn new(name: String) -> Begun {
        Begun {
            name,
            options: Options::default(),
            wait: None,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        start: impl FnOnce(&str, Option<&str>) -> Operation,
    ) -> Poll<Result<String, StepError>> {
        let wait = self
            .wait
            .get_or_insert_with(|| Wait::new(start(&self.name, self.options.json().as_deref())));
        let operation = std::task::ready!(wait.poll(cx));
        Poll::Ready(host::operation_result(operation).map_err(|failure| StepError::new(&self.name, failure)))
    }
}

/// Waits for an event; see [`Step::wait_for_event`](crate::Step::wait_for_event).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct WaitForEvent<T> {
    begun: Begun,
    event: String,
    output: PhantomData<fn() -> T>,
}

impl<T> WaitForEvent<T> {
    pub(crate) fn new(name: String, event: String) -> WaitForEvent<T> {
        WaitForEvent {
            begun: Begun::new(name),
            event,
            output: PhantomData,
        }
    }

    /// How long to wait; after that the answer is none. Without it: as long as the run may live.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.begun.options.set_millis("timeout_ms", timeout);
        self
    }

    /// The path of a field, such as `data.order_id`, that must be the same in the event and in the one that started the run.
    pub fn matching(mut self, path: impl Into<String>) -> Self {
        self.begun.options.set("match", path.into());
        self
    }

    /// A CEL expression over `event` (the one that started the run) and `async` (the one that may end the wait).
    pub fn when(mut self, expression: impl Into<String>) -> Self {
        self.begun.options.set("if", expression.into());
        self
    }

    /// Takes an event also when it arrived up to this long before.
    pub fn lookback(mut self, lookback: Duration) -> Self {
        self.begun.options.set_millis("lookback_ms", lookback);
        self
    }
}

impl<T: DeserializeOwned> Future for WaitForEvent<T> {
    type Output = Result<Option<Event<T>>, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let event = &this.event;
        let outcome = this.begun.poll(cx, |name, options| {
            host::start_wait_for_event(name, event, options)
        });
        let name = &this.begun.name;
        outcome.map(|outcome| match outcome?.as_str() {
            "null" => Ok(None),
            json => event::parse(json)
                .map(Some)
                .map_err(|error| StepError::new(name, error.into_failure())),
        })
    }
}

/// What to do when another run waits for the same signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// This step fails. As it is when nothing is said.
    Fail,
    /// The other run's step fails, this one waits.
    Replace,
}

/// Waits for a signal; see [`Step::wait_for_signal`](crate::Step::wait_for_signal).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct WaitForSignal<T> {
    begun: Begun,
    signal: String,
    output: PhantomData<fn() -> T>,
}

impl<T> WaitForSignal<T> {
    pub(crate) fn new(name: String, signal: String) -> WaitForSignal<T> {
        WaitForSignal {
            begun: Begun::new(name),
            signal,
            output: PhantomData,
        }
    }

    /// How long to wait; after that the answer is none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.begun.options.set_millis("timeout_ms", timeout);
        self
    }

    /// What to do when another run waits for the same signal.
    pub fn on_conflict(mut self, conflict: OnConflict) -> Self {
        self.begun.options.set("on_conflict", conflict);
        self
    }
}

impl<T: DeserializeOwned> Future for WaitForSignal<T> {
    type Output = Result<Option<T>, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let signal = &this.signal;
        let outcome = this.begun.poll(cx, |name, options| {
            host::start_wait_for_signal(name, signal, options)
        });
        let name = &this.begun.name;
        outcome.map(|outcome| decode(name, &outcome?))
    }
}

/// What becomes of the other function when its caller gives it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCancel {
    /// It is cancelled too. As it is when nothing is said.
    Cancel,
    /// It goes on.
    Abandon,
}

/// Runs another function; see [`Step::invoke`](crate::Step::invoke).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct Invoke<T> {
    begun: Begun,
    function: String,
    data: Result<String, Failure>,
    output: PhantomData<fn() -> T>,
}

impl<T> Invoke<T> {
    pub(crate) fn new(name: String, function: String, data: &impl Serialize) -> Invoke<T> {
        Invoke {
            begun: Begun::new(name),
            function,
            data: to_json(data).map_err(|error| error.into_failure()),
            output: PhantomData,
        }
    }

    /// How long the other function may take before this step fails with `invoke-timeout`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.begun.options.set_millis("timeout_ms", timeout);
        self
    }

    /// What becomes of the other function when it has not ended and this step is given up: this run has ended, however it
    /// has, the timeout has passed, or the step was dropped.
    pub fn on_cancel(mut self, on_cancel: OnCancel) -> Self {
        self.begun.options.set("on_cancel", on_cancel);
        self
    }
}

impl<T: DeserializeOwned> Future for Invoke<T> {
    type Output = Result<T, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let data = match &this.data {
            Ok(data) => data,
            Err(failure) => return Poll::Ready(Err(StepError::new(&this.begun.name, failure.clone()))),
        };
        let function = &this.function;
        let outcome = this.begun.poll(cx, |name, options| {
            host::start_invoke(name, function, data, options)
        });
        let name = &this.begun.name;
        outcome.map(|outcome| decode(name, &outcome?))
    }
}

/// The ids of the events that were sent, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// One id for each event.
    pub ids: Vec<String>,
}

/// Sends events; see [`Step::send_events`](crate::Step::send_events).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct SendEvents {
    begun: Begun,
    events: Result<String, Failure>,
}

impl SendEvents {
    pub(crate) fn new<E: Serialize>(name: String, events: &[E]) -> SendEvents {
        SendEvents {
            begun: Begun::new(name),
            events: to_json(events).map_err(|error| error.into_failure()),
        }
    }
}

impl Future for SendEvents {
    type Output = Result<Sent, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let events = match &this.events {
            Ok(events) => events,
            Err(failure) => return Poll::Ready(Err(StepError::new(&this.begun.name, failure.clone()))),
        };
        let outcome = this
            .begun
            .poll(cx, |name, _none| host::start_send_events(name, events));
        let name = &this.begun.name;
        outcome.map(|outcome| decode(name, &outcome?))
    }
}

/// Sends a signal; see [`Step::send_signal`](crate::Step::send_signal).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct SendSignal {
    begun: Begun,
    signal: String,
    data: Result<String, Failure>,
}

impl SendSignal {
    pub(crate) fn new(name: String, signal: String, data: &impl Serialize) -> SendSignal {
        SendSignal {
            begun: Begun::new(name),
            signal,
            data: to_json(data).map_err(|error| error.into_failure()),
        }
    }
}

impl Future for SendSignal {
    type Output = Result<Option<String>, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        #[derive(Deserialize)]
        struct Waited {
            run_id: String,
        }
        let this = &mut *self;
        let data = match &this.data {
            Ok(data) => data,
            Err(failure) => return Poll::Ready(Err(StepError::new(&this.begun.name, failure.clone()))),
        };
        let signal = &this.signal;
        let outcome = this
            .begun
            .poll(cx, |name, _none| host::start_send_signal(name, signal, data));
        let name = &this.begun.name;
        outcome.map(|outcome| {
            let waited: Option<Waited> = decode(name, &outcome?)?;
            Ok(waited.map(|waited| waited.run_id))
        })
    }
}
