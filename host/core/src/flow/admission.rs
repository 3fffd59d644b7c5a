//! What becomes of one run on the state of its limits.

use crate::id::RunId;
use crate::limit;
use crate::time::Timestamp;

use super::concurrency::Need;
use super::rate::{Rate, describe};
use super::singleton::{Singleton, Turn};
use super::window::{Gathering, Kind};

/// What a run has to pass before it is created: its function's flow control, with the keys evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// No second run with this key within [`limit::EVENT_DEDUPE`].
    pub idempotency: Option<String>,
    /// Dropped when there were too many.
    pub rate_limit: Option<Limited>,
    /// Held back until there is room.
    pub throttle: Option<Limited>,
    /// There is one at a time.
    pub singleton: Option<Singleton>,
    /// Started with others, or instead of them: `debounce` or `batch_events`.
    pub gathering: Option<Gathering>,
    /// By how many seconds it goes before others that wait to begin; negative: after them.
    pub priority: i64,
    /// What it holds while it executes. A run that needs slots is not born leased.
    pub concurrency: Vec<Need>,
}

/// A rate and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// The rate.
    pub rate: Rate,
    /// The key's value; empty when there is no key.
    pub key: String,
}

/// Which of a function's limits a state belongs to. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Gate {
    /// `idempotency`.
    Idempotency = 1,
    /// `rate_limit`.
    RateLimit = 2,
    /// `throttle`.
    Throttle = 3,
    /// `debounce`: until when a window is open, and its run.
    Debounce = 8,
    /// `batch_events`: the same.
    Batch = 9,
    /// `singleton`: the last run that was started.
    Singleton = 13,
}

impl Gate {
    /// From the number on disk.
    pub fn from_number(number: i64) -> Option<Gate> {
        [
            Gate::Idempotency,
            Gate::RateLimit,
            Gate::Throttle,
            Gate::Debounce,
            Gate::Batch,
            Gate::Singleton,
        ]
        .into_iter()
        .find(|gate| *gate as i64 == number)
    }
}

/// What a limit remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Until when its allowance is used up, in microseconds since the epoch. Once that is past it remembers nothing. Of a
    /// singleton [`Standing::WHILE_IT_LIVES`].
    pub used_until: i64,
    /// The last run that it let pass.
    pub run: RunId,
}

impl Standing {
    /// As long as the run has not ended.
    pub const WHILE_IT_LIVES: i64 = i64::MAX;
}

/// What kept an event from starting a run of its own, or what it did instead. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Decision {
    /// The sender's event id has started the function before.
    Duplicate = 1,
    /// An event with the same value of `idempotency` has.
    Idempotent = 2,
    /// There were too many: `rate_limit`.
    RateLimited = 3,
    /// The run of a debounce starts with the last event: `debounce`.
    Debounced = 8,
    /// It is one of the events of a run: `batch_events`.
    Batched = 9,
    /// The event has cancelled runs of the function: `cancel_on`.
    Cancelled = 12,
    /// A run had not ended: `singleton`.
    Skipped = 13,
}

impl Decision {
    /// All of them.
    pub const ALL: [Decision; 7] = [
        Decision::Duplicate,
        Decision::Idempotent,
        Decision::RateLimited,
        Decision::Debounced,
        Decision::Batched,
        Decision::Cancelled,
        Decision::Skipped,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Duplicate => "duplicate",
            Decision::Idempotent => "idempotent",
            Decision::RateLimited => "rate-limited",
            Decision::Debounced => "debounced",
            Decision::Batched => "batched",
            Decision::Cancelled => "cancelled",
            Decision::Skipped => "skipped",
        }
    }

    /// Whether the event has a part in the run that is there instead.
    pub fn is_gathered(self) -> bool {
        matches!(self, Decision::Debounced | Decision::Batched)
    }

    /// From the number on disk.
    pub fn from_number(number: i64) -> Option<Decision> {
        Decision::ALL
            .into_iter()
            .find(|decision| *decision as i64 == number)
    }
}

/// What becomes of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is created.
    Admitted {
        /// What its limits remember from then on.
        used_until: Vec<(Gate, i64)>,
        /// It begins later than it might without a throttle, or may have to.
        held: Option<Held>,
        /// The run that is cancelled for it, and why.
        displaces: Option<(RunId, String)>,
    },
    /// It is not.
    Dropped {
        /// What keeps it.
        decision: Decision,
        /// The run that is there in its place.
        run: Option<RunId>,
        /// When the next one may pass, where that is a matter of time.
        until: Option<Timestamp>,
        /// For a person.
        detail: String,
    },
}

/// A run that wants to be created.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// Its id.
    pub run: RunId,
    /// The run whose step waits for it.
    pub invoked_by: Option<RunId>,
    /// When it may begin as far as its event is concerned.
    pub start_at: Timestamp,
    /// Not before its function is resumed, either.
    pub paused: bool,
    /// The time.
    pub now: Timestamp,
}

/// How long a throttled run is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Until then.
    pub until: Timestamp,
    /// Whether it has its turn then; otherwise it takes one then.
    pub turn: bool,
    /// For a person.
    pub reason: String,
}

impl Limited {
    /// Held back until it may begin as far as the throttle is not concerned. It takes a turn then: one that is taken now for
    /// some day far ahead would hold up all that come before.
    pub fn later(&self, start_at: Timestamp) -> Held {
        Held {
            until: start_at,
            turn: false,
            reason: format!(
                "starts at {start_at}, or as soon then as its throttle of {}{} allows",
                self.rate.describe(),
                of_key(&self.key)
            ),
        }
    }

    /// Held back until its turn.
    pub fn held(&self, until: Timestamp) -> Held {
        Held {
            until,
            turn: true,
            reason: format!(
                "throttled to {}{}: begins at {until}",
                self.rate.describe(),
                of_key(&self.key)
            ),
        }
    }
}

impl Admission {
    /// The same without what would keep the run from being created, but for another that lives.
    pub fn waiting(self) -> Admission {
        Admission {
            idempotency: None,
            rate_limit: None,
            gathering: None,
            ..self
        }
    }

    /// The same for one that somebody asks for once more, who is not held up by what limits events: only what limits how many
    /// there are at once is left.
    pub fn again(self) -> Admission {
        Admission {
            concurrency: self.concurrency,
            singleton: self.singleton,
            ..Admission::default()
        }
    }

    /// The limits that are asked, each with its key.
    pub fn gates(&self) -> impl Iterator<Item = (Gate, &str)> {
        let idempotency = self.idempotency.as_deref();
        let rate_limit = self.rate_limit.as_ref();
        let throttle = self.throttle.as_ref();
        let singleton = self.singleton.as_ref();
        idempotency
            .map(|key| (Gate::Idempotency, key))
            .into_iter()
            .chain(rate_limit.map(|limited| (Gate::RateLimit, limited.key.as_str())))
            .chain(throttle.map(|limited| (Gate::Throttle, limited.key.as_str())))
            .chain(
                self.gathering
                    .as_ref()
                    .map(|gathering| (gathering.gate(), gathering.key.as_str())),
            )
            .chain(singleton.map(|singleton| (Gate::Singleton, singleton.key.as_str())))
    }

    /// Decides. Only a run that passes every limit counts towards any.
    ///
    /// `standing`: what a limit remembers; a singleton only while that run lives.
    pub fn decide(
        &self,
        Asking {
            run,
            invoked_by,
            start_at,
            paused,
            now,
        }: Asking,
        standing: impl Fn(Gate) -> Option<Standing>,
    ) -> Verdict {
        let mut used_until = Vec::new();
        let mut displaces = None;
        if let Some(key) = &self.idempotency {
            let once = Rate {
                limit: 1,
                period_ms: limit::EVENT_DEDUPE.as_millis() as u64,
                burst: 1,
            };
            let before = standing(Gate::Idempotency);
            let turn = once.next(before.map_or(0, |before| before.used_until), now);
            if turn.at > now {
                return Verdict::Dropped {
                    decision: Decision::Idempotent,
                    run: before.map(|before| before.run),
                    until: Some(turn.at),
                    detail: format!(
                        "a run with the idempotency key {} was started within {}; the next one may start at {}",
                        shown(key),
                        describe(limit::EVENT_DEDUPE),
                        turn.at
                    ),
                };
            }
            used_until.push((Gate::Idempotency, turn.used_until));
        }
        if let Some(Limited { rate, key }) = &self.rate_limit {
            let before = standing(Gate::RateLimit);
            let turn = rate.next(before.map_or(0, |before| before.used_until), now);
            if turn.at > now {
                return Verdict::Dropped {
                    decision: Decision::RateLimited,
                    run: None,
                    until: Some(turn.at),
                    detail: format!(
                        "the rate limit of {}{} is used up; the next one may start at {}",
                        rate.describe(),
                        of_key(key),
                        turn.at
                    ),
                };
            }
            used_until.push((Gate::RateLimit, turn.used_until));
        }
        if let Some(singleton) = &self.singleton {
            let living = standing(Gate::Singleton).map(|before| before.run);
            match singleton.decide(living, invoked_by) {
                Turn::Free => {}
                Turn::Displaces(other) => displaces = Some((other, singleton.reason(run))),
                Turn::Skipped(other) => {
                    return Verdict::Dropped {
                        decision: Decision::Skipped,
                        run: Some(other),
                        until: None,
                        detail: singleton.detail(other),
                    };
                }
            }
            used_until.push((Gate::Singleton, Standing::WHILE_IT_LIVES));
        }
        let mut held = None;
        if let Some(throttle) = &self.throttle {
            if paused || start_at > now {
                held = Some(throttle.later(start_at.max(now)));
            } else {
                let before = standing(Gate::Throttle);
                let turn = throttle
                    .rate
                    .next(before.map_or(0, |before| before.used_until), now);
                held = (turn.at > now).then(|| throttle.held(turn.at));
                used_until.push((Gate::Throttle, turn.used_until));
            }
        }
        Verdict::Admitted {
            used_until,
            held,
            displaces,
        }
    }
}

impl Gathering {
    /// Where its window is remembered.
    pub fn gate(&self) -> Gate {
        match self.kind {
            Kind::Debounce { .. } => Gate::Debounce,
            Kind::Batch { .. } => Gate::Batch,
        }
    }

    /// What became of an event that is in its window.
    pub fn decision(&self) -> Decision {
        match self.kind {
            Kind::Debounce { .. } => Decision::Debounced,
            Kind::Batch { .. } => Decision::Batched,
        }
    }
}

/// Whose limit it is, in words.
pub(super) fn of_key(key: &str) -> String {
    match key {
        "" => String::new(),
        key => format!(" for {}", shown(key)),
    }
}

/// A key, short enough to be read.
pub(super) fn shown(key: &str) -> String {
    let mut shown: String = key.chars().take(80).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + millis)
    }

    fn run(number: u8) -> RunId {
        RunId::from_parts(at(0), [number; 10])
    }

    fn asking(start_at: i64, paused: bool, now: i64) -> Asking {
        Asking {
            run: run(9),
            invoked_by: None,
            start_at: at(start_at),
            paused,
            now: at(now),
        }
    }

    #[test]
    fn only_what_passes_all_counts_towards_any() {
        let admission = Admission {
            idempotency: Some("7".to_owned()),
            rate_limit: Some(Limited {
                rate: Rate {
                    limit: 1,
                    period_ms: 60_000,
                    burst: 1,
                },
                key: "\"ann\"".to_owned(),
            }),
            ..Admission::default()
        };
        let gates: Vec<_> = admission.gates().collect();
        assert_eq!(gates, [(Gate::Idempotency, "7"), (Gate::RateLimit, "\"ann\"")]);
        let Verdict::Admitted {
            used_until,
            held: None,
            displaces: None,
        } = admission.decide(asking(0, false, 0), |_| None)
        else {
            panic!("nothing is used up");
        };
        let day = 86_400_000;
        assert_eq!(
            used_until,
            [
                (Gate::Idempotency, at(day).as_millis() * 1000),
                (Gate::RateLimit, at(60_000).as_millis() * 1000)
            ]
        );
        let state = |gate: Gate| {
            used_until
                .iter()
                .find(|(of, _)| *of == gate)
                .map(|(_, used_until)| Standing {
                    used_until: *used_until,
                    run: run(1),
                })
        };
        let dropped = |admission: &Admission, millis: i64| match admission
            .decide(asking(millis, false, millis), state)
        {
            Verdict::Dropped {
                decision,
                run,
                until,
                detail,
            } => Some((decision, run, until, detail)),
            Verdict::Admitted { .. } => None,
        };
        let (decision, of, until, detail) = dropped(&admission, day - 1).expect("dropped");
        assert_eq!(
            (decision, of, until),
            (Decision::Idempotent, Some(run(1)), Some(at(day)))
        );
        assert!(detail.contains("key 7 was started within 1d"), "{detail}");
        assert_eq!(dropped(&admission, day), None);
        let other = Admission {
            idempotency: None,
            ..admission
        };
        let (decision, of, until, detail) = dropped(&other, 59_999).expect("dropped");
        assert_eq!(
            (decision, of, until),
            (Decision::RateLimited, None, Some(at(60_000)))
        );
        assert_eq!(
            detail,
            format!(
                "the rate limit of 1 per 1m for \"ann\" is used up; the next one may start at {}",
                at(60_000)
            )
        );
        assert_eq!(dropped(&other, 60_000), None);
    }

    #[test]
    fn one_that_is_dropped_for_something_else_displaces_nobody() {
        let admission = Admission {
            idempotency: Some("7".to_owned()),
            singleton: Some(Singleton {
                mode: super::super::singleton::Mode::Cancel,
                key: "\"ann\"".to_owned(),
            }),
            ..Admission::default()
        };
        let living = |gate| {
            (gate == Gate::Singleton).then_some(Standing {
                used_until: Standing::WHILE_IT_LIVES,
                run: run(1),
            })
        };
        let Verdict::Admitted {
            used_until,
            displaces: Some((displaced, reason)),
            ..
        } = admission.decide(asking(0, false, 0), living)
        else {
            panic!("it takes the place of the other");
        };
        assert_eq!(displaced, run(1));
        assert_eq!(
            reason,
            format!(
                "cancelled by run {}, which came later for \"ann\": there is one at a time (singleton)",
                run(9)
            )
        );
        assert_eq!(used_until[1], (Gate::Singleton, Standing::WHILE_IT_LIVES));
        let used = |gate| {
            living(gate).or((gate == Gate::Idempotency).then_some(Standing {
                used_until: at(1).as_millis() * 1_000,
                run: run(2),
            }))
        };
        let Verdict::Dropped {
            decision,
            run: earlier,
            ..
        } = admission.decide(asking(0, false, 0), used)
        else {
            panic!("it was there before");
        };
        assert_eq!((decision, earlier), (Decision::Idempotent, Some(run(2))));
    }

    #[test]
    fn a_throttled_run_waits_for_its_turn() {
        let throttle = Limited {
            rate: Rate {
                limit: 1,
                period_ms: 10_000,
                burst: 1,
            },
            key: String::new(),
        };
        let admission = Admission {
            throttle: Some(throttle),
            ..Admission::default()
        };
        let mut used = 0;
        let mut begins = Vec::new();
        for _ in 0..3 {
            let standing = |_| {
                Some(Standing {
                    used_until: used,
                    run: run(1),
                })
            };
            let Verdict::Admitted { used_until, held, .. } = admission.decide(asking(0, false, 0), standing)
            else {
                panic!("a throttle drops nothing");
            };
            begins.push(held.map(|held| (held.until, held.turn)));
            used = used_until[0].1;
        }
        assert_eq!(begins, [None, Some((at(10_000), true)), Some((at(20_000), true))]);
        // What is meant for later takes its turn then.
        let Verdict::Admitted { used_until, held, .. } = admission.decide(asking(99_000, false, 0), |_| None)
        else {
            panic!("a throttle drops nothing");
        };
        assert_eq!(
            (used_until, held.map(|held| (held.until, held.turn))),
            (vec![], Some((at(99_000), false)))
        );
        // And what its function's pause holds, when that is over.
        let Verdict::Admitted { used_until, held, .. } = admission.decide(asking(0, true, 5), |_| None)
        else {
            panic!("a throttle drops nothing");
        };
        assert_eq!(
            (used_until, held.map(|held| (held.until, held.turn))),
            (vec![], Some((at(5), false)))
        );
    }
}
