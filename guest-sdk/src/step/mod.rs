//! Durable steps. [`Step`] is how a function asks for them; the futures it answers with are in the submodules.
//!
//! Nothing happens before such a future is first polled: by `.await`, or by `join!` and the like. Dropping one that has
//! been polled and is not done gives its step up, which the journal records as cancelled.

mod body;
mod events;
mod fetch;
mod options;
mod sleep;
mod sql;

use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::function::Function;
use crate::time::{IntoTime, to_millis};

pub(crate) use body::in_body;
pub use body::{Attempt, Plain, Run, WithAttempt};
pub use events::{Invoke, OnCancel, OnConflict, SendEvents, SendSignal, Sent, WaitForEvent, WaitForSignal};
pub use fetch::Fetch;
pub use options::Backoff;
pub use sleep::Sleep;
pub use sql::{Params, Rows, Sql, Statement, Transaction};

/// What a function asks for durable steps. An argument of a function; it can be copied.
///
/// A name is for people, and for matching on replay; it may be used any number of times. At most 255 bytes.
///
/// It can't be borrowed by a body: steps don't nest, and the compiler says so.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    nesting: PhantomData<StepsDoNotNest>,
}

/// Neither `Send` nor `Sync`, so that a body, which must be `Send`, can't capture a [`Step`]. The compiler names this type.
#[derive(Clone, Copy, Debug)]
struct StepsDoNotNest {
    _not_sync: *const (),
}

impl Step {
    pub(crate) fn new() -> Step {
        Step { nesting: PhantomData }
    }

    /// Runs `body` and records what it came to; a replay is given that and does not run it again.
    ///
    /// The body is ordinary blocking code: it may compute, read clocks, make HTTP requests with [`crate::http`]. It may
    /// borrow what is around it but not change it: a replay, which skips the body, would not have the change. It runs at
    /// least once: when the machine dies between its effect and its record, it is run again
    /// ([`Attempt::idempotency_key`] is for that).
    ///
    /// What it returns is handed back as JSON brings it back, now and on replay. A failure is tried again as the options
    /// say, else the function's: `retries = n` is n + 1 attempts.
    ///
    /// ```
    /// # use dormouse::prelude::*;
    /// # async fn f(step: Step, order: String) -> dormouse::Result<()> {
    /// let receipt: String = step
    ///     .run("charge", || Ok(format!("charged {order}")))
    ///     .attempts(3)
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn run<T, F>(&self, name: impl Into<String>, body: F) -> Run<T, Plain<F>>
    where
        T: Serialize + DeserializeOwned,
        F: Fn() -> Result<T> + Send,
    {
        Run::new(name.into(), Plain(body))
    }

    /// [`Step::run`] for a body that wants to know its attempt.
    pub fn run_with<T, F>(&self, name: impl Into<String>, body: F) -> Run<T, WithAttempt<F>>
    where
        T: Serialize + DeserializeOwned,
        F: Fn(&Attempt) -> Result<T> + Send,
    {
        Run::new(name.into(), WithAttempt(body))
    }

    /// Sleeps, without costing anything meanwhile: the instance may be gone. At most 366 days.
    pub fn sleep(&self, name: impl Into<String>, duration: Duration) -> Sleep {
        Sleep::for_millis(name.into(), to_millis(duration))
    }

    /// Sleeps until a time: a [`SystemTime`](std::time::SystemTime) or an RFC 3339 text. One that has passed is due at once.
    pub fn sleep_until(&self, name: impl Into<String>, time: impl IntoTime) -> Sleep {
        Sleep::until(name.into(), time.into_unix_millis())
    }

    /// Runs one SQL statement in a granted application database, exactly once.
    ///
    /// ```
    /// # use dormouse::prelude::*;
    /// # async fn f(step: Step) -> dormouse::Result<()> {
    /// step.sql("book", "app", "insert into booking (room, guest) values (?, ?)", params![7, "Ada"])
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn sql(
        &self,
        name: impl Into<String>,
        database: impl Into<String>,
        sql: impl Into<String>,
        params: Params,
    ) -> Sql {
        Sql::new(self.transaction(name, database, [Statement::new(sql, params)]))
    }

    /// Runs SQL statements in one transaction of a granted application database, exactly once. One that fails rolls all of
    /// them back and is the step's failure.
    pub fn transaction(
        &self,
        name: impl Into<String>,
        database: impl Into<String>,
        statements: impl IntoIterator<Item = Statement>,
    ) -> Transaction {
        Transaction::new(name.into(), database.into(), statements.into_iter().collect())
    }

    /// Performs an HTTP request in the host, durably, with retries: no body needed around it. At least once; each try has the
    /// same `idempotency-key`. A status of 408, 425, 429 or 5xx is tried again, and when the tries are used up it is the
    /// failure `http-failed`; any other is a response. Secrets go in by their [placeholders](crate::Context::secret_placeholder).
    pub fn fetch(&self, name: impl Into<String>, request: crate::http::Request) -> Fetch {
        Fetch::new(name.into(), request)
    }

    /// Waits for an event of the name `event`. None when its timeout has passed.
    pub fn wait_for_event<T: DeserializeOwned>(
        &self,
        name: impl Into<String>,
        event: impl Into<String>,
    ) -> WaitForEvent<T> {
        WaitForEvent::new(name.into(), event.into())
    }

    /// Waits for a signal of the name `signal`; only one run can. None when its timeout has passed.
    pub fn wait_for_signal<T: DeserializeOwned>(
        &self,
        name: impl Into<String>,
        signal: impl Into<String>,
    ) -> WaitForSignal<T> {
        WaitForSignal::new(name.into(), signal.into())
    }

    /// Sends a signal, exactly once. Answers with the id of the run that waited for it, or none: a signal is not kept.
    pub fn send_signal(
        &self,
        name: impl Into<String>,
        signal: impl Into<String>,
        data: impl Serialize,
    ) -> SendSignal {
        SendSignal::new(name.into(), signal.into(), &data)
    }

    /// Runs another function (`module/function`, or the id of one in this module) and waits for its output: once, as a run
    /// of its own, whose event has `data`, an object. Its failure is this step's failure, with its code and details.
    ///
    /// When this run ends first, or gives the step up, the other is cancelled; see [`Invoke::on_cancel`].
    pub fn invoke<T: DeserializeOwned>(
        &self,
        name: impl Into<String>,
        function: impl Into<String>,
        data: impl Serialize,
    ) -> Invoke<T> {
        Invoke::new(name.into(), function.into(), &data)
    }

    /// Runs another function of this module, as [`Step::invoke`] does; the compiler checks its data and its output.
    ///
    /// ```
    /// # use dormouse::prelude::*;
    /// #[derive(Serialize, Deserialize)]
    /// struct Order {
    ///     id: u32,
    /// }
    ///
    /// #[dormouse::function(id = "ship", on(event = "shop/ship"))]
    /// async fn ship(order: Event<Order>) -> dormouse::Result<String> {
    ///     Ok(format!("parcel {}", order.data.id))
    /// }
    ///
    /// # async fn f(step: Step) -> dormouse::Result<()> {
    /// let parcel: String = step.call::<ship>("ship it", Order { id: 7 }).await?;
    /// # Ok(()) }
    /// ```
    pub fn call<F: Function>(&self, name: impl Into<String>, data: F::Data) -> Invoke<F::Output>
    where
        F::Data: Serialize,
        F::Output: DeserializeOwned,
    {
        Invoke::new(name.into(), F::ID.to_owned(), &data)
    }

    /// Sends events, exactly once. Each is an object with at least `name` and `data`.
    pub fn send_events<E: Serialize>(
        &self,
        name: impl Into<String>,
        events: impl IntoIterator<Item = E>,
    ) -> SendEvents {
        let events: Vec<E> = events.into_iter().collect();
        SendEvents::new(name.into(), &events)
    }
}
