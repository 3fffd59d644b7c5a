//! Windows: events that start one run together. `debounce` waits until no more come and starts with the last,
//! `batch_events` starts with all of them.
//!
//! The run of a window is created by the window's first event and waits, so it can be seen, cancelled and paused, and its
//! timer is a timer like any other. A window is open until its time comes; an event that comes then, or later, opens another.
//! What is stored of it is until when it is open, and which run it has; [`Gathering::decide`] says what an event does.
//! Absent on purpose: the events' order, which is that of the commits.

use serde::{Deserialize, Serialize};

use super::rate::describe;
use crate::id::RunId;
use crate::limit;
use crate::time::Timestamp;

/// Start with the last of several events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebounceOptions {
    /// For how long no other event must have come, in milliseconds.
    pub period_ms: u64,
    /// How long after the first event the run starts in any case, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// A CEL expression over `event`: events of each value are debounced for themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Start with many events at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchOptions {
    /// With how many events a batch is full.
    pub max_size: u32,
    /// How long after its first event a batch starts that is not full, in milliseconds.
    pub timeout_ms: u64,
    /// A CEL expression over `event`: each value has batches of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A CEL expression over `event`: where it is not true, the event starts a run of its own at once.
    #[serde(default, rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// What ends a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No event for so long.
    Debounce {
        /// For how long, in milliseconds.
        period_ms: u64,
        /// After how long in any case, in milliseconds.
        timeout_ms: Option<u64>,
    },
    /// So many events, or their bytes.
    Batch {
        /// How many.
        max_size: u32,
        /// After how long in any case, in milliseconds.
        timeout_ms: u64,
    },
}

impl DebounceOptions {
    /// What it says.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn kind(&self) -> Result<Kind, String> {
        let bounds = limit::DEBOUNCE_MS_MIN..=limit::DEBOUNCE_MS_MAX;
        if !bounds.contains(&self.period_ms) {
            return Err(format!(
                "debounce: period_ms must be {} to {}",
                limit::DEBOUNCE_MS_MIN,
                limit::DEBOUNCE_MS_MAX
            ));
        }
        if self
            .timeout_ms
            .is_some_and(|timeout| timeout < self.period_ms || !bounds.contains(&timeout))
        {
            return Err(format!(
                "debounce: timeout_ms must be at least the period, {}, and at most {}",
                self.period_ms,
                limit::DEBOUNCE_MS_MAX
            ));
        }
        Ok(Kind::Debounce {
            period_ms: self.period_ms,
            timeout_ms: self.timeout_ms,
        })
    }
}

impl BatchOptions {
    /// What it says.
    ///
    /// # Errors
    /// A sentence that names the member.
    pub fn kind(&self) -> Result<Kind, String> {
        if !(2..=limit::BATCH_SIZE_MAX).contains(&self.max_size) {
            return Err(format!(
                "batch_events: max_size must be 2 to {}",
                limit::BATCH_SIZE_MAX
            ));
        }
        if !(limit::BATCH_TIMEOUT_MS_MIN..=limit::BATCH_TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err(format!(
                "batch_events: timeout_ms must be {} to {}",
                limit::BATCH_TIMEOUT_MS_MIN,
                limit::BATCH_TIMEOUT_MS_MAX
            ));
        }
        Ok(Kind::Batch {
            max_size: self.max_size,
            timeout_ms: self.timeout_ms,
        })
    }
}

/// The window that an event belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathering {
    /// What ends it.
    pub kind: Kind,
    /// The key's value; empty when there is no key.
    pub key: String,
}

/// A window that may be open, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its run, which was created when the window was opened.
    pub run: RunId,
    /// Until when it is open.
    pub closes: Timestamp,
    /// How many events a batch has.
    pub events: u32,
    /// How many bytes they have together.
    pub bytes: u64,
}

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// It joins the window.
    Joins {
        /// Until when the window is open from now on.
        closes: Timestamp,
    },
    /// It opens a window.
    Opens {
        /// Until when that is open.
        closes: Timestamp,
        /// The one that was open has no room for it, and starts.
        instead: bool,
    },
}

impl Gathering {
    /// What an event of so many bytes does, to the window that is there.
    pub fn decide(&self, window: Option<Window>, bytes: u64, now: Timestamp) -> Gathered {
        let open = window.filter(|window| now < window.closes);
        match self.kind {
            Kind::Debounce {
                period_ms,
                timeout_ms,
            } => {
                let closes = |opened| {
                    let quiet = after(now, period_ms);
                    timeout_ms.map_or(quiet, |timeout| quiet.min(after(opened, timeout)))
                };
                match open {
                    Some(window) => Gathered::Joins {
                        closes: closes(window.run.time()),
                    },
                    None => Gathered::Opens {
                        closes: closes(now),
                        instead: false,
                    },
                }
            }
            Kind::Batch { max_size, timeout_ms } => {
                let has_room = |window: &Window| {
                    window.events < max_size && window.bytes + bytes <= limit::BATCH_BYTES_MAX as u64
                };
                match open {
                    Some(window) if has_room(&window) => Gathered::Joins {
                        closes: if window.events + 1 >= max_size {
                            now
                        } else {
                            window.closes
                        },
                    },
                    _ => Gathered::Opens {
                        closes: after(now, timeout_ms),
                        instead: open.is_some(),
                    },
                }
            }
        }
    }

    /// Why the run of a window waits, for a person.
    pub fn reason(&self, closes: Timestamp, events: u32) -> String {
        let of_key = super::admission::of_key(&self.key);
        match self.kind {
            Kind::Debounce { period_ms, .. } => format!(
                "debounced by {}{of_key}: starts at {closes} with the last event, unless another comes before",
                describe(std::time::Duration::from_millis(period_ms)),
            ),
            Kind::Batch { max_size, .. } => format!(
                "a batch of {events} of {max_size} events{of_key}: starts at {closes}, or when it is full"
            ),
        }
    }

    /// Why an event starts no run of its own, for a person.
    pub fn detail(&self, run: RunId, events: u32) -> String {
        let of_key = super::admission::of_key(&self.key);
        match self.kind {
            Kind::Debounce { period_ms, .. } => format!(
                "debounced by {}{of_key}: run {run} starts with the last event",
                describe(std::time::Duration::from_millis(period_ms)),
            ),
            Kind::Batch { .. } => format!("number {events} of the events that start run {run}{of_key}"),
        }
    }
}

fn after(at: Timestamp, millis: u64) -> Timestamp {
    at.after(std::time::Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + millis)
    }

    /// The events of each run, with its time, of events that come in at some times: decided one after the other.
    fn runs(kind: Kind, events: &[(i64, u64)]) -> Vec<(i64, Vec<usize>)> {
        let gathering = Gathering {
            kind,
            key: String::new(),
        };
        let mut windows: Vec<(Window, Vec<usize>)> = Vec::new();
        for (index, (time, bytes)) in events.iter().enumerate() {
            let now = at(*time);
            let last = windows.last().map(|(window, _)| *window);
            match gathering.decide(last, *bytes, now) {
                Gathered::Joins { closes } => {
                    let (window, joined) = windows.last_mut().expect("there is one to join");
                    window.closes = closes;
                    window.events += 1;
                    window.bytes += bytes;
                    joined.push(index);
                }
                Gathered::Opens { closes, instead } => {
                    if instead {
                        windows.last_mut().expect("there is one").0.closes = now;
                    }
                    let window = Window {
                        run: RunId::from_parts(now, [0; 10]),
                        closes,
                        events: 1,
                        bytes: *bytes,
                    };
                    windows.push((window, vec![index]));
                }
            }
        }
        let base = at(0).as_millis();
        let each = windows.into_iter();
        each.map(|(window, joined)| (window.closes.as_millis() - base, joined))
            .collect()
    }

    #[test]
    fn a_debounce_starts_when_it_is_quiet_or_at_its_timeout() {
        let kind = Kind::Debounce {
            period_ms: 1_000,
            timeout_ms: Some(2_500),
        };
        let times = [0, 900, 1_800, 2_400, 2_500, 4_000].map(|time| (time, 1));
        assert_eq!(
            runs(kind, &times),
            [(2_500, vec![0, 1, 2, 3]), (3_500, vec![4]), (5_000, vec![5])]
        );
    }

    #[test]
    fn a_batch_starts_when_it_is_full_or_at_its_timeout() {
        let kind = Kind::Batch {
            max_size: 3,
            timeout_ms: 1_000,
        };
        let times = [0, 10, 20, 30, 1_029, 1_030].map(|time| (time, 1));
        assert_eq!(
            runs(kind, &times),
            [(20, vec![0, 1, 2]), (1_030, vec![3, 4]), (2_030, vec![5])]
        );
        let large = limit::BATCH_BYTES_MAX as u64;
        assert_eq!(
            runs(kind, &[(0, large - 1), (5, 1), (6, 1), (7, large)]),
            [(6, vec![0, 1]), (7, vec![2]), (1_007, vec![3])]
        );
    }

    proptest! {
        /// Against the plain statement: a debounce's run starts the period after its last event or at the timeout, and an
        /// event belongs to the run of the one before exactly if that had not started.
        #[test]
        fn debounces_are_as_they_are_said_to_be(
            gaps in prop::collection::vec(0_i64..2_000, 1..100),
            period in 1_000_i64..2_000,
            timeout in prop::option::of(2_000_i64..6_000),
        ) {
            let mut time = 0;
            let times: Vec<i64> = gaps.iter().map(|gap| { time += gap; time }).collect();
            let mut expected: Vec<(i64, Vec<usize>)> = Vec::new();
            for (index, time) in times.iter().enumerate() {
                let starts = |first: usize| (time + period).min(timeout.map_or(i64::MAX, |timeout| times[first] + timeout));
                match expected.last_mut() {
                    Some((start, joined)) if *time < *start => {
                        joined.push(index);
                        *start = starts(joined[0]);
                    }
                    _ => expected.push((starts(index), vec![index])),
                }
            }
            let kind = Kind::Debounce { period_ms: period as u64, timeout_ms: timeout.map(|timeout| timeout as u64) };
            let events: Vec<(i64, u64)> = times.iter().map(|time| (*time, 1)).collect();
            prop_assert_eq!(runs(kind, &events), expected);
        }

        /// Every event is in one batch, in order; none has too many events or bytes or waits too long, and each but the last
        /// had no room left or its time was over.
        #[test]
        fn batches_hold_every_event_once(
            events in prop::collection::vec((0_i64..600, 1_u64..(3 << 20)), 1..200),
            max_size in 2_u32..12,
        ) {
            let mut time = 0;
            let events: Vec<(i64, u64)> = events.into_iter().map(|(gap, bytes)| { time += gap; (time, bytes) }).collect();
            let batches = runs(Kind::Batch { max_size, timeout_ms: 1_000 }, &events);
            let all: Vec<usize> = batches.iter().flat_map(|(_, joined)| joined.clone()).collect();
            prop_assert_eq!(all, (0..events.len()).collect::<Vec<_>>());
            for (starts, joined) in &batches {
                let bytes: u64 = joined.iter().map(|index| events[*index].1).sum();
                prop_assert!(joined.len() <= max_size as usize && bytes <= limit::BATCH_BYTES_MAX as u64);
                let first = events[joined[0]].0;
                prop_assert!(*starts <= first + 1_000 && *starts >= events[*joined.last().expect("one")].0);
                let next = joined.last().expect("one") + 1;
                if let Some((time, more)) = events.get(next) {
                    prop_assert!(
                        joined.len() == max_size as usize || bytes + more > limit::BATCH_BYTES_MAX as u64 || *time >= first + 1_000
                    );
                }
            }
        }
    }
}
