//! Preflight: what a new version of a module would do to the runs in flight, found out by replaying each on it.
//!
//! What holds: nothing is written, leased, logged or counted for a run; no body, request or SQL is executed; one run at a
//! time, and no more than half of one processor. Runs go on meanwhile: the answer is true for the moment each was read.
//! Absent on purpose: the verdicts (`dormouse_core::preflight`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::manifest::Manifest;
use dormouse_core::preflight::{Change, Report, Stand, Verdict, changes};
use dormouse_core::replay::Replay;
use dormouse_core::run::RunError;
use dormouse_core::{Digest, FunctionName, Json, RunId};
use dormouse_engine::{Engine, HttpPolicy, Interrupt, Module};
use dormouse_store::Store;
use dormouse_store::read::BatchEvent;
use dormouse_store::schedule::ClaimedRun;

use crate::app::App;
use crate::config::ModuleGrants;
use crate::problem::Problem;
use crate::registry::{Registry, Unloadable};
use crate::worker::{Probed, all_events, leg_of, probe, replay_of};

/// How many runs are read at once.
const BATCH: usize = 32;
/// After how much processor time there is as long a pause: others go first.
const BURST: Duration = Duration::from_millis(5);

/// The version to look at.
#[derive(Debug, Clone)]
pub enum Candidate {
    /// A component that need not have been uploaded.
    Component(Bytes),
    /// A version that the module has.
    Version(Digest),
}

/// What a preflight came to.
#[derive(Debug, Clone)]
pub struct Preflight {
    /// The module.
    pub module: String,
    /// The version that was looked at.
    pub version: Digest,
    /// The module's active version, if it has one.
    pub active: Option<Digest>,
    /// How many runs of the module were in flight at the start.
    pub in_flight: u64,
    /// Not all of them were looked at.
    pub sampled: bool,
    /// How many ended before they were looked at.
    pub ended: u64,
    /// The verdicts.
    pub report: Report,
    /// How the version's description differs from the active version's.
    pub changes: Vec<Change>,
    /// Whether the version imports HTTP, where that is not as in the active version.
    pub imports_http: Option<bool>,
}

/// What all runs of a preflight share.
pub(crate) struct Preflighter<'a> {
    pub(crate) app: &'a App,
    pub(crate) store: &'a dyn Store,
    pub(crate) engine: &'a Engine,
    pub(crate) registry: &'a Registry,
}

impl Preflighter<'_> {
    /// Looks at up to `sample` of a module's runs in flight.
    pub(crate) async fn look(
        &self,
        module: &str,
        candidate: Candidate,
        sample: u32,
    ) -> Result<Preflight, Problem> {
        let (code, manifest) = match candidate {
            Candidate::Component(component) => self.registry.inspect(module, component).await?,
            Candidate::Version(version) => self.registry.kept(module, version).await?,
        };
        let active = self.registry.snapshot().modules.get(module).cloned();
        let mut preflight = Preflight {
            module: module.to_owned(),
            version: code.digest(),
            active: active.as_ref().map(|active| active.version.digest),
            in_flight: self
                .store
                .versions(module)
                .await?
                .iter()
                .map(|version| version.live_runs)
                .sum(),
            sampled: false,
            ended: 0,
            report: Report::default(),
            changes: Vec::new(),
            imports_http: None,
        };
        if let Some(active) = active {
            preflight.changes = changes(&active.manifest, &manifest);
            if let Some(before) = self
                .load_any(module, active.version.digest, &active.manifest)
                .await
            {
                let (before, after) = (before.imports_http(), code.imports_http());
                preflight.imports_http = (before != after).then_some(after);
            }
        }
        let runs = self.store.in_flight(module, sample).await?;
        preflight.in_flight = preflight.in_flight.max(runs.len() as u64);
        preflight.sampled = runs.len() >= sample as usize && preflight.in_flight > u64::from(sample);
        self.look_at_all(&runs, &code, &manifest, &mut preflight).await?;
        Ok(preflight)
    }

    async fn look_at_all(
        &self,
        runs: &[RunId],
        code: &Module,
        manifest: &Manifest,
        preflight: &mut Preflight,
    ) -> Result<(), Problem> {
        let mut spent = Duration::ZERO;
        for batch in runs.chunks(BATCH) {
            // A node that stops does not wait for it.
            self.app.accepting()?;
            let found = self.store.examine(batch).await?;
            preflight.ended += (batch.len() - found.len()) as u64;
            for run in found {
                let looked = if manifest.function(run.function.function()).is_none() {
                    Some((Verdict::FunctionGone, Vec::new()))
                } else {
                    self.look_at(&run, code, &mut spent).await?
                };
                match looked {
                    Some((verdict, frames)) => {
                        preflight
                            .report
                            .add(run.id, &run.function, run.version, verdict, frames);
                    }
                    None => preflight.ended += 1,
                }
                if spent >= BURST {
                    tokio::time::sleep(spent).await;
                    spent = Duration::ZERO;
                }
            }
        }
        Ok(())
    }

    /// A run's verdict. None: it ended meanwhile.
    async fn look_at(
        &self,
        run: &ClaimedRun,
        code: &Module,
        spent: &mut Duration,
    ) -> Result<Option<(Verdict, Vec<String>)>, Problem> {
        let looked = self.replay(run, code, spent).await?;
        if looked.0.goes_on() {
            return Ok(Some(looked));
        }
        // A run that went on in a fresh journal while it was read is read again: what was read may be of two journals.
        match self.store.examine(&[run.id]).await?.pop() {
            None => Ok(None),
            Some(now) if now.journal_base == run.journal_base => Ok(Some(looked)),
            Some(now) => Ok(Some(self.replay(&now, code, spent).await?)),
        }
    }

    async fn replay(
        &self,
        run: &ClaimedRun,
        code: &Module,
        spent: &mut Duration,
    ) -> Result<(Verdict, Vec<String>), Problem> {
        let fails = |code: &str, message: String| {
            let error = RunError::new(code, message);
            (Verdict::Fails { error }, Vec::new())
        };
        let grants = match self.registry.grants(run.config_revision).await {
            Ok(grants) => Arc::new(grants.module(run.function.module())),
            Err(Unloadable::Store(error)) => return Err(error.into()),
            Err(Unloadable::Version(message)) => return Ok(fails("version-unavailable", message)),
        };
        let http = match HttpPolicy::parse(&grants.http) {
            Ok(http) => http,
            Err(error) => return Ok(fails("version-unavailable", error.to_string())),
        };
        let events = all_events(run, &self.batch(run).await?);
        let records = if run.journal_next == run.journal_base {
            Vec::new()
        } else {
            self.store.journal(run.id, run.journal_base).await?
        };
        let replay = |records| replay_of(run, records);
        let first = match replay(records.clone()) {
            Ok(replay) => replay,
            Err(message) => return Ok(fails("journal-unreadable", message)),
        };
        let new = self
            .probe((run, &events), code, first, &grants, &http, spent)
            .await;
        let own = match &new.stand {
            Stand::Next(_) if run.version == code.digest() => Some(new.stand.clone()),
            Stand::Next(_) => match (
                self.registry.load(&run.function, run.version).await,
                replay(records),
            ) {
                (Ok((own, _)), Ok(replay)) => Some(
                    self.probe((run, &events), &own, replay, &grants, &http, spent)
                        .await
                        .stand,
                ),
                // What the run's own version asks for next is not known then.
                _ => None,
            },
            Stand::Diverged(_) | Stand::Trapped(_) => None,
        };
        Ok((Verdict::of(own.as_ref(), new.stand), new.frames))
    }

    async fn probe(
        &self,
        (run, events): (&ClaimedRun, &Json),
        code: &Module,
        replay: Replay,
        grants: &Arc<ModuleGrants>,
        http: &HttpPolicy,
        spent: &mut Duration,
    ) -> Probed {
        let leg = leg_of((run, events.clone()), code, grants, http, Interrupt::new());
        let probed = probe(self.engine, leg, replay, Arc::clone(grants)).await;
        *spent += probed.cpu;
        probed
    }

    /// The events of the run's batch; none for one of a function that has no batches. It is given what its own version
    /// gave it.
    async fn batch(&self, run: &ClaimedRun) -> Result<Vec<BatchEvent>, Problem> {
        let function = &run.function;
        let own = self.registry.manifest(function.module(), run.version).await.ok();
        let one_event = own.is_some_and(|manifest| {
            let definition = manifest.function(function.function());
            definition.is_some_and(|definition| definition.batch_events.is_none())
        });
        // What the version says that a run has gone over to tells nothing of how it began.
        match one_event && !run.swapped.moved {
            true => Ok(Vec::new()),
            false => Ok(self.store.batch(run.id).await?),
        }
    }

    /// The compiled code of a version, if it can be had.
    async fn load_any(&self, module: &str, version: Digest, manifest: &Manifest) -> Option<Module> {
        let function = manifest.functions.first()?;
        let name = FunctionName::new(module, &function.id).ok()?;
        Some(self.registry.load(&name, version).await.ok()?.0)
    }
}
