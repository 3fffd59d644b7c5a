//! Random operations on two stores at once: the same answers, the same states.
//!
//! It goes on until every kind of operation has succeeded often enough to have met the others. A failure names the
//! seed, and `DORMOUSE_SEED` repeats it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use dormouse_core::flow::Decision;
use dormouse_core::run::Phase;
use dormouse_core::{Digest, EventId, Json, RunId, Timestamp};

use super::fixture::{at, function, json, node};
use super::random::Random;
use crate::command::Commanded;
use crate::contract::Store;
use crate::error::Error;
use crate::ingest::{Copied, Created, Ingest, NewEvent, NewRun};
use crate::read::{Run, RunFilter};
use crate::registry::{Changed, NewVersion};
use crate::schedule::{Claim, FireTimers, Incarnation, NewNode, Node, Standing};

/// How often each kind of operation has to succeed.
const SUCCESSES: u32 = 3;
/// More steps than this without that: the generator never gets there.
const STEPS_MAX: u32 = 40_000;
/// States are compared after so many steps: all of them at the end, a sample in between.
const COMPARE_EVERY: u32 = 100;
/// Runs that are looked at in detail in between.
const SAMPLE: u64 = 25;
/// With more runs than this, some are cancelled and pruned: what there is many of is slow to compare.
const RUNS_MAX: usize = 150;

/// What has to happen at least [`SUCCESSES`] times.
const KINDS: [&str; 89] = [
    "join",
    "heartbeat",
    "heartbeat-dead",
    "drain",
    "leave",
    "take-over",
    "ingest",
    "ingest-stale",
    "ingest-leased",
    "ingest-delayed",
    "ingest-duplicate",
    "ingest-rerun",
    "ingest-copies",
    "ingest-source-gone",
    "ingest-idempotent",
    "ingest-rate-limited",
    "ingest-throttled",
    "ingest-gathered",
    "batch-read",
    "fire-throttled",
    "throttle-left",
    "throttle-resumed",
    "claim",
    "claim-lacking",
    "claim-blocked",
    "claim-waits",
    "claim-from-line",
    "fire",
    "fire-ready",
    "continue",
    "suspend",
    "completions",
    "append-sends",
    "append-waits",
    "wait-looks-back",
    "wait-ends",
    "wait-for-nothing",
    "child-ends",
    "orphan",
    "signal",
    "append-signals",
    "swap-moves",
    "swap-stays",
    "swap-stale",
    "ask-version",
    "restart",
    "wake-to-restart",
    "release",
    "host-trap",
    "complete",
    "fail",
    "continue-with",
    "block",
    "lost",
    "cancelled",
    "gone",
    "refused-append",
    "cancel",
    "wake",
    "wake-completes",
    "unblock",
    "retry-unreadable",
    "put-cancellation",
    "delete-cancellation",
    "cancel-examined",
    "cancellation-done",
    "pause",
    "resume",
    "paused",
    "pause-function",
    "resume-function",
    "release-held",
    "put-schedules",
    "tick",
    "tick-lost",
    "tick-stale",
    "ingest-cancels",
    "expire",
    "expire-kept",
    "tell",
    "tell-before",
    "tell-stale",
    "put-version",
    "activate",
    "delete-version",
    "component",
    "config",
    "probe",
    "prune",
];

/// The seed to use: from the environment, or the default.
pub fn seed(default: u64) -> u64 {
    std::env::var("DORMOUSE_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Holds `store` against `model`, both empty.
///
/// # Panics
/// When they differ, naming the seed and the step.
pub async fn run(seed: u64, model: Arc<dyn Store>, store: Arc<dyn Store>) {
    let mut pair = Pair {
        random: Random(seed),
        seed,
        step: 0,
        model,
        store,
        now: 0,
        ids: 0,
        node: 1,
        generation: 1,
        done: BTreeMap::new(),
    };
    pair.begin().await;
    while pair.missing().next().is_some() || pair.step < 2_000 {
        let missing: Vec<_> = pair.missing().collect();
        assert!(
            pair.step < STEPS_MAX,
            "seed {seed}: these never succeeded often enough: {missing:?}"
        );
        pair.step += 1;
        pair.now += pair.random.below(300) as i64;
        pair.operate().await;
        if pair.step.is_multiple_of(COMPARE_EVERY) {
            pair.compare(SAMPLE).await;
        }
    }
    pair.compare(u64::MAX).await;
    println!("seed {seed}: {} steps", pair.step);
}

struct Pair {
    random: Random,
    seed: u64,
    step: u32,
    model: Arc<dyn Store>,
    store: Arc<dyn Store>,
    now: i64,
    ids: u64,
    node: u8,
    generation: i64,
    done: BTreeMap<&'static str, u32>,
}

/// Asks both, compares, and gives the answer.
macro_rules! both {
    ($pair:expr, $($call:tt)*) => {{
        let model = $pair.model.$($call)*.await;
        let store = $pair.store.$($call)*.await;
        $pair.same(stringify!($($call)*), model, store)
    }};
}

// After the macro, which it uses.
mod appending;
mod cancelling;
mod carried;
mod ending;
mod ends;
mod pausing;
mod reads;
mod slotting;
mod swapping;
mod ticking;

fn digest(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

const MODULES: [&str; 2] = ["shop", "stock"];

impl Pair {
    fn same<T: Debug + PartialEq>(
        &self,
        what: &str,
        model: Result<T, Error>,
        store: Result<T, Error>,
    ) -> Result<T, Error> {
        let agree = match (&model, &store) {
            (Ok(model), Ok(store)) => model == store,
            // The words may differ, the kind may not.
            (Err(model), Err(store)) => std::mem::discriminant(model) == std::mem::discriminant(store),
            _ => false,
        };
        assert!(
            agree,
            "seed {} step {}: {what}\n model: {model:?}\n store: {store:?}\n(DORMOUSE_SEED={} repeats it)",
            self.seed, self.step, self.seed
        );
        store
    }

    fn succeeded(&mut self, kind: &'static str) {
        assert!(KINDS.contains(&kind), "{kind} is not among the kinds");
        *self.done.entry(kind).or_default() += 1;
    }

    fn missing(&self) -> impl Iterator<Item = &'static str> {
        KINDS
            .into_iter()
            .filter(|kind| self.done.get(kind).copied().unwrap_or(0) < SUCCESSES)
    }

    fn time(&self) -> Timestamp {
        at(self.now)
    }

    fn id(&mut self) -> [u8; 10] {
        self.ids += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        random
    }

    fn payload(&mut self) -> Json {
        match self.random.below(60) {
            0 => json(&format!("\"{}\"", "x".repeat(70_000))),
            number => json(&format!("[{number},{}]", self.step)),
        }
    }

    async fn begin(&mut self) {
        self.join(node(1)).await;
        let now = self.time();
        for (number, module) in MODULES.into_iter().enumerate() {
            let stored = both!(
                self,
                put_version(slotting::numbered(module, number as u64, true, now))
            );
            self.generation = stored.expect("stores").generation;
        }
    }

    /// Joins. The time in the answer may be the store's own.
    async fn join(&mut self, node: NewNode) {
        let now = self.time();
        let model = self.model.join(node.clone(), now).await;
        let store = self.store.join(node, now).await;
        let told = |standing: Standing| (standing.draining, standing.mixed, standing.generation);
        self.same("join", model.map(told), store.map(told))
            .expect("joins");
    }

    async fn heartbeat(&mut self, node: Incarnation) -> Result<(bool, bool, i64), Error> {
        let now = self.time();
        let model = self.model.heartbeat(node, now).await;
        let store = self.store.heartbeat(node, now).await;
        let told = |standing: Standing| (standing.draining, standing.mixed, standing.generation);
        self.same("heartbeat", model.map(told), store.map(told))
    }

    /// Nodes without their times, in an order that does not follow from these.
    async fn compare_nodes(&mut self) {
        let now = self.time();
        let seen = |nodes: Vec<Node>| {
            let mut seen: Vec<_> = nodes
                .into_iter()
                .map(|node| {
                    (
                        node.incarnation,
                        node.name,
                        node.release,
                        node.url,
                        node.draining,
                        node.runs,
                    )
                })
                .collect();
            seen.sort();
            seen
        };
        let model = self.model.nodes(now).await.map(seen);
        let store = self.store.nodes(now).await.map(seen);
        self.same("nodes", model, store).expect("reads");
    }

    async fn operate(&mut self) {
        match self.random.below(100) {
            0 => self.nodes().await,
            1..=19 => self.ingest().await,
            20..=21 => self.ticking().await,
            22 => match self.random.one_in(3) {
                true => self.expire().await,
                false => self.tell().await,
            },
            23..=32 => self.claim().await,
            33..=40 => self.fire().await,
            41..=80 => self.append().await,
            81..=82 => self.pausing().await,
            83 => self.cancelling().await,
            84 => match self.random.one_in(2) {
                true => self.orphans().await,
                false => self.cancel().await,
            },
            85 => self.cancel().await,
            86..=92 => self.wake().await,
            93..=94 => self.unblock().await,
            95..=96 => self.registry().await,
            97 => self.signal().await,
            98 => match self.random.below(4) {
                0 => self.config().await,
                1 => self.components().await,
                _ => self.orphans().await,
            },
            _ => self.prune().await,
        }
    }

    async fn nodes(&mut self) {
        let now = self.time();
        let this = node(self.node).incarnation;
        if self.heartbeat(this).await.is_ok() {
            self.succeeded("heartbeat");
        }
        if self.random.one_in(3) && both!(self, drain(this, now)).expect("answers") {
            self.succeeded("drain");
        }
        // A node ends and another comes: several times in a row, now and then, which is what a crash loop looks like.
        let rounds = if self.random.one_in(3) { 6 } else { 1 };
        for _ in 0..rounds {
            let this = node(self.node).incarnation;
            if rounds > 1 || self.random.one_in(2) {
                both!(self, leave(this, now)).expect("leaves");
                self.succeeded("leave");
            } else {
                self.node = self.node % 100 + 1;
                self.join(node(self.node)).await;
                self.succeeded("join");
            }
            if self.heartbeat(this).await.is_err() {
                self.succeeded("heartbeat-dead");
            }
            let limit = 1 + self.random.below(40) as u32;
            while both!(self, take_over(limit, now)).expect("takes over") > 0 {
                self.succeeded("take-over");
            }
            self.node = self.node % 100 + 1;
            self.join(node(self.node)).await;
            let claim = Claim {
                node: node(self.node).incarnation,
                limit: 500,
                versions: None,
                now,
            };
            let batch = both!(self, claim(claim.clone())).expect("claims");
            if !batch.blocked.is_empty() {
                self.succeeded("claim-blocked");
            }
        }
    }

    async fn some_run(&mut self, phase: Option<Phase>) -> Option<Run> {
        let filter = RunFilter {
            phase,
            limit: 40,
            ..RunFilter::default()
        };
        let runs = both!(self, runs(filter.clone())).expect("lists");
        self.random.pick(&runs).cloned()
    }

    async fn ingest(&mut self) {
        let now = self.time();
        let mut ingest = Ingest {
            events: Vec::new(),
            runs: Vec::new(),
            generation: self.generation,
            now,
        };
        let mut flags = Vec::new();
        for _ in 0..self.random.below(4) {
            let event = self.event();
            for _ in 0..self.random.below(3) {
                let run = self.run(event.id);
                ingest.runs.push(run);
            }
            ingest.events.push(event);
        }
        if self.random.one_in(4)
            && let Some(earlier) = self.some_run(None).await
        {
            let mut rerun = self.run(earlier.event_id);
            rerun.rerun_of = Some(earlier.id);
            if self.random.one_in(2) {
                let recorded = earlier.journal_next.saturating_sub(earlier.journal_base);
                let before = earlier.journal_base + self.random.below(u64::from(recorded) + 2) as u32;
                rerun.copy = Some(Copied {
                    run: earlier.id,
                    base: earlier.journal_base,
                    before,
                    bytes: 10 * u64::from(before),
                });
                let gone = before > earlier.journal_next;
                flags.push(if gone {
                    "ingest-source-gone"
                } else {
                    "ingest-copies"
                });
            } else {
                flags.push("ingest-rerun");
            }
            ingest.runs.push(rerun);
        }
        match self.random.below(30) {
            0 => ingest.generation += 1,
            1 => {
                if let (Some(first), Some(known)) = (ingest.runs.first_mut(), self.some_run(None).await) {
                    first.id = known.id;
                }
            }
            2 => {
                let unknown = EventId::from_parts(at(0), self.id());
                ingest.runs.push(self.run(unknown));
            }
            _ => {}
        }
        if ingest.runs.iter().any(|run| run.start_at > now) {
            flags.push("ingest-delayed");
        }
        // Only the model's: a store may answer with counts that are a moment old.
        let queued = self.model.counts().await.expect("counts").live[Phase::Queued as usize];
        let before = self.cancelled_by_events().await;
        match both!(self, ingest(ingest.clone())) {
            Ok(created) => {
                self.succeeded("ingest");
                if self.cancelled_by_events().await > before {
                    flags.push("ingest-cancels");
                }
                let now_queued = self.model.counts().await.expect("counts").live[Phase::Queued as usize];
                if now_queued > queued + created.len() as u64 {
                    self.succeeded("wait-ends");
                }
                if created
                    .iter()
                    .any(|created| matches!(created, Created::New { leased: true }))
                {
                    flags.push("ingest-leased");
                }
                if created
                    .iter()
                    .any(|created| matches!(created, Created::Duplicate(_)))
                {
                    flags.push("ingest-duplicate");
                }
                for created in &created {
                    match created {
                        Created::Dropped {
                            decision: Decision::Idempotent,
                            ..
                        } => flags.push("ingest-idempotent"),
                        Created::Dropped { .. } => flags.push("ingest-rate-limited"),
                        Created::Held { .. } => flags.push("ingest-throttled"),
                        Created::Gathered { .. } => flags.push("ingest-gathered"),
                        Created::New { .. } | Created::Duplicate(_) => {}
                    }
                }
                for flag in flags {
                    self.succeeded(flag);
                }
            }
            Err(Error::StaleRegistry) => self.succeeded("ingest-stale"),
            Err(Error::SourceGone) => self.succeeded("ingest-source-gone"),
            Err(_) => {}
        }
    }

    fn event(&mut self) -> NewEvent {
        let now = self.time();
        NewEvent {
            id: EventId::from_parts(now, self.id()),
            name: format!("event/{}", self.random.below(3)),
            external_id: self.random.one_in(2).then(|| format!("external {}", self.ids)),
            ts: now,
            received_at: now,
            payload: self.payload(),
        }
    }

    fn run(&mut self, event: EventId) -> NewRun {
        let now = self.time();
        let module = self.random.below(2);
        let delay = if self.random.one_in(5) {
            1 + self.random.below(2000)
        } else {
            0
        };
        let admission = self.admission();
        let mut ends = self.ends();
        if admission.gathering.is_some() {
            // Refused at the upload: which event they would go by is not known before the run starts.
            ends.cancel_on.clear();
        }
        NewRun {
            id: RunId::from_parts(now, self.id()),
            function: function(&format!("{}/f{}", MODULES[module as usize], self.random.below(3))),
            version: digest(module),
            config_revision: self.random.below(5) as i64,
            event_id: event,
            dedupe: self
                .random
                .one_in(3)
                .then(|| format!("key {}", self.random.below(20))),
            admission,
            seed: [self.random.below(256) as u8; 32],
            start_at: now.after(std::time::Duration::from_millis(delay)),
            lease: (!self.random.one_in(3)).then_some(node(self.node).incarnation),
            rerun_of: None,
            parent: None,
            depth: 0,
            held: self.random.one_in(12),
            copy: None,
            ends,
        }
    }

    async fn claim(&mut self) {
        let claim = Claim {
            node: node(self.node).incarnation,
            limit: self.random.below(6) as u32,
            versions: self.some_versions(),
            now: self.time(),
        };
        let in_lines = self.in_lines().await;
        let batch = both!(self, claim(claim.clone())).expect("claims");
        if !batch.claimed.is_empty() {
            self.succeeded("claim");
        }
        if batch.waiting > 0 {
            self.succeeded("claim-waits");
        }
        if batch.claimed.iter().any(|run| in_lines.contains(&run.id)) {
            self.succeeded("claim-from-line");
        }
        if !batch.lacking.is_empty() {
            self.succeeded("claim-lacking");
        }
    }

    /// What a node has loaded: most often nothing is said of it.
    fn some_versions(&mut self) -> Option<Arc<[Digest]>> {
        let mut versions: Vec<Digest> = (0..5).map(digest).collect();
        versions.retain(|_| self.random.one_in(2));
        self.random.one_in(3).then(|| versions.into())
    }

    async fn fire(&mut self) {
        let until = self.time();
        both!(self, upcoming_timers(until, 10)).expect("reads");
        let fire = FireTimers {
            node: node(self.node).incarnation,
            now: until,
            limit: self.random.below(8) as u32,
            claim_limit: self.random.below(4) as u32,
            versions: self.some_versions(),
        };
        let fired = both!(self, fire_timers(fire.clone())).expect("fires");
        if !fired.claimed.is_empty() {
            self.succeeded("fire");
        }
        if !fired.held.is_empty() {
            self.succeeded("fire-throttled");
        }
        if fired.readied > 0 {
            self.succeeded("fire-ready");
        }
    }

    async fn cancel(&mut self) {
        let phase = self.random.one_in(3).then_some(Phase::Limited);
        let Some(run) = self.some_run(phase).await else {
            return;
        };
        let now = self.time();
        if let Ok(Commanded::Done(_)) = both!(self, cancel(run.id, now)) {
            self.succeeded("cancel");
            self.left(&run);
        }
    }

    /// Something was done to a run that may have waited in a throttle's line.
    fn left(&mut self, run: &Run) {
        if run.state.phase == Some(Phase::Limited) {
            self.succeeded("throttle-left");
        }
    }

    async fn wake(&mut self) {
        match self.random.below(6) {
            0 => return self.ask_version().await,
            1 => return self.wake_to_restart().await,
            _ => {}
        }
        let phases = [
            None,
            Some(Phase::Sleeping),
            Some(Phase::Waiting),
            Some(Phase::Executing),
            Some(Phase::Blocked),
            Some(Phase::Limited),
        ];
        let phase = phases[self.random.below(6) as usize];
        let Some(run) = self.some_run(phase).await else {
            return;
        };
        let open = self.open_operations(run.id).await;
        let operation = match self.random.below(4) {
            0 => None,
            1 => Some(self.random.below(10) as u32),
            _ => self.random.pick(&open).copied(),
        };
        let now = self.time();
        if let Ok(Commanded::Done(_)) = both!(self, wake(run.id, operation, now)) {
            let kind = if operation.is_some() {
                "wake-completes"
            } else {
                "wake"
            };
            self.succeeded(kind);
            self.left(&run);
        }
    }

    async fn signal(&mut self) {
        let signal = format!("signal {}", self.random.below(3));
        let (data, now) = (self.payload(), self.time());
        if both!(self, signal(&signal, data.clone(), now))
            .expect("answers")
            .is_some()
        {
            self.succeeded("signal");
        }
    }

    async fn orphans(&mut self) {
        let (limit, now) = (1 + self.random.below(3) as u32, self.time());
        // Left to chance, hardly any run ends before those that it has invoked.
        let all = RunFilter {
            limit: 200,
            ..RunFilter::default()
        };
        let mut runs = both!(self, runs(all.clone())).expect("lists");
        runs.retain(|run| !run.state.status.is_terminal());
        let parents: Vec<RunId> = runs.iter().filter_map(|run| run.parent).collect();
        if let Some(parent) = self.random.pick(&parents).copied() {
            both!(self, cancel(parent, now)).expect("answers");
        }
        let orphans = both!(self, cancel_orphans(limit, now)).expect("answers");
        if !orphans.cancelled.is_empty() {
            self.succeeded("orphan");
        }
    }

    async fn unblock(&mut self) {
        if self.random.one_in(2) {
            return self.retry_unreadable().await;
        }
        let module = MODULES[self.random.below(2) as usize];
        let now = self.time();
        if both!(self, unblock(module, now)).expect("unblocks") > 0 {
            self.succeeded("unblock");
        }
    }

    async fn retry_unreadable(&mut self) {
        let release = format!("0.{}.0", self.random.below(3));
        let (limit, now) = (1 + self.random.below(3) as u32, self.time());
        if both!(self, retry_unreadable(&release, limit, now)).expect("tries again") > 0 {
            self.succeeded("retry-unreadable");
        }
    }

    async fn registry(&mut self) {
        let now = self.time();
        let module = MODULES[self.random.below(2) as usize];
        let number = self.random.below(5);
        let digest = digest(number);
        let activate = self.random.one_in(2);
        let policy = self.policy();
        match self.random.below(3) {
            0 => {
                let version = NewVersion {
                    policy,
                    ..slotting::numbered(module, number, activate, now)
                };
                both!(self, put_version(version.clone())).expect("stores");
                self.succeeded("put-version");
            }
            1 => {
                if let Changed::Done(_) = both!(self, activate(module, digest, policy, now)).expect("answers")
                {
                    self.succeeded("activate");
                }
            }
            _ => {
                if let Changed::Done(_) = both!(self, delete_version(module, digest)).expect("answers") {
                    self.succeeded("delete-version");
                }
            }
        }
        // Runs are made of the first two versions: they stay.
        for (number, module) in MODULES.into_iter().enumerate() {
            let version = slotting::numbered(module, number as u64, false, now);
            both!(self, put_version(version.clone())).expect("stores");
        }
        self.generation = both!(self, registry()).expect("reads").generation;
    }

    async fn config(&mut self) {
        let document = json(&format!("{{\"a\":{}}}", self.random.below(9)));
        let now = self.time();
        let revision = both!(self, put_config(document.clone(), now)).expect("stores");
        both!(self, config(revision)).expect("reads").expect("is there");
        self.succeeded("config");
    }

    /// A time of the last twenty seconds.
    fn earlier(&mut self) -> Timestamp {
        at(self.now - self.random.below(20_000) as i64)
    }

    async fn prune(&mut self) {
        let now = self.time();
        both!(self, probe(now)).expect("writes");
        self.succeeded("probe");
        let before = self.earlier();
        let limit = self.random.below(30) as u32;
        if both!(self, prune(before, limit)).expect("prunes") > 0 {
            self.succeeded("prune");
        }
    }
}
