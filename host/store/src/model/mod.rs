//! The store's behaviour in memory, written to be read: one lock, plain collections, every question answered by
//! looking through all runs. It is what the differential test holds the real stores against, and what tests that need
//! no durability use.
//!
//! Absent on purpose: speed, durability, and any code shared with an implementation.

mod cancellations;
mod cron;
mod ending;
mod ends;
mod pausing;
mod run;
mod runs;
mod slots;
mod throttles;
mod versions;
mod waits;
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_core::flow::{Gate, Standing as Limit};
use dormouse_core::journal::Record;
use dormouse_core::swap::{Policy, Swap};
use dormouse_core::system::Kinds;
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Seq, Timestamp};
use tokio::sync::watch;

use self::cancellations::ModelCancellation;
use self::cron::ModelSchedule;
use self::run::ModelRun;
use crate::cancellation::{Batch, Cancellation, CancellationId, Examined, NewCancellation};
use crate::command::{Commanded, Orphans};
use crate::contract::Store;
use crate::cron::{NewSchedules, Schedule, Tick, Ticked};
use crate::ends::{Expired, Tell, Told, Untold};
use crate::error::{Error, Result};
use crate::execute::{Append, Appended, Completion, LogLine};
use crate::ingest::{Created, Ingest};
use crate::read::{BatchEvent, Counts, Decided, EventFilter, Run, RunFilter, StoredEvent};
use crate::registry::{Changed, NewVersion, Registry, Stored, Version};
use crate::schedule::{
    Claim, ClaimedBatch, ClaimedRun, FireTimers, Fired, Glance, Incarnation, NewNode, Node, Standing,
};
use crate::swap::{Asked, ToRestart};

/// A [`Store`] that forgets everything when it is dropped.
#[derive(Default)]
pub struct MemoryStore {
    world: Mutex<World>,
    /// As on a database that nodes share: a node that joins declares no other dead.
    shared: bool,
    /// Never sent to: there is no other node that could have something to say.
    hints: watch::Sender<u64>,
}

/// Everything a store knows.
#[derive(Clone, Default)]
struct World {
    closed: bool,
    /// Changes to the registry so far; a fresh store is at generation 1.
    registry_changes: i64,
    versions: Vec<Version>,
    nodes: BTreeMap<Incarnation, Node>,
    events: BTreeMap<EventId, StoredEvent>,
    runs: BTreeMap<RunId, ModelRun>,
    orphans: BTreeSet<RunId>,
    ends: BTreeMap<RunId, Kinds>,
    /// The ends that steps have ever waited for.
    awaited: Kinds,
    dedupe: HashMap<(FunctionName, String), (RunId, Timestamp)>,
    limits: HashMap<(FunctionName, Gate, String), Limit>,
    decisions: BTreeMap<(EventId, FunctionName), Decided>,
    /// The events of batches, with their sizes.
    batches: BTreeMap<RunId, Vec<(EventId, u64)>>,
    configs: Vec<Json>,
    paused: BTreeSet<FunctionName>,
    cancellations: BTreeMap<CancellationId, ModelCancellation>,
    schedules: BTreeMap<(FunctionName, String), ModelSchedule>,
    components: HashMap<Digest, Vec<u8>>,
}

impl World {
    fn generation(&self) -> i64 {
        1 + self.registry_changes
    }

    fn lives(&self, node: Incarnation) -> Result<()> {
        if self.nodes.contains_key(&node) {
            Ok(())
        } else {
            Err(Error::DeclaredDead)
        }
    }
}

impl MemoryStore {
    /// An empty store for one node at a time, as SQLite's.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// An empty store for many nodes at once, as Postgres'. Nodes do not expire in it.
    pub fn shared() -> MemoryStore {
        MemoryStore {
            shared: true,
            ..MemoryStore::default()
        }
    }

    fn world(&self) -> Result<MutexGuard<'_, World>> {
        // No operation panics half way, so a poisoned lock still guards a sound world.
        let world = self
            .world
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if world.closed {
            return Err(Error::Unavailable("the store is closed".to_owned()));
        }
        Ok(world)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn join(&self, node: NewNode, now: Timestamp) -> Result<Standing> {
        let mut world = self.world()?;
        if !self.shared {
            world.nodes.clear();
        }
        world.nodes.insert(
            node.incarnation,
            Node {
                incarnation: node.incarnation,
                name: node.name,
                release: node.release,
                url: node.url,
                joined_at: now,
                heartbeat_at: now,
                silent_for: Duration::ZERO,
                draining: false,
                runs: 0,
            },
        );
        Ok(Standing {
            now,
            draining: false,
            mixed: false,
            generation: world.generation(),
        })
    }

    async fn heartbeat(&self, node: Incarnation, now: Timestamp) -> Result<Standing> {
        let mut world = self.world()?;
        let node = world.nodes.get_mut(&node).ok_or(Error::DeclaredDead)?;
        node.heartbeat_at = now;
        let (draining, release) = (node.draining, node.release.clone());
        let mixed = world.nodes.values().any(|other| other.release != release);
        Ok(Standing {
            now,
            draining,
            mixed,
            generation: world.generation(),
        })
    }

    async fn drain(&self, node: Incarnation, _now: Timestamp) -> Result<bool> {
        let mut world = self.world()?;
        let found = world.nodes.get_mut(&node);
        Ok(found.map(|node| node.draining = true).is_some())
    }

    async fn take_over(&self, limit: u32, now: Timestamp) -> Result<u32> {
        self.world()?.take_over(limit, now)
    }

    async fn leave(&self, node: Incarnation, _now: Timestamp) -> Result<()> {
        self.world()?.nodes.remove(&node);
        Ok(())
    }

    async fn nodes(&self, now: Timestamp) -> Result<Vec<Node>> {
        let world = self.world()?;
        let mut nodes: Vec<Node> = world.nodes.values().cloned().collect();
        for node in &mut nodes {
            node.silent_for = now.since(node.heartbeat_at);
            let owned = |run: &&ModelRun| run.shown.owner == Some(node.incarnation);
            node.runs = world.runs.values().filter(owned).count() as u64;
        }
        nodes.sort_by_key(|node| (node.joined_at, node.incarnation));
        Ok(nodes)
    }

    fn lease(&self) -> Option<Duration> {
        None
    }

    fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Vec<Created>> {
        self.world()?.ingest(ingest)
    }

    async fn claim(&self, claim: Claim) -> Result<ClaimedBatch> {
        self.world()?.claim(claim)
    }

    async fn fire_timers(&self, fire: FireTimers) -> Result<Fired> {
        self.world()?.fire_timers(fire)
    }

    async fn upcoming_timers(&self, until: Timestamp, limit: u32) -> Result<Vec<Timestamp>> {
        let world = self.world()?;
        let timers = world.timers();
        Ok(timers
            .into_iter()
            .map(|(due, _)| due)
            .filter(|due| *due < until)
            .take(limit as usize)
            .collect())
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.world()?.append(append)
    }

    async fn journal(&self, run: RunId, from: Seq) -> Result<Vec<Record>> {
        let world = self.world()?;
        let records = world
            .runs
            .get(&run)
            .map(|run| run.journal.as_slice())
            .unwrap_or_default();
        Ok(records
            .iter()
            .filter(|record| record.seq >= from)
            .cloned()
            .collect())
    }

    async fn completions(&self, run: RunId) -> Result<Vec<Completion>> {
        Ok(self
            .world()?
            .runs
            .get(&run)
            .map(ModelRun::completions)
            .unwrap_or_default())
    }

    async fn signal(&self, signal: &str, data: Json, now: Timestamp) -> Result<Option<RunId>> {
        self.world()?.signal(signal, data, now)
    }

    async fn cancel(&self, run: RunId, now: Timestamp) -> Result<Commanded> {
        self.world()?.cancel(run, now)
    }

    async fn cancel_orphans(&self, limit: u32, now: Timestamp) -> Result<Orphans> {
        self.world()?.cancel_orphans(limit, now)
    }

    async fn wake(&self, run: RunId, operation: Option<Seq>, now: Timestamp) -> Result<Commanded> {
        self.world()?.wake(run, operation, now)
    }

    async fn unblock(&self, module: &str, now: Timestamp) -> Result<u64> {
        self.world()?.unblock(module, now)
    }

    async fn retry_unreadable(&self, release: &str, limit: u32, now: Timestamp) -> Result<u32> {
        self.world()?.retry_unreadable(release, limit, now)
    }

    async fn pause(&self, run: RunId) -> Result<Commanded> {
        self.world()?.pause(run)
    }

    async fn resume(&self, run: RunId, now: Timestamp) -> Result<Commanded> {
        self.world()?.resume(run, now)
    }

    async fn pause_function(&self, function: &FunctionName, _now: Timestamp) -> Result<Changed> {
        Ok(self.world()?.pause_function(function))
    }

    async fn resume_function(&self, function: &FunctionName) -> Result<Changed> {
        Ok(self.world()?.resume_function(function))
    }

    async fn release_held(&self, limit: u32, now: Timestamp) -> Result<u32> {
        self.world()?.release_held(limit, now)
    }

    async fn put_cancellation(&self, cancellation: NewCancellation) -> Result<Cancellation> {
        Ok(self.world()?.put_cancellation(cancellation))
    }

    async fn cancellations(&self, limit: u32) -> Result<Vec<Cancellation>> {
        Ok(self.world()?.cancellations(limit))
    }

    async fn delete_cancellation(&self, id: CancellationId) -> Result<bool> {
        Ok(self.world()?.cancellations.remove(&id).is_some())
    }

    async fn next_cancellation(&self, limit: u32) -> Result<Option<Batch>> {
        Ok(self.world()?.next_cancellation(limit))
    }

    async fn cancel_examined(&self, examined: Examined) -> Result<Vec<RunId>> {
        self.world()?.cancel_examined(examined)
    }

    async fn put_schedules(&self, schedules: NewSchedules) -> Result<()> {
        self.world()?.put_schedules(schedules)
    }

    async fn schedules(&self) -> Result<Vec<Schedule>> {
        Ok(self.world()?.list_schedules())
    }

    async fn tick(&self, tick: Tick) -> Result<Ticked> {
        self.world()?.tick(tick)
    }

    async fn untold(&self, limit: u32) -> Result<Vec<Untold>> {
        Ok(self.world()?.untold(limit))
    }

    async fn tell(&self, tell: Tell) -> Result<Told> {
        self.world()?.tell(tell)
    }

    async fn next_deadline(&self) -> Result<Option<Timestamp>> {
        Ok(self.world()?.next_deadline())
    }

    async fn expire(&self, limit: u32, now: Timestamp) -> Result<Expired> {
        self.world()?.expire(limit, now)
    }

    async fn put_component(&self, digest: Digest, bytes: &[u8]) -> Result<()> {
        if Digest::of(bytes) != digest {
            return Err(Error::Corrupt(format!(
                "the component's bytes do not have the digest {digest}"
            )));
        }
        self.world()?.components.insert(digest, bytes.to_vec());
        Ok(())
    }

    async fn component(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        Ok(self.world()?.components.get(&digest).cloned())
    }

    async fn put_version(&self, version: NewVersion) -> Result<Stored> {
        Ok(self.world()?.put_version(version))
    }

    async fn activate(
        &self,
        module: &str,
        digest: Digest,
        policy: Option<Policy>,
        now: Timestamp,
    ) -> Result<Changed> {
        Ok(self.world()?.activate(module, digest, policy, now))
    }

    async fn delete_version(&self, module: &str, digest: Digest) -> Result<Changed> {
        Ok(self.world()?.delete_version(module, digest))
    }

    async fn registry(&self) -> Result<Registry> {
        Ok(self.world()?.registry())
    }

    async fn versions(&self, module: &str) -> Result<Vec<Version>> {
        Ok(self.world()?.versions_of(module))
    }

    async fn version(&self, module: &str, digest: Digest) -> Result<Option<Version>> {
        let versions = self.world()?.versions_of(module);
        Ok(versions.into_iter().find(|version| version.digest == digest))
    }

    async fn put_config(&self, document: Json, _now: Timestamp) -> Result<i64> {
        let mut world = self.world()?;
        let index = match world.configs.iter().position(|known| *known == document) {
            Some(index) => index,
            None => {
                world.configs.push(document);
                world.configs.len() - 1
            }
        };
        Ok(index as i64 + 1)
    }

    async fn config(&self, revision: i64) -> Result<Option<Json>> {
        let world = self.world()?;
        let index = usize::try_from(revision - 1).ok();
        Ok(index.and_then(|index| world.configs.get(index)).cloned())
    }

    async fn glance(&self, runs: &[RunId]) -> Result<Vec<Glance>> {
        let world = self.world()?;
        let asked: BTreeSet<&RunId> = runs.iter().collect();
        let found = asked.into_iter().filter_map(|id| world.runs.get(id));
        Ok(found.map(ModelRun::glance).collect())
    }

    async fn in_flight(&self, module: &str, limit: u32) -> Result<Vec<RunId>> {
        let world = self.world()?;
        let of_module =
            |run: &&ModelRun| !run.shown.state.status.is_terminal() && run.shown.function.module() == module;
        let mut ids: Vec<RunId> = world
            .runs
            .values()
            .filter(of_module)
            .map(|run| run.shown.id)
            .collect();
        ids.sort_unstable_by_key(|id| (id.to_bytes()[12..].to_vec(), *id));
        ids.truncate(limit as usize);
        Ok(ids)
    }

    async fn examine(&self, runs: &[RunId]) -> Result<Vec<ClaimedRun>> {
        let world = self.world()?;
        let asked: BTreeSet<RunId> = runs.iter().copied().collect();
        let live = |id: &RunId| {
            let run = world.runs.get(id);
            run.is_some_and(|run| !run.shown.state.status.is_terminal())
        };
        asked
            .into_iter()
            .filter(live)
            .map(|id| world.claimed(id))
            .collect()
    }

    async fn ask_version(&self, run: RunId, asked: Option<Asked>, now: Timestamp) -> Result<Commanded> {
        self.world()?.ask_version(run, asked, now)
    }

    async fn wake_to_restart(&self, restart: ToRestart) -> Result<u32> {
        self.world()?.wake_to_restart(restart)
    }

    async fn swaps(&self, run: RunId) -> Result<Vec<Swap>> {
        let world = self.world()?;
        Ok(world
            .runs
            .get(&run)
            .map(|run| run.swaps.clone())
            .unwrap_or_default())
    }

    async fn run(&self, run: RunId) -> Result<Option<Run>> {
        Ok(self.world()?.runs.get(&run).map(|run| run.shown.clone()))
    }

    async fn runs(&self, filter: RunFilter) -> Result<Vec<Run>> {
        let world = self.world()?;
        let chosen = world.runs.values().rev().map(|run| &run.shown).filter(|run| {
            (filter.status.is_empty() || filter.status.contains(&run.state.status))
                && filter.phase.is_none_or(|phase| run.state.phase == Some(phase))
                && filter.module.as_ref().is_none_or(|module| {
                    run.function.module() == module
                        && filter
                            .function
                            .as_ref()
                            .is_none_or(|function| run.function.function() == function)
                })
                && filter
                    .event
                    .is_none_or(|event| run.event_id == event || world.is_of(run.id, event))
                && filter.parent.is_none_or(|parent| run.parent == Some(parent))
                && filter.before.is_none_or(|before| run.id < before)
        });
        Ok(chosen
            .take(filter.limit as usize)
            .map(|run| Run {
                output: None,
                ..run.clone()
            })
            .collect())
    }

    async fn event(&self, event: EventId) -> Result<Option<StoredEvent>> {
        Ok(self.world()?.events.get(&event).cloned())
    }

    async fn events(&self, filter: EventFilter) -> Result<Vec<StoredEvent>> {
        let world = self.world()?;
        let chosen = world.events.values().rev().filter(|event| {
            filter.name.as_ref().is_none_or(|name| event.name == *name)
                && filter
                    .received_after
                    .is_none_or(|after| event.received_at >= after)
                && filter
                    .received_before
                    .is_none_or(|before| event.received_at <= before)
                && filter.before.is_none_or(|before| event.id < before)
        });
        Ok(chosen.take(filter.limit as usize).cloned().collect())
    }

    async fn decisions(&self, event: EventId) -> Result<Vec<Decided>> {
        let world = self.world()?;
        let of_event = world.decisions.iter().filter(|((of, _), _)| *of == event);
        let mut found: Vec<Decided> = of_event.map(|(_, decided)| decided.clone()).collect();
        found.sort_by_key(|decided| decided.function.to_string());
        Ok(found)
    }

    async fn batch(&self, run: RunId) -> Result<Vec<BatchEvent>> {
        Ok(self.world()?.batch(run))
    }

    async fn logs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<LogLine>> {
        let world = self.world()?;
        let Some(run) = world.runs.get(&run) else {
            return Ok(Vec::new());
        };
        Ok(run
            .logs
            .range(from..)
            .map(|(_, line)| line.clone())
            .take(limit as usize)
            .collect())
    }

    async fn counts(&self) -> Result<Counts> {
        Ok(self.world()?.counts())
    }

    async fn probe(&self, _now: Timestamp) -> Result<()> {
        self.world().map(drop)
    }

    async fn prune(&self, ended_before: Timestamp, limit: u32) -> Result<u32> {
        Ok(self.world()?.prune(ended_before, limit))
    }

    async fn close(&self) {
        if let Ok(mut world) = self.world() {
            world.closed = true;
        }
    }
}
