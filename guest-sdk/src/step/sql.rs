//! SQL in granted application databases.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result, StepError};
use crate::executor::Wait;
use crate::function::to_json;
use crate::host;
use crate::step::body::decode;
use crate::step::options::Options;

/// The values of a statement's parameters, in order. [`params!`](crate::params!) makes them.
pub type Params = Vec<Value>;

/// The values of a statement's parameters: `params![7, "Ada", event.data.email]`. Anything [`serde_json::json!`] takes;
/// texts, numbers, booleans and `null` are what databases know.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        ::std::vec![$($crate::__private::json!($value)),*]
    };
}

/// One statement, its parameters positional (`?` or `?1` in SQLite, `$1` in Postgres).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The statement's text. No values in it: those are parameters.
    pub sql: String,
    /// The values of its parameters.
    pub params: Params,
}

impl Statement {
    /// A statement with its parameters.
    pub fn new(sql: impl Into<String>, params: Params) -> Statement {
        Statement {
            sql: sql.into(),
            params,
        }
    }
}

/// What a statement answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    #[serde(default)]
    rows: Vec<Value>,
    #[serde(default)]
    rows_affected: u64,
}

impl Rows {
    /// An answer with rows, each an object with a member for each column: for tests.
    pub fn of(rows: Vec<Value>) -> Rows {
        Rows {
            rows,
            rows_affected: 0,
        }
    }

    /// An answer of a statement that changed this many rows: for tests.
    pub fn affected(rows_affected: u64) -> Rows {
        Rows {
            rows: Vec::new(),
            rows_affected,
        }
    }

    /// How many rows the statement inserted, changed or deleted.
    pub fn rows_affected(&self) -> u64 {
        self.rows_affected
    }

    /// The rows as they are: objects with a member for each column.
    pub fn values(&self) -> &[Value] {
        &self.rows
    }

    /// The rows, each as a `T`: a struct with a field for each column.
    ///
    /// # Errors
    /// `row-mismatch`: a row is not a `T`.
    pub fn all<T: DeserializeOwned>(self) -> Result<Vec<T>> {
        self.rows.into_iter().map(typed).collect()
    }

    /// The first row as a `T`, if there is one.
    ///
    /// # Errors
    /// `row-mismatch`: it is not a `T`.
    pub fn first<T: DeserializeOwned>(self) -> Result<Option<T>> {
        self.rows.into_iter().next().map(typed).transpose()
    }
}

fn typed<T: DeserializeOwned>(row: Value) -> Result<T> {
    T::deserialize(row).map_err(|error| {
        let type_name = std::any::type_name::<T>();
        Error::non_retriable(format!(
            "a row is not what the function takes ({type_name}): {error}"
        ))
        .code("row-mismatch")
    })
}

/// One statement; see [`Step::sql`](crate::Step::sql).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct Sql(Transaction);

impl Sql {
    pub(crate) fn new(transaction: Transaction) -> Sql {
        Sql(transaction)
    }

    /// How long the database may take.
    pub fn timeout(self, timeout: Duration) -> Sql {
        Sql(self.0.timeout(timeout))
    }
}

impl Future for Sql {
    type Output = Result<Rows, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(outcome.and_then(|answers| {
            let first = answers.into_iter().next();
            first.ok_or_else(|| {
                let message = "the host's answer has nothing for the statement".to_owned();
                StepError::refused(&self.0.name, "result-mismatch", message)
            })
        }))
    }
}

/// Several statements in one transaction; see [`Step::transaction`](crate::Step::transaction).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct Transaction {
    name: String,
    database: String,
    statements: Vec<Statement>,
    options: Options,
    wait: Option<Wait>,
}

impl Transaction {
    pub(crate) fn new(name: String, database: String, statements: Vec<Statement>) -> Transaction {
        Transaction {
            name,
            database,
            statements,
            options: Options::default(),
            wait: None,
        }
    }

    /// How long the database may take.
    pub fn timeout(mut self, timeout: Duration) -> Transaction {
        self.options.set_millis("timeout_ms", timeout);
        self
    }
}

impl Future for Transaction {
    type Output = Result<Vec<Rows>, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.wait.is_none() {
            let statements = match to_json(&this.statements) {
                Ok(json) => json,
                Err(error) => return Poll::Ready(Err(StepError::new(&this.name, error.into_failure()))),
            };
            let options = this.options.json();
            let operation = host::start_sql(&this.name, &this.database, &statements, options.as_deref());
            this.wait = Some(Wait::new(operation));
        }
        let Some(wait) = &this.wait else {
            return Poll::Pending;
        };
        let operation = std::task::ready!(wait.poll(cx));
        Poll::Ready(match host::operation_result(operation) {
            Ok(json) => decode(&this.name, &json),
            Err(failure) => Err(StepError::new(&this.name, failure)),
        })
    }
}
