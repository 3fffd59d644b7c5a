//! What an operation asks of the host, read from its input as the journal has it.
//!
//! All of it is a function of the entry: asked again after a crash, on any node, it is the same, ids included. What is
//! wrong with an input is a failure as data. Absent on purpose: performing anything.

use std::time::Duration;

use serde::Deserialize;

use crate::condition::{Condition, Scope};
use crate::event::{self, Accepted};
use crate::failure::Failure;
use crate::id::{EventId, RunId};
use crate::journal::Seq;
use crate::json::Json;
use crate::limit;
use crate::system;
use crate::time::Timestamp;
use crate::wait::{self, EventWait, SignalWait};

/// Events that a step sends, each with the id it is stored under.
#[derive(Debug, Clone, PartialEq)]
pub struct SendEvents {
    /// The events, in order.
    pub events: Vec<(EventId, Accepted)>,
}

impl SendEvents {
    /// Reads the input of the entry `operation` of a run, started `at`.
    ///
    /// # Errors
    /// The rule of the event API that one of them breaks, and which one it is.
    pub fn read(input: &Json, run: RunId, operation: Seq, at: Timestamp) -> Result<SendEvents, Failure> {
        #[derive(Deserialize)]
        struct Input {
            events: Json,
            #[serde(default)]
            options: Option<NoOptions>,
        }
        let input: Input = read(input)?;
        let _none = input.options;
        let texts: Vec<Json> = input.events.read().map_err(|_| {
            Failure::terminal(
                "invalid-event",
                "send-events takes an array of events, each an object",
            )
        })?;
        if texts.len() > limit::EVENTS_PER_REQUEST_MAX {
            return Err(Failure::terminal(
                "too-many-events",
                format!(
                    "the step sends {} events, more than the limit of {}: send them in several steps",
                    texts.len(),
                    limit::EVENTS_PER_REQUEST_MAX
                ),
            ));
        }
        let events = (0u32..).zip(&texts).map(|(index, text)| {
            let id = EventId::derived(
                at,
                &[
                    b"send-events",
                    &run.to_bytes(),
                    &operation.to_be_bytes(),
                    &index.to_be_bytes(),
                ],
            );
            let accepted = event::accept(text.as_str(), id, at)
                .map_err(|error| Failure::terminal(error.code(), format!("event {index}: {error}")))?;
            Ok((id, accepted))
        });
        Ok(SendEvents {
            events: events.collect::<Result<_, Failure>>()?,
        })
    }

    /// The operation's result.
    pub fn result(&self) -> Json {
        let ids: Vec<String> = self.events.iter().map(|(id, _)| format!("\"{id}\"")).collect();
        Json::trusted(format!("{{\"ids\":[{}]}}", ids.join(",")))
    }
}

/// A wait for an event, as a step asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitForEvent {
    /// What ends it.
    pub wait: EventWait,
    /// When it ends by itself.
    pub due_at: Option<Timestamp>,
}

impl WaitForEvent {
    /// Reads the input of an entry, started `at`, of a run that the event `started_by` started.
    ///
    /// # Errors
    /// `invalid-event` for the name, `invalid-duration`, `invalid-options`.
    pub fn read(input: &Json, at: Timestamp, started_by: &Json) -> Result<WaitForEvent, Failure> {
        #[derive(Deserialize)]
        struct Input {
            event: String,
            #[serde(default)]
            options: Options,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, deny_unknown_fields)]
        struct Options {
            #[serde(rename = "match")]
            path: Option<String>,
            #[serde(rename = "if")]
            condition: Option<String>,
            timeout_ms: Option<u64>,
            lookback_ms: Option<u64>,
        }
        let Input { event, options } = read(input)?;
        let event = system::canonical(&event).into_owned();
        match event::check_name(&event) {
            // The host's own events may be waited for, as they may start functions.
            Ok(()) | Err(event::Invalid::NameReserved(_)) => {}
            Err(error) => return Err(Failure::terminal("invalid-event", error.to_string())),
        }
        let invalid = |message: String| Failure::terminal("invalid-options", message);
        let key = match &options.path {
            None => String::new(),
            Some(path) if path.is_empty() || path.len() > limit::MATCH_PATH_BYTES_MAX => {
                return Err(invalid(format!(
                    "match is the path of a field, such as data.order_id, of at most {} bytes",
                    limit::MATCH_PATH_BYTES_MAX
                )));
            }
            Some(path) => {
                let started_by = started_by.read().map_err(|error| invalid(error.to_string()))?;
                wait::key(&started_by, path).ok_or_else(|| {
                    invalid(format!(
                        "match is \"{path}\", and the event that started the run has no text, number or truth value there"
                    ))
                })?
            }
        };
        if let Some(condition) = &options.condition {
            Condition::compile(condition, Scope::Wait).map_err(|error| invalid(format!("if: {error}")))?;
        }
        if options
            .lookback_ms
            .is_some_and(|millis| millis > limit::LOOKBACK_MS_MAX)
        {
            let days = limit::LOOKBACK_MS_MAX / 86_400_000;
            return Err(Failure::terminal(
                "invalid-duration",
                format!("a wait looks back at most {days} days"),
            ));
        }
        Ok(WaitForEvent {
            due_at: timeout(options.timeout_ms, at)?,
            wait: EventWait {
                event,
                path: options.path.unwrap_or_default(),
                key,
                condition: options.condition,
                lookback_from: options
                    .lookback_ms
                    .map(|millis| at.before(Duration::from_millis(millis))),
            },
        })
    }
}

/// A wait for a signal, as a step asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitForSignal {
    /// What ends it.
    pub wait: SignalWait,
    /// When it ends by itself.
    pub due_at: Option<Timestamp>,
}

impl WaitForSignal {
    /// Reads the input of an entry, started `at`.
    ///
    /// # Errors
    /// `invalid-name`, `invalid-duration`, `invalid-options`.
    pub fn read(input: &Json, at: Timestamp) -> Result<WaitForSignal, Failure> {
        #[derive(Deserialize)]
        struct Input {
            signal: String,
            #[serde(default)]
            options: Options,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, deny_unknown_fields)]
        struct Options {
            timeout_ms: Option<u64>,
            on_conflict: OnConflict,
        }
        #[derive(Deserialize, Default, PartialEq)]
        #[serde(rename_all = "lowercase")]
        enum OnConflict {
            #[default]
            Fail,
            Replace,
        }
        let Input { signal, options } = read(input)?;
        check_signal(&signal)?;
        Ok(WaitForSignal {
            wait: SignalWait {
                signal,
                replace: options.on_conflict == OnConflict::Replace,
            },
            due_at: timeout(options.timeout_ms, at)?,
        })
    }
}

/// A signal that a step sends.
#[derive(Debug, Clone, PartialEq)]
pub struct SendSignal {
    /// Its name.
    pub signal: String,
    /// What the run that waits for it is given.
    pub data: Json,
}

impl SendSignal {
    /// Reads the input of an entry.
    ///
    /// # Errors
    /// `invalid-name`, `invalid-options`, `invalid-json` (nested too deep).
    pub fn read(input: &Json) -> Result<SendSignal, Failure> {
        #[derive(Deserialize)]
        struct Input {
            signal: String,
            data: Json,
            #[serde(default)]
            options: Option<NoOptions>,
        }
        let input: Input = read(input)?;
        let _none = input.options;
        check_signal(&input.signal)?;
        let (depth, most) = (input.data.depth(), limit::JSON_DEPTH_MAX);
        if depth > most {
            return Err(Failure::terminal(
                "invalid-json",
                format!("the signal's data nests {depth} deep, more than the limit of {most}"),
            ));
        }
        Ok(SendSignal {
            signal: input.signal,
            data: input.data,
        })
    }

    /// The operation's result: the run that waited.
    pub fn result(run: Option<RunId>) -> Json {
        run.map_or_else(Json::null, |run| {
            Json::trusted(format!("{{\"run_id\":\"{run}\"}}"))
        })
    }
}

/// Checks a signal's name.
///
/// # Errors
/// `invalid-name`.
pub fn check_signal(signal: &str) -> Result<(), Failure> {
    if signal.is_empty() || signal.len() > limit::SIGNAL_BYTES_MAX || signal.chars().any(char::is_control) {
        return Err(Failure::terminal(
            "invalid-name",
            format!(
                "a signal's name has 1 to {} bytes and no control characters",
                limit::SIGNAL_BYTES_MAX
            ),
        ));
    }
    Ok(())
}

/// When an operation ends by itself, if it does.
pub(crate) fn timeout(millis: Option<u64>, at: Timestamp) -> Result<Option<Timestamp>, Failure> {
    match millis {
        None => Ok(None),
        Some(millis) if millis > limit::SLEEP_MS_MAX => {
            let days = limit::SLEEP_MS_MAX / 86_400_000;
            let message = format!("a step's timeout is at most {days} days");
            Err(Failure::terminal("invalid-duration", message))
        }
        Some(millis) => Ok(Some(at.after(Duration::from_millis(millis)))),
    }
}

/// The options of an operation that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// Reads an input. The engine has made it, but for what the options say.
pub(crate) fn read<'a, T: Deserialize<'a>>(input: &'a Json) -> Result<T, Failure> {
    serde_json::from_str(input.as_str())
        .map_err(|error| Failure::terminal("invalid-options", format!("the step's options: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn run() -> RunId {
        RunId::from_parts(AT, [7; 10])
    }

    fn send(input: &str, operation: Seq) -> Result<SendEvents, Failure> {
        SendEvents::read(&Json::trusted(input), run(), operation, AT)
    }

    #[test]
    fn events_have_the_same_ids_when_read_again_and_other_ids_elsewhere() {
        let input = r#"{"events":[{"name":"a","data":{"n":1}},{"name":"b","id":"own"}]}"#;
        let first = send(input, 3).expect("valid");
        assert_eq!(send(input, 3).expect("valid"), first);
        let ids = |sent: &SendEvents| sent.events.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let elsewhere = send(input, 4).expect("valid");
        assert!(ids(&first).iter().all(|id| !ids(&elsewhere).contains(id)));
        assert_ne!(ids(&first)[0], ids(&first)[1]);
        assert_eq!(first.events[1].1.external_id.as_deref(), Some("own"));
        assert_eq!(
            first.result().as_str(),
            format!(r#"{{"ids":["{}","{}"]}}"#, first.events[0].0, first.events[1].0)
        );
    }

    #[test]
    fn what_the_event_api_refuses_is_refused_with_the_place() {
        let many = format!(
            r#"{{"events":[{}]}}"#,
            vec![r#"{"name":"a"}"#; limit::EVENTS_PER_REQUEST_MAX + 1].join(",")
        );
        for (input, code, word) in [
            (
                r#"{"events":[{"name":"a"},{"name":""}]}"#,
                "invalid-event",
                "event 1",
            ),
            (
                r#"{"events":[{"name":"dormouse/x"}]}"#,
                "invalid-event",
                "reserved",
            ),
            (r#"{"events":[7]}"#, "invalid-event", "event 0"),
            (r#"{"events":{"name":"a"}}"#, "invalid-event", "array"),
            (
                r#"{"events":[],"options":{"attempts":3}}"#,
                "invalid-options",
                "attempts",
            ),
            (many.as_str(), "too-many-events", "5000"),
        ] {
            let failure = send(input, 0).expect_err(word);
            assert_eq!(failure.code.as_deref(), Some(code), "{failure:?}");
            assert!(failure.message.contains(word), "{failure:?}");
        }
        assert_eq!(
            send(r#"{"events":[]}"#, 0).expect("none").result().as_str(),
            r#"{"ids":[]}"#
        );
    }

    #[test]
    fn a_wait_is_read_with_its_key_and_its_times() {
        let started_by = Json::trusted(r#"{"data":{"id":7,"list":[]}}"#);
        let read = |input: &str| WaitForEvent::read(&Json::trusted(input), AT, &started_by);
        let asked = read(
            r#"{"event":"a","options":{"match":"data.id","if":"async.data.n > 1","timeout_ms":5,"lookback_ms":7}}"#,
        )
        .expect("valid");
        assert_eq!(asked.due_at, Some(AT.after(Duration::from_millis(5))));
        assert_eq!(
            asked.wait.lookback_from,
            Some(AT.before(Duration::from_millis(7)))
        );
        assert_eq!(asked.wait.condition.as_deref(), Some("async.data.n > 1"));
        assert!(!asked.wait.key.is_empty());
        let plain = read(r#"{"event":"dormouse/function.finished"}"#).expect("valid");
        assert_eq!((plain.due_at, plain.wait.key.as_str()), (None, ""));
        for (input, code, word) in [
            (r#"{"event":""}"#, "invalid-event", "empty"),
            (
                r#"{"event":"a","options":{"match":"data.list"}}"#,
                "invalid-options",
                "data.list",
            ),
            (
                r#"{"event":"a","options":{"match":""}}"#,
                "invalid-options",
                "path",
            ),
            (
                r#"{"event":"a","options":{"if":"x == 1"}}"#,
                "invalid-options",
                "column 1",
            ),
            (
                r#"{"event":"a","options":{"timeout":1}}"#,
                "invalid-options",
                "timeout",
            ),
            (
                r#"{"event":"a","options":{"timeout_ms":99999999999}}"#,
                "invalid-duration",
                "366",
            ),
            (
                r#"{"event":"a","options":{"lookback_ms":99999999999}}"#,
                "invalid-duration",
                "7 days",
            ),
        ] {
            let failure = read(input).expect_err(input);
            assert_eq!(failure.code.as_deref(), Some(code), "{failure:?}");
            assert!(failure.message.contains(word), "{failure:?}");
        }
        let long = format!(r#"{{"event":"{}"}}"#, "x".repeat(limit::EVENT_NAME_BYTES_MAX + 1));
        assert!(read(&long).is_err());
    }

    #[test]
    fn a_wait_for_a_signal_is_read() {
        let read = |input: &str| WaitForSignal::read(&Json::trusted(input), AT);
        let asked =
            read(r#"{"signal":"go","options":{"timeout_ms":5,"on_conflict":"replace"}}"#).expect("valid");
        assert_eq!(asked.due_at, Some(AT.after(Duration::from_millis(5))));
        assert!(asked.wait.replace);
        assert!(!read(r#"{"signal":"go"}"#).expect("valid").wait.replace);
        for (input, code) in [
            (r#"{"signal":""}"#, "invalid-name"),
            (r#"{"signal":"a\nb"}"#, "invalid-name"),
            (
                r#"{"signal":"a","options":{"on_conflict":"ask"}}"#,
                "invalid-options",
            ),
            (r#"{"signal":"a","options":{"match":"x"}}"#, "invalid-options"),
        ] {
            assert_eq!(read(input).expect_err(input).code.as_deref(), Some(code));
        }
    }
}
