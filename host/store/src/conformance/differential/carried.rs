//! What random appends carry beside their entries.

use dormouse_core::flow::singleton::Mode;
use dormouse_core::flow::window::Kind;
use dormouse_core::flow::{Admission, Gathering, Limited, Rate, Singleton};
use dormouse_core::journal::RecordKind;
use dormouse_core::wait::{EventWait, SignalWait};
use dormouse_core::{Failure, Seq};

use super::appending::closes;
use super::{Pair, at};
use crate::execute::Append;
use crate::ingest::{Ingest, NewRun};
use crate::wait::{ChildWait, NewSignal, NewWait, WaitOn};

impl Pair {
    /// Waits of operations that an append opens and does not close.
    pub(super) fn waits(&mut self, append: &mut Append) -> Vec<NewWait> {
        let closed: Vec<Seq> = append.records.iter().filter_map(closes).collect();
        let mut waits = Vec::new();
        let parent = append.run;
        let mut children = append.ingest.iter_mut().flat_map(|ingest| &mut ingest.runs);
        for record in &append.records {
            if record.kind != RecordKind::Started || closed.contains(&record.seq) || self.random.one_in(3) {
                continue;
            }
            if let Some(child) = children.next() {
                child.parent = Some(parent);
                child.depth = 1;
                waits.push(NewWait {
                    operation: record.seq,
                    on: WaitOn::Child(ChildWait {
                        child: child.id,
                        cancels: self.random.one_in(2),
                    }),
                });
                continue;
            }
            if self.random.one_in(8) {
                waits.push(NewWait {
                    operation: record.seq,
                    on: WaitOn::Nothing(Failure::terminal("boom", "nothing")),
                });
                continue;
            }
            if self.random.one_in(3) {
                waits.push(NewWait {
                    operation: record.seq,
                    on: WaitOn::Signal(SignalWait {
                        signal: format!("signal {}", self.random.below(3)),
                        replace: self.random.one_in(2),
                    }),
                });
                continue;
            }
            let looks_back = self.random.one_in(3);
            waits.push(NewWait {
                operation: record.seq,
                on: WaitOn::Event(EventWait {
                    event: match self.random.one_in(12) {
                        true => dormouse_core::system::FAILED.to_owned(),
                        false => format!("event/{}", self.random.below(3)),
                    },
                    path: String::new(),
                    key: String::new(),
                    condition: self
                        .random
                        .one_in(2)
                        .then(|| format!("async[0] > {} || event[0] > 57", self.random.below(60))),
                    lookback_from: looks_back.then(|| at(self.now - 300)),
                }),
            });
        }
        waits
    }

    /// Signals that an append's entries send: those that open no wait, and some that are closed at once.
    pub(super) fn signals(&mut self, append: &Append) -> Vec<NewSignal> {
        let closed: Vec<Seq> = append.records.iter().filter_map(closes).collect();
        let mut signals = Vec::new();
        for record in &append.records {
            let waits = append.waits.iter().any(|wait| wait.operation == record.seq);
            if record.kind != RecordKind::Started || waits {
                continue;
            }
            signals.push(NewSignal {
                operation: (!closed.contains(&record.seq)).then_some(record.seq),
                signal: format!("signal {}", self.random.below(3)),
                data: self.payload(),
            });
        }
        signals
    }

    /// What a run has to pass.
    pub(super) fn admission(&mut self) -> Admission {
        let rate = Rate {
            limit: 1 + self.random.below(3) as u32,
            period_ms: 1_000 + self.random.below(12_000),
            burst: 1,
        };
        let limited = Limited {
            rate,
            key: format!("{}", self.random.below(3)),
        };
        if self.random.one_in(4) {
            let gathering = self.gathering();
            return Admission {
                singleton: self.random.one_in(3).then(|| Singleton {
                    mode: Mode::Cancel,
                    key: gathering.key.clone(),
                }),
                gathering: Some(gathering),
                ..Admission::default()
            };
        }
        Admission {
            // Seldom, or few runs of the other limits would live for long.
            singleton: self.random.one_in(8).then(|| Singleton {
                mode: match self.random.one_in(2) {
                    true => Mode::Skip,
                    false => Mode::Cancel,
                },
                key: format!("{}", self.random.below(3)),
            }),
            gathering: None,
            idempotency: self.random.one_in(8).then(|| format!("{}", self.random.below(5))),
            rate_limit: self.random.one_in(5).then(|| limited.clone()),
            throttle: self.random.one_in(3).then_some(limited),
            priority: match self.random.below(8) {
                0 => self.random.below(20) as i64 - 10,
                _ => 0,
            },
            concurrency: self.needs(),
        }
    }

    /// The window of an event, often of the same few.
    fn gathering(&mut self) -> Gathering {
        let kind = match self.random.one_in(2) {
            true => Kind::Debounce {
                period_ms: 1_000 + self.random.below(12_000),
                timeout_ms: self.random.one_in(2).then_some(4_000),
            },
            false => Kind::Batch {
                max_size: 2 + self.random.below(3) as u32,
                timeout_ms: 1_000 + self.random.below(3_000),
            },
        };
        Gathering {
            kind,
            key: format!("{}", self.random.below(2)),
        }
    }

    /// What an append carries.
    pub(super) fn sends(&mut self) -> Ingest {
        let event = self.event();
        let mut runs = Vec::new();
        for _ in 0..self.random.below(3) {
            let run = self.run(event.id);
            runs.push(NewRun { lease: None, ..run });
        }
        Ingest {
            events: vec![event],
            runs,
            generation: self.generation + i64::from(self.random.one_in(10)),
            now: self.time(),
        }
    }
}
