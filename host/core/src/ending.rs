//! How a run may be ended from outside by itself: by an event that cancels it, and by the clock.
//!
//! A [`Plan`] is what a function's definition says, read once. For the event that starts a run it gives what may end that
//! run, [`Ends`], which is stored with the run: an event is matched against it in the commit that stores the event, so one
//! that came before the run does not end it. Equalities are kept apart from the rest of a condition, so that a store can look
//! up the few runs that an event may end among many. Absent on purpose: ending a run, which is the store's.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::condition::{Condition, Equality, Scope};
use crate::event;
use crate::id::EventId;
use crate::limit;
use crate::manifest::Function;
use crate::run::Status;
use crate::system;
use crate::time::Timestamp;
use crate::wait;

/// Events that cancel the runs of a function, as its definition says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelOn {
    /// Their name.
    pub event: String,
    /// The path of a field, such as `data.order_id`, that must be the same in the event and in the one that started the run.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A CEL expression over `event` (which started the run) and `async` (which may cancel it).
    #[serde(rename = "if", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// For how many milliseconds after the run was created they cancel it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How long runs of a function may take, as its definition says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// A run that has not begun so many milliseconds after it might have is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// A run that has not ended so many milliseconds after it began is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_ms: Option<u64>,
}

/// What may end a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Events that cancel it.
    pub cancel_on: Vec<Cancels>,
    /// Times at which it may be over.
    pub deadlines: Vec<Deadline>,
}

impl Ends {
    /// Whether nothing does.
    pub fn is_empty(&self) -> bool {
        self.cancel_on.is_empty() && self.deadlines.is_empty()
    }
}

/// Events that cancel one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancels {
    /// Their name.
    pub event: String,
    /// The path of their field that must have the key; empty when any will do.
    pub path: String,
    /// [`wait::key`] of that field; empty when any will do.
    pub key: String,
    /// What must hold besides: CEL over `event` and `async`.
    pub condition: Option<String>,
    /// Later ones don't.
    pub until: Option<Timestamp>,
}

/// Which time is over. The words are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Clock {
    /// That in which it was to begin.
    Start,
    /// That in which it was to end.
    Finish,
}

impl Clock {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Clock::Start => "start",
            Clock::Finish => "finish",
        }
    }

    /// From the word.
    pub fn parse(text: &str) -> Option<Clock> {
        [Clock::Start, Clock::Finish]
            .into_iter()
            .find(|clock| clock.as_str() == text)
    }
}

/// A time at which a run may be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Which.
    pub clock: Clock,
    /// How long the run has.
    pub period: Duration,
    /// When it is to be looked at. It cannot be over before that.
    pub due: Timestamp,
}

/// What becomes of a deadline that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It was kept.
    Kept,
    /// It cannot be over before this time.
    Later(Timestamp),
    /// The run is cancelled.
    Over,
}

impl Deadline {
    /// What becomes of it, for a run that has begun at `started_at`, if it has.
    pub fn decide(&self, status: Status, started_at: Option<Timestamp>, now: Timestamp) -> Due {
        if status.is_terminal() {
            return Due::Kept;
        }
        let over_at = match (self.clock, started_at) {
            (Clock::Start, Some(_)) => return Due::Kept,
            (Clock::Start, None) => self.due,
            (Clock::Finish, Some(at)) => at.after(self.period),
            // Were it to begin now, it would have that long.
            (Clock::Finish, None) => now.after(self.period),
        };
        match over_at <= now {
            true => Due::Over,
            false => Due::Later(over_at),
        }
    }

    /// Why a run was cancelled, for a person.
    pub fn reason(&self) -> String {
        let (what, option) = match self.clock {
            Clock::Start => ("did not begin", "start"),
            Clock::Finish => ("did not end", "finish"),
        };
        format!(
            "cancelled: it {what} within {} (timeouts.{option})",
            in_words(self.period)
        )
    }
}

/// Why a run was cancelled, for a person.
pub fn cancelled_by(event: &str, id: EventId) -> String {
    format!("cancelled by event \"{event}\" ({id})")
}

/// What an event has done to so many runs of a function that it has cancelled, for a person.
pub fn has_cancelled(runs: usize) -> String {
    match runs {
        1 => "it has cancelled a run".to_owned(),
        runs => format!("it has cancelled {runs} runs"),
    }
}

fn in_words(period: Duration) -> String {
    let millis = period.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{} {name}", millis / unit),
        None => format!("{millis} ms"),
    }
}

/// What may end a function's runs, ready to be asked about events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    cancel_on: Vec<Cancelling>,
    timeouts: Timeouts,
}

#[derive(Clone, Debug, PartialEq)]
struct Cancelling {
    event: String,
    path: Option<String>,
    equality: Option<Equality>,
    condition: Option<String>,
    window: Option<Duration>,
}

impl Plan {
    /// Reads a function's definition.
    ///
    /// # Errors
    /// A sentence that says which option makes no sense and why.
    pub fn compile(function: &Function) -> Result<Plan, String> {
        if function.cancel_on.len() > limit::CANCEL_ON_MAX {
            return Err(format!(
                "{} times cancel_on, more than the limit of {}",
                function.cancel_on.len(),
                limit::CANCEL_ON_MAX
            ));
        }
        let timeouts = function.timeouts.unwrap_or_default();
        for (name, millis) in [("start_ms", timeouts.start_ms), ("finish_ms", timeouts.finish_ms)] {
            if millis.is_some_and(|millis| !(1..=limit::SLEEP_MS_MAX).contains(&millis)) {
                return Err(format!("timeouts: {name} must be 1 to {}", limit::SLEEP_MS_MAX));
            }
        }
        if function.timeouts.is_some() && timeouts == Timeouts::default() {
            return Err("timeouts needs a start_ms or a finish_ms".to_owned());
        }
        let cancel_on = function.cancel_on.iter().map(Cancelling::compile);
        Ok(Plan {
            cancel_on: cancel_on.collect::<Result<_, String>>()?,
            timeouts,
        })
    }

    /// Whether nothing ends its runs.
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }

    /// The names of the events that cancel its runs.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        self.cancel_on.iter().map(|cancelling| cancelling.event.as_str())
    }

    /// What may end a run that an event starts, is created `now`, and may begin at `start_at`.
    pub fn ends(&self, event: &Value, start_at: Timestamp, now: Timestamp) -> Ends {
        let cancel_on = self.cancel_on.iter();
        let deadline = |clock, millis: Option<u64>| {
            let period = Duration::from_millis(millis?);
            Some(Deadline {
                clock,
                period,
                due: start_at.max(now).after(period),
            })
        };
        Ends {
            cancel_on: cancel_on
                .filter_map(|cancelling| cancelling.of(event, now))
                .collect(),
            deadlines: [
                deadline(Clock::Start, self.timeouts.start_ms),
                deadline(Clock::Finish, self.timeouts.finish_ms),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }
}

impl Cancelling {
    fn compile(asked: &CancelOn) -> Result<Cancelling, String> {
        let event = system::canonical(&asked.event).into_owned();
        let invalid = |what: String| Err(format!("cancel_on \"{}\": {what}", asked.event));
        match event::check_name(&event) {
            // The host's own events may cancel runs, as they may start functions.
            Ok(()) | Err(event::Invalid::NameReserved(_)) => {}
            Err(error) => return invalid(error.to_string()),
        }
        if event.contains('*') {
            return invalid(
                "events are named in full here: a pattern would be asked for every event".to_owned(),
            );
        }
        if let Some(path) = &asked.path
            && (path.is_empty() || path.len() > limit::MATCH_PATH_BYTES_MAX)
        {
            return invalid(format!(
                "match is the path of a field, such as data.order_id, of at most {} bytes",
                limit::MATCH_PATH_BYTES_MAX
            ));
        }
        let condition = match &asked.condition {
            None => None,
            Some(source) => match Condition::compile(source, Scope::Wait) {
                Ok(condition) => Some(condition),
                Err(error) => return invalid(format!("if: {error}")),
            },
        };
        if asked
            .timeout_ms
            .is_some_and(|millis| !(1..=limit::SLEEP_MS_MAX).contains(&millis))
        {
            return invalid(format!("timeout_ms must be 1 to {}", limit::SLEEP_MS_MAX));
        }
        Ok(Cancelling {
            event,
            path: asked.path.clone(),
            equality: condition.and_then(|condition| condition.equality()),
            condition: asked.condition.clone(),
            window: asked.timeout_ms.map(Duration::from_millis),
        })
    }

    /// What of it concerns a run that an event starts. None: nothing can match that.
    fn of(&self, event: &Value, now: Timestamp) -> Option<Cancels> {
        let (path, key) = match (&self.path, &self.equality) {
            // Nothing equals what is not there.
            (Some(path), _) => (path.clone(), wait::key(event, path)?),
            (None, Some(equality)) => match indexed(event, &equality.event) {
                Some(key) => (equality.other.clone(), key),
                None => Default::default(),
            },
            (None, None) => Default::default(),
        };
        Some(Cancels {
            event: self.event.clone(),
            path,
            key,
            condition: self.condition.clone(),
            until: self.window.map(|window| now.after(window)),
        })
    }
}

/// The key of a field whose equality is that of keys: of texts, truth values and whole numbers that are exact.
fn indexed(event: &Value, path: &str) -> Option<String> {
    let mut value = event;
    for member in path.split('.') {
        value = value.as_object()?.get(member)?;
    }
    let exact = match value {
        Value::String(_) | Value::Bool(_) => true,
        Value::Number(number) => number
            .as_f64()
            .is_some_and(|number| number.fract() == 0.0 && number.abs() < 9e15),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    exact.then(|| wait::key(event, path)).flatten()
}

impl Cancels {
    /// Whether an event of the right name, received at a time, cancels a run that `started_by` started.
    pub fn by(&self, event: &Value, received_at: Timestamp, started_by: &Value) -> bool {
        let same = self.path.is_empty() || wait::key(event, &self.path).is_some_and(|key| key == self.key);
        let holds = |condition: &str| wait::holds(condition, event, started_by);
        same && self.is_open(received_at) && self.condition.as_deref().is_none_or(holds)
    }

    /// Whether events that are received at a time still cancel it.
    pub fn is_open(&self, received_at: Timestamp) -> bool {
        self.until.is_none_or(|until| received_at <= until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn plan(definition: Value) -> Result<Plan, String> {
        let mut definition = definition;
        definition["id"] = "f".into();
        Plan::compile(&serde_json::from_value(definition).expect("a definition"))
    }

    fn later(millis: i64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + millis)
    }

    #[test]
    fn an_event_cancels_by_a_field_a_condition_and_within_a_time() {
        let plan = plan(
            json!({"cancel_on": [{"event": "shop/cancelled", "match": "data.id",
            "if": "async.data.by == 'owner'", "timeout_ms": 1000}]}),
        )
        .expect("valid");
        let started_by = json!({"data": {"id": 7}});
        let ends = plan.ends(&started_by, NOW, NOW);
        let [cancels] = ends.cancel_on.as_slice() else {
            panic!("{ends:?}");
        };
        for (data, at, expected) in [
            (json!({"id": 7, "by": "owner"}), 0, true),
            (json!({"id": 7.0, "by": "owner"}), 1_000, true),
            (json!({"id": 7, "by": "owner"}), 1_001, false),
            (json!({"id": 8, "by": "owner"}), 0, false),
            (json!({"id": 7, "by": "guest"}), 0, false),
            (json!({"by": "owner"}), 0, false),
        ] {
            let by = cancels.by(&json!({ "data": data }), later(at), &started_by);
            assert_eq!(by, expected, "{data} {at}");
        }
        // Nothing equals what the event does not have.
        assert_eq!(plan.ends(&json!({"data": {}}), NOW, NOW).cancel_on, []);
    }

    #[test]
    fn an_equality_that_must_hold_is_looked_up() {
        for (condition, equality) in [
            ("event.data.id == async.data.id", Some(("data.id", "data.id"))),
            (
                "async.data.order == event.data.id",
                Some(("data.id", "data.order")),
            ),
            (
                "async.data.n > 1 && (event.user.id == async.user['id'] && true)",
                Some(("user.id", "user.id")),
            ),
            ("event.data.id == async.data.id || true", None),
            ("!(event.data.id == async.data.id)", None),
            ("event.data.id == event.data.other", None),
            ("event.data.id == 7", None),
            ("event.data['a.b'] == async.data.id", None),
            ("event == async", None),
        ] {
            let compiled = Condition::compile(condition, Scope::Wait).expect(condition);
            let expected = equality.map(|(event, other)| Equality {
                event: event.to_owned(),
                other: other.to_owned(),
            });
            assert_eq!(compiled.equality(), expected, "{condition}");
        }
    }

    fn plain() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            (-3_i64..3).prop_map(Value::from),
            (-3_i64..3).prop_map(|n| Value::from(n as f64)),
            (-3_i64..3).prop_map(|n| Value::from(n as f64 / 2.0)),
            prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(9_007_199_254_740_993)].prop_map(Value::from),
            Just(Value::from(u64::MAX)),
            Just(Value::from(9_007_199_254_740_992.0)),
            "[a1]{0,2}".prop_map(Value::from),
            Just(json!([1])),
            Just(json!({"a": 1})),
        ]
    }

    proptest! {
        #[test]
        fn what_is_looked_up_is_what_the_condition_says(
            ours in proptest::option::of(plain()),
            theirs in proptest::option::of(plain()),
            least in 0_i64..3,
        ) {
            let condition = "async.data.n >= 1 && event.data.ours == async.data.theirs";
            let plan = plan(json!({"cancel_on": [{"event": "x", "if": condition}]})).expect("valid");
            let data = |name: &str, value: Option<Value>| {
                let mut data = json!({"n": least});
                if let Some(value) = value {
                    data[name] = value;
                }
                json!({ "data": data })
            };
            let (started_by, event) = (data("ours", ours), data("theirs", theirs));
            let expected = Condition::compile(condition, Scope::Wait).expect("valid").holds(&started_by, Some(&event));
            let ends = plan.ends(&started_by, NOW, NOW);
            prop_assert_eq!(ends.cancel_on.iter().any(|cancels| cancels.by(&event, NOW, &started_by)), expected);
        }

        /// Looked at whenever it is due, a run is cancelled at the first look at which it is over, and never before.
        #[test]
        fn a_deadline_is_over_when_it_is(
            starts_after in proptest::option::of(0_i64..500),
            ends_after in 0_i64..500,
            period in 1_u64..200,
            finish in any::<bool>(),
        ) {
            let option = if finish { "finish_ms" } else { "start_ms" };
            let plan = plan(json!({"timeouts": {option: period}})).expect("valid");
            let mut deadline = plan.ends(&json!({}), NOW, NOW).deadlines[0];
            let starts = starts_after.map(later);
            let ends = starts.map(|at| Timestamp::from_millis(at.as_millis() + ends_after));
            let mut cancelled = None;
            for _ in 0..2_000 {
                let now = deadline.due;
                let started = starts.filter(|at| *at <= now);
                let status = match (started, ends) {
                    (Some(_), Some(ends)) if ends <= now => Status::Completed,
                    (Some(_), _) => Status::Running,
                    (None, _) => Status::Scheduled,
                };
                match deadline.decide(status, started, now) {
                    Due::Over => {
                        cancelled = Some(now);
                        break;
                    }
                    Due::Kept => break,
                    Due::Later(at) => {
                        prop_assert!(at > now);
                        deadline.due = at;
                    }
                }
                if starts.is_none() && finish && now > later(10_000) {
                    break;
                }
            }
            let period = i64::try_from(period).expect("small");
            let expected = match (finish, starts) {
                (false, None) => Some(later(period)),
                (false, Some(at)) => (at > later(period)).then(|| later(period)),
                (true, None) => None,
                (true, Some(at)) => (ends_after > period).then(|| Timestamp::from_millis(at.as_millis() + period)),
            };
            prop_assert_eq!(cancelled, expected);
        }
    }

    #[test]
    fn times_are_counted_from_when_a_run_may_begin() {
        let plan = plan(json!({"timeouts": {"start_ms": 1000, "finish_ms": 60000}})).expect("valid");
        let ends = plan.ends(&json!({}), later(500), NOW);
        let due: Vec<_> = ends
            .deadlines
            .iter()
            .map(|deadline| (deadline.clock, deadline.due))
            .collect();
        assert_eq!(
            due,
            [(Clock::Start, later(1_500)), (Clock::Finish, later(60_500))]
        );
        assert_eq!(
            ends.deadlines[0].reason(),
            "cancelled: it did not begin within 1 s (timeouts.start)"
        );
        assert_eq!(
            ends.deadlines[1].reason(),
            "cancelled: it did not end within 1 min (timeouts.finish)"
        );
        assert_eq!(Clock::parse("finish"), Some(Clock::Finish));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let many: Vec<Value> = (0..6).map(|n| json!({"event": format!("x/{n}")})).collect();
        for (definition, words) in [
            (json!({"cancel_on": many}), "6 times cancel_on"),
            (json!({"cancel_on": [{"event": ""}]}), "name is empty"),
            (json!({"cancel_on": [{"event": "shop/*"}]}), "named in full"),
            (
                json!({"cancel_on": [{"event": "x", "match": ""}]}),
                "match is the path",
            ),
            (
                json!({"cancel_on": [{"event": "x", "if": "async.data.id =="}]}),
                "not CEL",
            ),
            (
                json!({"cancel_on": [{"event": "x", "timeout_ms": 0}]}),
                "timeout_ms",
            ),
            (json!({"timeouts": {}}), "start_ms or a finish_ms"),
            (json!({"timeouts": {"start_ms": 0}}), "start_ms"),
            (
                json!({"timeouts": {"finish_ms": 40_000_000_000_u64}}),
                "finish_ms",
            ),
        ] {
            let refused = plan(definition.clone()).expect_err(&definition.to_string());
            assert!(refused.contains(words), "{definition}: {refused}");
        }
        assert!(plan(json!({})).expect("valid").is_empty());
        // The host's own events may cancel runs, by either name.
        let plan = plan(json!({"cancel_on": [{"event": "inngest/function.failed"}]})).expect("valid");
        assert_eq!(plan.events().collect::<Vec<_>>(), [system::FAILED]);
    }
}
