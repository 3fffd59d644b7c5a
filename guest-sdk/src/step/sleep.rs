//! Sleeps.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::{Result, StepError};
use crate::executor::Wait;
use crate::host;

/// A sleep; see [`Step::sleep`](crate::Step::sleep).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct Sleep {
    name: String,
    state: State,
}

#[derive(Debug)]
enum State {
    For(u64),
    Until(Result<u64, String>),
    Waiting(Wait),
}

impl Sleep {
    pub(crate) fn for_millis(name: String, millis: u64) -> Sleep {
        let state = State::For(millis);
        Sleep { name, state }
    }

    pub(crate) fn until(name: String, time: Result<u64, String>) -> Sleep {
        let state = State::Until(time);
        Sleep { name, state }
    }
}

impl Future for Sleep {
    type Output = Result<(), StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let started = match &this.state {
            State::Waiting(_) => None,
            State::For(millis) => Some(host::start_sleep(&this.name, *millis)),
            State::Until(Ok(time)) => Some(host::start_sleep_until(&this.name, *time)),
            State::Until(Err(reason)) => {
                return Poll::Ready(Err(StepError::refused(
                    &this.name,
                    "invalid-time",
                    reason.clone(),
                )));
            }
        };
        if let Some(operation) = started {
            this.state = State::Waiting(Wait::new(operation));
        }
        let State::Waiting(wait) = &this.state else {
            unreachable!("it was started above")
        };
        let operation = std::task::ready!(wait.poll(cx));
        let outcome = host::operation_result(operation).map(|_null| ());
        Poll::Ready(outcome.map_err(|failure| StepError::new(&this.name, failure)))
    }
}
