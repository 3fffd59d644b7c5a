//! Replay: what a guest's call is answered with.
//!
//! A [`Replay`] holds a run's journal and a cursor in it. Each call of the guest is one step of this machine. While
//! the cursor is inside what was recorded, the call must be the one that the journal has at that place, and gets the
//! recorded answer; anything else is a [`Divergence`]. Past the end the machine is *live*: it says what has to happen
//! (a body to execute, an operation to perform, a wait) and appends the entry when the caller reports that it has.
//!
//! ```text
//!   guest call ──► Replay ──► recorded answer          (cursor moves)
//!                     │──────► execute / started / wait (an entry is appended when it has happened)
//!                     └──────► Divergence               (nothing has happened, nothing may)
//! ```
//!
//! What holds:
//! - Entries are only ever appended, and each is final.
//! - Any prefix of a journal, replayed with the same code, continues in the same way.
//! - `now` never decreases.
//!
//! Absent on purpose: the clock, durability, retries' arithmetic (see [`crate::retry`]), and the performing of
//! anything. The worker does those and tells this machine.

mod divergence;

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

pub use divergence::Divergence;

use crate::failure::{Failure, Outcome};
use crate::journal::{Entry, Event, OperationKind, Seq};
use crate::json::Json;
use crate::time::Timestamp;

/// The answer to `begin-run`.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// The step has its outcome.
    Recorded(Outcome),
    /// Execute the body, then call [`Replay::complete`] or [`Replay::defer`].
    Execute(Attempt),
    /// The last attempt failed; this operation comes due when the next may begin.
    Deferred(Seq),
}

/// A body that is being executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The step's name.
    pub name: String,
    /// Which use of the name, from 0.
    pub occurrence: u32,
    /// From 1.
    pub number: u32,
    /// The place in the journal that the outcome will have: tells the run's steps apart.
    pub position: Seq,
}

/// The answer to a `start-…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartedOperation {
    /// The operation.
    pub operation: Seq,
    /// It was not in the journal: an entry was appended.
    pub new: bool,
}

/// The answer to `await-any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The operation at this index has its outcome.
    Ready(u32),
    /// None has yet: call [`Replay::deliver`] when one has.
    Pending,
}

/// An operation that is open: started, not delivered, not given up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Open<'a> {
    /// The operation.
    pub operation: Seq,
    /// What the host performs; none for a back-off.
    pub kind: Option<OperationKind>,
    /// The step's name.
    pub name: &'a str,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it comes due by itself.
    pub due_at: Option<Timestamp>,
    /// What is needed to perform it.
    pub input: Option<&'a Json>,
    /// How often the host has tried it in vain,
    pub tries: u32,
    /// and when it tries again.
    pub retry_at: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    /// The index of the delivering entry in `entries`.
    Delivered(usize),
    Cancelled,
}

/// A step whose last attempt failed and whose next has not begun.
struct Deferral {
    name: String,
    occurrence: u32,
    failed: u32,
}

/// A run's journal and where the guest is in it.
pub struct Replay {
    entries: Vec<Entry>,
    /// The number of `entries[0]`.
    base: Seq,
    /// The next entry to be matched.
    cursor: usize,
    /// Entries known to be durable.
    durable: usize,
    now: Timestamp,
    operations: BTreeMap<Seq, Standing>,
    open: usize,
    steps: u32,
    /// How often each name was used, by what used it.
    bodies: HashMap<String, u32>,
    started: HashMap<OperationKind, HashMap<String, u32>>,
    deferrals: BTreeMap<Seq, Deferral>,
    /// Of operations that the host has tried in vain: how often, and when it tries again.
    tries: HashMap<Seq, (u32, Timestamp)>,
    attempt: Option<Attempt>,
}

impl Replay {
    /// A machine at the start of a journal. `base` is the number of its first entry, `start` the guest's first `now`.
    ///
    /// # Errors
    /// When the entries are not numbered from `base` on without a gap.
    pub fn new(entries: Vec<Entry>, base: Seq, start: Timestamp) -> Result<Replay, Gap> {
        for (expected, entry) in (base..).zip(&entries) {
            if entry.seq != expected {
                return Err(Gap {
                    expected,
                    found: entry.seq,
                });
            }
        }
        Ok(Replay {
            durable: entries.len(),
            entries,
            base,
            cursor: 0,
            now: start,
            operations: BTreeMap::new(),
            open: 0,
            steps: 0,
            bodies: HashMap::new(),
            started: HashMap::new(),
            deferrals: BTreeMap::new(),
            tries: HashMap::new(),
            attempt: None,
        })
    }

    /// Whether the next call is answered from what was recorded.
    pub fn is_replaying(&self) -> bool {
        self.cursor < self.entries.len()
    }

    /// The guest's time: of the last answer. Never decreasing.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The number the next entry will have.
    pub fn next_seq(&self) -> Seq {
        self.base + self.entries.len() as Seq
    }

    /// How many steps were begun.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The whole journal, recorded and appended.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The body that is being executed.
    pub fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    /// Appended entries that are not known to be durable.
    pub fn pending(&self) -> &[Entry] {
        &self.entries[self.durable..]
    }

    /// Everything appended so far is durable.
    pub fn committed(&mut self) {
        self.durable = self.entries.len();
    }

    /// The operations that are open, in the order they were started.
    pub fn open(&self) -> impl Iterator<Item = Open<'_>> {
        self.operations
            .iter()
            .filter(|(_, standing)| **standing == Standing::Open)
            .filter_map(|(operation, _)| self.opened(*operation))
    }

    /// How many operations are open.
    pub fn open_count(&self) -> usize {
        self.open
    }

    /// Whether an operation is open.
    pub fn is_open(&self, operation: Seq) -> bool {
        self.operations.get(&operation) == Some(&Standing::Open)
    }

    /// The outcome of a delivered operation.
    pub fn outcome(&self, operation: Seq) -> Option<&Outcome> {
        match self.operations.get(&operation)? {
            Standing::Delivered(index) => match &self.entries[*index].event {
                Event::Delivered { outcome, .. } => Some(outcome),
                _ => None,
            },
            Standing::Open | Standing::Cancelled => None,
        }
    }

    /// The guest begins a body.
    ///
    /// # Errors
    /// When the journal has something else here.
    pub fn begin(&mut self, name: &str) -> Result<Begun, Divergence> {
        // A deferral that was delivered is what the guest asks again for; the oldest first.
        let resumed = self
            .deferrals
            .iter()
            .find(|(operation, deferral)| {
                deferral.name == name
                    && matches!(self.operations.get(operation), Some(Standing::Delivered(_)))
            })
            .map(|(operation, _)| *operation);
        let deferral = resumed.and_then(|operation| self.deferrals.remove(&operation));
        let (occurrence, failed) = match deferral {
            Some(deferral) => (deferral.occurrence, deferral.failed),
            None => {
                self.steps += 1;
                (use_name(&mut self.bodies, name), 0)
            }
        };
        let Some(entry) = self.entries.get(self.cursor) else {
            let attempt = Attempt {
                name: name.to_owned(),
                occurrence,
                number: failed + 1,
                position: self.next_seq(),
            };
            self.attempt = Some(attempt.clone());
            return Ok(Begun::Execute(attempt));
        };
        match &entry.event {
            Event::Step {
                name: recorded,
                occurrence: n,
                outcome,
                ..
            } if recorded == name && *n == occurrence => {
                let answer = Begun::Recorded(outcome.clone());
                self.pass();
                Ok(answer)
            }
            Event::Deferred {
                name: recorded,
                occurrence: n,
                attempt,
                ..
            } if recorded == name && *n == occurrence => {
                let (operation, failed) = (entry.seq, *attempt);
                self.pass();
                self.open_deferral(operation, name, occurrence, failed);
                Ok(Begun::Deferred(operation))
            }
            _ => Err(self.diverges(Divergence::run(name, occurrence))),
        }
    }

    /// The open body has its final outcome.
    pub fn complete(&mut self, outcome: Outcome, started_at: Timestamp, at: Timestamp) {
        let Some(attempt) = self.attempt.take() else {
            debug_assert!(false, "no body is open");
            return;
        };
        self.append(
            at,
            Event::Step {
                name: attempt.name,
                occurrence: attempt.occurrence,
                attempt: attempt.number,
                started_at,
                outcome,
            },
        );
    }

    /// The open body failed and will be tried again at `due_at`. The guest must not go on: it is replayed, and is
    /// answered [`Begun::Deferred`] at this place.
    pub fn defer(&mut self, failure: Failure, started_at: Timestamp, due_at: Timestamp, at: Timestamp) {
        let Some(attempt) = self.attempt.take() else {
            debug_assert!(false, "no body is open");
            return;
        };
        let operation = self.next_seq();
        self.append(
            at,
            Event::Deferred {
                name: attempt.name.clone(),
                occurrence: attempt.occurrence,
                attempt: attempt.number,
                started_at,
                failure,
                due_at,
            },
        );
        self.open_deferral(operation, &attempt.name, attempt.occurrence, attempt.number);
    }

    /// The guest starts an operation. When it is new, `due_at` is when it comes due by itself, and `at` the time.
    ///
    /// # Errors
    /// When the journal has something else here.
    pub fn start(
        &mut self,
        kind: OperationKind,
        name: &str,
        input: &Json,
        at: Timestamp,
        due_at: impl FnOnce() -> Option<Timestamp>,
    ) -> Result<StartedOperation, Divergence> {
        self.steps += 1;
        let occurrence = use_name(self.started.entry(kind).or_default(), name);
        let hash = input_hash(input);
        let Some(entry) = self.entries.get(self.cursor) else {
            let operation = self.next_seq();
            self.append(
                at,
                Event::Started {
                    kind,
                    name: name.to_owned(),
                    occurrence,
                    input_hash: hash,
                    input: input.clone(),
                    due_at: due_at(),
                },
            );
            self.operations.insert(operation, Standing::Open);
            self.open += 1;
            return Ok(StartedOperation { operation, new: true });
        };
        match &entry.event {
            Event::Started {
                kind: k,
                name: recorded,
                occurrence: n,
                input_hash,
                ..
            } if *k == kind && recorded == name && *n == occurrence && *input_hash == hash => {
                let operation = entry.seq;
                self.pass();
                self.operations.insert(operation, Standing::Open);
                self.open += 1;
                Ok(StartedOperation {
                    operation,
                    new: false,
                })
            }
            _ => Err(self.diverges(Divergence::start(kind, name, occurrence, input))),
        }
    }

    /// The guest waits for one of some operations.
    ///
    /// # Errors
    /// When the journal has something else here, or the delivery of an operation that is not among them.
    pub fn await_any(&mut self, operations: &[Seq]) -> Result<Awaited, Divergence> {
        if let Some(index) = operations
            .iter()
            .position(|operation| matches!(self.operations.get(operation), Some(Standing::Delivered(_))))
        {
            return Ok(Awaited::Ready(index as u32));
        }
        let Some(entry) = self.entries.get(self.cursor) else {
            return Ok(Awaited::Pending);
        };
        let delivered = match &entry.event {
            Event::Delivered { operation, .. } => Some(*operation),
            _ => None,
        };
        match delivered.and_then(|delivered| operations.iter().position(|operation| *operation == delivered))
        {
            Some(index) => {
                self.settle(operations[index], Standing::Delivered(self.cursor));
                self.pass();
                Ok(Awaited::Ready(index as u32))
            }
            None => Err(self.diverges(Divergence::await_any(operations))),
        }
    }

    /// An open operation has its outcome, and the guest is handed it.
    pub fn deliver(&mut self, operation: Seq, outcome: Outcome, at: Timestamp) {
        debug_assert!(self.is_open(operation), "only what is open is delivered");
        let index = self.entries.len();
        self.append(at, Event::Delivered { operation, outcome });
        self.settle(operation, Standing::Delivered(index));
    }

    /// The host has tried an open operation in vain and tries again at `due_at`. The guest's time stands still.
    pub fn tried(
        &mut self,
        operation: Seq,
        attempt: u32,
        failure: Failure,
        started_at: Timestamp,
        due_at: Timestamp,
        at: Timestamp,
    ) {
        debug_assert!(self.is_open(operation) && !self.is_replaying());
        let seq = self.next_seq();
        self.entries.push(Entry {
            seq,
            at: self.not_before(at),
            event: Event::Tried {
                operation,
                attempt,
                started_at,
                failure,
                due_at,
            },
        });
        self.skip();
    }

    /// What an operation is, once it was started.
    pub fn kind(&self, operation: Seq) -> Option<OperationKind> {
        self.opened(operation)?.kind
    }

    /// The guest gives an operation up. Nothing happens when it was delivered or given up before, except that a
    /// step that was to be tried again is not.
    ///
    /// # Errors
    /// When the journal has something else here.
    pub fn cancel(&mut self, operation: Seq, at: Timestamp) -> Result<(), Divergence> {
        match self.operations.get(&operation) {
            Some(Standing::Open) => {}
            // A step that came due but was not begun again ends here. No entry: the order of calls says the same.
            Some(Standing::Delivered(_)) => {
                self.deferrals.remove(&operation);
                return Ok(());
            }
            Some(Standing::Cancelled) | None => return Ok(()),
        }
        match self.entries.get(self.cursor) {
            None => self.append(at, Event::Cancelled { operation }),
            Some(Entry {
                event: Event::Cancelled { operation: recorded },
                ..
            }) if *recorded == operation => self.pass(),
            Some(_) => return Err(self.diverges(Divergence::cancel(operation))),
        }
        self.deferrals.remove(&operation);
        self.settle(operation, Standing::Cancelled);
        Ok(())
    }

    /// The guest returns.
    ///
    /// # Errors
    /// When the journal goes on.
    pub fn finish(&mut self, failed: bool) -> Result<(), Divergence> {
        if self.is_replaying() {
            return Err(self.diverges(Divergence::returned(failed)));
        }
        Ok(())
    }

    fn append(&mut self, at: Timestamp, event: Event) {
        debug_assert!(
            !self.is_replaying(),
            "nothing is appended before the end is reached"
        );
        let at = self.not_before(at);
        self.entries.push(Entry {
            seq: self.next_seq(),
            at,
            event,
        });
        self.pass();
    }

    /// Moves past the entry at the cursor.
    fn pass(&mut self) {
        let at = self.entries[self.cursor].at;
        self.now = self.now.max(at);
        self.cursor += 1;
        self.skip();
    }

    /// Takes note of tries at the cursor: no call of the guest stands for them.
    fn skip(&mut self) {
        while let Some(Event::Tried {
            operation,
            attempt,
            due_at,
            ..
        }) = self.entries.get(self.cursor).map(|entry| &entry.event)
        {
            self.tries.insert(*operation, (*attempt, *due_at));
            self.cursor += 1;
        }
    }

    /// A time that is not before the last entry's.
    fn not_before(&self, at: Timestamp) -> Timestamp {
        let last = self.entries.last().map_or(self.now, |entry| entry.at);
        at.max(self.now).max(last)
    }

    fn settle(&mut self, operation: Seq, standing: Standing) {
        if self.operations.insert(operation, standing) == Some(Standing::Open) {
            self.open -= 1;
        }
    }

    fn open_deferral(&mut self, operation: Seq, name: &str, occurrence: u32, failed: u32) {
        self.operations.insert(operation, Standing::Open);
        self.open += 1;
        self.deferrals.insert(
            operation,
            Deferral {
                name: name.to_owned(),
                occurrence,
                failed,
            },
        );
    }

    fn opened(&self, operation: Seq) -> Option<Open<'_>> {
        let entry = self.entries.get(operation.checked_sub(self.base)? as usize)?;
        let tries = self.tries.get(&operation);
        match &entry.event {
            Event::Started {
                kind,
                name,
                input,
                due_at,
                ..
            } => Some(Open {
                operation,
                kind: Some(*kind),
                name,
                started_at: entry.at,
                due_at: *due_at,
                input: Some(input),
                tries: tries.map_or(0, |(attempt, _)| *attempt),
                retry_at: tries.map(|(_, due_at)| *due_at),
            }),
            Event::Deferred { name, due_at, .. } => Some(Open {
                operation,
                kind: None,
                name,
                started_at: entry.at,
                due_at: Some(*due_at),
                input: None,
                tries: 0,
                retry_at: None,
            }),
            Event::Step { .. } | Event::Delivered { .. } | Event::Cancelled { .. } | Event::Tried { .. } => {
                None
            }
        }
    }

    fn diverges(&self, asked: String) -> Divergence {
        let entry = self.entries.get(self.cursor);
        Divergence {
            seq: self.base + self.cursor as Seq,
            journal: entry.map_or_else(|| "nothing more".to_owned(), Entry::describe),
            code: asked,
        }
    }
}

/// Which use of a name this is, from 0.
fn use_name(uses: &mut HashMap<String, u32>, name: &str) -> u32 {
    match uses.get_mut(name) {
        Some(next) => {
            let occurrence = *next;
            *next += 1;
            occurrence
        }
        None => {
            uses.insert(name.to_owned(), 1);
            0
        }
    }
}

/// A journal with a gap in its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal should go on with entry {expected} and has entry {found}")]
pub struct Gap {
    /// The number that should come.
    pub expected: Seq,
    /// The number that does.
    pub found: Seq,
}

/// What replay compares of an operation's input.
pub fn input_hash(input: &Json) -> u64 {
    let hash = Sha256::digest(input.as_str().as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(bytes)
}
