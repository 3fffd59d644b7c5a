//! The events that started a run.

use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::time::from_unix_millis;

/// The event that started the run. `T` is the type of its data; [`Value`] takes anything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event<T = Value> {
    /// Its id: as the sender gave it, or the server's.
    pub id: String,
    /// Its name, such as `user/signed.up`.
    pub name: String,
    /// What it carries.
    pub data: T,
    /// When it happened: Unix time in milliseconds.
    pub ts: u64,
    /// Who it concerns, as the sender says; `null` when the sender says nothing.
    pub user: Value,
    /// The version of the data's schema, as the sender says.
    pub v: Option<String>,
}

impl<T> Event<T> {
    /// When it happened.
    pub fn time(&self) -> SystemTime {
        from_unix_millis(self.ts)
    }
}

/// What the event of a cron's tick carries: a function with a cron takes an `Event<ScheduledTimer>`. The event happened at
/// the tick, so [`Event::time`] is that time too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledTimer {
    /// The expression, as the trigger has it.
    pub cron: String,
    /// The tick, RFC 3339: when the run was to begin, before jitter and however late it did.
    pub scheduled_at: String,
}

/// All events that started the run, for a function that takes several at once. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Events<T = Value>(pub Vec<Event<T>>);

impl<T> std::ops::Deref for Events<T> {
    type Target = [Event<T>];

    fn deref(&self) -> &[Event<T>] {
        &self.0
    }
}

/// The event before its data has a type.
#[derive(Deserialize)]
struct Untyped<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    ts: u64,
    #[serde(default)]
    user: Value,
    #[serde(default)]
    v: Option<String>,
}

/// Reads an event; `what` says which for the error.
pub(crate) fn parse<T: DeserializeOwned>(json: &str) -> Result<Event<T>> {
    let untyped: Untyped = serde_json::from_str(json)
        .map_err(|error| invalid(format!("the host's event can't be read: {error}")))?;
    let data = untyped.data.map_or("null", RawValue::get);
    let typed = serde_json::from_str(data).map_err(|error| {
        invalid(format!(
            "the data of event \"{}\" is not what the function takes ({}): {error}",
            untyped.name,
            std::any::type_name::<T>(),
        ))
    })?;
    Ok(Event {
        id: untyped.id,
        name: untyped.name,
        data: typed,
        ts: untyped.ts,
        user: untyped.user,
        v: untyped.v,
    })
}

fn invalid(message: String) -> Error {
    Error::non_retriable(message).code("invalid-event-data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Hello {
        email: String,
    }

    #[test]
    fn an_event_is_read_with_typed_data() {
        let json = r#"{"id":"01J","name":"test/hello.world","data":{"email":"a@b.c"},"ts":1500,"user":{"id":7},"v":"2","new":1}"#;
        let event: Event<Hello> = parse(json).expect("valid");
        assert_eq!(
            (event.data.email.as_str(), event.v.as_deref()),
            ("a@b.c", Some("2"))
        );
        assert_eq!(
            event.time(),
            SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1500)
        );
    }

    #[test]
    fn data_that_does_not_fit_names_the_event_and_the_field() {
        let error = parse::<Hello>(r#"{"name":"test/hello.world","data":{}}"#).expect_err("no email");
        assert!(error.message().contains("test/hello.world"), "{error}");
        assert!(error.message().contains("missing field `email`"), "{error}");
        assert!(error.is_non_retriable());
    }

    #[test]
    fn no_data_is_null() {
        assert_eq!(parse::<Option<u8>>(r#"{"name":"a"}"#).expect("valid").data, None);
    }
}
