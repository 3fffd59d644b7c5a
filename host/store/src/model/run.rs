//! One run in the model: what it holds, and how it moves on. Who creates and finds runs is [`runs`](super::runs).

use std::collections::BTreeMap;

use dormouse_core::ending::Ends;
use dormouse_core::flow::{Limited, Need};
use dormouse_core::journal::{Entry, Event as Recorded, Record, RecordKind};
use dormouse_core::limit::CLAIMS_WITHOUT_ENTRY_MAX;
use dormouse_core::run::{End, Event, Phase, RunError};
use dormouse_core::swap::Swap;
use dormouse_core::{Json, RunId, Seq, Timestamp};

use crate::error::{Error, Result};
use crate::execute::{Appended, Completion, LogLine, Then};
use crate::ingest::Copied;
use crate::read::Run;
use crate::schedule::{Glance, Incarnation, crash_loop};
use crate::swap::NewSwap;
use crate::wait::{NewWait, WaitOn};

/// A run and all that belongs to it.
#[derive(Clone)]
pub(super) struct ModelRun {
    /// What pages show of it.
    pub(super) shown: Run,
    pub(super) journal: Vec<Record>,
    pub(super) logs: BTreeMap<u32, LogLine>,
    pub(super) config_revision: i64,
    pub(super) seed: [u8; 32],
    pub(super) depth: u32,
    /// Runs that it has given up, until the world knows.
    pub(super) orphans: Vec<RunId>,
    pub(super) continued: Option<Json>,
    pub(super) completions: BTreeMap<Seq, Completion>,
    pub(super) waits: BTreeMap<Seq, NewWait>,
    /// What may end it.
    pub(super) ends: Ends,
    /// Since when it is ready, or when its timer is due.
    pub(super) due: Option<Timestamp>,
    pub(super) journal_bytes: u64,
    pub(super) claims: u32,
    pub(super) host_traps: u32,
    /// A person has asked for it to be paused.
    pub(super) to_pause: bool,
    /// It is paused because its function was when it was created.
    pub(super) held: bool,
    /// What may hold it back, and its turn if it has one.
    pub(super) throttle: Option<(Limited, Option<Timestamp>)>,
    /// What it needs while it executes.
    pub(super) needs: Vec<Need>,
    /// Which of that it waits for in a line, and since when.
    pub(super) line: Option<(usize, Timestamp)>,
    /// The versions it went over to, or could not, oldest first.
    pub(super) swaps: Vec<Swap>,
    /// When its journal began, and with which entry, where that is not when it was queued.
    pub(super) began: Option<(Seq, Timestamp)>,
}

impl ModelRun {
    pub(super) fn completions(&self) -> Vec<Completion> {
        let mut completions: Vec<Completion> = self.completions.values().cloned().collect();
        completions.sort_by_key(|completion| (completion.at, completion.operation));
        completions
    }

    /// Completes an operation, and makes the run ready if it waits.
    pub(super) fn complete(&mut self, completion: Completion) -> Result<()> {
        let at = completion.at;
        self.waits.remove(&completion.operation);
        self.completions.entry(completion.operation).or_insert(completion);
        let waits = [Phase::Sleeping, Phase::Waiting, Phase::BackingOff, Phase::Limited];
        let waits = self.shown.state.phase.is_some_and(|phase| waits.contains(&phase));
        if waits && self.line.is_none() {
            self.ready(Event::Wake, at)?;
        }
        Ok(())
    }

    /// The run has closed an operation.
    pub(super) fn give_up(&mut self, operation: Seq) {
        if let Some(wait) = self.waits.remove(&operation)
            && let WaitOn::Child(on) = wait.on
            && on.cancels
        {
            self.orphans.push(on.child);
        }
    }

    pub(super) fn give_up_all(&mut self) {
        let operations: Vec<Seq> = self.waits.keys().copied().collect();
        for operation in operations {
            self.give_up(operation);
        }
    }

    /// Moves the run on. The due time, the reason and a blocked run's error belong to the state that is left.
    pub(super) fn on(&mut self, event: Event) -> Result<()> {
        let state = self.shown.state.on(event);
        self.shown.state =
            state.map_err(|illegal| Error::Corrupt(format!("run {}: {illegal}", self.shown.id)))?;
        self.shown.reason = None;
        self.shown.error = None;
        self.line = None;
        self.set_due(None);
        Ok(())
    }

    pub(super) fn set_due(&mut self, due: Option<Timestamp>) {
        self.due = due;
        let queued = self.shown.state.phase == Some(Phase::Queued);
        self.shown.wake_at = due.filter(|_| !queued);
    }

    pub(super) fn ready(&mut self, event: Event, now: Timestamp) -> Result<()> {
        self.on(event)?;
        self.shown.owner = None;
        self.set_due(Some(now));
        if self.to_pause {
            self.hold()?;
        }
        Ok(())
    }

    pub(super) fn block(&mut self, error: RunError) -> Result<()> {
        self.to_pause = false;
        self.on(Event::Block)?;
        self.shown.owner = None;
        self.shown.reason = Some(error.message.clone());
        self.shown.error = Some(error);
        Ok(())
    }

    pub(super) fn end(&mut self, event: Event, now: Timestamp) -> Result<()> {
        self.on(event)?;
        self.shown.owner = None;
        self.shown.ended_at = Some(now);
        self.completions.clear();
        self.give_up_all();
        self.ends = Ends::default();
        (self.to_pause, self.held) = (false, false);
        Ok(())
    }

    pub(super) fn unblock(&mut self, now: Timestamp) -> Result<()> {
        self.ready(Event::Unblock, now)?;
        self.claims = 0;
        self.host_traps = 0;
        Ok(())
    }

    /// True: leased. False: blocked, for having been claimed too often.
    pub(super) fn claim(&mut self, node: Incarnation, now: Timestamp) -> Result<bool> {
        if self.claims >= CLAIMS_WITHOUT_ENTRY_MAX {
            self.on(Event::Wake)?;
            self.block(crash_loop())?;
            return Ok(false);
        }
        self.on(Event::Claim)?;
        self.shown.owner = Some(node);
        self.shown.epoch += 1;
        self.shown.started_at = self.shown.started_at.or(Some(now));
        self.claims += 1;
        Ok(true)
    }

    /// It goes over to another version, or could not. `seq` is the number of the entry that comes first.
    pub(super) fn swap(&mut self, swap: NewSwap, restarted: bool, seq: Seq, at: Timestamp) {
        let from = self.shown.version;
        if from == swap.to {
            return;
        }
        self.host_traps = 0;
        match swap.stays {
            Some(_) => self.shown.swapped.stayed = true,
            None => {
                self.shown.swapped.moved = true;
                self.shown.version = swap.to;
            }
        }
        self.swaps.push(Swap {
            seq,
            from,
            to: swap.to,
            at,
            stayed: swap.stays,
            restarted,
        });
        self.swaps.sort_by_key(|swap| (swap.seq, swap.at, swap.to));
    }

    pub(super) fn log_lines(&self) -> u32 {
        self.logs.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    pub(super) fn glance(&self) -> Glance {
        Glance {
            id: self.shown.id,
            state: self.shown.state,
            owner: self.shown.owner,
            epoch: self.shown.epoch,
            journal_next: self.shown.journal_next,
            log_lines: self.log_lines(),
        }
    }

    /// The guest's first `now`.
    pub(super) fn begins(&self) -> Timestamp {
        match self.began {
            Some((base, at)) if base == self.shown.journal_base => at,
            _ => self.shown.queued_at,
        }
    }

    /// Begins with what another recorded.
    pub(super) fn take_over(&mut self, source: &ModelRun, copy: &Copied) {
        self.began = Some((copy.base, source.begins()));
        self.seed = source.seed;
        self.continued = source.continued.clone();
        let copied = source.journal.iter().filter(|record| record.seq < copy.before);
        self.journal = copied.cloned().collect();
        self.shown.journal_base = copy.base;
        self.shown.journal_next = copy.before;
        self.journal_bytes = copy.bytes;
    }

    pub(super) fn is_open(&self, operation: Seq) -> bool {
        let started = self.journal.iter().any(|record| {
            record.seq == operation && matches!(record.kind, RecordKind::Started | RecordKind::Deferred)
        });
        started
            && !self
                .journal
                .iter()
                .any(|record| closed_by(record) == Some(operation))
    }
}

/// The operation a record delivers or cancels.
pub(super) fn closed_by(record: &Record) -> Option<Seq> {
    match Entry::decode(record.clone()).ok()?.event {
        Recorded::Delivered { operation, .. } | Recorded::Cancelled { operation } => Some(operation),
        Recorded::Step { .. }
        | Recorded::Deferred { .. }
        | Recorded::Started { .. }
        | Recorded::Tried { .. } => None,
    }
}
impl ModelRun {
    fn begin_anew(&mut self, continued: Option<Json>, now: Timestamp) -> Result<()> {
        self.ready(Event::Release, now)?;
        self.journal.clear();
        self.completions.clear();
        self.give_up_all();
        self.shown.journal_base = self.shown.journal_next;
        self.shown.queued_at = now;
        self.journal_bytes = 0;
        self.claims = 0;
        self.host_traps = 0;
        self.continued = continued;
        Ok(())
    }

    /// What a run does after an append.
    pub(super) fn follow(&mut self, then: Then, now: Timestamp) -> Result<Appended> {
        let asked = self.to_pause;
        if asked && matches!(then, Then::Continue | Then::Suspend { .. }) {
            self.hold()?;
            self.claims = 0;
            return Ok(Appended::Paused);
        }
        match then {
            Then::Continue => {}
            Then::Suspend {
                wait,
                reason,
                wake_at,
                known,
            } => {
                if self
                    .completions
                    .keys()
                    .any(|operation| !known.contains(operation))
                {
                    return Ok(Appended::Completions(self.completions()));
                }
                self.on(Event::Suspend(wait))?;
                self.shown.owner = None;
                self.shown.reason = Some(reason);
                self.set_due(wake_at);
                self.claims = 0;
            }
            Then::Release { host_trap } => {
                self.ready(Event::Release, now)?;
                if host_trap {
                    self.host_traps += 1;
                } else {
                    self.claims = 0;
                }
            }
            Then::Complete { output } => {
                self.end(Event::Finish(End::Completed), now)?;
                self.shown.output = Some(output);
            }
            Then::Fail { error } => {
                self.end(Event::Finish(End::Failed), now)?;
                self.shown.error = Some(error);
            }
            Then::ContinueWith { continued } => self.begin_anew(Some(continued), now)?,
            Then::Restart => self.begin_anew(None, now)?,
            Then::Block { error } => self.block(error)?,
        }
        if asked && self.shown.state.phase == Some(Phase::Paused) {
            return Ok(Appended::Paused);
        }
        Ok(Appended::Done)
    }
}
