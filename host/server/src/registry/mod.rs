//! Modules: uploading them, which version is active, and the compiled code of each version that a run needs.
//!
//! What is active is held in memory as a snapshot with the store's generation; a decision made on an older one is
//! caught when it is committed. Absent on purpose: who may do what, and HTTP.

mod deploy;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use dormouse_core::condition::Condition;
use dormouse_core::cron::Schedule;
use dormouse_core::ending::{self, Ends};
use dormouse_core::flow::{Admission, Plan};
use dormouse_core::manifest::{Function, Manifest};
use dormouse_core::swap;
use dormouse_core::system::Kinds;
use dormouse_core::trigger::{OnEvent, Trigger};
use dormouse_core::{Digest, FunctionName, Json, Timestamp};
use dormouse_engine::{Engine, Module};
use dormouse_store::Store;
use dormouse_store::cron::{NewSchedule, NewSchedules};
use dormouse_store::registry::{Registry as Active, Version};
use tokio::sync::watch;

use crate::config::Grants;

pub use deploy::Deployed;

/// What is active at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The store's generation of it.
    pub generation: i64,
    /// Modules by name.
    pub modules: HashMap<String, ActiveModule>,
    /// Functions that are paused, also those of modules that are not active.
    pub paused: HashSet<FunctionName>,
    /// The events of ends of runs that some active function is for.
    pub listens: Kinds,
    /// Every cron that some active function has, by function and expression.
    pub schedules: Vec<Arc<ActiveSchedule>>,
    /// Every trigger by events that some active function has.
    triggers: Vec<ActiveTrigger>,
    /// The flow control of those functions that have any.
    flow: HashMap<FunctionName, Plan>,
    /// What may end the runs of those functions that say so.
    endings: HashMap<FunctionName, ending::Plan>,
}

/// A trigger: the pattern with its condition, and the function it starts.
#[derive(Debug)]
struct ActiveTrigger {
    trigger: OnEvent,
    condition: Option<Condition>,
    function: FunctionName,
    version: Digest,
}

/// A cron of an active function.
#[derive(Debug)]
pub struct ActiveSchedule {
    /// The function it starts.
    pub function: FunctionName,
    /// The active version.
    pub version: Digest,
    /// The expression, as its trigger has it.
    pub cron: String,
    /// What the trigger says.
    pub schedule: Schedule,
    /// Since when the version is active: a schedule that is new begins there.
    pub since: Timestamp,
}

/// A module's active version.
#[derive(Debug, Clone)]
pub struct ActiveModule {
    /// The version.
    pub version: Version,
    /// Its manifest, read.
    pub manifest: Arc<Manifest>,
}

impl Snapshot {
    /// The functions that an event starts, each once.
    pub fn matching(&self, name: &str, payload: &Json) -> Vec<(&FunctionName, Digest)> {
        let mut functions: Vec<(&FunctionName, Digest)> = Vec::new();
        // Read for the first condition that asks; most events meet none.
        let mut read: Option<serde_json::Value> = None;
        for active in &self.triggers {
            let holds = |condition: &Condition, read: &mut Option<serde_json::Value>| {
                let event = read.get_or_insert_with(|| payload.read().unwrap_or_default());
                condition.holds(event, None)
            };
            if active.trigger.matches(name)
                && !functions.iter().any(|(seen, _)| **seen == active.function)
                && active
                    .condition
                    .as_ref()
                    .is_none_or(|condition| holds(condition, &mut read))
            {
                functions.push((&active.function, active.version));
            }
        }
        functions
    }

    /// Every active trigger, and how an event stands to it: for whoever asks why an event has started nothing.
    pub fn considered(&self, name: &str, payload: &Json) -> Vec<Considered<'_>> {
        let event = payload.read().unwrap_or_default();
        let consider = |active: &ActiveTrigger| {
            let holds = |condition: &Condition| condition.holds(&event, None);
            if !active.trigger.matches(name) {
                Match::OtherName
            } else if active.condition.as_ref().is_none_or(holds) {
                Match::Holds
            } else {
                Match::ConditionFalse
            }
        };
        let considered = self.triggers.iter().map(|active| Considered {
            function: &active.function,
            trigger: &active.trigger,
            matched: consider(active),
            activated_at: self
                .modules
                .get(active.function.module())
                .and_then(|module| module.version.activated_at),
        });
        considered.collect()
    }

    /// What an event has to pass before it starts a run of a function.
    pub fn admission(&self, function: &FunctionName, payload: &Json) -> Admission {
        match self.flow.get(function) {
            Some(plan) => plan.admission(&payload.read().unwrap_or_default()),
            None => Admission::default(),
        }
    }

    /// What may end a run of a function that is created now, for an event.
    pub fn ends(&self, function: &FunctionName, payload: &Json, start_at: Timestamp, now: Timestamp) -> Ends {
        match self.endings.get(function) {
            Some(plan) => plan.ends(&payload.read().unwrap_or_default(), start_at, now),
            None => Ends::default(),
        }
    }

    /// The active version of a function's module, if it has that function.
    pub fn function(&self, name: &FunctionName) -> Option<(Digest, &Function)> {
        let module = self.modules.get(name.module())?;
        Some((module.version.digest, module.manifest.function(name.function())?))
    }

    /// What a function's module says of runs in flight of its other versions.
    pub fn active(&self, name: &FunctionName) -> Option<swap::Active> {
        let module = self.modules.get(name.module())?;
        Some(swap::Active {
            version: module.version.digest,
            policy: module.version.policy,
            has_function: module.manifest.function(name.function()).is_some(),
        })
    }

    /// What the store should have of schedules.
    pub(crate) fn wanted_schedules(&self) -> NewSchedules {
        let mut modules: Vec<String> = self.modules.keys().cloned().collect();
        modules.sort_unstable();
        let schedules = self.schedules.iter().map(|active| NewSchedule {
            function: active.function.clone(),
            cron: active.cron.clone(),
            next: active.schedule.next(active.since),
        });
        NewSchedules {
            modules,
            schedules: schedules.collect(),
            generation: self.generation,
        }
    }

    fn new(active: Active) -> Snapshot {
        let mut snapshot = Snapshot {
            generation: active.generation,
            paused: active.paused.into_iter().collect(),
            ..Snapshot::default()
        };
        for version in active.active {
            let manifest = match Manifest::parse(version.manifest.as_str()) {
                Ok(manifest) => Arc::new(manifest),
                // It was checked at upload; a release that no longer reads it must say so and go on with the others.
                Err(error) => {
                    tracing::error!(module = version.module, %error, "an active version's manifest cannot be read");
                    continue;
                }
            };
            snapshot.listens = snapshot.listens.and(manifest.listens());
            for function in &manifest.functions {
                let Ok(name) = FunctionName::new(&version.module, &function.id) else {
                    continue;
                };
                // It was checked at upload, as the triggers were.
                if let Ok(plan) = Plan::compile(function)
                    && !plan.is_empty()
                {
                    snapshot.flow.insert(name.clone(), plan);
                }
                if let Ok(plan) = ending::Plan::compile(function)
                    && !plan.is_empty()
                {
                    snapshot.endings.insert(name.clone(), plan);
                }
                for trigger in &function.triggers {
                    // It was checked at upload, as the manifest was when it was read just now.
                    match trigger {
                        Trigger::Event(trigger) => {
                            let Ok(condition) = trigger.compile() else {
                                continue;
                            };
                            snapshot.triggers.push(ActiveTrigger {
                                trigger: trigger.clone(),
                                condition,
                                function: name.clone(),
                                version: version.digest,
                            });
                        }
                        Trigger::Cron(trigger) => {
                            let Ok(schedule) = Schedule::compile(&name, trigger) else {
                                continue;
                            };
                            snapshot.schedules.push(Arc::new(ActiveSchedule {
                                function: name.clone(),
                                version: version.digest,
                                cron: trigger.cron.clone(),
                                schedule,
                                since: version.activated_at.unwrap_or_default(),
                            }));
                        }
                    }
                }
            }
            snapshot
                .modules
                .insert(version.module.clone(), ActiveModule { version, manifest });
        }
        let key = |active: &Arc<ActiveSchedule>| (active.function.clone(), active.cron.clone());
        snapshot.schedules.sort_by_cached_key(key);
        snapshot
    }
}

/// How an event stands to a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The trigger is for events of other names.
    OtherName,
    /// The name fits, and the condition is not true.
    ConditionFalse,
    /// It starts the function, unless something else keeps it.
    Holds,
}

/// A trigger that was considered for an event.
#[derive(Debug)]
pub struct Considered<'a> {
    /// The function.
    pub function: &'a FunctionName,
    /// The trigger.
    pub trigger: &'a OnEvent,
    /// How the event stands to it.
    pub matched: Match,
    /// Since when the version is active that has it.
    pub activated_at: Option<Timestamp>,
}

/// All that is known of modules.
pub struct Registry {
    store: Arc<dyn Store>,
    engine: Engine,
    snapshot: RwLock<Arc<Snapshot>>,
    /// The snapshot's generation, for those who wait for another.
    generation: watch::Sender<i64>,
    /// Manifests of versions that runs are pinned to.
    manifests: Mutex<HashMap<(String, Digest), Arc<Manifest>>>,
    loaded: Mutex<HashMap<Digest, Module>>,
    /// Versions that don't load here: their runs are taken all the same, to be told why.
    unloadable: Mutex<HashSet<Digest>>,
    /// Versions that are being loaded because runs of them wait.
    wanted: Mutex<HashSet<Digest>>,
    grants: RwLock<Current>,
    revisions: Mutex<HashMap<i64, Arc<Grants>>>,
    /// One change at a time: an upload is checked against what it replaces.
    changing: tokio::sync::Mutex<()>,
}

/// The grants in force.
struct Current {
    revision: i64,
    grants: Arc<Grants>,
}

/// Why a version cannot be run.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unloadable {
    /// The store has trouble: try again.
    #[error(transparent)]
    Store(#[from] dormouse_store::Error),
    /// It is not there, or does not compile here: a person must look.
    #[error("{0}")]
    Version(String),
}

impl Registry {
    pub(crate) fn new(store: Arc<dyn Store>, engine: Engine) -> Registry {
        Registry {
            store,
            engine,
            snapshot: RwLock::default(),
            generation: watch::Sender::new(0),
            manifests: Mutex::default(),
            loaded: Mutex::default(),
            unloadable: Mutex::default(),
            wanted: Mutex::default(),
            grants: RwLock::new(Current {
                revision: 0,
                grants: Arc::default(),
            }),
            revisions: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// What is active now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads anew what is active.
    pub(crate) async fn refresh(&self) -> Result<Arc<Snapshot>, dormouse_store::Error> {
        let fresh = Arc::new(Snapshot::new(self.store.registry().await?));
        let mut snapshot = self.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if fresh.generation >= snapshot.generation {
            *snapshot = Arc::clone(&fresh);
            self.generation.send_if_modified(|generation| {
                let moved = *generation != fresh.generation;
                *generation = fresh.generation;
                moved
            });
        }
        Ok(Arc::clone(&snapshot))
    }

    /// Moves when something else is active than before, or paused.
    pub(crate) fn generations(&self) -> watch::Receiver<i64> {
        self.generation.subscribe()
    }

    /// The revision that new runs keep.
    pub(crate) fn revision(&self) -> i64 {
        self.grants
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .revision
    }

    /// The grants in force.
    pub(crate) fn current_grants(&self) -> Arc<Grants> {
        Arc::clone(&self.grants.read().unwrap_or_else(PoisonError::into_inner).grants)
    }

    /// Puts grants in force for new runs.
    pub(crate) async fn put_grants(
        &self,
        grants: Grants,
        now: dormouse_core::Timestamp,
    ) -> Result<(), dormouse_store::Error> {
        let document =
            Json::from_value(&grants).map_err(|error| dormouse_store::Error::Corrupt(error.to_string()))?;
        let revision = self.store.put_config(document, now).await?;
        let grants = Arc::new(grants);
        lock(&self.revisions).insert(revision, Arc::clone(&grants));
        *self.grants.write().unwrap_or_else(PoisonError::into_inner) = Current { revision, grants };
        Ok(())
    }

    /// The grants of a revision.
    pub(crate) async fn grants(&self, revision: i64) -> Result<Arc<Grants>, Unloadable> {
        if let Some(grants) = lock(&self.revisions).get(&revision) {
            return Ok(Arc::clone(grants));
        }
        let document = self.store.config(revision).await?;
        let document = document
            .ok_or_else(|| Unloadable::Version(format!("configuration revision {revision} is gone")))?;
        let grants: Grants = document
            .read()
            .map_err(|error| Unloadable::Version(format!("configuration revision {revision}: {error}")))?;
        let grants = Arc::new(grants);
        lock(&self.revisions).insert(revision, Arc::clone(&grants));
        Ok(grants)
    }

    /// The compiled code and the definition of a function in a version.
    pub(crate) async fn load(
        &self,
        function: &FunctionName,
        version: Digest,
    ) -> Result<(Module, Function), Unloadable> {
        let manifest = self.manifest(function.module(), version).await?;
        let definition = manifest.function(function.function()).cloned().ok_or_else(|| {
            Unloadable::Version(format!(
                "version {} has no function \"{}\"",
                version.short(),
                function.function()
            ))
        })?;
        Ok((self.code(version).await?, definition))
    }

    /// The compiled code of a version.
    async fn code(&self, version: Digest) -> Result<Module, Unloadable> {
        if let Some(module) = lock(&self.loaded).get(&version) {
            return Ok(module.clone());
        }
        let store = Arc::clone(&self.store);
        // A store that has trouble is not a version that is gone: that would block the run.
        let trouble = Arc::new(Mutex::new(None));
        let told = Arc::clone(&trouble);
        let fetch = move || async move {
            match store.component(version).await {
                Ok(Some(bytes)) => Ok(Bytes::from(bytes)),
                Ok(None) => Err(format!("the component {version} is not in the store")),
                Err(error) => {
                    let message = error.to_string();
                    *lock(&told) = Some(error);
                    Err(message)
                }
            }
        };
        let module = self.engine.load_cached(version, fetch).await;
        let module = module.map_err(|error| match lock(&trouble).take() {
            Some(trouble) => Unloadable::Store(trouble),
            None => {
                lock(&self.unloadable).insert(version);
                Unloadable::Version(format!("version {} cannot be loaded: {error}", version.short()))
            }
        })?;
        lock(&self.unloadable).remove(&version);
        lock(&self.loaded).insert(version, module.clone());
        Ok(module)
    }

    /// The versions whose runs may come here: they are loaded, or are known not to load.
    pub(crate) fn known(&self) -> Arc<[Digest]> {
        let mut known: Vec<Digest> = lock(&self.loaded).keys().copied().collect();
        known.extend(lock(&self.unloadable).iter());
        known.into()
    }

    /// Whether a version is one of them.
    pub(crate) fn knows(&self, version: Digest) -> bool {
        lock(&self.loaded).contains_key(&version) || lock(&self.unloadable).contains(&version)
    }

    /// Loads a version whose runs wait, unless that is under way. True: there is something new to know of it.
    pub(crate) async fn learn(&self, version: Digest) -> bool {
        if !lock(&self.wanted).insert(version) {
            return false;
        }
        let code = self.code(version).await;
        lock(&self.wanted).remove(&version);
        match code {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%version, %error, "a version whose runs wait is not loaded");
                matches!(error, Unloadable::Version(_))
            }
        }
    }

    /// Loads every active version that is not loaded: another node may have compiled it, and runs of it come here too.
    pub(crate) async fn preload(&self) {
        for (module, active) in &self.snapshot().modules {
            let Some(function) = active.manifest.functions.first() else {
                continue;
            };
            let Ok(name) = FunctionName::new(module, &function.id) else {
                continue;
            };
            if let Err(error) = self.load(&name, active.version.digest).await {
                tracing::warn!(module, version = %active.version.digest, %error, "an active version is not loaded");
            }
        }
    }

    pub(crate) async fn manifest(&self, module: &str, version: Digest) -> Result<Arc<Manifest>, Unloadable> {
        if let Some(active) = self.snapshot().modules.get(module)
            && active.version.digest == version
        {
            return Ok(Arc::clone(&active.manifest));
        }
        let key = (module.to_owned(), version);
        if let Some(manifest) = lock(&self.manifests).get(&key) {
            return Ok(Arc::clone(manifest));
        }
        let stored = self.store.version(module, version).await?;
        let stored = stored.ok_or_else(|| {
            Unloadable::Version(format!(
                "module \"{module}\" has no version {}: it was deleted",
                version.short()
            ))
        })?;
        let manifest = Manifest::parse(stored.manifest.as_str())
            .map_err(|error| Unloadable::Version(format!("version {}: {error}", version.short())))?;
        let manifest = Arc::new(manifest);
        lock(&self.manifests).insert(key, Arc::clone(&manifest));
        Ok(manifest)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
