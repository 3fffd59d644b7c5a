//! What a valid event is. The rules and their words are those of Inngest's event API, so that its clients work.
//!
//! Absent on purpose: HTTP, and storing. A refused event has changed nothing.

use serde::{Deserialize, Serialize};

use crate::id::EventId;
use crate::json::Json;
use crate::limit;
use crate::name::FunctionName;
use crate::time::Timestamp;

/// Names that start so are the host's own.
const RESERVED: [&str; 2] = ["inngest/", "dormouse/"];

/// 1980-01-01, the earliest `ts`.
const TS_MIN: i64 = 315_532_800_000;
/// 2100-01-01, the latest.
const TS_MAX: i64 = 4_102_444_800_000;

/// An event as a sender writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Sent {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its data, an object; none means empty.
    #[serde(default)]
    pub data: Option<Json>,
    /// The sender's own id.
    #[serde(default)]
    pub id: Option<String>,
    /// When it happened, Unix milliseconds.
    #[serde(default)]
    pub ts: Option<i64>,
    /// Deprecated by Inngest, kept.
    #[serde(default)]
    pub user: Option<Json>,
    /// A version, free text.
    #[serde(default)]
    pub v: Option<String>,
    /// The function that is invoked. The host alone says so.
    #[serde(skip)]
    pub function_id: Option<String>,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not an event at all.
    #[error("event is not valid: {0}")]
    Shape(String),
    /// No name.
    #[error("event name is empty")]
    NameEmpty,
    /// A name of the host's.
    #[error("event name is reserved for internal use: {0}")]
    NameReserved(String),
    /// Too long a name.
    #[error("event name is longer than {} bytes", limit::EVENT_NAME_BYTES_MAX)]
    NameTooLong,
    /// Control characters in the name.
    #[error("event name contains a control character")]
    NameControl,
    /// Data that is not an object.
    #[error("event data must be an object")]
    DataNotObject,
    /// Too long an id.
    #[error("event id is longer than {} bytes", limit::EVENT_ID_BYTES_MAX)]
    IdTooLong,
    /// A time outside 1980 to 2100.
    #[error("event ts must be Unix milliseconds between 1980 and 2100, not {0}")]
    Ts(i64),
    /// Arrays and objects in each other, too many.
    #[error("event nests {depth} deep, more than the limit of {}", limit::JSON_DEPTH_MAX)]
    TooDeep {
        /// How deep it nests, itself included.
        depth: usize,
    },
    /// Too big.
    #[error("event is {bytes} bytes, more than the limit of {}", limit::EVENT_BYTES_MAX)]
    TooBig {
        /// Its size.
        bytes: usize,
    },
}

impl Invalid {
    /// The stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Invalid::TooBig { .. } => "event-too-big",
            _ => "invalid-event",
        }
    }
}

/// An event that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Its name.
    pub name: String,
    /// The sender's own id, if it gave one that is not empty.
    pub external_id: Option<String>,
    /// When it happened.
    pub ts: Timestamp,
    /// The event as functions see it.
    pub payload: Json,
}

impl Accepted {
    /// Checks the size of an event that was made here and not received.
    ///
    /// # Errors
    /// [`Invalid::TooBig`].
    pub fn within_limits(self) -> Result<Accepted, Invalid> {
        let bytes = self.payload.len();
        match bytes > limit::EVENT_BYTES_MAX {
            true => Err(Invalid::TooBig { bytes }),
            false => Ok(self),
        }
    }
}

/// What functions see of an event.
#[derive(Serialize)]
struct Payload<'a> {
    id: &'a str,
    name: &'a str,
    data: &'a Json,
    ts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_id: Option<&'a str>,
}

/// Checks one event. `text` is its JSON; `id` the one it will be stored under; `now` stands in for a missing `ts`.
///
/// # Errors
/// The first rule it breaks.
pub fn accept(text: &str, id: EventId, now: Timestamp) -> Result<Accepted, Invalid> {
    if text.len() > limit::EVENT_BYTES_MAX {
        return Err(Invalid::TooBig { bytes: text.len() });
    }
    // A struct would also be read from an array.
    if !text.trim_start().starts_with('{') {
        return Err(Invalid::Shape("it must be a JSON object".to_owned()));
    }
    let sent: Sent = serde_json::from_str(text).map_err(|error| Invalid::Shape(error.to_string()))?;
    check_name(&sent.name)?;
    make(sent, id, now)
}

/// Makes an event of the host's own; its name may be reserved.
///
/// # Errors
/// As [`accept`], but for the name.
pub fn internal(name: &str, data: Json, id: EventId, now: Timestamp) -> Result<Accepted, Invalid> {
    let sent = Sent {
        name: name.to_owned(),
        data: Some(data),
        id: None,
        ts: None,
        user: None,
        v: None,
        function_id: None,
    };
    make(sent, id, now)
}

/// Makes the event that an invoked function is started with. It says which function that is, for whoever else listens.
///
/// # Errors
/// As [`accept`], but for the name.
pub fn invoked(
    function: &FunctionName,
    data: Json,
    id: EventId,
    now: Timestamp,
) -> Result<Accepted, Invalid> {
    let sent = Sent {
        name: crate::invoke::EVENT.to_owned(),
        data: Some(data),
        id: None,
        ts: None,
        user: None,
        v: None,
        function_id: Some(function.to_string()),
    };
    make(sent, id, now)
}

fn make(sent: Sent, id: EventId, now: Timestamp) -> Result<Accepted, Invalid> {
    let data = match &sent.data {
        None => Json::trusted("{}"),
        Some(json) if json.as_str() == "null" => Json::trusted("{}"),
        Some(json) if json.as_str().starts_with('{') => json.clone(),
        Some(_) => return Err(Invalid::DataNotObject),
    };
    let ts = match sent.ts {
        None | Some(0) => now,
        Some(ts) if (TS_MIN..=TS_MAX).contains(&ts) => Timestamp::from_millis(ts),
        Some(ts) => return Err(Invalid::Ts(ts)),
    };
    let external_id = sent.id.filter(|id| !id.is_empty());
    if external_id
        .as_ref()
        .is_some_and(|id| id.len() > limit::EVENT_ID_BYTES_MAX)
    {
        return Err(Invalid::IdTooLong);
    }
    let own_id = id.to_string();
    let payload = Json::from_value(&Payload {
        id: external_id.as_deref().unwrap_or(&own_id),
        name: &sent.name,
        data: &data,
        ts: ts.as_millis(),
        user: sent.user.as_ref().filter(|json| json.as_str() != "null"),
        v: sent.v.as_deref(),
        function_id: sent.function_id.as_deref(),
    })
    .map_err(|error| Invalid::Shape(error.0))?;
    let depth = payload.depth();
    if depth > limit::JSON_DEPTH_MAX {
        return Err(Invalid::TooDeep { depth });
    }
    Ok(Accepted {
        name: sent.name,
        external_id,
        ts,
        payload,
    })
}

/// Checks an event's name as a sender may use it.
///
/// # Errors
/// The rule it breaks.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::NameEmpty);
    }
    if name.len() > limit::EVENT_NAME_BYTES_MAX {
        return Err(Invalid::NameTooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(Invalid::NameControl);
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(Invalid::NameReserved(name.to_owned()));
    }
    Ok(())
}

/// A request's seed: the header `x-inngest-event-id-seed`, `<millis>,<base 64 of 10 bytes>`. A client that repeats a
/// request repeats the seed, so the events get the same ids, and with that are deduplicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    time: Timestamp,
    entropy: [u8; 10],
}

impl Seed {
    /// From the header's decoded parts.
    pub fn new(millis: i64, entropy: [u8; 10]) -> Seed {
        Seed {
            time: Timestamp::from_millis(millis),
            entropy,
        }
    }

    /// The id of the event at `index` (from 0): the last four bytes, as a big-endian number, plus `index + 1`.
    pub fn id(&self, index: u32) -> EventId {
        let mut entropy = self.entropy;
        let mut tail = [0; 4];
        tail.copy_from_slice(&entropy[6..]);
        let tail = u32::from_be_bytes(tail).wrapping_add(index).wrapping_add(1);
        entropy[6..].copy_from_slice(&tail.to_be_bytes());
        EventId::from_parts(self.time, entropy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn id() -> EventId {
        EventId::from_parts(NOW, [1; 10])
    }

    #[test]
    fn an_event_that_is_accepted_can_be_read_by_a_recursive_reader() {
        let nested = |depth: usize| {
            // The event and its data are two of them.
            let (open, close) = ("[".repeat(depth - 2), "]".repeat(depth - 2));
            format!(r#"{{"name":"a","data":{{"x":{open}"]]\"[["{close}}}}}"#)
        };
        let event = accept(&nested(limit::JSON_DEPTH_MAX), id(), NOW).expect("as deep as may be");
        assert!(event.payload.read::<serde_json::Value>().is_ok());
        assert_eq!(
            accept(&nested(limit::JSON_DEPTH_MAX + 1), id(), NOW),
            Err(Invalid::TooDeep {
                depth: limit::JSON_DEPTH_MAX + 1
            })
        );
    }

    #[test]
    fn an_accepted_event_keeps_its_data_to_the_letter() {
        let text = r#"{"name":"a/b","data":{"n":123456789012345678901234567890,"z":1,"a":2}}"#;
        let event = accept(text, id(), NOW).expect("valid");
        assert!(
            event
                .payload
                .as_str()
                .contains(r#""data":{"n":123456789012345678901234567890,"z":1,"a":2}"#)
        );
        assert_eq!((event.ts, event.external_id), (NOW, None));
        assert!(event.payload.as_str().contains(&id().to_string()));
    }

    #[test]
    fn refuses_with_the_rule_that_is_broken() {
        let big = format!(
            r#"{{"name":"a","data":{{"x":"{}"}}}}"#,
            "x".repeat(limit::EVENT_BYTES_MAX)
        );
        for (text, word) in [
            (r#"{"data":{}}"#, "name is empty"),
            (r#"{"name":""}"#, "name is empty"),
            (r#"{"name":5}"#, "not valid"),
            (r#"{"name":"Inngest/x"}"#, "reserved"),
            (r#"{"name":"dormouse/x"}"#, "reserved"),
            (r#"{"name":"a\u0007"}"#, "control"),
            (r#"{"name":"a","data":[]}"#, "object"),
            (r#"{"name":"a","ts":12}"#, "1980"),
            ("7", "not valid"),
            (r#"["a",{}]"#, "not valid"),
            ("{", "not valid"),
            (big.as_str(), "more than the limit"),
        ] {
            let error = accept(text, id(), NOW).expect_err(text);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_ids_again_and_counts_up() {
        let seed = Seed::new(1_790_000_000_000, [0, 1, 2, 3, 4, 5, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(seed.id(0), seed.id(0));
        assert_ne!(seed.id(0), seed.id(1));
        assert_eq!(
            &seed.id(0).to_bytes()[12..],
            &[0, 0, 0, 0],
            "the last four bytes wrap around"
        );
        assert_eq!(&seed.id(1).to_bytes()[12..], &[0, 0, 0, 1]);
    }
}
