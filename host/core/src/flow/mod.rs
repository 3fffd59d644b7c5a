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
//! | [`window`] | which events start a run together |
//! | [`singleton`] | whether there is one at a time |

pub mod admission;
pub mod concurrency;
pub mod line;
pub mod options;
pub mod rate;
pub mod singleton;
pub mod window;

use serde_json::Value;

use crate::condition::{Condition, Scope};
use crate::cron::Overlap;
use crate::digest::Digest;
use crate::limit;
use crate::manifest::Function;
use crate::trigger::Trigger;

pub use admission::{Admission, Asking, Decision, Gate, Held, Limited, Standing, Verdict};
pub use concurrency::{Concurrency, Need, Taken};
pub use line::Line;
pub use options::RateOptions;
pub use rate::Rate;
pub use singleton::{Singleton, SingletonOptions};
pub use window::{BatchOptions, DebounceOptions, Gathered, Gathering, Window};

/// A function's flow control, ready to be asked about events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    idempotency: Option<Condition>,
    rate_limit: Option<(Rate, Option<Condition>)>,
    throttle: Option<(Rate, Option<Condition>)>,
    priority: Option<Condition>,
    concurrency: concurrency::Limits,
    singleton: Option<(singleton::Mode, Option<Condition>)>,
    window: Option<WindowPlan>,
}

/// Which events start a run together.
#[derive(Clone, Debug, PartialEq)]
struct WindowPlan {
    kind: window::Kind,
    key: Option<Condition>,
    condition: Option<Condition>,
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
            singleton: one_at_a_time(function)?,
            window: WindowPlan::compile(function)?,
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
            singleton: self.singleton.as_ref().map(|(mode, key)| Singleton {
                mode: *mode,
                key: key
                    .as_ref()
                    .map(|key| key_of(key.value(event)))
                    .unwrap_or_default(),
            }),
            gathering: self.window.as_ref().and_then(|window| window.gathering(event)),
        }
    }
}

impl WindowPlan {
    fn compile(function: &Function) -> Result<Option<WindowPlan>, String> {
        let (what, kind, key, condition) = match (&function.debounce, &function.batch_events) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(
                    "debounce and batch_events: a run starts with the last event or with all of them"
                        .to_owned(),
                );
            }
            (Some(options), None) => ("debounce", options.kind()?, &options.key, &None),
            (None, Some(options)) => ("batch_events", options.kind()?, &options.key, &options.condition),
        };
        let senseless = |other: &str, why: &str| Err(format!("{other} and {what}: {why}"));
        if function.idempotency.is_some() || function.rate_limit.is_some() {
            let other = match function.idempotency {
                Some(_) => "idempotency",
                None => "rate_limit",
            };
            return senseless(other, "it would drop the events that are to start a run together");
        }
        if let Some(singleton) = &function.singleton {
            if matches!(kind, window::Kind::Batch { .. }) || singleton.mode == singleton::Mode::Skip {
                return senseless(
                    "singleton",
                    "events that are to start a run together would be lost to it",
                );
            }
            if singleton.key != *key {
                return senseless(
                    "singleton.key",
                    "a run would cancel others that still wait for events; use the same",
                );
            }
        }
        if !function.cancel_on.is_empty() {
            return senseless(
                "cancel_on",
                "the event whose field and values it would go by is not known before the run starts",
            );
        }
        if function
            .timeouts
            .is_some_and(|timeouts| timeouts.start_ms.is_some())
        {
            return senseless(
                "timeouts.start_ms",
                "the run waits for events, and is not late for that",
            );
        }
        if function.priority.is_some() {
            return senseless(
                "priority",
                "the run starts when its events are together, so a priority would change nothing",
            );
        }
        if function
            .triggers
            .iter()
            .any(|trigger| matches!(trigger, Trigger::Cron(_)))
        {
            return senseless(
                "cron",
                "each tick starts a run of its own; make it another function",
            );
        }
        let differs = |limit: &Concurrency| limit.key.is_some() && limit.key != *key;
        if function.concurrency.iter().any(differs) {
            return senseless(
                "concurrency.key",
                "the events that start a run together may differ in it; use no key, or the same",
            );
        }
        if let Some(throttle) = &function.throttle
            && throttle.key.is_some()
            && throttle.key != *key
        {
            return senseless(
                "throttle.key",
                "the events that start a run together may differ in it; use no key, or the same",
            );
        }
        let compiled = |member: &str, source: &Option<String>| {
            let source = source.as_ref();
            source
                .map(|source| expression(&format!("{what}.{member}"), source))
                .transpose()
        };
        Ok(Some(WindowPlan {
            kind,
            key: compiled("key", key)?,
            condition: compiled("if", condition)?,
        }))
    }

    /// The window of an event, unless it starts a run of its own.
    fn gathering(&self, event: &Value) -> Option<Gathering> {
        if self
            .condition
            .as_ref()
            .is_some_and(|condition| condition.value(event) != Some(Value::Bool(true)))
        {
            return None;
        }
        let key = self.key.as_ref().map(|key| key_of(key.value(event)));
        Some(Gathering {
            kind: self.kind,
            key: key.unwrap_or_default(),
        })
    }
}

/// What a definition says of one run at a time.
fn one_at_a_time(function: &Function) -> Result<Option<(singleton::Mode, Option<Condition>)>, String> {
    let Some(options) = &function.singleton else {
        return Ok(None);
    };
    let key = options.key.as_ref().map(|key| expression("singleton.key", key));
    // With a limit for each value of another key there may be fewer than one of each.
    let of_one = |limit: &Concurrency| {
        limit.scope == concurrency::Scope::Function && (options.key.is_none() || limit.key == options.key)
    };
    if function.concurrency.iter().any(of_one) {
        return Err(
            "concurrency and singleton: of what the limit counts there is one run at a time, so it would change nothing; \
             leave it out, or give the singleton a key"
                .to_owned(),
        );
    }
    let overlaps =
        |trigger: &Trigger| matches!(trigger, Trigger::Cron(cron) if cron.overlap == Some(Overlap::Allow));
    if options.mode == singleton::Mode::Skip && function.triggers.iter().any(overlaps) {
        return Err(
            "overlap \"allow\" and singleton: a tick would have to begin while the run of another lives; use \"skip\" \
             or \"queue\", or the mode \"cancel\""
                .to_owned(),
        );
    }
    Ok(Some((options.mode, key.transpose()?)))
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
    fn an_event_has_a_window_by_its_key_unless_it_is_left_out() {
        let plan = plan(json!({"id": "f",
            "batch_events": {"max_size": 2, "timeout_ms": 1000, "key": "event.data.shop", "if": "event.data.n > 0"},
            "throttle": {"limit": 2, "period_ms": 1000, "key": "event.data.shop"}}))
        .expect("valid");
        let window = |data: Value| plan.admission(&json!({"data": data})).gathering;
        assert_eq!(
            window(json!({"shop": "a", "n": 1})).expect("a window").key,
            "\"a\""
        );
        assert_eq!(window(json!({"n": 1})).expect("a window").key, "null");
        assert_eq!(window(json!({"shop": "a", "n": 0})), None);
        assert_eq!(window(json!({"shop": "a"})), None);
    }

    #[test]
    fn there_is_one_of_each_key_or_one_at_all() {
        let of = |definition: Value, data: Value| {
            let plan = plan(definition).expect("valid");
            let singleton = plan.admission(&json!({"data": data})).singleton;
            singleton.expect("it says so")
        };
        let keyed = json!({"id": "f", "singleton": {"mode": "cancel", "key": "event.data.user"},
            "concurrency": [{"limit": 5}, {"limit": 2, "key": "'openai'", "scope": "account"}]});
        assert_eq!(of(keyed.clone(), json!({"user": 7})).key, "7");
        assert_eq!(of(keyed.clone(), json!({})).key, "null");
        assert_eq!(of(keyed, json!({})).mode, singleton::Mode::Cancel);
        let alone = json!({"id": "f", "singleton": {"mode": "skip"}});
        assert_eq!(of(alone, json!({"user": 7})).key, "");
        let debounced = json!({"id": "f", "singleton": {"mode": "cancel", "key": "event.data.user"},
            "debounce": {"period_ms": 1_000, "key": "event.data.user"}});
        assert_eq!(of(debounced, json!({"user": 7})).key, "7");
        for wrong in [
            json!({}),
            json!({"mode": "queue"}),
            json!({"mode": "skip", "limit": 1}),
        ] {
            let definition = json!({"id": "f", "singleton": wrong});
            assert!(
                serde_json::from_value::<Function>(definition.clone()).is_err(),
                "{definition}"
            );
        }
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
            (
                json!({"debounce": {"period_ms": 999}}),
                "debounce: period_ms must be 1000",
            ),
            (
                json!({"debounce": {"period_ms": 5_000, "timeout_ms": 4_999}}),
                "debounce: timeout_ms must be at least the period",
            ),
            (
                json!({"debounce": {"period_ms": 5_000, "key": "event."}}),
                "debounce.key",
            ),
            (
                json!({"batch_events": {"max_size": 1, "timeout_ms": 1_000}}),
                "batch_events: max_size must be 2 to 100",
            ),
            (
                json!({"batch_events": {"max_size": 2, "timeout_ms": 60_001}}),
                "batch_events: timeout_ms must be 1000 to 60000",
            ),
            (
                json!({"batch_events": {"max_size": 2, "timeout_ms": 1_000, "if": "async.x"}}),
                "batch_events.if",
            ),
            (
                json!({"batch_events": {"max_size": 2, "timeout_ms": 1_000}, "debounce": {"period_ms": 1_000}}),
                "debounce and batch_events",
            ),
            (
                json!({"debounce": {"period_ms": 1_000}, "idempotency": "event.data.x"}),
                "idempotency and debounce",
            ),
            (
                json!({"batch_events": {"max_size": 2, "timeout_ms": 1_000}, "rate_limit": {"limit": 2, "period_ms": 1_000}}),
                "rate_limit and batch_events",
            ),
            (
                json!({"batch_events": {"max_size": 2, "timeout_ms": 1_000}, "priority": "60"}),
                "priority and batch_events",
            ),
            (
                json!({"batch_events": {"max_size": 2, "timeout_ms": 1_000}, "singleton": {"mode": "cancel"}}),
                "singleton and batch_events",
            ),
            (
                json!({"debounce": {"period_ms": 1_000}, "singleton": {"mode": "skip"}}),
                "singleton and debounce",
            ),
            (
                json!({"debounce": {"period_ms": 1_000, "key": "event.data.a"}, "singleton": {"mode": "cancel"}}),
                "singleton.key and debounce",
            ),
            (
                json!({"singleton": {"mode": "skip", "key": "event."}}),
                "singleton.key",
            ),
            (
                json!({"singleton": {"mode": "skip"}, "concurrency": [{"limit": 2, "key": "event.data.a"}]}),
                "concurrency and singleton",
            ),
            (
                json!({"singleton": {"mode": "cancel", "key": "event.data.a"},
                    "concurrency": [{"limit": 2, "key": "event.data.a"}]}),
                "concurrency and singleton",
            ),
            (
                json!({"singleton": {"mode": "skip"}, "triggers": [{"cron": "@daily", "overlap": "allow"}]}),
                "overlap \"allow\" and singleton",
            ),
            (
                json!({"debounce": {"period_ms": 1_000}, "cancel_on": [{"event": "x"}]}),
                "cancel_on and debounce",
            ),
            (
                json!({"debounce": {"period_ms": 1_000}, "timeouts": {"start_ms": 1_000}}),
                "timeouts.start_ms and debounce",
            ),
            (
                json!({"debounce": {"period_ms": 1_000}, "triggers": [{"cron": "@daily"}]}),
                "cron and debounce",
            ),
            (
                json!({"debounce": {"period_ms": 1_000, "key": "event.data.a"},
                    "throttle": {"limit": 2, "period_ms": 1_000, "key": "event.data.b"}}),
                "throttle.key and debounce",
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
