//! The operation that has the most forms: appending to a journal.

use dormouse_core::journal::{Entry, Event, OperationKind, Record, RecordKind};
use dormouse_core::run::{Phase, RunError, Wait};
use dormouse_core::{Failure, RunId, Seq};

use super::Pair;
use crate::command::unreadable;
use crate::conformance::fixture::{at, json, node};
use crate::error::Error;
use crate::execute::{Append, Appended, LogLine, Lost, Then};
use crate::wait::{NewWait, WaitOn};

impl Pair {
    pub(super) async fn append(&mut self) {
        let phase = if self.random.one_in(15) {
            None
        } else {
            Some(Phase::Executing)
        };
        let Some(mut run) = self.some_run(phase).await else {
            return;
        };
        if self.random.one_in(60) {
            run.id = RunId::from_parts(at(0), [9; 10]);
        }
        let epoch = if self.random.one_in(25) {
            run.epoch + 1
        } else {
            run.epoch
        };
        let owner = run.owner.unwrap_or(node(self.node).incarnation);
        let open = self.open_operations(run.id).await;
        let first = match self.random.below(30) {
            // Again, or with a gap.
            0 => run.journal_next.saturating_sub(1),
            1 => run.journal_next + 1,
            _ => run.journal_next,
        };
        let records = self.records(first, open.clone());
        let fresh = !records.is_empty();
        let logs = (0..self.random.below(3) as u32)
            .map(|number| self.log(number))
            .collect();
        let (kind, then) = self.then(&open);
        let append = Append {
            run: run.id,
            owner,
            epoch,
            records,
            logs,
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            swap: None,
            parent: None,
            then,
            now: self.time(),
        };
        let mut append = Append {
            ingest: self.random.one_in(4).then(|| self.sends()),
            ..append
        };
        append.waits = self.waits(&mut append);
        append.signals = self.signals(&append);
        append.parent = run.parent;
        append.swap = self.swap(&run);
        let signals = !append.signals.is_empty() && fresh && first == run.journal_next;
        let waits = !append.waits.is_empty() && first == run.journal_next;
        let sends = append.ingest.is_some() && fresh && first == run.journal_next;
        match both!(self, append(append.clone())) {
            Ok(Appended::Done) => {
                if first == run.journal_next
                    && let Some(swap) = append.swap.as_ref().filter(|swap| swap.to != run.version)
                {
                    self.succeeded(match swap.stays {
                        Some(_) => "swap-stays",
                        None => "swap-moves",
                    });
                }
                if append.parent.is_some() && matches!(kind, "complete" | "fail") {
                    self.succeeded("child-ends");
                }
                if signals {
                    self.succeeded("append-signals");
                }
                if sends {
                    self.succeeded("append-sends");
                }
                if waits {
                    self.succeeded("append-waits");
                }
                self.succeeded(kind);
            }
            Ok(Appended::Completions(_)) => {
                self.succeeded("completions");
                let looks_back =
                    |wait: &NewWait| matches!(&wait.on, WaitOn::Event(on) if on.lookback_from.is_some());
                if append
                    .waits
                    .iter()
                    .any(|wait| matches!(wait.on, WaitOn::Nothing(_)))
                {
                    self.succeeded("wait-for-nothing");
                }
                if append.waits.iter().any(looks_back) {
                    self.succeeded("wait-looks-back");
                }
            }
            Ok(Appended::Paused) => self.succeeded("paused"),
            Ok(Appended::Lost(Lost::Cancelled)) => self.succeeded("cancelled"),
            Ok(Appended::Lost(Lost::TakenOver)) => self.succeeded("lost"),
            Ok(Appended::Lost(Lost::Gone)) => self.succeeded("gone"),
            Err(Error::StaleRegistry) if append.ingest.is_none() => self.succeeded("swap-stale"),
            Err(Error::StaleRegistry) => self.succeeded("ingest-stale"),
            Err(_) if fresh => self.succeeded("refused-append"),
            Err(error) => panic!("seed {} step {}: {error}", self.seed, self.step),
        }
    }

    pub(super) async fn open_operations(&mut self, run: RunId) -> Vec<Seq> {
        let journal = both!(self, journal(run, 0)).expect("reads");
        let closed: Vec<Seq> = journal.iter().filter_map(closes).collect();
        let opened = journal
            .iter()
            .filter(|record| matches!(record.kind, RecordKind::Started | RecordKind::Deferred));
        opened
            .map(|record| record.seq)
            .filter(|seq| !closed.contains(seq))
            .collect()
    }

    fn records(&mut self, first: Seq, mut open: Vec<Seq>) -> Vec<Record> {
        let now = self.time();
        let mut records = Vec::new();
        for offset in 0..self.random.below(4) as u32 {
            let seq = first + offset;
            let name = format!("step {seq}");
            let event = match self.random.below(5) {
                0 => Event::Step {
                    name,
                    occurrence: 0,
                    attempt: 1,
                    started_at: now,
                    outcome: Ok(self.payload()),
                },
                1 => Event::Deferred {
                    name,
                    occurrence: 0,
                    attempt: 1,
                    started_at: now,
                    failure: Failure::new("boom", "boom"),
                    due_at: now,
                },
                2 | 3 if !open.is_empty() => {
                    let operation = open.remove(self.random.below(open.len() as u64) as usize);
                    match self.random.one_in(2) {
                        true => Event::Delivered {
                            operation,
                            outcome: Ok(json("1")),
                        },
                        false => Event::Cancelled { operation },
                    }
                }
                _ => Event::Started {
                    kind: OperationKind::Sleep,
                    name,
                    occurrence: 0,
                    input_hash: 1,
                    input: json("1"),
                    due_at: None,
                },
            };
            records.push(Entry { seq, at: now, event }.encode());
        }
        records
    }

    fn log(&mut self, number: u32) -> LogLine {
        LogLine {
            number: number + self.random.below(10) as u32,
            at: self.time(),
            level: "info".to_owned(),
            step: None,
            message: format!("at {}", self.step),
            fields: None,
        }
    }

    fn then(&mut self, open: &[Seq]) -> (&'static str, Then) {
        match self.random.below(24) {
            0..=6 => ("continue", Then::Continue),
            7..=15 => {
                let waits = [Wait::Sleep, Wait::External, Wait::BackOff];
                let wait = waits[self.random.below(3) as usize];
                let wake = self.now + self.random.below(1500) as i64;
                let wake_at = (!self.random.one_in(4)).then(|| at(wake));
                let known = if self.random.one_in(2) {
                    open.to_vec()
                } else {
                    Vec::new()
                };
                (
                    "suspend",
                    Then::Suspend {
                        wait,
                        reason: "waits".to_owned(),
                        wake_at,
                        known,
                    },
                )
            }
            16 => ("release", Then::Release { host_trap: false }),
            17 => ("host-trap", Then::Release { host_trap: true }),
            18 | 19 => (
                "complete",
                Then::Complete {
                    output: self.payload(),
                },
            ),
            20 => (
                "fail",
                Then::Fail {
                    error: RunError::new("boom", "it failed"),
                },
            ),
            21 => (
                "continue-with",
                Then::ContinueWith {
                    continued: self.payload(),
                },
            ),
            22 if self.random.one_in(2) => ("restart", Then::Restart),
            _ => (
                "block",
                Then::Block {
                    error: match self.random.below(4) {
                        0 => RunError::new("diverged", "it diverged"),
                        number => unreadable("it cannot be read", &format!("0.{number}.0")),
                    },
                },
            ),
        }
    }
}

/// The operation a record closes.
pub(super) fn closes(record: &Record) -> Option<Seq> {
    match Entry::decode(record.clone()).ok()?.event {
        Event::Delivered { operation, .. } | Event::Cancelled { operation } => Some(operation),
        _ => None,
    }
}
