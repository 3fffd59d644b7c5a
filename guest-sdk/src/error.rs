//! Failures: what went wrong, for a person and for a program, and whether to try again.
//!
//! Absent: [`std::error::Error`] for [`Error`], so that `?` can turn every other error into one.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::time::to_millis;

/// What a function and a step's body answer with.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `Ok` with [`Error`] as the error: for the end of an `async` block, whose error type nothing else tells.
#[allow(non_snake_case)]
pub fn Ok<T>(value: T) -> Result<T> {
    Result::Ok(value)
}

/// What a failure says about trying again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Retry {
    #[default]
    Default,
    Never,
    /// Milliseconds.
    After(u64),
}

/// A failure as the contract has it. One shape for functions, bodies and operations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: Option<String>,
    pub(crate) details: Option<Value>,
    pub(crate) retry: Retry,
}

/// Why a function or a step's body failed.
///
/// Every ordinary error becomes one by `?`, its chain of sources in the message, tried again as the step's policy says.
/// An error returned by the *function* itself (outside of any body) ends the run at once: it would only happen again.
#[derive(Clone, PartialEq)]
pub struct Error(Box<Failure>);

impl Error {
    /// A failure that is tried again as the step's policy says: the same as `?` makes of an ordinary error.
    pub fn retryable(message: impl fmt::Display) -> Error {
        Error::with_retry(message, Retry::Default)
    }

    /// A failure that trying again would not mend.
    pub fn non_retriable(message: impl fmt::Display) -> Error {
        Error::with_retry(message, Retry::Never)
    }

    /// A failure after which to wait this long, whatever the policy's back-off. It counts as an attempt.
    pub fn retry_after(wait: Duration, message: impl fmt::Display) -> Error {
        Error::with_retry(message, Retry::After(to_millis(wait)))
    }

    /// Adds a stable word that programs can go by, such as `payment-declined`. At most 64 bytes.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Error {
        self.0.code = Some(code.into());
        self
    }

    /// Adds anything else that programs may want to know. What can't be written as JSON is left out.
    #[must_use]
    pub fn details(mut self, details: impl Serialize) -> Error {
        self.0.details = serde_json::to_value(details).ok();
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Error {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The code, if it has one.
    pub fn get_code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The details, if it has any.
    pub fn get_details(&self) -> Option<&Value> {
        self.0.details.as_ref()
    }

    /// Whether it says that trying again is of no use.
    pub fn is_non_retriable(&self) -> bool {
        self.0.retry == Retry::Never
    }

    fn with_retry(message: impl fmt::Display, retry: Retry) -> Error {
        Error(Box::new(Failure {
            message: message.to_string(),
            retry,
            ..Failure::default()
        }))
    }

    pub(crate) fn from_failure(failure: Failure) -> Error {
        Error(Box::new(failure))
    }

    pub(crate) fn into_failure(self) -> Failure {
        *self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        // A step's failure keeps its code and details on the way up.
        if let Some(step) = (&error as &dyn Any).downcast_ref::<StepError>() {
            return Error::from_failure(Failure {
                message: step.to_string(),
                code: step.failure.code.clone(),
                details: step.failure.details.clone(),
                retry: Retry::Default,
            });
        }
        Error::retryable(chain(&error))
    }
}

/// An error's message and its sources', each once: many errors repeat their source in their own message.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}

/// Says what was being done when something failed.
pub trait ResultExt<T> {
    /// Puts what was being done in front of the error's message: `read(x).context("reading the order")?`.
    ///
    /// # Errors
    /// The error it was called on.
    fn context(self, doing: impl fmt::Display) -> Result<T>;

    /// Makes the error one that is not tried again.
    ///
    /// # Errors
    /// The error it was called on.
    fn non_retriable(self) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.into().context(doing))
    }

    fn non_retriable(self) -> Result<T> {
        self.map_err(|error| {
            let mut error = error.into();
            error.0.retry = Retry::Never;
            error
        })
    }
}

/// Why a step has no result: its attempts are used up, it failed for good, or the host could not perform it.
///
/// It is an ordinary error: `?` passes it on, and a function may as well look at its code and go another way.
#[derive(Clone, Debug, PartialEq)]
pub struct StepError {
    step: String,
    failure: Failure,
}

impl StepError {
    pub(crate) fn new(step: &str, failure: Failure) -> StepError {
        StepError {
            step: step.to_owned(),
            failure,
        }
    }

    /// For what the SDK itself finds wrong: never tried again.
    pub(crate) fn refused(step: &str, code: &str, message: String) -> StepError {
        StepError::new(
            step,
            Failure {
                message,
                code: Some(code.to_owned()),
                retry: Retry::Never,
                details: None,
            },
        )
    }

    /// The step's name.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// What happened, without the step's name.
    pub fn message(&self) -> &str {
        &self.failure.message
    }

    /// The code, if it has one: the body's own, or one of the host's such as `step-timeout`.
    pub fn code(&self) -> Option<&str> {
        self.failure.code.as_deref()
    }

    /// The details, if there are any.
    pub fn details(&self) -> Option<&Value> {
        self.failure.details.as_ref()
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step \"{}\": {}", self.step, self.failure.message)
    }
}

impl std::error::Error for StepError {}
