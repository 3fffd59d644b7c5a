//! Versions of the guest `swaps`, which is a different one for each digest, and what each of them asks for.

use dormouse_core::Digest;
use serde_json::Value;

use crate::support::guest;

/// How a version differs from the first: the guest's own words, in its own order; or it is another guest, which does not have
/// the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    First,
    Compatible,
    Appending,
    Inserting,
    Reordering,
    Argument,
    Trapping,
    TrappingLater,
    FunctionGone,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 9] = [
        Kind::First,
        Kind::Compatible,
        Kind::Appending,
        Kind::Inserting,
        Kind::Reordering,
        Kind::Argument,
        Kind::Trapping,
        Kind::TrappingLater,
        Kind::FunctionGone,
    ];

    /// The component, and the version that it is.
    pub(crate) fn component(self) -> (Vec<u8>, String) {
        if self == Kind::FunctionGone {
            let bytes = guest("bench");
            let version = Digest::of(&bytes).to_string();
            return (bytes, version);
        }
        let component = guest("swaps");
        let labelled = (0..10_000).map(|nonce| {
            let mut bytes = component.clone();
            // A custom section: its size, the length of its name, the name.
            bytes.extend([0, 5, 4]);
            bytes.extend(format!("{nonce:04}").bytes());
            bytes
        });
        let mut versions = labelled.map(|bytes| {
            let digest = Digest::of(&bytes);
            (bytes, digest)
        });
        let found = versions.find(|(_, digest)| digest.as_bytes()[31] % 8 == self as u8);
        let (bytes, digest) = found.expect("one in eight fits");
        (bytes, digest.to_string())
    }

    /// What a run of a plan asks for on such a version, in order: names of steps, and of naps their length too. Where the
    /// version traps, it asks for nothing more.
    pub(crate) fn asks(self, plan: &Plan) -> Vec<String> {
        let mut asks = Vec::new();
        if matches!(self, Kind::Trapping | Kind::FunctionGone) {
            return asks;
        }
        let ms = plan.ms + u64::from(self == Kind::Argument);
        for lap in 0..plan.laps {
            if self == Kind::TrappingLater && lap == 1 {
                return asks;
            }
            let work = format!("work-{lap}");
            let nap = format!("nap-{lap} {ms}");
            match self {
                Kind::Reordering => asks.extend([nap, work]),
                Kind::Inserting => asks.extend([work, format!("inserted-{lap}"), nap]),
                _ => asks.extend([work, nap]),
            }
            if plan.waits {
                asks.push(format!("event-{lap}"));
            }
        }
        if self == Kind::Appending {
            asks.push("appended".to_owned());
        }
        asks
    }

    /// Whether a run that has recorded this can go over to such a version; none: it depends on what is known outside the record.
    pub(crate) fn fits(self, plan: &Plan, recorded: &Recorded) -> bool {
        let asks = self.asks(plan);
        if self == Kind::FunctionGone || !asks.starts_with(&recorded.asks) {
            return false;
        }
        // It traps when all that it had asked for before is over.
        let traps = match self {
            Kind::Trapping => true,
            Kind::TrappingLater => plan.laps > 1 && recorded.asks.len() == asks.len() && recorded.open == 0,
            _ => false,
        };
        !traps
    }
}

/// What an event asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) laps: u64,
    pub(crate) ms: u64,
    pub(crate) waits: bool,
}

impl Plan {
    /// From the event's data.
    pub(crate) fn of(data: &Value) -> Plan {
        Plan {
            laps: data["laps"].as_u64().expect("laps"),
            ms: data["ms"].as_u64().expect("ms"),
            waits: data["event"].as_str().is_some_and(|event| !event.is_empty()),
        }
    }
}

/// What a journal says of what was asked for.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    /// In order, each once: the tries of a body are one.
    pub(crate) asks: Vec<String>,
    /// How many of these are not over.
    pub(crate) open: usize,
}

impl Recorded {
    /// Of the first entries of a journal.
    pub(crate) fn of(entries: &[Value]) -> Recorded {
        let mut recorded = Recorded::default();
        for entry in entries {
            let name = entry["name"].as_str().unwrap_or_default();
            match (entry["entry"].as_str(), entry["kind"].as_str()) {
                (Some("started"), Some("sleep")) => {
                    let ms = entry["input"]["duration_ms"].as_u64().expect("a sleep's length");
                    recorded.asks.push(format!("{name} {ms}"));
                    recorded.open += 1;
                }
                (Some("started"), _) => {
                    recorded.asks.push(name.to_owned());
                    recorded.open += 1;
                }
                (Some("deferred" | "step"), _) => {
                    if recorded.asks.last().map(String::as_str) != Some(name) {
                        recorded.asks.push(name.to_owned());
                    }
                    // A back-off that is over is followed by the next try.
                    recorded.open += usize::from(entry["entry"] == "deferred");
                }
                (Some("delivered" | "cancelled"), _) => recorded.open -= 1,
                other => panic!("an entry that the guest does not cause: {other:?} {entry}"),
            }
        }
        recorded
    }
}
