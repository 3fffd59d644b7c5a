//! What a function's definition says of flow control: how its runs start.

use serde::Serialize;

/// The limits on how a function's runs start.
#[doc(hidden)]
#[derive(Clone, Debug, Default, Serialize)]
pub struct Flow {
    /// A CEL expression: no second run for the same value within 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<&'static str>,
    /// How many runs may start in what time; events beyond start none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// How many runs may start in what time; those beyond wait for their turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Rate>,
    /// A CEL expression: by how many seconds a run that waits to begin goes before others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<&'static str>,
    /// How many runs may execute at once.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub concurrency: &'static [Concurrency],
    /// There is one run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub singleton: Option<Singleton>,
    /// Events put a run off, which starts with the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debounce: Option<Debounce>,
    /// A run starts with many events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_events: Option<Batch>,
}

/// So many at once.
#[doc(hidden)]
#[derive(Clone, Debug, Serialize)]
pub struct Concurrency {
    /// How many.
    pub limit: u32,
    /// A CEL expression: each of its values has slots of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
    /// Whose runs share the slots: `fn` or `account`.
    pub scope: &'static str,
}

/// One run at a time.
#[doc(hidden)]
#[derive(Clone, Debug, Serialize)]
pub struct Singleton {
    /// A CEL expression: each of its values has one run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
    /// What becomes of an event that comes while a run has not ended: `skip` or `cancel`.
    pub mode: &'static str,
}

/// For how long no event must have come.
#[doc(hidden)]
#[derive(Clone, Debug, Serialize)]
pub struct Debounce {
    /// For how long, in milliseconds.
    pub period_ms: u64,
    /// How long after the first event the run starts in any case, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// A CEL expression: events of each of its values are debounced for themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
}

/// How many events start a run.
#[doc(hidden)]
#[derive(Clone, Debug, Serialize)]
pub struct Batch {
    /// With how many a batch is full.
    pub max_size: u32,
    /// How long after its first event it starts in any case, in milliseconds.
    pub timeout_ms: u64,
    /// A CEL expression: each of its values has batches of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
    /// A CEL expression: where it is not true, an event starts a run of its own at once.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<&'static str>,
}

/// So many in so long.
#[doc(hidden)]
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// How many in a period.
    pub limit: u32,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// How many of them at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// A CEL expression: each of its values has a limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
}
