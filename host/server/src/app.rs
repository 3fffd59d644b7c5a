//! The commands: everything that a person or a program may ask of the server, whichever door it comes through.
//!
//! API and pages both call these and nothing else; reads go to the store directly. Absent on purpose: HTTP.

mod cancellations;
mod pausing;
mod reruns;
mod schedules;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dormouse_core::event::{self, Seed};
use dormouse_core::flow::Decision;
use dormouse_core::journal::Entry;
use dormouse_core::run::State;
use dormouse_core::swap::Policy;
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Timestamp, limit};
use dormouse_engine::{Engine, Instances};
use dormouse_store::Store;
use dormouse_store::command::Commanded;
use dormouse_store::ingest::Created;
use dormouse_store::registry::Changed;
use dormouse_store::schedule::Node;
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::feed::{Change, Feed};
use crate::preflight::{Candidate, Preflight, Preflighter};
use crate::problem::Problem;
use crate::registry::{Deployed, Registry};
use crate::router::{Router, SentEvent};
use crate::scheduler::Scheduler;

pub use schedules::ScheduleState;

/// The server's commands. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) router: Router,
    pub(crate) scheduler: Scheduler,
    pub(crate) feed: Feed,
    pub(crate) engine: Engine,
    pub(crate) draining: AtomicBool,
    /// Held by the one preflight that is looking at runs.
    pub(crate) preflights: tokio::sync::Mutex<()>,
}

/// What sending events came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The ids, in the order of the request.
    pub ids: Vec<EventId>,
    /// The runs that were created.
    pub runs: Vec<RunId>,
}

impl App {
    pub(crate) fn new(inner: Inner) -> App {
        App(Arc::new(inner))
    }

    /// The store, for reads.
    pub fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// What changes, as it changes. A receiver that lags misses some; it should then read anew.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.feed.subscribe()
    }

    /// The modules and functions that are active.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Stores events and starts what they trigger; returns once that is durable. All or nothing.
    ///
    /// `texts` holds one JSON object for each event.
    ///
    /// # Errors
    /// The first event that is not valid, with its index in the message; or the store's trouble.
    pub async fn send_events(&self, texts: &[&str], seed: Option<Seed>) -> Result<Sent, Problem> {
        self.accepting()?;
        let now = self.now();
        let mut events = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let id = match seed {
                Some(seed) => seed.id(u32::try_from(index).unwrap_or(u32::MAX)),
                None => self.0.router.new_event_id(now),
            };
            let accepted = event::accept(text, id, now).map_err(|error| {
                let place = if texts.len() > 1 {
                    format!("event {index}: ")
                } else {
                    String::new()
                };
                Problem::new(400, error.code(), format!("{place}{error}"))
            })?;
            // A repeated request repeats its ids: with a seed, the id stands in for one that the sender did not give.
            let dedupe = accepted
                .external_id
                .clone()
                .or_else(|| seed.map(|_| id.to_string()));
            events.push(SentEvent { id, accepted, dedupe });
        }
        let ids = events.iter().map(|event| event.id).collect();
        let app = self.clone();
        let runs = uncancelled(async move {
            let runs = app.0.router.route(events, now).await?;
            Ok(app.0.scheduler.begin(runs))
        })
        .await?;
        Ok(Sent { ids, runs })
    }

    /// Starts a function without a trigger; returns once that is durable.
    ///
    /// # Errors
    /// When there is no such function, the data is not an object, its flow control lets no run start
    /// (`already-started`, `rate-limited`), or the store has trouble.
    pub async fn invoke(&self, function: &FunctionName, data: Json) -> Result<(RunId, EventId), Problem> {
        self.accepting()?;
        let (app, function) = (self.clone(), function.clone());
        uncancelled(async move {
            let runs = app.0.router.invoke(&function, data, app.now()).await?;
            let Some(run) = runs.first() else {
                return Err(Problem::new(500, "internal", "the store created no run"));
            };
            let (id, event) = (run.run.id, run.run.event_id);
            let refused = match run.created {
                Created::Dropped {
                    decision,
                    run: earlier,
                    until,
                } => Some(dropped(&function, decision, earlier, until, app.now())),
                Created::New { .. }
                | Created::Held { .. }
                | Created::Gathered { .. }
                | Created::Duplicate(_) => None,
            };
            app.0.scheduler.begin(runs);
            refused.map_or(Ok((id, event)), Err)
        })
        .await
    }

    /// Ends the wait for a signal with its data. Answers with the run that waited.
    ///
    /// # Errors
    /// `not-found` when nobody waits for it; `invalid-name`; `output-too-large` and `invalid-body`
    /// (nested too deep) for the data.
    pub async fn signal(&self, signal: String, data: Json) -> Result<RunId, Problem> {
        self.accepting()?;
        dormouse_core::operation::check_signal(&signal)
            .map_err(|failure| Problem::new(400, "invalid-name", failure.message))?;
        if data.len() > limit::OUTPUT_BYTES_MAX {
            let (len, most) = (data.len(), limit::OUTPUT_BYTES_MAX);
            let message = format!("the signal's data is {len} bytes, more than the limit of {most}");
            return Err(Problem::new(400, "output-too-large", message));
        }
        let (depth, most) = (data.depth(), limit::JSON_DEPTH_MAX);
        if depth > most {
            let message = format!("the signal's data nests {depth} deep, more than the limit of {most}");
            return Err(Problem::new(400, "invalid-body", message));
        }
        let app = self.clone();
        uncancelled(async move {
            let run = app.0.store.signal(&signal, data, app.now()).await?;
            let run = run.ok_or_else(|| {
                Problem::new(
                    404,
                    "not-found",
                    format!("no run waits for the signal \"{signal}\""),
                )
                .help("a signal is not kept: send it again when the run waits, or send an event")
            })?;
            app.0.feed.run(run);
            Ok(run)
        })
        .await
    }

    /// Ends a run.
    ///
    /// # Errors
    /// `not-found`, or `already-ended` with the run's state.
    pub async fn cancel(&self, run: RunId) -> Result<State, Problem> {
        let app = self.clone();
        uncancelled(async move { app.cancel_now(run).await }).await
    }

    async fn cancel_now(&self, run: RunId) -> Result<State, Problem> {
        let commanded = self.0.store.cancel(run, self.now()).await?;
        self.0.scheduler.cancelled(run);
        self.0.scheduler.orphaned();
        self.0.scheduler.ended();
        self.0.feed.run(run);
        match commanded {
            Commanded::Done(state) => {
                metrics::counter!("dormouse_runs_total", "status" => state.status.as_str()).increment(1);
                self.may_move_up(run).await?;
                Ok(state)
            }
            Commanded::Refused(state) => Err(ended(run, state)),
            Commanded::NotFound => Err(Problem::not_found("run", run)),
        }
    }

    /// A run was taken out of what it waited in: if that was a throttle's line, another may begin earlier, at a time that only
    /// the store knows.
    async fn may_move_up(&self, left: RunId) -> Result<(), Problem> {
        let found = self.0.store.run(left).await?;
        if found.is_some_and(|run| run.started_at.is_none()) {
            self.0.scheduler.look_ahead();
        }
        Ok(())
    }

    /// Ends a run's wait for a time now, or tries a blocked run again.
    ///
    /// # Errors
    /// `not-found`, or `already-ended`, or `nothing-to-wake`.
    pub async fn wake(&self, run: RunId) -> Result<State, Problem> {
        let app = self.clone();
        uncancelled(async move { app.wake_now(run).await }).await
    }

    async fn wake_now(&self, run: RunId) -> Result<State, Problem> {
        let Some(found) = self.0.store.run(run).await? else {
            return Err(Problem::not_found("run", run));
        };
        if found.state.status.is_terminal() {
            return Err(ended(run, found.state));
        }
        let journal = self.0.store.journal(run, found.journal_base).await?;
        let soonest = journal
            .into_iter()
            .filter_map(|record| Entry::decode(record).ok())
            .collect::<Vec<_>>();
        let soonest = dormouse_core::journal::soonest_due(&soonest);
        match self.0.store.wake(run, soonest, self.now()).await? {
            Commanded::Done(state) => {
                self.0.scheduler.nudge();
                self.may_move_up(run).await?;
                self.0.feed.run(run);
                Ok(state)
            }
            Commanded::Refused(state) => Err(Problem::new(
                409,
                "nothing-to-wake",
                format!("run {run} is {} and waits for no time", state.describe()),
            )),
            Commanded::NotFound => Err(Problem::not_found("run", run)),
        }
    }

    /// Uploads a component as a module's new active version. What becomes of runs in flight is the policy's to say; without
    /// one, it is `pin`, or what it was where the version is active already.
    ///
    /// # Errors
    /// The first check it fails; nothing is left behind then.
    pub async fn deploy(
        &self,
        module: &str,
        component: Bytes,
        uploaded_by: &str,
        message: Option<String>,
        policy: Option<Policy>,
    ) -> Result<Deployed, Problem> {
        self.accepting()?;
        let (app, module, uploaded_by) = (self.clone(), module.to_owned(), uploaded_by.to_owned());
        uncancelled(async move {
            let deployed = app
                .0
                .registry
                .deploy(&module, component, &uploaded_by, message, policy, app.now())
                .await?;
            app.activated(&module).await;
            Ok(deployed)
        })
        .await
    }

    /// Finds out what a version would do to up to `sample` of a module's runs in flight. Changes nothing; one at a time on
    /// a node. Dropping the future ends it.
    ///
    /// # Errors
    /// The first check that an upload would fail; `not-found` for a version that the module does not have; the store's
    /// trouble.
    pub async fn preflight(
        &self,
        module: &str,
        candidate: Candidate,
        sample: u32,
    ) -> Result<Preflight, Problem> {
        self.accepting()?;
        let _turn = self.0.preflights.lock().await;
        let preflighter = Preflighter {
            app: self,
            store: &*self.0.store,
            engine: &self.0.engine,
            registry: &self.0.registry,
        };
        preflighter.look(module, candidate, sample).await
    }

    /// Makes a kept version active, with a policy as [`App::deploy`] takes it. Answers with the policy in force, too.
    ///
    /// # Errors
    /// `not-found`, or why it cannot be loaded.
    pub async fn activate(
        &self,
        module: &str,
        version: Digest,
        policy: Option<Policy>,
    ) -> Result<(Changed, Policy), Problem> {
        let (app, module) = (self.clone(), module.to_owned());
        uncancelled(async move {
            let changed = app
                .0
                .registry
                .activate(&module, version, policy, app.now())
                .await?;
            app.activated(&module).await;
            Ok(changed)
        })
        .await
    }

    /// Deletes a version that nothing needs.
    ///
    /// # Errors
    /// `not-found`, `version-active` or `version-needed`.
    pub async fn delete_version(&self, module: &str, version: Digest) -> Result<(), Problem> {
        let (app, module) = (self.clone(), module.to_owned());
        uncancelled(async move { app.0.registry.delete(&module, version).await }).await
    }

    /// Asks a node to drain: it takes in nothing more, hands its runs to the others, and ends. It learns of it with its
    /// next sign of life. `node` is its name or its incarnation, or an unambiguous beginning of either.
    ///
    /// # Errors
    /// `not-found`, or `ambiguous-node` with the nodes that are meant.
    pub async fn drain(&self, node: &str) -> Result<Node, Problem> {
        let nodes = self.0.store.nodes(self.now()).await?;
        let named = |found: &&Node| found.name == node || found.incarnation.to_string() == node;
        let begun = |found: &&Node| {
            !node.is_empty()
                && (found.name.starts_with(node) || found.incarnation.to_string().starts_with(node))
        };
        let mut meant: Vec<&Node> = nodes.iter().filter(named).collect();
        if meant.is_empty() {
            meant = nodes.iter().filter(begun).collect();
        }
        let found = match meant[..] {
            [found] => found,
            [] => {
                return Err(
                    Problem::not_found("node", node).help("`dormouse nodes list` shows the nodes that live")
                );
            }
            _ => {
                let names: Vec<&str> = meant.iter().map(|node| node.name.as_str()).collect();
                let message = format!("\"{node}\" may be {}", names.join(" or "));
                return Err(Problem::new(409, "ambiguous-node", message).help("give more of its name"));
            }
        };
        if !self.0.store.drain(found.incarnation, self.now()).await? {
            return Err(Problem::not_found("node", node).help("it has ended meanwhile"));
        }
        Ok(Node {
            draining: true,
            ..found.clone()
        })
    }

    /// How many instances are in memory.
    pub fn instances(&self) -> Instances {
        self.0.engine.instances()
    }

    /// Whether the server can take work: why not, in words.
    pub async fn ready(&self) -> Result<(), Problem> {
        self.accepting()?;
        self.0.store.probe(self.now()).await.map_err(Problem::from)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(crate) fn accepting(&self) -> Result<(), Problem> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err(Problem {
                retry_after: Some(2),
                ..Problem::new(503, "node-stopping", "this node is shutting down")
            });
        }
        Ok(())
    }

    async fn activated(&self, module: &str) {
        if !self.0.registry.snapshot().listens.is_empty() {
            self.0.scheduler.listens();
        }
        // Each activation tries the blocked runs again; if this fails, the next one or a wake does.
        match self.0.store.unblock(module, self.now()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(module, count, "blocked runs are tried again"),
            Err(error) => tracing::warn!(module, %error, "blocked runs could not be tried again"),
        }
        self.0.scheduler.restarting();
        self.0.scheduler.nudge();
        self.0.feed.registry();
    }
}

/// Does a command to its end even if whoever asked goes away: a run that is created must also begin.
///
/// # Errors
/// The command's, or `internal` when it panicked.
async fn uncancelled<T: Send + 'static>(
    command: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    // Boxed, so that the task holds a pointer: a large future is otherwise copied several times on its way into it.
    match tokio::spawn(Box::pin(command)).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(%error, "a command panicked");
            Err(Problem::internal())
        }
    }
}

/// A function that was asked for by name and may not start.
fn dropped(
    function: &FunctionName,
    decision: Decision,
    earlier: Option<RunId>,
    until: Timestamp,
    now: Timestamp,
) -> Problem {
    let seconds = until.since(now).as_millis().div_ceil(1000);
    let retry_after = u32::try_from(seconds).unwrap_or(u32::MAX);
    match decision {
        Decision::RateLimited => Problem {
            retry_after: Some(retry_after),
            ..Problem::new(
                429,
                "rate-limited",
                format!("{function} may not start before {until}: its rate limit is used up"),
            )
        },
        // What is invoked is never one of several.
        Decision::Idempotent
        | Decision::Duplicate
        | Decision::Debounced
        | Decision::Batched
        | Decision::Cancelled => {
            let run = earlier
                .map(|run| format!(": it started run {run}"))
                .unwrap_or_default();
            Problem::new(
                409,
                "already-started",
                format!("{function} was given the same before{run}"),
            )
        }
    }
}

fn ended(run: RunId, state: State) -> Problem {
    Problem::new(
        409,
        "already-ended",
        format!("run {run} is {} already", state.describe()),
    )
}
