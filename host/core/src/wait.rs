//! Waiting for events and signals: what ends a wait.
//!
//! Equality of a field is kept apart from conditions, because a store can look it up: a wait has the field's path and a
//! key made of its value, and an event is asked for the same. Absent on purpose: who is asked when, which is the store's.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::condition::{Condition, Scope};
use crate::failure::Failure;
use crate::id::RunId;
use crate::time::Timestamp;

/// What a run waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventWait {
    /// The event's name.
    pub event: String,
    /// The path of the field that must be the same as in the event which started the run; empty when any will do.
    pub path: String,
    /// [`key`] of that field; empty when any will do.
    pub key: String,
    /// A CEL expression over `event` (which started the run) and `async` (which may end the wait).
    pub condition: Option<String>,
    /// Events that were received at this time or later, before the wait was stored, may end it too.
    pub lookback_from: Option<Timestamp>,
}

impl EventWait {
    /// Whether an event of the right name ends the wait of a run that `started_by` started.
    pub fn ends_by(&self, event: &Value, started_by: &Value) -> bool {
        self.has_key_of(event) && self.holds(event, started_by)
    }

    fn has_key_of(&self, event: &Value) -> bool {
        self.path.is_empty() || key(event, &self.path).is_some_and(|key| key == self.key)
    }

    fn holds(&self, event: &Value, started_by: &Value) -> bool {
        self.condition
            .as_deref()
            .is_none_or(|condition| holds(condition, event, started_by))
    }
}

/// A signal that a run waits for. Only one run can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalWait {
    /// Its name.
    pub signal: String,
    /// Another wait for it ends with [`signal_replaced`]; else this one does, with [`signal_taken`].
    pub replace: bool,
}

/// What a wait comes to whose signal another run waits for.
pub fn signal_taken(signal: &str, by: RunId) -> Failure {
    Failure::terminal(
        "signal-taken",
        format!(
            "run {by} waits for the signal \"{signal}\", and only one can: wait for another name, or replace it"
        ),
    )
}

/// What a wait comes to that another run has replaced.
pub fn signal_replaced(signal: &str, by: RunId) -> Failure {
    Failure::terminal(
        "signal-replaced",
        format!("run {by} waits for the signal \"{signal}\" in place of this one"),
    )
}

/// Whether a wait's condition holds. It was checked when the wait began, so it can be read.
pub fn holds(condition: &str, event: &Value, started_by: &Value) -> bool {
    Condition::compile(condition, Scope::Wait).is_ok_and(|condition| condition.holds(started_by, Some(event)))
}

/// What stands for the field at a path (`data.order.id`): the same for the same text, number or truth value, whatever way
/// the number is written. None when there is nothing else there, or no such field.
pub fn key(event: &Value, path: &str) -> Option<String> {
    let mut value = event;
    for member in path.split('.') {
        value = value.as_object()?.get(member)?;
    }
    let canonical = match value {
        Value::String(text) => format!("s{text}"),
        Value::Bool(truth) => format!("b{truth}"),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => format!("n{integer}"),
            (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => format!("n{}", float as i64),
            _ => format!("n{number}"),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let hash = Sha256::digest(canonical.as_bytes());
    Some(hash[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_stands_for_a_plain_value_at_a_path() {
        let event =
            json!({"data": {"a": {"id": 7}, "b": 7.0, "c": "7", "d": true, "e": null, "f": [1], "g": 0.5}});
        let of = |path| key(&event, path);
        assert_eq!(of("data.a.id"), of("data.b"));
        assert_ne!(of("data.a.id"), of("data.c"));
        assert!(of("data.d").is_some() && of("data.g").is_some());
        for path in [
            "data.e", "data.f", "data.a", "data.x", "x", "", "data.c.x", "data.",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn a_field_and_a_condition_must_both_fit() {
        let started_by = json!({"data": {"id": 7, "least": 10}});
        let wait = EventWait {
            event: "paid".to_owned(),
            path: "data.id".to_owned(),
            key: key(&started_by, "data.id").expect("a number"),
            condition: Some("async.data.amount >= event.data.least".to_owned()),
            lookback_from: None,
        };
        for (data, expected) in [
            (json!({"id": 7, "amount": 10}), true),
            (json!({"id": 7, "amount": 9}), false),
            (json!({"id": 8, "amount": 10}), false),
            (json!({"amount": 10}), false),
            (json!({"id": 7}), false),
        ] {
            assert_eq!(
                wait.ends_by(&json!({ "data": data }), &started_by),
                expected,
                "{data}"
            );
        }
    }
}
