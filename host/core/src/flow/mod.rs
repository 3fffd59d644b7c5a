//! Flow control: what stands between an event that matched and the run it starts.
//!
//! A [`Plan`] is what a function's definition says, read once. For an event it gives an [`Admission`]: the same with the
//! keys evaluated, which goes to the store with the run that is to be. There, in the commit that would create the run and
//! on the rows that it has locked, [`Admission::decide`] says what becomes of it. Nothing here knows of rows, nodes or
//! clocks; that a limit holds across nodes is the store's doing.
//!
//! | room | what it decides |
//! |---|---|
//! | [`options`] | what a definition may say, and whether it makes sense |
//! | [`rate`] | how many in what time: the arithmetic |
//! | [`admission`] | what becomes of one run on the state of its limits |
//! | [`line`] | when those begin that a throttle holds back |
//! | [`concurrency`] | how many execute at once |

pub mod admission;
pub mod concurrency;
pub mod line;
pub mod options;
pub mod rate;

use serde_json::Value;

use crate::condition::{Condition, Scope};
use crate::digest::Digest;
use crate::limit;
use crate::manifest::Function;

pub use admission::{Admission, Decision, Gate, Held, Limited, Standing, Verdict};
pub use concurrency::{Concurrency, Need, Taken};
pub use line::Line;
pub use options::RateOptions;
pub use rate::Rate;

/// A function's flow control, ready to be asked about events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    idempotency: Option<Condition>,
    rate_limit: Option<(Rate, Option<Condition>)>,
    throttle: Option<(Rate, Option<Condition>)>,
    priority: Option<Condition>,
    concurrency: concurrency::Limits,
}

impl Plan {
    /// Reads a function's definition.
    ///
    /// # Errors
    /// A sentence that says which option makes no sense and why.
    pub fn compile(function: &Function) -> Result<Plan, String> {
        let idempotency = function
            .idempotency
            .as_ref()
            .map(|source| expression("idempotency", source))
            .transpose()?;
        let keyed = |what: &str, rate: Result<Rate, String>, options: &RateOptions| {
            let key = options.key.as_ref().map(|key| expression(what, key));
            Ok::<_, String>((rate?, key.transpose()?))
        };
        let rate_limit = function.rate_limit.as_ref();
        let throttle = function.throttle.as_ref();
        let priority = function.priority.as_ref();
        if throttle.is_some() && priority.is_some() {
            return Err(
                "priority and throttle: throttled runs begin in the order in which they came, so a priority would change \
                 nothing"
                    .to_owned(),
            );
        }
        Ok(Plan {
            idempotency,
            rate_limit: rate_limit
                .map(|options| keyed("rate_limit.key", options.rate_limit(), options))
                .transpose()?,
            throttle: throttle
                .map(|options| keyed("throttle.key", options.throttle(), options))
                .transpose()?,
            priority: priority
                .map(|source| expression("priority", source))
                .transpose()?,
            concurrency: concurrency::Limits::compile(&function.concurrency)?,
        })
    }

    /// Whether every event may start a run at once.
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }

    /// What an event has to pass.
    pub fn admission(&self, event: &Value) -> Admission {
        let limited = |(rate, key): &(Rate, Option<Condition>)| Limited {
            rate: *rate,
            key: key
                .as_ref()
                .map(|key| key_of(key.value(event)))
                .unwrap_or_default(),
        };
        Admission {
            // An event without what it should be known by is like no other.
            idempotency: self.idempotency.as_ref().and_then(|key| match key.value(event) {
                None | Some(Value::Null) => None,
                value => Some(key_of(value)),
            }),
            rate_limit: self.rate_limit.as_ref().map(limited),
            throttle: self.throttle.as_ref().map(limited),
            priority: self
                .priority
                .as_ref()
                .and_then(|priority| priority.value(event)?.as_i64())
                .unwrap_or_default()
                .clamp(-limit::PRIORITY_SECONDS_MAX, limit::PRIORITY_SECONDS_MAX),
            concurrency: self.concurrency.needs(event),
        }
    }
}

fn expression(what: &str, source: &str) -> Result<Condition, String> {
    Condition::compile(source, Scope::Trigger).map_err(|error| format!("{what}: {error}"))
}

/// A key as it is stored and shown: the value as JSON. An expression without a value (a member that is not there) gives
/// the key `null`; what is too long for an index is named by its digest.
fn key_of(value: Option<Value>) -> String {
    bounded(value.unwrap_or(Value::Null).to_string())
}

/// A text, or what stands for it where it is too long for an index.
fn bounded(text: String) -> String {
    if text.len() <= limit::FLOW_KEY_BYTES_MAX {
        return text;
    }
    Digest::of(text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan(definition: Value) -> Result<Plan, String> {
        Plan::compile(&serde_json::from_value(definition).expect("a definition"))
    }

    #[test]
    fn keys_are_values_and_their_kinds_differ() {
        let plan = plan(json!({"id": "f", "idempotency": "event.data.id",
            "rate_limit": {"limit": 2, "period_ms": 60000, "key": "event.data.user"}}))
        .expect("valid");
        let keys = |data: Value| {
            let admission = plan.admission(&json!({"data": data}));
            (admission.idempotency, admission.rate_limit.expect("there").key)
        };
        assert_eq!(
            keys(json!({"id": 1, "user": "a"})),
            (Some("1".to_owned()), "\"a\"".to_owned())
        );
        assert_eq!(keys(json!({"id": "1", "user": 1})).0, Some("\"1\"".to_owned()));
        // Without a value: known by nothing, and limited together with all others that have none.
        assert_eq!(keys(json!({})), (None, "null".to_owned()));
        assert_eq!(keys(json!({"id": null})).0, None);
        let long = keys(json!({"id": "x".repeat(1000)})).0.expect("a key");
        assert!(long.starts_with("sha256:"), "{long}");
        assert_ne!(Some(long), keys(json!({"id": "x".repeat(1001)})).0);
    }

    #[test]
    fn a_priority_is_a_whole_number_of_seconds_within_bounds() {
        let plan = plan(json!({"id": "f", "priority": "event.data.p"})).expect("valid");
        for (p, seconds) in [
            (json!(60), 60),
            (json!(-5), -5),
            (json!(601), 600),
            (json!(-100_000), -600),
            (json!("60"), 0),
            (json!(1.5), 0),
            (json!(null), 0),
        ] {
            assert_eq!(
                plan.admission(&json!({"data": {"p": p}})).priority,
                seconds,
                "{p}"
            );
        }
        assert_eq!(plan.admission(&json!({})).priority, 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (definition, words) in [
            (
                json!({"idempotency": "event.data.id =="}),
                "idempotency: the condition is not CEL",
            ),
            (json!({"idempotency": ""}), "idempotency"),
            (
                json!({"rate_limit": {"limit": 0, "period_ms": 1000}}),
                "rate_limit: limit",
            ),
            (
                json!({"rate_limit": {"limit": 1, "period_ms": 999}}),
                "rate_limit: period_ms",
            ),
            (
                json!({"rate_limit": {"limit": 1, "period_ms": 86_400_001}}),
                "rate_limit: period_ms",
            ),
            (
                json!({"rate_limit": {"limit": 2, "period_ms": 1000, "burst": 3}}),
                "rate_limit: burst",
            ),
            (
                json!({"rate_limit": {"limit": 2, "period_ms": 1000, "burst": 0}}),
                "rate_limit: burst",
            ),
            (
                json!({"rate_limit": {"limit": 2, "period_ms": 1000, "key": "async.x"}}),
                "rate_limit.key",
            ),
            (
                json!({"throttle": {"limit": 2, "period_ms": 604_800_001}}),
                "throttle: period_ms",
            ),
            (
                json!({"throttle": {"limit": 2, "period_ms": 1000, "key": "x"}}),
                "throttle.key",
            ),
            (
                json!({"priority": "event.data.vip ? 60 :"}),
                "priority: the condition is not CEL",
            ),
            (
                json!({"priority": "60", "throttle": {"limit": 2, "period_ms": 1000}}),
                "priority and throttle",
            ),
        ] {
            let mut definition = definition;
            definition["id"] = "f".into();
            let refused = plan(definition.clone()).expect_err(&definition.to_string());
            assert!(refused.contains(words), "{definition}: {refused}");
        }
        assert!(plan(json!({"id": "f"})).expect("valid").is_empty());
    }
}
