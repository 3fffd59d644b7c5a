//! Bodies: closures of the function that run once they have to and are skipped when their outcome is known.

use std::cell::Cell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Failure, Result, StepError};
use crate::executor::Wait;
use crate::function::to_json;
use crate::hash_keys;
use crate::host::{self, RunStart};
use crate::step::options::{Backoff, Options};
use crate::time::from_unix_millis;

thread_local! {
    static IN_BODY: Cell<bool> = const { Cell::new(false) };
}

/// Marks the body as open; also a native test that panics in a body leaves no mark behind.
struct Open;

impl Open {
    fn new() -> Open {
        IN_BODY.set(true);
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        IN_BODY.set(false);
    }
}

/// Whether a body is open.
pub(crate) fn in_body() -> bool {
    IN_BODY.get()
}

/// One try of a body.
#[derive(Debug)]
pub struct Attempt(host::Attempt);

impl Attempt {
    /// 1 for the first try, counting up.
    pub fn number(&self) -> u32 {
        host::attempt_number(&self.0)
    }

    /// When the host will end the body with the failure code `step-timeout`.
    pub fn deadline(&self) -> SystemTime {
        from_unix_millis(host::attempt_deadline(&self.0))
    }

    /// The same over all attempts of this step in this run, and different for every other step: for services that
    /// deduplicate requests.
    pub fn idempotency_key(&self) -> String {
        host::attempt_idempotency_key(&self.0)
    }

    /// Says that this body changes something that lives on after it: a static, a thread-local, a mutex. A replay, which
    /// skips the body, would not have the change; the host therefore replaces this instance by a replayed one as soon as
    /// the outcome is recorded.
    pub fn state_changed(&self) {
        host::attempt_state_changed(&self.0);
    }
}

/// What can be tried: a closure with or without an argument.
#[doc(hidden)]
pub trait Body<T>: Send {
    fn try_once(&self, attempt: &Attempt) -> Result<T>;
}

/// A body that does not look at its attempt.
#[doc(hidden)]
#[derive(Debug)]
pub struct Plain<F>(pub(crate) F);

impl<T, F: Fn() -> Result<T> + Send> Body<T> for Plain<F> {
    fn try_once(&self, _: &Attempt) -> Result<T> {
        (self.0)()
    }
}

/// A body that does.
#[doc(hidden)]
#[derive(Debug)]
pub struct WithAttempt<F>(pub(crate) F);

impl<T, F: Fn(&Attempt) -> Result<T> + Send> Body<T> for WithAttempt<F> {
    fn try_once(&self, attempt: &Attempt) -> Result<T> {
        (self.0)(attempt)
    }
}

/// A step with a body; see [`Step::run`](crate::Step::run). Its methods say how it is tried.
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct Run<T, B> {
    request: Request,
    body: B,
    output: PhantomData<fn() -> T>,
}

// No part of it is ever pinned: the body is only called.
impl<T, B> Unpin for Run<T, B> {}

impl<T, B> Run<T, B> {
    pub(crate) fn new(name: String, body: B) -> Run<T, B> {
        Run {
            request: Request {
                name,
                options: Options::default(),
                deferred: None,
            },
            body,
            output: PhantomData,
        }
    }

    /// How many tries in total: 1 to 21. In place of the function's `retries` + 1.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.request.options.set("attempts", attempts);
        self
    }

    /// How the waits between tries grow.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.request.options.set("backoff", backoff);
        self
    }

    /// The wall time of one try. A body that takes longer is ended with the failure code `step-timeout`, and tried again.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.options.set_millis("timeout_ms", timeout);
        self
    }
}

impl<T, B> Future for Run<T, B>
where
    T: Serialize + DeserializeOwned,
    B: Body<T>,
{
    type Output = Result<T, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let body = &this.body;
        let call = |attempt: &Attempt| body.try_once(attempt).and_then(|value| to_json(&value));
        let name = &this.request.name.clone();
        this.request.poll(cx, &call).map(|outcome| match outcome {
            Ok(json) => decode(name, &json),
            Err(failure) => Err(StepError::new(name, failure)),
        })
    }
}

/// What a step came to, as the function's type.
pub(crate) fn decode<T: DeserializeOwned>(step: &str, json: &str) -> Result<T, StepError> {
    serde_json::from_str(json).map_err(|error| {
        let type_name = std::any::type_name::<T>();
        let message = format!("its recorded result is not what the function takes ({type_name}): {error}");
        StepError::refused(step, "result-mismatch", message)
    })
}

/// The part of a body's step that does not depend on its type.
#[derive(Debug)]
struct Request {
    name: String,
    options: Options,
    deferred: Option<Wait>,
}

impl Request {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &dyn Fn(&Attempt) -> Result<String>,
    ) -> Poll<Result<String, Failure>> {
        if let Some(wait) = &self.deferred {
            std::task::ready!(wait.poll(cx));
        }
        let options = self.options.json();
        let keys = hash_keys::before();
        let start = host::begin_run(&self.name, options.as_deref());
        // Only now: a handle that is dropped before the step was asked for again would give the step up.
        self.deferred = None;
        match start {
            RunStart::Recorded(outcome) => {
                keys.skip();
                Poll::Ready(outcome)
            }
            RunStart::Execute(attempt) => Poll::Ready(execute(attempt, keys, body)),
            RunStart::Deferred(operation) => {
                let wait = Wait::new(operation);
                // It was made just now, so this only leaves the waker.
                let _ = wait.poll(cx);
                self.deferred = Some(wait);
                Poll::Pending
            }
        }
    }
}

fn execute(
    attempt: host::Attempt,
    keys: hash_keys::Before,
    body: &dyn Fn(&Attempt) -> Result<String>,
) -> Result<String, Failure> {
    let attempt = Attempt(attempt);
    let open = Open::new();
    let outcome = body(&attempt);
    drop(open);
    if keys.advanced() {
        attempt.state_changed();
    }
    match outcome {
        Ok(json) => host::finish_run(attempt.0, Ok(&json)).map(|()| json),
        Err(error) => {
            let failure = error.into_failure();
            host::finish_run(attempt.0, Err(failure.clone()))?;
            // The contract answers with what was recorded; a host that records nothing of a failure leaves it as it was.
            Err(failure)
        }
    }
}
