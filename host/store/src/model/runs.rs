//! Runs in the model: created, claimed, moved on, ended, deleted.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_core::flow::{Decision, Held, Standing, Verdict};
use dormouse_core::journal::Record;
use dormouse_core::limit::EVENT_DEDUPE;
use dormouse_core::operation::SendSignal;
use dormouse_core::run::{Event, Phase, State, Status};
use dormouse_core::system::Kinds;
use dormouse_core::{Digest, EventId, Json, RunId, Seq, Timestamp, invoke};

use super::World;
use super::run::{ModelRun, closed_by};
use crate::command::{Commanded, unreadable};
use crate::error::{Error, Result};
use crate::execute::{Append, Appended, Completion, Lost, Then};
use crate::ingest::{Created, Ingest, NewRun};
use crate::read::{Counts, Decided, Run, StoredEvent};
use crate::schedule::{Claim, ClaimedBatch, ClaimedRun, FireTimers, Fired, Incarnation, LACKING_MAX};
use crate::swap::Swapped;

impl World {
    pub(super) fn ingest(&mut self, ingest: Ingest) -> Result<Vec<Created>> {
        if ingest.runs.iter().all(|run| run.admission.gathering.is_none()) {
            return self.take_in(ingest);
        }
        // Windows are changed one event after the other: in a world that is thrown away if something is refused.
        let mut next = self.clone();
        let created = next.take_in(ingest)?;
        *self = next;
        Ok(created)
    }

    fn take_in(&mut self, ingest: Ingest) -> Result<Vec<Created>> {
        if ingest.generation != self.generation() {
            return Err(Error::StaleRegistry);
        }
        let corrupt = |message: String| Err(Error::Corrupt(message));
        let own: BTreeSet<EventId> = ingest.events.iter().map(|event| event.id).collect();
        for run in &ingest.runs {
            if self.find_version(run.function.module(), run.version).is_none() {
                return corrupt(format!("run {} names a version that is not stored", run.id));
            }
            if !own.contains(&run.event_id) && !self.events.contains_key(&run.event_id) {
                return corrupt(format!("run {} names an event that is not stored", run.id));
            }
            if let Some(copy) = &run.copy {
                let source = self.runs.get(&copy.run).map(|source| &source.shown);
                let has =
                    |source: &Run| source.journal_base == copy.base && source.journal_next >= copy.before;
                if !source.is_some_and(has) {
                    return Err(Error::SourceGone);
                }
            }
        }
        let mut dedupe = self.dedupe.clone();
        let mut limits = self.limits.clone();
        let mut decisions = Vec::new();
        let mut born = Vec::new();
        let mut created = Vec::new();
        for run in ingest.runs {
            let decided = |decision, earlier, detail: String| {
                let decided = Decided {
                    function: run.function.clone(),
                    decision,
                    at: ingest.now,
                    run: earlier,
                    detail,
                };
                ((run.event_id, run.function.clone()), decided)
            };
            let key = run.dedupe.as_ref().map(|key| (run.function.clone(), key.clone()));
            if let Some((earlier, at)) = key.as_ref().and_then(|key| dedupe.get(key))
                && at.after(EVENT_DEDUPE) > ingest.now
            {
                let detail = format!("the event's id started run {earlier} at {at}");
                decisions.push(decided(Decision::Duplicate, Some(*earlier), detail));
                created.push(Created::Duplicate(*earlier));
                continue;
            }
            if let Some(gathering) = &run.admission.gathering {
                let event = ingest.events.iter().find(|event| event.id == run.event_id);
                let bytes = event.map_or(0, |event| event.payload.len() as u64);
                let at = (bytes, ingest.now);
                let (of, until, detail) = self.gather(&run, gathering, &mut limits, at)?;
                decisions.push(decided(gathering.decision(), Some(of), detail));
                created.push(Created::Gathered { run: of, until });
                if let Some(key) = key {
                    dedupe.insert(key, (of, ingest.now));
                }
                continue;
            }
            let gates: Vec<_> = run
                .admission
                .gates()
                .map(|(gate, key)| (run.function.clone(), gate, key.to_owned()))
                .collect();
            let standing = |gate| {
                let key = gates.iter().find(|(_, of, _)| *of == gate)?;
                limits.get(key).copied()
            };
            let held = match run.admission.decide(run.start_at, run.held, ingest.now, standing) {
                Verdict::Admitted { used_until, held } => {
                    for (gate, used_until) in used_until {
                        let run = run.id;
                        for key in gates.iter().filter(|(_, of, _)| *of == gate) {
                            limits.insert(key.clone(), Standing { used_until, run });
                        }
                    }
                    held
                }
                Verdict::Dropped {
                    decision,
                    run: earlier,
                    until,
                    detail,
                } => {
                    decisions.push(decided(decision, earlier, detail));
                    created.push(Created::Dropped {
                        decision,
                        run: earlier,
                        until,
                    });
                    continue;
                }
            };
            if let Some(key) = key {
                dedupe.insert(key, (run.id, ingest.now));
            }
            let free = run.admission.concurrency.is_empty() && held.is_none();
            let at_once = !run.held && free && run.copy.is_none() && run.start_at <= ingest.now;
            let lease = run.lease.filter(|node| at_once && self.nodes.contains_key(node));
            created.push(match &held {
                Some(held) if !run.held => Created::Held { until: held.until },
                _ => Created::New {
                    leased: lease.is_some(),
                },
            });
            born.push((run, lease, held));
        }
        let ids: BTreeSet<RunId> = born.iter().map(|(run, _, _)| run.id).collect();
        if ids.len() != born.len() || ids.iter().any(|id| self.runs.contains_key(id)) {
            return corrupt("a run is stored twice".to_owned());
        }
        self.dedupe = dedupe;
        self.limits = limits;
        for (key, decided) in decisions {
            self.decisions.entry(key).or_insert(decided);
        }
        let mut news = Vec::new();
        let mut places = BTreeMap::new();
        for (place, event) in ingest.events.into_iter().enumerate() {
            places.entry(event.id).or_insert(place);
            if self.events.contains_key(&event.id) {
                continue;
            }
            news.push((place, event.id));
            self.events.insert(
                event.id,
                StoredEvent {
                    id: event.id,
                    name: event.name,
                    external_id: event.external_id,
                    ts: event.ts,
                    received_at: event.received_at,
                    payload: event.payload,
                },
            );
        }
        // Of runs that are new, those that stand before an event.
        let mut before: BTreeMap<RunId, usize> = BTreeMap::new();
        for (run, lease, held) in born {
            let batch = run.rerun_of.filter(|_| !own.contains(&run.event_id));
            if let Some(events) = batch.and_then(|of| self.batches.get(&of).cloned()) {
                self.batches.insert(run.id, events);
            }
            before.insert(run.id, places.get(&run.event_id).copied().unwrap_or(usize::MAX));
            for cancels in &run.ends.cancel_on {
                self.awaited = self.awaited.and(Kinds::named(&cancels.event));
            }
            self.create(run, lease, held, ingest.now)?;
        }
        let mut cancelled = BTreeSet::new();
        for (place, event) in &news {
            cancelled.extend(self.cancelled_by(*event, *place, &before));
        }
        let waited = self.waiting(&cancelled.iter().copied().collect::<Vec<_>>());
        for (_, event) in &news {
            self.end_waits(*event, &cancelled)?;
        }
        for (place, event) in &news {
            self.cancel_by(*event, *place, &before)?;
        }
        self.left(waited, Some(ingest.now))?;
        Ok(created)
    }

    pub(super) fn create(
        &mut self,
        run: NewRun,
        lease: Option<Incarnation>,
        held: Option<Held>,
        now: Timestamp,
    ) -> Result<()> {
        let delayed = run.start_at > now;
        let (phase, begins, reason) = match &held {
            Some(held) => (Phase::Limited, held.until, Some(held.reason.clone())),
            None if delayed => {
                let reason = format!("starts at {}", run.start_at);
                (Phase::Sleeping, run.start_at, Some(reason))
            }
            None => (Phase::Queued, now, None),
        };
        let mut created = ModelRun {
            shown: Run {
                id: run.id,
                function: run.function,
                version: run.version,
                event_id: run.event_id,
                state: State::live(Status::Scheduled, phase),
                reason,
                wake_at: None,
                queued_at: begins,
                started_at: None,
                ended_at: None,
                output: None,
                error: None,
                owner: None,
                epoch: 0,
                journal_next: 0,
                journal_base: 0,
                rerun_of: run.rerun_of,
                parent: run.parent,
                swapped: Swapped::default(),
                asked: None,
            },
            journal: Vec::new(),
            logs: BTreeMap::new(),
            config_revision: run.config_revision,
            seed: run.seed,
            depth: run.depth,
            orphans: Vec::new(),
            continued: None,
            completions: BTreeMap::new(),
            waits: BTreeMap::new(),
            ends: run.ends,
            due: None,
            journal_bytes: 0,
            claims: 0,
            host_traps: 0,
            to_pause: false,
            held: run.held,
            throttle: run
                .admission
                .throttle
                .zip(held.map(|held| held.turn.then_some(held.until))),
            needs: run.admission.concurrency,
            line: None,
            swaps: Vec::new(),
            began: None,
        };
        if let Some(copy) = run.copy {
            created.take_over(self.of(copy.run)?, &copy);
        }
        let ahead = match phase {
            Phase::Queued => run.admission.priority * 1_000,
            _ => 0,
        };
        created.set_due(Some(Timestamp::from_millis(begins.as_millis() - ahead)));
        if let Some(node) = lease {
            created.claim(node, now)?;
        }
        if created.held {
            created.hold_for_function()?;
        }
        self.runs.insert(run.id, created);
        Ok(())
    }

    /// The queue: oldest first.
    fn queue(&self) -> BTreeSet<(Timestamp, RunId)> {
        let queued = self
            .runs
            .values()
            .filter(|run| run.shown.state.phase == Some(Phase::Queued));
        queued.filter_map(|run| Some((run.due?, run.shown.id))).collect()
    }

    /// The timers: earliest first.
    pub(super) fn timers(&self) -> BTreeSet<(Timestamp, RunId)> {
        let waiting = self
            .runs
            .values()
            .filter(|run| run.shown.state.phase != Some(Phase::Queued));
        waiting.filter_map(|run| Some((run.due?, run.shown.id))).collect()
    }

    pub(super) fn of(&mut self, id: RunId) -> Result<&mut ModelRun> {
        self.runs
            .get_mut(&id)
            .ok_or_else(|| Error::Corrupt(format!("run {id} is not there")))
    }

    pub(super) fn claim(&mut self, claim: Claim) -> Result<ClaimedBatch> {
        self.lives(claim.node)?;
        let mut batch = ClaimedBatch::default();
        let asked_for = |world: &World, id: RunId| match (&claim.versions, world.runs.get(&id)) {
            (Some(versions), Some(run)) => versions.contains(&run.shown.version),
            _ => true,
        };
        let mut asked: Vec<RunId> = self.queue().into_iter().map(|(_, id)| id).collect();
        asked.retain(|id| asked_for(self, *id));
        asked.truncate(claim.limit as usize);
        let mut lacking: BTreeSet<Digest> = BTreeSet::new();
        if asked.len() < claim.limit as usize {
            let left = self.queue().into_iter().filter(|(_, id)| !asked.contains(id));
            for (_, id) in left.take(LACKING_MAX as usize) {
                lacking.insert(self.of(id)?.shown.version);
            }
        }
        let mut taken = self.taken();
        self.serve_lines(&mut taken, &claim, &mut batch, &mut lacking)?;
        for id in asked {
            if batch.claimed.len() < claim.limit as usize {
                self.serve(&mut taken, id, &claim, &mut batch)?;
            }
        }
        batch.lacking = lacking.into_iter().collect();
        Ok(batch)
    }

    pub(super) fn fire_timers(&mut self, fire: FireTimers) -> Result<Fired> {
        self.lives(fire.node)?;
        let mut fired = Fired::default();
        let due = self.timers().into_iter().filter(|(due, _)| *due <= fire.now);
        let due: Vec<RunId> = due.map(|(_, id)| id).take(fire.limit as usize).collect();
        let mut lines = self.lines(&due.iter().copied().collect());
        for id in due {
            fired.fired += 1;
            if let Some(until) = self.hold_back(&mut lines, id, fire.now)? {
                fired.held.push(until);
                continue;
            }
            let version = self.of(id)?.shown.version;
            let asked_for = fire
                .versions
                .as_ref()
                .is_none_or(|versions| versions.contains(&version));
            let needs_slots = !self.of(id)?.needs.is_empty();
            if !asked_for || needs_slots || fired.claimed.len() >= fire.claim_limit as usize {
                self.of(id)?.ready(Event::Wake, fire.now)?;
                fired.readied += 1;
            } else if self.of(id)?.claim(fire.node, fire.now)? {
                fired.claimed.push(self.claimed(id)?);
            } else {
                fired.blocked.push(id);
            }
        }
        fired.held.extend(self.settle(lines)?);
        Ok(fired)
    }

    pub(super) fn claimed(&self, id: RunId) -> Result<ClaimedRun> {
        let missing = || Error::Corrupt(format!("run {id} or its event is not there"));
        let run = self.runs.get(&id).ok_or_else(missing)?;
        let event = self.events.get(&run.shown.event_id).ok_or_else(missing)?;
        Ok(ClaimedRun {
            id,
            epoch: run.shown.epoch,
            function: run.shown.function.clone(),
            version: run.shown.version,
            config_revision: run.config_revision,
            event_id: run.shown.event_id,
            event: event.payload.clone(),
            continued: run.continued.clone(),
            seed: run.seed,
            parent: run.shown.parent,
            depth: run.depth,
            queued_at: run.begins(),
            journal_base: run.shown.journal_base,
            journal_next: run.shown.journal_next,
            log_lines: run.log_lines(),
            journal_bytes: run.journal_bytes,
            host_traps: run.host_traps,
            swapped: run.shown.swapped,
            asked: run.shown.asked,
        })
    }

    pub(super) fn take_over(&mut self, limit: u32, now: Timestamp) -> Result<u32> {
        let orphans: Vec<RunId> = self
            .runs
            .values()
            .filter(|run| {
                run.shown
                    .owner
                    .is_some_and(|owner| !self.nodes.contains_key(&owner))
            })
            .map(|run| run.shown.id)
            .take(limit as usize)
            .collect();
        for id in &orphans {
            let run = self.of(*id)?;
            run.ready(Event::Release, now)?;
            run.shown.epoch += 1;
        }
        Ok(orphans.len() as u32)
    }

    pub(super) fn append(&mut self, append: Append) -> Result<Appended> {
        if let Some(ingest) = &append.ingest
            && ingest.generation != self.generation()
        {
            return Err(Error::StaleRegistry);
        }
        if let Some(swap) = &append.swap
            && (swap.generation != self.generation() || self.find_version(&swap.module, swap.to).is_none())
        {
            return Err(Error::StaleRegistry);
        }
        let Some(run) = self.runs.get(&append.run) else {
            return Ok(Appended::Lost(Lost::Gone));
        };
        if run.shown.state.status == Status::Cancelled {
            return Ok(Appended::Lost(Lost::Cancelled));
        }
        if run.shown.owner != Some(append.owner) || run.shown.epoch != append.epoch {
            return Ok(Appended::Lost(Lost::TakenOver));
        }
        let first = append
            .records
            .first()
            .map_or(run.shown.journal_next, |record| record.seq);
        let fresh: &[Record] = if first == run.shown.journal_next {
            &append.records
        } else {
            let stored: Vec<&Record> = run.journal.iter().filter(|record| record.seq >= first).collect();
            let same = stored.len() >= append.records.len()
                && stored
                    .iter()
                    .zip(&append.records)
                    .all(|(stored, record)| *stored == record);
            if !same {
                return Err(Error::Corrupt(format!("entry {first} does not follow on")));
            }
            &[]
        };
        if fresh
            .iter()
            .zip(first..)
            .any(|(record, place)| record.seq != place)
        {
            return Err(Error::Corrupt("entries are not numbered on".to_owned()));
        }
        let repeated = first != run.shown.journal_next;
        let id = append.run;
        let run = self.of(id)?;
        for record in fresh {
            if let Some(operation) = closed_by(record) {
                run.completions.remove(&operation);
                run.give_up(operation);
            }
            let payload = record.payload.as_ref().map_or(0, Json::len);
            run.journal_bytes += (record.name.len() + record.meta.len() + payload) as u64;
            run.journal.push(record.clone());
            run.shown.journal_next += 1;
            run.claims = 0;
            run.host_traps = 0;
        }
        for line in append.logs {
            run.logs.insert(line.number, line);
        }
        if let Some(swap) = append.swap.filter(|_| !repeated) {
            run.swap(swap, matches!(append.then, Then::Restart), first, append.now);
        }
        if !repeated {
            for wait in append.waits {
                self.register(id, wait, append.now)?;
            }
        }
        for sent in append.signals.into_iter().filter(|_| !repeated) {
            let run = self.signal(&sent.signal, sent.data, append.now)?;
            if let Some(operation) = sent.operation {
                self.of(id)?.complete(Completion {
                    operation,
                    at: append.now,
                    outcome: Ok(SendSignal::result(run)),
                })?;
            }
        }
        let outcome = match &append.then {
            Then::Complete { output } => Some(Ok(output.clone())),
            Then::Fail { error } => Some(Err(invoke::failed(error))),
            _ => None,
        };
        let appended = self.of(id)?.follow(append.then, append.now)?;
        self.adopt(id)?;
        self.await_ends(id)?;
        if let Some(outcome) = outcome {
            self.ended(id)?;
            self.child_ended(id, outcome, append.now)?;
        }
        if let Some(ingest) = append.ingest.filter(|_| !repeated) {
            self.ingest(ingest)?;
        }
        Ok(appended)
    }

    pub(super) fn cancel(&mut self, id: RunId, now: Timestamp) -> Result<Commanded> {
        let waited = self.waiting(&[id]);
        let commanded = self.cancel_one(id, now)?;
        self.left(waited, Some(now))?;
        Ok(commanded)
    }

    /// Ends a run that may have left a throttle's line.
    pub(super) fn cancel_one(&mut self, id: RunId, now: Timestamp) -> Result<Commanded> {
        self.cancel_for(id, None, now)
    }

    /// The same, for a reason.
    pub(super) fn cancel_for(
        &mut self,
        id: RunId,
        reason: Option<String>,
        now: Timestamp,
    ) -> Result<Commanded> {
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(Commanded::NotFound);
        };
        if run.shown.state.status.is_terminal() {
            return Ok(Commanded::Refused(run.shown.state));
        }
        run.end(Event::Cancel, now)?;
        run.shown.reason = reason;
        run.shown.epoch += 1;
        let state = run.shown.state;
        self.adopt(id)?;
        self.ended(id)?;
        self.child_ended(id, Err(invoke::cancelled(id)), now)?;
        Ok(Commanded::Done(state))
    }

    pub(super) fn wake(&mut self, id: RunId, operation: Option<Seq>, now: Timestamp) -> Result<Commanded> {
        let waited = self.waiting(&[id]);
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(Commanded::NotFound);
        };
        let refused = Ok(Commanded::Refused(run.shown.state));
        // One that waits for a slot would only lose its place.
        let awake =
            matches!(run.shown.state.phase, Some(Phase::Queued | Phase::Executing)) || run.line.is_some();
        match run.shown.state.phase {
            None | Some(Phase::Paused) => return refused,
            Some(Phase::Blocked) => run.unblock(now)?,
            Some(_) => {
                if operation.map_or(awake, |operation| !run.is_open(operation)) {
                    return refused;
                }
                if let Some(operation) = operation {
                    let completion = Completion {
                        operation,
                        at: now,
                        outcome: Ok(Json::null()),
                    };
                    run.completions.entry(operation).or_insert(completion);
                }
                if !awake {
                    run.ready(Event::Wake, now)?;
                    if run.shown.state.status == Status::Scheduled {
                        run.shown.queued_at = now;
                    }
                }
            }
        }
        let state = run.shown.state;
        self.left(waited, Some(now))?;
        Ok(Commanded::Done(state))
    }

    pub(super) fn unblock(&mut self, module: &str, now: Timestamp) -> Result<u64> {
        let mut count = 0;
        for run in self.runs.values_mut() {
            if run.shown.state.phase == Some(Phase::Blocked) && run.shown.function.module() == module {
                run.unblock(now)?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn retry_unreadable(&mut self, release: &str, limit: u32, now: Timestamp) -> Result<u32> {
        let own = unreadable("", release);
        let mut count = 0;
        for run in self.runs.values_mut() {
            let blocked = run.shown.state.phase == Some(Phase::Blocked);
            let error = run.shown.error.as_ref().filter(|_| blocked);
            let others = error.is_some_and(|error| error.code == own.code && error.details != own.details);
            if others && count < limit {
                run.unblock(now)?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for phase in self.runs.values().filter_map(|run| run.shown.state.phase) {
            counts.live[phase as usize] += 1;
        }
        counts.oldest_ready = self.queue().first().map(|(at, _)| *at);
        counts
    }

    pub(super) fn prune(&mut self, ended_before: Timestamp, limit: u32) -> u32 {
        let ended = self
            .runs
            .values()
            .filter_map(|run| Some((run.shown.ended_at?, run.shown.id)));
        let old: BTreeSet<(Timestamp, RunId)> = ended.filter(|(at, _)| *at < ended_before).collect();
        let mut events = BTreeSet::new();
        let mut count = 0;
        for (_, id) in old.into_iter().take(limit as usize) {
            events.extend(self.runs.remove(&id).map(|run| run.shown.event_id));
            let batch = self.batches.remove(&id).unwrap_or_default();
            events.extend(batch.into_iter().map(|(event, _)| event));
            count += 1;
        }
        let mut needed: BTreeSet<EventId> = self.runs.values().map(|run| run.shown.event_id).collect();
        needed.extend(self.batches.values().flatten().map(|(event, _)| *event));
        // Events of the runs that went, and as many again that never had a run or outlived theirs.
        let unneeded = |world: &World, id: &EventId| {
            !needed.contains(id)
                && world
                    .events
                    .get(id)
                    .is_some_and(|event| event.received_at < ended_before)
        };
        events.retain(|id| unneeded(self, id));
        for id in &events {
            self.forget(*id);
        }
        let alone: BTreeSet<(Timestamp, EventId)> = self
            .events
            .values()
            .filter(|event| unneeded(self, &event.id))
            .map(|event| (event.received_at, event.id))
            .collect();
        for (_, id) in alone.into_iter().take(limit as usize) {
            self.forget(id);
        }
        count
    }

    fn forget(&mut self, event: EventId) {
        self.events.remove(&event);
        self.decisions.retain(|(of, _), _| *of != event);
    }
}
