//! What an operation asks of the host, read from its input as the journal has it.
//!
//! All of it is a function of the entry: asked again after a crash, on any node, it is the same, ids included. What is
//! wrong with an input is a failure as data. Absent on purpose: performing anything.

use serde::Deserialize;

use crate::event::{self, Accepted};
use crate::failure::Failure;
use crate::id::{EventId, RunId};
use crate::journal::Seq;
use crate::json::Json;
use crate::limit;
use crate::time::Timestamp;

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

/// The options of an operation that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// Reads an input. The engine has made it, but for what the options say.
fn read<'a, T: Deserialize<'a>>(input: &'a Json) -> Result<T, Failure> {
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
}
