//! From event to run: which functions an event starts, decided on the registry as it is, stored in one commit.
//!
//! A decision made on a registry that has meanwhile changed is refused by the store and made again. A run is born
//! leased to this node when a slot is free, so that it begins without a detour through the queue.

mod ends;
mod ticks;

use std::sync::Arc;

use dormouse_core::event::{self, Accepted};
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Timestamp, invoke};
use dormouse_store::Store;
use dormouse_store::ingest::{Copied, Created, Ingest, NewEvent, NewRun};
use dormouse_store::read::Run;
use dormouse_store::schedule::{ClaimedRun, Incarnation};
use dormouse_store::swap::Swapped;

use crate::problem::Problem;
use crate::registry::{Registry, Snapshot};
use crate::scheduler::{Scheduler, Slot};

pub(crate) use ends::{Handler, told};
pub(crate) use ticks::Stepped;

/// An event that is about to be stored.
pub(crate) struct SentEvent {
    pub(crate) id: EventId,
    pub(crate) accepted: Accepted,
    pub(crate) dedupe: Option<String>,
}

/// A run that is to be done once more.
pub(crate) struct Rerun {
    pub(crate) of: Run,
    pub(crate) event: RerunEvent,
    pub(crate) copy: Option<Copied>,
}

/// What it is done for.
pub(crate) enum RerunEvent {
    /// The event of the earlier run: its payload.
    Same(Json),
    /// Another, which is stored with it and starts and ends nothing else.
    Edited(SentEvent),
}

/// A run as it was created, ready to begin if it has a slot.
pub(crate) struct Routed {
    pub(crate) run: ClaimedRun,
    pub(crate) created: Created,
    pub(crate) slot: Option<Slot>,
    pub(crate) start_at: Timestamp,
    /// Its function is paused: somebody must resume it.
    pub(crate) held: bool,
    /// When it may be over, at the earliest.
    pub(crate) deadline: Option<Timestamp>,
}

#[derive(Clone)]
pub(crate) struct Router {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    scheduler: Scheduler,
    node: Incarnation,
}

/// How often a decision is made again when the registry changes under it. It changes with each deploy, so this is
/// never reached in practice.
const DECISIONS_MAX: u32 = 50;

impl Router {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        scheduler: Scheduler,
        node: Incarnation,
    ) -> Router {
        Router {
            store,
            registry,
            scheduler,
            node,
        }
    }

    pub(crate) fn new_event_id(&self, now: Timestamp) -> EventId {
        EventId::from_parts(now, random())
    }

    /// Stores events and the runs they start.
    pub(crate) async fn route(&self, events: Vec<SentEvent>, now: Timestamp) -> Result<Vec<Routed>, Problem> {
        let new_events: Vec<NewEvent> = events.iter().map(|event| stored(event, now)).collect();
        for _ in 0..DECISIONS_MAX {
            let snapshot = self.registry.snapshot();
            let mut runs = Vec::new();
            for event in &events {
                for (function, version) in snapshot.matching(&event.accepted.name, &event.accepted.payload) {
                    runs.push(self.new_run(function, version, event, &snapshot, now));
                }
            }
            match self.ingest(new_events.clone(), runs, &snapshot, now).await {
                Err(dormouse_store::Error::StaleRegistry) => {
                    self.registry.refresh().await?;
                }
                result => return Ok(result?),
            }
        }
        Err(Problem::from(dormouse_store::Error::StaleRegistry))
    }

    /// Starts one function directly, and with it those that listen to invokes. Its own run comes first.
    pub(crate) async fn invoke(
        &self,
        function: &FunctionName,
        data: Json,
        now: Timestamp,
    ) -> Result<Vec<Routed>, Problem> {
        let id = self.new_event_id(now);
        let accepted = event::invoked(function, data, id, now)
            .map_err(|error| Problem::new(400, error.code(), error.to_string()))?;
        let event = SentEvent {
            id,
            accepted,
            dedupe: None,
        };
        for _ in 0..DECISIONS_MAX {
            let snapshot = self.registry.snapshot();
            let Some((version, _)) = snapshot.function(function) else {
                return Err(Problem::not_found("function", function)
                    .help("`dormouse functions list` shows the functions that are deployed"));
            };
            let mut asked = self.new_run(function, version, &event, &snapshot, now);
            // Whoever invokes a function waits for this run alone.
            asked.run.admission.gathering = None;
            let mut runs = vec![asked];
            for (listener, version) in snapshot.matching(invoke::EVENT, &event.accepted.payload) {
                if listener != function {
                    runs.push(self.new_run(listener, version, &event, &snapshot, now));
                }
            }
            match self.ingest(vec![stored(&event, now)], runs, &snapshot, now).await {
                Err(dormouse_store::Error::StaleRegistry) => {
                    self.registry.refresh().await?;
                }
                result => return Ok(result?),
            }
        }
        Err(Problem::from(dormouse_store::Error::StaleRegistry))
    }

    /// Starts a function anew for what an earlier run was started for: the same event, or an edited one.
    pub(crate) async fn rerun(&self, rerun: Rerun, now: Timestamp) -> Result<Routed, Problem> {
        let Rerun { of, event, copy } = rerun;
        let function = &of.function;
        let (event_id, payload, new) = match event {
            RerunEvent::Same(payload) => (of.event_id, payload, None),
            RerunEvent::Edited(event) => (event.id, event.accepted.payload.clone(), Some(event)),
        };
        for _ in 0..DECISIONS_MAX {
            let snapshot = self.registry.snapshot();
            let Some((version, _)) = snapshot.function(function) else {
                return Err(Problem::not_found("function", function)
                    .help("a rerun is on the active version of its module, and that has no such function"));
            };
            let held = snapshot.paused.contains(function);
            // Whoever asks for it once more is not held up by what limits events.
            let admission = snapshot.admission(function, &payload).again();
            let at_once = !held && copy.is_none() && admission.concurrency.is_empty();
            let slot = if !at_once || !self.scheduler.takes_version(version) {
                None
            } else {
                self.scheduler.try_slot()
            };
            let planned = Planned {
                run: NewRun {
                    id: RunId::from_parts(now, random()),
                    function: function.clone(),
                    version,
                    config_revision: self.registry.revision(),
                    event_id,
                    admission,
                    dedupe: None,
                    seed: random(),
                    start_at: now,
                    lease: slot.as_ref().map(|_| self.node),
                    rerun_of: Some(of.id),
                    // No step waits for it: the one that invoked the earlier run has that one's outcome.
                    parent: None,
                    depth: 0,
                    held,
                    copy,
                    ends: snapshot.ends(function, &payload, now, now),
                },
                payload: payload.clone(),
                slot,
            };
            let events = new.iter().map(|event| stored(event, now)).collect();
            match self.ingest(events, vec![planned], &snapshot, now).await {
                Err(dormouse_store::Error::StaleRegistry) => {
                    self.registry.refresh().await?;
                }
                result => {
                    return result?
                        .pop()
                        .ok_or_else(|| Problem::new(500, "internal", "the store created no run"));
                }
            }
        }
        Err(Problem::from(dormouse_store::Error::StaleRegistry))
    }

    fn new_run(
        &self,
        function: &FunctionName,
        version: Digest,
        event: &SentEvent,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Planned {
        let start_at = event.accepted.ts.max(now);
        let held = snapshot.paused.contains(function);
        let admission = snapshot.admission(function, &event.accepted.payload);
        let ends = snapshot.ends(function, &event.accepted.payload, start_at, now);
        // A run that begins later, or may have to, is leased when it begins; one whose version is not loaded yet, where it is.
        let limited = admission.throttle.is_some()
            || admission.gathering.is_some()
            || !admission.concurrency.is_empty();
        let at_once = start_at <= now && !held && !limited;
        let slot = if at_once && self.scheduler.takes_version(version) {
            self.scheduler.try_slot()
        } else {
            None
        };
        Planned {
            run: NewRun {
                id: RunId::from_parts(now, random()),
                function: function.clone(),
                version,
                config_revision: self.registry.revision(),
                event_id: event.id,
                dedupe: event.dedupe.clone(),
                admission,
                seed: random(),
                start_at,
                lease: slot.as_ref().map(|_| self.node),
                rerun_of: None,
                parent: None,
                depth: 0,
                held,
                copy: None,
                ends,
            },
            payload: event.accepted.payload.clone(),
            slot,
        }
    }

    async fn ingest(
        &self,
        events: Vec<NewEvent>,
        planned: Vec<Planned>,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Vec<Routed>, dormouse_store::Error> {
        let runs = planned.iter().map(|planned| planned.run.clone()).collect();
        let created = self
            .store
            .ingest(Ingest {
                events,
                runs,
                generation: snapshot.generation,
                now,
            })
            .await?;
        Ok(planned
            .into_iter()
            .zip(created)
            .map(|(planned, created)| planned.created(created))
            .collect())
    }
}

/// The events that a run sends, and the runs that they start on this registry: for the commit of the run's own entry.
pub(crate) fn sent_by_run(
    registry: &Registry,
    snapshot: &Snapshot,
    events: &[SentEvent],
    now: Timestamp,
) -> Ingest {
    let mut runs = Vec::new();
    for event in events {
        for (function, version) in snapshot.matching(&event.accepted.name, &event.accepted.payload) {
            runs.push(started(registry, snapshot, function, version, event, now));
        }
    }
    Ingest {
        events: events.iter().map(|event| stored(event, now)).collect(),
        runs,
        generation: snapshot.generation,
        now,
    }
}

/// A run that an event starts, ready for any node.
fn started(
    registry: &Registry,
    snapshot: &Snapshot,
    function: &FunctionName,
    version: Digest,
    event: &SentEvent,
    now: Timestamp,
) -> NewRun {
    NewRun {
        id: RunId::from_parts(now, random()),
        function: function.clone(),
        version,
        config_revision: registry.revision(),
        event_id: event.id,
        dedupe: event.dedupe.clone(),
        admission: snapshot.admission(function, &event.accepted.payload),
        seed: random(),
        start_at: event.accepted.ts.max(now),
        lease: None,
        rerun_of: None,
        parent: None,
        depth: 0,
        held: snapshot.paused.contains(function),
        copy: None,
        ends: snapshot.ends(function, &event.accepted.payload, event.accepted.ts, now),
    }
}

/// A function that a run invokes.
pub(crate) struct Invoked<'a> {
    pub(crate) run: RunId,
    pub(crate) function: &'a FunctionName,
    pub(crate) version: Digest,
    pub(crate) event_id: EventId,
    pub(crate) event: &'a Accepted,
    pub(crate) parent: RunId,
    pub(crate) depth: u32,
    /// Functions that listen to invokes are started too.
    pub(crate) told: bool,
}

/// Adds the run of an invoked function, and its event, to what a commit carries.
pub(crate) fn add_invoked(
    registry: &Registry,
    snapshot: &Snapshot,
    ingest: &mut Ingest,
    invoked: Invoked<'_>,
) {
    let event = SentEvent {
        id: invoked.event_id,
        accepted: invoked.event.clone(),
        dedupe: None,
    };
    ingest.events.push(stored(&event, ingest.now));
    let run = started(
        registry,
        snapshot,
        invoked.function,
        invoked.version,
        &event,
        ingest.now,
    );
    ingest.runs.push(NewRun {
        id: invoked.run,
        // What would drop it is for what events start: the step waits for this run alone.
        admission: run.admission.clone().waiting(),
        start_at: ingest.now,
        parent: Some(invoked.parent),
        depth: invoked.depth,
        ..run
    });
    if !invoked.told {
        return;
    }
    for (listener, version) in snapshot.matching(invoke::EVENT, &event.accepted.payload) {
        if listener != invoked.function {
            let run = started(registry, snapshot, listener, version, &event, ingest.now);
            ingest.runs.push(run);
        }
    }
}

struct Planned {
    run: NewRun,
    payload: Json,
    slot: Option<Slot>,
}

impl Planned {
    /// What the store has made of it.
    fn created(self, created: Created) -> Routed {
        let leased = matches!(created, Created::New { leased: true });
        Routed {
            start_at: self.run.start_at,
            held: self.run.held,
            deadline: first_deadline(&self.run),
            slot: self.slot.filter(|_| leased),
            created,
            run: claimed(self.run, self.payload),
        }
    }
}

/// When a new run may be over, at the earliest.
pub(crate) fn first_deadline(run: &NewRun) -> Option<Timestamp> {
    run.ends.deadlines.iter().map(|deadline| deadline.due).min()
}

fn stored(event: &SentEvent, now: Timestamp) -> NewEvent {
    NewEvent {
        id: event.id,
        name: event.accepted.name.clone(),
        external_id: event.accepted.external_id.clone(),
        ts: event.accepted.ts,
        received_at: now,
        payload: event.accepted.payload.clone(),
    }
}

/// A run that was born leased, as a claim would give it.
fn claimed(run: NewRun, event: Json) -> ClaimedRun {
    ClaimedRun {
        id: run.id,
        epoch: 1,
        function: run.function,
        version: run.version,
        config_revision: run.config_revision,
        event_id: run.event_id,
        event,
        continued: None,
        seed: run.seed,
        parent: run.parent,
        depth: run.depth,
        queued_at: run.start_at,
        journal_base: 0,
        journal_next: 0,
        log_lines: 0,
        journal_bytes: 0,
        host_traps: 0,
        swapped: Swapped::default(),
        asked: None,
    }
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness there are no ids and no seeds; the system has no way to go on from that.
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}
