//! The host's own events: what is told of runs that end, and who may listen.
//!
//! A run that ends is told of by `dormouse/function.finished` when its function has returned, with an output or an error;
//! by `dormouse/function.failed` also, when that was an error; by `dormouse/function.cancelled` when it was cancelled.
//! Triggers and waits may use Inngest's names for them. Absent on purpose: when they are told, which is the store's and the
//! scheduler's; events of invokes, which are [`invoke`](crate::invoke)'s.
//!
//! An end that tells of itself may start a run, whose end would be told again, and so on for ever. So the end of a run that
//! a told end has started is told too, and ends waits, but starts no function by a trigger ([`Told::starts`]); and the end of
//! a run that handles a failure calls no handler ([`is_handler`]).

use std::borrow::Cow;

use serde::Serialize;

use crate::event::{self, Accepted};
use crate::id::{EventId, RunId};
use crate::json::Json;
use crate::name::FunctionName;
use crate::run::{RunError, Status};
use crate::time::Timestamp;
use crate::trigger::OnEvent;

/// A function has returned, with an output or with an error.
pub const FINISHED: &str = "dormouse/function.finished";
/// A function has returned with an error.
pub const FAILED: &str = "dormouse/function.failed";
/// A run was cancelled.
pub const CANCELLED: &str = "dormouse/function.cancelled";

/// How names begin that are the host's and have another form with Inngest, and how that begins.
const FUNCTION: (&str, &str) = ("dormouse/function.", "inngest/function.");

/// A name as it is stored: Inngest's for one of the host's events is that event's.
pub fn canonical(name: &str) -> Cow<'_, str> {
    match name.strip_prefix(FUNCTION.1) {
        Some(rest) => Cow::Owned(format!("{}{rest}", FUNCTION.0)),
        None => Cow::Borrowed(name),
    }
}

/// The name that Inngest has for one of the host's events.
pub fn inngest_name(name: &str) -> Option<String> {
    let rest = name.strip_prefix(FUNCTION.0)?;
    Some(format!("{}{rest}", FUNCTION.1))
}

/// Some of the events that ends of runs are told by. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kinds(i64);

impl Kinds {
    /// None of them.
    pub const NONE: Kinds = Kinds(0);
    /// All of them.
    pub const ALL: Kinds = Kinds(7);

    const EACH: [(Kinds, &str); 3] = [(Kinds(1), FINISHED), (Kinds(2), FAILED), (Kinds(4), CANCELLED)];

    /// From the number on disk.
    pub const fn from_bits(bits: i64) -> Kinds {
        Kinds(bits & Kinds::ALL.0)
    }

    /// The number on disk.
    pub const fn bits(self) -> i64 {
        self.0
    }

    /// Those by which the end of a run is told.
    pub fn of(status: Status) -> Kinds {
        match status {
            Status::Completed => Kinds(1),
            Status::Failed => Kinds(1 | 2),
            Status::Cancelled => Kinds(4),
            Status::Scheduled | Status::Running | Status::Skipped => Kinds::NONE,
        }
    }

    /// The one of this name, if it is one.
    pub fn named(name: &str) -> Kinds {
        let name = canonical(name);
        let found = Kinds::EACH.iter().find(|(_, of)| *of == name);
        found.map_or(Kinds::NONE, |(kind, _)| *kind)
    }

    /// Those that a trigger is for.
    pub fn listened_by(trigger: &OnEvent) -> Kinds {
        let matched = Kinds::EACH.iter().filter(|(_, name)| trigger.matches(name));
        matched.fold(Kinds::NONE, |all, (kind, _)| all.and(*kind))
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Those of these that are among others.
    #[must_use]
    pub const fn among(self, others: Kinds) -> Kinds {
        Kinds(self.0 & others.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let those = Kinds::EACH
            .into_iter()
            .filter(move |(kind, _)| !kind.among(self).is_empty());
        those.map(|(_, name)| name)
    }
}

/// A run that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// The run.
    pub run: RunId,
    /// Its function.
    pub function: &'a FunctionName,
    /// How it ended.
    pub status: Status,
    /// When.
    pub at: Timestamp,
    /// The event that started it, as functions see it; none: it is not there any more.
    pub event: Option<&'a Json>,
    /// Its output.
    pub output: Option<&'a Json>,
    /// Its error.
    pub error: Option<&'a RunError>,
    /// Why it was cancelled, in words.
    pub reason: Option<&'a str>,
}

/// An event that tells of an end.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its id: the same however often it is made.
    pub id: EventId,
    /// The event.
    pub event: Accepted,
    /// Whether it may start functions by their triggers.
    pub starts: bool,
}

#[derive(Serialize)]
struct Data<'a> {
    function_id: &'a FunctionName,
    run_id: RunId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
    /// What was left out because the event would be too big.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    omitted: Vec<&'static str>,
    #[serde(rename = "_inngest")]
    inngest: Inngest,
}

/// Where Inngest has the status.
#[derive(Serialize)]
struct Inngest {
    status: &'static str,
}

impl Ended<'_> {
    /// The event of one of the names of [`Kinds::names`] that tells of this end. What makes it bigger, or nested deeper,
    /// than events may be is left out, and `omitted` says so.
    ///
    /// # Errors
    /// When even what is left is too much, which takes an error of more than an event's size.
    pub fn told(&self, name: &str) -> Result<Told, event::Invalid> {
        let id = EventId::derived(self.at, &[b"run-ended", &self.run.to_bytes(), name.as_bytes()]);
        let cancelled = || RunError::new("cancelled", self.reason.unwrap_or("the run was cancelled"));
        let error = match self.status {
            Status::Cancelled => Some(Cow::Owned(cancelled())),
            _ => self.error.map(Cow::Borrowed),
        };
        let mut refused = None;
        let leave_out: [&[&'static str]; 4] = [&[], &["result"], &["event"], &["result", "event"]];
        for omitted in leave_out {
            let keeps = |what: &str| !omitted.contains(&what);
            let status = self.status.as_str();
            let data = Data {
                function_id: self.function,
                run_id: self.run,
                status,
                event: self.event.filter(|_| keeps("event")),
                result: self.output.filter(|_| keeps("result")),
                error: error.as_deref(),
                omitted: omitted.to_vec(),
                inngest: Inngest { status },
            };
            let data = Json::from_value(&data).map_err(|error| event::Invalid::Shape(error.0))?;
            match event::internal(name, data, id, self.at).and_then(event::Accepted::within_limits) {
                Ok(event) => {
                    return Ok(Told {
                        id,
                        event,
                        starts: !self.event.is_some_and(tells_of_an_end),
                    });
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or(event::Invalid::DataNotObject))
    }

    /// The id of the run that handles this failure.
    pub fn handler(&self) -> RunId {
        handler(self.run, self.at)
    }
}

/// The id of the run that handles the failure of a run that ended at a time.
pub fn handler(failed: RunId, at: Timestamp) -> RunId {
    RunId::derived(at, &[b"on-failure", &failed.to_bytes()])
}

#[derive(serde::Deserialize)]
struct Seen {
    name: String,
    ts: i64,
    data: SeenData,
}

#[derive(serde::Deserialize)]
struct SeenData {
    run_id: RunId,
}

/// The run whose end an event tells of.
pub fn told_of(event: &Json) -> Option<RunId> {
    if !tells_of_an_end(event) {
        return None;
    }
    event.read::<Seen>().ok().map(|seen| seen.data.run_id)
}

/// Whether an event tells of the end of a run that such an event has started: it starts no function.
pub fn told_of_a_listener(event: &Json) -> bool {
    #[derive(serde::Deserialize)]
    struct Told {
        data: Data,
    }
    #[derive(serde::Deserialize)]
    struct Data {
        event: Option<Json>,
    }
    tells_of_an_end(event)
        && event
            .read::<Told>()
            .is_ok_and(|told| told.data.event.is_some_and(|event| tells_of_an_end(&event)))
}

/// Whether an event, as functions see it, tells of the end of a run.
pub fn tells_of_an_end(event: &Json) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }
    // Nearly no event does; the text says so sooner than its members.
    event.as_str().contains(FUNCTION.0)
        && event
            .read::<Named>()
            .is_ok_and(|event| !Kinds::named(&event.name).is_empty())
}

/// Whether a run that an event has started handles the failure that this event tells of: which run's that was.
pub fn is_handler(run: RunId, event: &Json) -> Option<RunId> {
    if !tells_of_an_end(event) {
        return None;
    }
    let seen: Seen = event.read().ok()?;
    let failed = seen.data.run_id;
    (seen.name == FAILED && handler(failed, Timestamp::from_millis(seen.ts)) == run).then_some(failed)
}

/// Whether a run of `function` that an event has started listens to others: to how they end, or to their being invoked.
pub fn listens(function: &FunctionName, event: &Json) -> bool {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
        #[serde(default)]
        function_id: Option<String>,
    }
    if !event.as_str().contains(FUNCTION.0) {
        return false;
    }
    let Ok(event) = event.read::<Named>() else {
        return false;
    };
    let invoked = event.name == crate::invoke::EVENT;
    !Kinds::named(&event.name).is_empty()
        || invoked && event.function_id.is_some_and(|of| of != function.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit;

    const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn run() -> RunId {
        RunId::from_parts(AT, [7; 10])
    }

    fn function() -> FunctionName {
        "shop/order".parse().expect("a name")
    }

    fn ended<'a>(function: &'a FunctionName, status: Status, event: &'a Json) -> Ended<'a> {
        Ended {
            run: run(),
            function,
            status,
            at: AT,
            event: Some(event),
            output: None,
            error: None,
            reason: None,
        }
    }

    #[test]
    fn the_hosts_events_go_by_inngests_names_too() {
        assert_eq!(canonical("inngest/function.failed"), FAILED);
        assert_eq!(canonical(FAILED), FAILED);
        assert_eq!(
            canonical("shop/inngest/function.failed"),
            "shop/inngest/function.failed"
        );
        assert_eq!(inngest_name(FAILED).as_deref(), Some("inngest/function.failed"));
        assert_eq!(inngest_name("dormouse/scheduled.timer"), None);
        let trigger = |event: &str| OnEvent {
            event: event.to_owned(),
            condition: None,
        };
        for (pattern, kinds) in [
            (FINISHED, 1),
            ("inngest/function.failed", 2),
            ("dormouse/function.*", 7),
            ("inngest/function.*", 7),
            ("inngest/*", 7),
            ("dormouse/*", 7),
            ("inngest/scheduled.timer", 0),
            ("shop/*", 0),
            ("dormouse/function.invoked", 0),
        ] {
            assert_eq!(Kinds::listened_by(&trigger(pattern)), Kinds(kinds), "{pattern}");
        }
    }

    #[test]
    fn a_status_is_told_by_its_names() {
        let names = |status| Kinds::of(status).names().collect::<Vec<_>>();
        assert_eq!(names(Status::Completed), [FINISHED]);
        assert_eq!(names(Status::Failed), [FINISHED, FAILED]);
        assert_eq!(names(Status::Cancelled), [CANCELLED]);
        for status in [Status::Scheduled, Status::Running, Status::Skipped] {
            assert!(Kinds::of(status).is_empty());
        }
        for (kind, name) in Kinds::EACH {
            assert_eq!(Kinds::named(name), kind);
            assert_eq!(Kinds::from_bits(kind.bits()), kind);
        }
    }

    #[test]
    fn an_end_is_told_the_same_again_with_what_it_came_to() {
        let (function, event) = (function(), Json::trusted(r#"{"name":"a","data":{}}"#));
        let output = Json::trusted("[1]");
        let mut ended = ended(&function, Status::Completed, &event);
        ended.output = Some(&output);
        let told = ended.told(FINISHED).expect("told");
        assert_eq!(ended.told(FINISHED).expect("told"), told);
        assert!(told.starts);
        assert_eq!(told.event.ts, AT);
        let seen: serde_json::Value = told.event.payload.read().expect("JSON");
        assert_eq!(
            seen["data"],
            serde_json::json!({"function_id": "shop/order", "run_id": run().to_string(), "status": "Completed",
                "event": {"name": "a", "data": {}}, "result": [1], "_inngest": {"status": "Completed"}})
        );
        assert_eq!(told_of(&told.event.payload), Some(run()));
        assert_eq!(told_of(&event), None);
    }

    #[test]
    fn the_end_of_a_run_that_an_end_has_started_starts_nothing() {
        let (function, event) = (function(), Json::trusted(r#"{"name":"a","data":{}}"#));
        let first = ended(&function, Status::Failed, &event)
            .told(FAILED)
            .expect("told");
        let listener = Ended {
            run: ended(&function, Status::Failed, &event).handler(),
            ..ended(&function, Status::Failed, &first.event.payload)
        };
        for name in [FINISHED, FAILED] {
            let told = listener.told(name).expect("told");
            assert!(!told.starts && told_of_a_listener(&told.event.payload));
        }
        assert_eq!(is_handler(listener.run, &first.event.payload), Some(run()));
        assert!(first.starts && !told_of_a_listener(&first.event.payload));
        assert_eq!(is_handler(run(), &first.event.payload), None);
        assert_eq!(is_handler(listener.run, &event), None);
        // An event that only speaks of such a name is another one.
        let speaks = Json::trusted(r#"{"name":"a","data":{"x":"dormouse/function.failed"}}"#);
        assert!(!tells_of_an_end(&speaks));
    }

    #[test]
    fn what_would_be_too_big_is_left_out_and_named() {
        let function = function();
        let big =
            |bytes: usize| Json::trusted(format!("{{\"name\":\"a\",\"data\":\"{}\"}}", "x".repeat(bytes)));
        let omitted = |event: &Json, output: &Json| {
            let mut ended = ended(&function, Status::Completed, event);
            ended.output = Some(output);
            let told = ended.told(FINISHED).expect("told");
            assert!(told.event.payload.len() <= limit::EVENT_BYTES_MAX);
            let seen: serde_json::Value = told.event.payload.read().expect("JSON");
            seen["data"]["omitted"].clone()
        };
        let (small, half, whole) = (
            big(1),
            big(limit::EVENT_BYTES_MAX / 2),
            big(limit::EVENT_BYTES_MAX),
        );
        assert_eq!(omitted(&small, &half), serde_json::Value::Null);
        assert_eq!(omitted(&half, &half), serde_json::json!(["result"]));
        assert_eq!(omitted(&whole, &small), serde_json::json!(["event"]));
        assert_eq!(omitted(&whole, &whole), serde_json::json!(["result", "event"]));
        let nested = |depth: usize| Json::trusted(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        assert_eq!(
            omitted(&small, &nested(limit::JSON_DEPTH_MAX)),
            serde_json::json!(["result"])
        );
    }

    #[test]
    fn who_listens_to_an_invoke_is_not_who_is_invoked() {
        let function = function();
        let event = event::invoked(
            &function,
            Json::trusted("{}"),
            EventId::from_parts(AT, [1; 10]),
            AT,
        );
        let event = event.expect("an event").payload;
        assert!(!listens(&function, &event));
        assert!(listens(&"shop/audit".parse().expect("a name"), &event));
        assert!(!listens(&function, &Json::trusted(r#"{"name":"a","data":{}}"#)));
    }

    #[test]
    fn a_cancelled_run_says_why() {
        let (function, event) = (function(), Json::trusted(r#"{"name":"a","data":{}}"#));
        let mut ended = ended(&function, Status::Cancelled, &event);
        let message = |ended: &Ended<'_>| {
            let told = ended.told(CANCELLED).expect("told");
            let seen: serde_json::Value = told.event.payload.read().expect("JSON");
            assert_eq!(seen["data"]["error"]["code"], "cancelled");
            seen["data"]["error"]["message"]
                .as_str()
                .expect("a text")
                .to_owned()
        };
        assert_eq!(message(&ended), "the run was cancelled");
        ended.reason = Some("timeouts.start");
        assert_eq!(message(&ended), "timeouts.start");
    }
}
