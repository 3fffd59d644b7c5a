//! What a run's record consists of, and how an entry is written down.
//!
//! The journal is append-only. An entry's number ([`Seq`]) is its place; an operation is named by the number of the
//! entry that opened it. Absent on purpose: what the guest did between entries, and anything that could be found out
//! by replaying.
//!
//! Encoding: one row has the entry's kind and name in plain columns, the small facts as JSON in `meta`, and the
//! payload (an outcome or an input) apart, since it may be large. `meta` carries a version; an unknown one is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::json::Json;
use crate::time::Timestamp;

/// The place of an entry in its run's journal, from 0. Never used twice in a run, also across `continue-with`.
pub type Seq = u32;

/// What the host performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// Until a duration has passed.
    Sleep,
    /// Until a time.
    SleepUntil,
    /// Statements on an application database.
    Sql,
    /// An event of some name.
    WaitForEvent,
    /// A signal of some name.
    WaitForSignal,
    /// Another function's outcome.
    Invoke,
    /// Events sent.
    SendEvents,
    /// An HTTP request.
    Fetch,
    /// A signal sent.
    SendSignal,
}

impl OperationKind {
    /// Its name in the contract and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            OperationKind::Sleep => "sleep",
            OperationKind::SleepUntil => "sleep-until",
            OperationKind::Sql => "sql",
            OperationKind::WaitForEvent => "wait-for-event",
            OperationKind::WaitForSignal => "wait-for-signal",
            OperationKind::Invoke => "invoke",
            OperationKind::SendEvents => "send-events",
            OperationKind::Fetch => "fetch",
            OperationKind::SendSignal => "send-signal",
        }
    }

    /// Whether the call's options say what is asked for, not only how it is done: then they belong to its input, which
    /// replay compares, as its member `options`.
    pub fn options_are_input(self) -> bool {
        match self {
            OperationKind::Sleep | OperationKind::SleepUntil | OperationKind::Sql => false,
            OperationKind::WaitForEvent
            | OperationKind::WaitForSignal
            | OperationKind::Invoke
            | OperationKind::SendEvents
            | OperationKind::Fetch
            | OperationKind::SendSignal => true,
        }
    }
}

/// One thing that happened, at its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place.
    pub seq: Seq,
    /// When: never before the entry before it.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A body has its final outcome.
    Step {
        /// The step's name.
        name: String,
        /// Which use of the name, from 0.
        occurrence: u32,
        /// The attempt that gave the outcome, from 1.
        attempt: u32,
        /// When that attempt began.
        started_at: Timestamp,
        /// The outcome: final.
        outcome: Outcome,
    },
    /// An attempt of a body failed and another follows. Opens an operation that comes due at `due_at`.
    Deferred {
        /// The step's name.
        name: String,
        /// Which use of the name, from 0.
        occurrence: u32,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// When it began.
        started_at: Timestamp,
        /// Why it failed.
        failure: Failure,
        /// When the next attempt is due.
        due_at: Timestamp,
    },
    /// An operation was started.
    Started {
        /// What the host performs.
        kind: OperationKind,
        /// The step's name.
        name: String,
        /// Which use of the name by this kind, from 0.
        occurrence: u32,
        /// Of the input: what replay compares.
        input_hash: u64,
        /// What is needed to perform it.
        input: Json,
        /// When it comes due by itself: sleeps, and waits with a timeout.
        due_at: Option<Timestamp>,
    },
    /// An operation's outcome was handed to the guest.
    Delivered {
        /// The operation.
        operation: Seq,
        /// Its outcome.
        outcome: Outcome,
    },
    /// The guest gave an operation up.
    Cancelled {
        /// The operation.
        operation: Seq,
    },
    /// The host has tried an operation in vain, and tries again. The guest does not notice: whatever it asks for next, a replay
    /// passes over it.
    Tried {
        /// The operation.
        operation: Seq,
        /// Which try, from 1.
        attempt: u32,
        /// When it began.
        started_at: Timestamp,
        /// Why it was in vain.
        failure: Failure,
        /// When the next is due.
        due_at: Timestamp,
    },
}

/// An entry as a row: what a store keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The entry's place.
    pub seq: Seq,
    /// `step`, `deferred`, `started`, `delivered`, `cancelled` or `tried`.
    pub kind: RecordKind,
    /// The step's name; empty where the entry has none of its own.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// The small facts, as JSON.
    pub meta: String,
    /// The outcome or the input, as JSON.
    pub payload: Option<Json>,
}

/// The kinds of rows. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum RecordKind {
    /// A body's final outcome.
    Step = 1,
    /// A failed attempt that is followed by another.
    Deferred = 2,
    /// An operation started.
    Started = 3,
    /// An operation's outcome delivered.
    Delivered = 4,
    /// An operation given up.
    Cancelled = 5,
    /// An operation tried in vain.
    Tried = 6,
}

impl RecordKind {
    /// From its number on disk.
    pub fn from_number(number: i64) -> Option<RecordKind> {
        Some(match number {
            1 => RecordKind::Step,
            2 => RecordKind::Deferred,
            3 => RecordKind::Started,
            4 => RecordKind::Delivered,
            5 => RecordKind::Cancelled,
            6 => RecordKind::Tried,
            _ => return None,
        })
    }
}

/// A row that cannot be read as an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal entry {seq} cannot be read: {reason}")]
pub struct Unreadable {
    /// The row's place.
    pub seq: Seq,
    /// What is wrong with it.
    pub reason: String,
}

/// The version of `meta` that this release writes.
const META_VERSION: u8 = 1;

/// The small facts of all kinds. Short names: there are millions of these.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Meta {
    /// Version.
    v: u8,
    /// Occurrence.
    #[serde(default, skip_serializing_if = "is_zero")]
    n: u32,
    /// Attempt.
    #[serde(default, skip_serializing_if = "is_zero")]
    attempt: u32,
    /// Started at, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<i64>,
    /// Due at, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<i64>,
    /// Operation kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<OperationKind>,
    /// Input hash, hexadecimal: JSON readers elsewhere don't keep 64 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// Operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    op: Option<Seq>,
    /// The payload is a failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

/// What any version of `meta` has.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

impl Meta {
    /// Reads what [`Entry::encode`] writes.
    fn read(text: &str) -> Result<Meta, String> {
        match serde_json::from_str::<Meta>(text) {
            Ok(meta) if meta.v == META_VERSION => Ok(meta),
            unknown => {
                // A later version may well have members that this release does not know: its number says more.
                Err(match (serde_json::from_str(text), unknown) {
                    (Ok(Version { v }), _) if v != u64::from(META_VERSION) => {
                        format!("it has version {v}, this release reads {META_VERSION}")
                    }
                    (Err(error), _) | (_, Err(error)) => error.to_string(),
                    (Ok(_), Ok(_)) => "its version is not one".to_owned(),
                })
            }
        }
    }

    /// Reads the one form that most of a long journal's entries have, a step that succeeded, in a tenth of the time
    /// that reading any JSON takes. None for everything else: [`Meta::read`] reads that.
    fn of_step(text: &str) -> Option<Meta> {
        let mut rest = text.strip_prefix("{\"v\":1")?;
        let mut meta = Meta {
            v: META_VERSION,
            ..Meta::default()
        };
        if let Some(after) = rest.strip_prefix(",\"n\":") {
            meta.n = leading_number(after, &mut rest)?;
        }
        meta.attempt = leading_number(rest.strip_prefix(",\"attempt\":")?, &mut rest)?;
        meta.started = Some(leading_number(rest.strip_prefix(",\"started\":")?, &mut rest)?);
        (rest == "}").then_some(meta)
    }
}

/// The digits that a text begins with, as a number; `rest` is what follows them.
fn leading_number<'t, T: std::str::FromStr>(text: &'t str, rest: &mut &'t str) -> Option<T> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit())?;
    let (digits, after) = text.split_at(end);
    *rest = after;
    // JSON has no number with a leading zero; serde says so.
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    digits.parse().ok()
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn outcome_payload(outcome: &Outcome) -> Json {
    match outcome {
        Ok(json) => json.clone(),
        Err(failure) => failure_payload(failure),
    }
}

fn failure_payload(failure: &Failure) -> Json {
    Json::from_value(failure).unwrap_or_else(|_| Json::null())
}

impl Entry {
    /// The entry as a row.
    pub fn encode(&self) -> Record {
        let mut meta = Meta {
            v: META_VERSION,
            ..Meta::default()
        };
        let (kind, name, payload) = match &self.event {
            Event::Step {
                name,
                occurrence,
                attempt,
                started_at,
                outcome,
            } => {
                meta.n = *occurrence;
                meta.attempt = *attempt;
                meta.started = Some(started_at.as_millis());
                meta.failed = outcome.is_err();
                (RecordKind::Step, name.clone(), Some(outcome_payload(outcome)))
            }
            Event::Deferred {
                name,
                occurrence,
                attempt,
                started_at,
                failure,
                due_at,
            } => {
                meta.n = *occurrence;
                meta.attempt = *attempt;
                meta.started = Some(started_at.as_millis());
                meta.due = Some(due_at.as_millis());
                meta.failed = true;
                (RecordKind::Deferred, name.clone(), Some(failure_payload(failure)))
            }
            Event::Started {
                kind,
                name,
                occurrence,
                input_hash,
                input,
                due_at,
            } => {
                meta.n = *occurrence;
                meta.kind = Some(*kind);
                meta.hash = Some(format!("{input_hash:016x}"));
                meta.due = due_at.map(Timestamp::as_millis);
                (RecordKind::Started, name.clone(), Some(input.clone()))
            }
            Event::Delivered { operation, outcome } => {
                meta.op = Some(*operation);
                meta.failed = outcome.is_err();
                (
                    RecordKind::Delivered,
                    String::new(),
                    Some(outcome_payload(outcome)),
                )
            }
            Event::Cancelled { operation } => {
                meta.op = Some(*operation);
                (RecordKind::Cancelled, String::new(), None)
            }
            Event::Tried {
                operation,
                attempt,
                started_at,
                failure,
                due_at,
            } => {
                meta.op = Some(*operation);
                meta.attempt = *attempt;
                meta.started = Some(started_at.as_millis());
                meta.due = Some(due_at.as_millis());
                meta.failed = true;
                (RecordKind::Tried, String::new(), Some(failure_payload(failure)))
            }
        };
        Record {
            seq: self.seq,
            kind,
            name,
            at: self.at,
            // Meta is plain numbers and words; its serialisation cannot fail.
            meta: serde_json::to_string(&meta).unwrap_or_default(),
            payload,
        }
    }

    /// The entry in a row.
    ///
    /// # Errors
    /// When a row was written by a newer release or is damaged.
    pub fn decode(mut record: Record) -> Result<Entry, Unreadable> {
        let seq = record.seq;
        let unreadable = |reason: String| Unreadable { seq, reason };
        let missing = |what: &str| unreadable(format!("{what} is missing"));
        let meta = match Meta::of_step(&record.meta) {
            Some(meta) => meta,
            None => Meta::read(&record.meta).map_err(unreadable)?,
        };
        let mut payload = || record.payload.take().ok_or_else(|| missing("its payload"));
        let failure = |json: &Json| {
            json.read::<Failure>()
                .map_err(|error| unreadable(error.to_string()))
        };
        let mut outcome = || -> Result<Outcome, Unreadable> {
            let json = payload()?;
            if meta.failed {
                Ok(Err(failure(&json)?))
            } else {
                Ok(Ok(json))
            }
        };
        let time =
            |millis: Option<i64>, what| millis.map(Timestamp::from_millis).ok_or_else(|| missing(what));
        let operation = || meta.op.ok_or_else(|| missing("its operation"));
        let event = match record.kind {
            RecordKind::Step => Event::Step {
                occurrence: meta.n,
                attempt: meta.attempt,
                started_at: time(meta.started, "its start")?,
                outcome: outcome()?,
                name: record.name,
            },
            RecordKind::Deferred => Event::Deferred {
                occurrence: meta.n,
                attempt: meta.attempt,
                started_at: time(meta.started, "its start")?,
                failure: failure(&payload()?)?,
                due_at: time(meta.due, "its due time")?,
                name: record.name,
            },
            RecordKind::Started => Event::Started {
                kind: meta.kind.ok_or_else(|| missing("its kind"))?,
                occurrence: meta.n,
                input_hash: meta
                    .hash
                    .as_deref()
                    .and_then(|hex| u64::from_str_radix(hex, 16).ok())
                    .ok_or_else(|| missing("its input hash"))?,
                input: payload()?,
                due_at: meta.due.map(Timestamp::from_millis),
                name: record.name,
            },
            RecordKind::Delivered => Event::Delivered {
                operation: operation()?,
                outcome: outcome()?,
            },
            RecordKind::Cancelled => Event::Cancelled {
                operation: operation()?,
            },
            RecordKind::Tried => Event::Tried {
                operation: operation()?,
                attempt: meta.attempt,
                started_at: time(meta.started, "its start")?,
                failure: failure(&payload()?)?,
                due_at: time(meta.due, "its due time")?,
            },
        };
        Ok(Entry {
            seq,
            at: record.at,
            event,
        })
    }

    /// The entry in one line, as an error or a list shows it: `sleep "a" (1000 ms)`.
    pub fn describe(&self) -> String {
        match &self.event {
            Event::Step {
                name,
                occurrence,
                outcome,
                ..
            } => {
                let word = if outcome.is_ok() { "run" } else { "failed run" };
                format!("{word} {}", quoted(name, *occurrence))
            }
            Event::Deferred {
                name,
                occurrence,
                attempt,
                ..
            } => {
                format!("run {}, attempt {attempt} failed", quoted(name, *occurrence))
            }
            Event::Started {
                kind,
                name,
                occurrence,
                input,
                ..
            } => describe_operation(*kind, name, *occurrence, input),
            Event::Delivered { operation, .. } => format!("the result of entry {operation}"),
            Event::Cancelled { operation } => format!("the cancellation of entry {operation}"),
            Event::Tried {
                operation, attempt, ..
            } => format!("try {attempt} of entry {operation}"),
        }
    }
}

/// Of the operations that are open at the end of a journal, the one that comes due by itself soonest, and may be said to
/// have come due before. An invoke is not: `null` is no outcome of a function.
pub fn soonest_due(entries: &[Entry]) -> Option<Seq> {
    let mut open = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            Event::Started {
                kind: OperationKind::Invoke,
                ..
            } => {}
            Event::Started {
                due_at: Some(due_at), ..
            }
            | Event::Deferred { due_at, .. } => {
                open.insert(entry.seq, *due_at);
            }
            Event::Delivered { operation, .. } | Event::Cancelled { operation } => {
                open.remove(operation);
            }
            Event::Started { due_at: None, .. } | Event::Step { .. } | Event::Tried { .. } => {}
        }
    }
    open.into_iter()
        .min_by_key(|(operation, due_at)| (*due_at, *operation))
        .map(|(operation, _)| operation)
}

/// An operation in one line.
pub(crate) fn describe_operation(kind: OperationKind, name: &str, occurrence: u32, input: &Json) -> String {
    /// What fits into a sentence.
    const INPUT_CHARS: usize = 80;
    let mut text: String = input.as_str().chars().take(INPUT_CHARS).collect();
    if text.len() < input.len() {
        text.push('…');
    }
    format!("{} {} {text}", kind.as_str(), quoted(name, occurrence))
}

/// A step's name as a sentence has it: `"a"`, and from its second use on `"a" (use 2)`.
pub(crate) fn quoted(name: &str, occurrence: u32) -> String {
    match occurrence {
        0 => format!("\"{name}\""),
        n => format!("\"{name}\" (use {})", n + 1),
    }
}
