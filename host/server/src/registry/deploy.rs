//! Uploading a component, activating and deleting versions.
//!
//! The checks come before anything is written: a refused upload leaves nothing behind.

use bytes::Bytes;
use dormouse_core::manifest::Manifest;
use dormouse_core::swap::Policy;
use dormouse_core::{Digest, FunctionName, Json, Timestamp, limit, name};
use dormouse_engine::{LoadError, Module};
use dormouse_store::registry::{Changed, NewVersion};

use super::{Registry, Snapshot, lock};
use crate::problem::Problem;

/// What an upload came to.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The module.
    pub module: String,
    /// The version.
    pub version: Digest,
    /// The module did not have it before.
    pub new: bool,
    /// What becomes of runs in flight of the module's other versions.
    pub policy: Policy,
    /// The version that was active before, when another was.
    pub previous: Option<Digest>,
    /// The functions it has.
    pub manifest: Manifest,
    /// Its size in bytes.
    pub size: u64,
}

impl Registry {
    /// The checks of an upload, in their order. Nothing is written but the cache of compiled code.
    async fn check(&self, module: &str, component: &Bytes) -> Result<(Module, Json, Manifest), Problem> {
        name::check(module)
            .map_err(|error| Problem::new(400, "invalid-name", format!("module name: {error}")))?;
        if component.len() > limit::COMPONENT_BYTES_MAX {
            return Err(Problem::new(
                413,
                "component-too-large",
                format!(
                    "the component is {} bytes, more than the limit of {}",
                    component.len(),
                    limit::COMPONENT_BYTES_MAX
                ),
            ));
        }
        let granted = !self.current_grants().module(module).http.is_empty();
        let admit = |imports_http: bool| match imports_http && !granted {
            true => Err(reaches_no_host(module)),
            false => Ok(()),
        };
        let accept = |described: Json| match Manifest::parse(described.as_str()) {
            Ok(manifest) => Ok((described, manifest)),
            Err(error) => Err(Problem::new(422, "invalid-manifest", error.to_string())),
        };
        let (loaded, (described, manifest)) = self.engine.load_if(component.clone(), admit, accept).await?;
        Ok((loaded, described, manifest))
    }

    /// Checks a component as an upload is checked, and keeps nothing of it.
    pub(crate) async fn inspect(
        &self,
        module: &str,
        component: Bytes,
    ) -> Result<(Module, Manifest), Problem> {
        let (loaded, _, manifest) = self.check(module, &component).await?;
        if self.store.component(loaded.digest()).await?.is_none() {
            self.engine.forget(loaded.digest());
        }
        Ok((loaded, manifest))
    }

    /// The code and the manifest of a version that the module has.
    pub(crate) async fn kept(&self, module: &str, version: Digest) -> Result<(Module, Manifest), Problem> {
        if self.store.version(module, version).await?.is_none() {
            return Err(no_version(module, version));
        }
        let manifest = self
            .manifest(module, version)
            .await
            .map_err(|error| unloadable(&error))?;
        let first = manifest
            .functions
            .first()
            .map(|function| FunctionName::new(module, &function.id));
        let Some(Ok(name)) = first else {
            return Err(no_version(module, version));
        };
        let (loaded, _) = self
            .load(&name, version)
            .await
            .map_err(|error| unloadable(&error))?;
        Ok((loaded, Manifest::clone(&manifest)))
    }

    pub(crate) async fn deploy(
        &self,
        module: &str,
        component: Bytes,
        uploaded_by: &str,
        message: Option<String>,
        policy: Option<Policy>,
        now: Timestamp,
    ) -> Result<Deployed, Problem> {
        let (loaded, described, manifest) = self.check(module, &component).await?;

        let _changing = self.changing.lock().await;
        let digest = loaded.digest();
        let previous = self
            .snapshot()
            .modules
            .get(module)
            .map(|active| active.version.digest);
        self.store.put_component(digest, &component).await?;
        let stored = self
            .store
            .put_version(NewVersion {
                module: module.to_owned(),
                digest,
                manifest: described,
                size: component.len() as u64,
                uploaded_by: uploaded_by.to_owned(),
                message,
                activate: true,
                policy,
                now,
            })
            .await?;
        lock(&self.loaded).insert(digest, loaded);
        let snapshot = self.refresh().await?;
        let policy = policy_of(&snapshot, module, digest)
            .or(policy)
            .unwrap_or_default();
        tracing::info!(module, version = %digest, new = stored.new, policy = policy.as_str(), "deployed");
        Ok(Deployed {
            module: module.to_owned(),
            version: digest,
            new: stored.new,
            policy,
            previous: previous.filter(|previous| *previous != digest),
            manifest,
            size: component.len() as u64,
        })
    }

    pub(crate) async fn activate(
        &self,
        module: &str,
        version: Digest,
        policy: Option<Policy>,
        now: Timestamp,
    ) -> Result<(Changed, Policy), Problem> {
        let _changing = self.changing.lock().await;
        if self.store.version(module, version).await?.is_none() {
            return Err(no_version(module, version));
        }
        // What cannot be loaded must not become active: compile first.
        let manifest = self
            .manifest(module, version)
            .await
            .map_err(|error| unloadable(&error))?;
        if let Some(function) = manifest.functions.first()
            && let Ok(name) = FunctionName::new(module, &function.id)
        {
            self.load(&name, version)
                .await
                .map_err(|error| unloadable(&error))?;
        }
        let changed = self.store.activate(module, version, policy, now).await?;
        if changed == Changed::NotFound {
            return Err(no_version(module, version));
        }
        let snapshot = self.refresh().await?;
        let policy = policy_of(&snapshot, module, version)
            .or(policy)
            .unwrap_or_default();
        tracing::info!(module, %version, policy = policy.as_str(), "activated");
        Ok((changed, policy))
    }

    pub(crate) async fn delete(&self, module: &str, version: Digest) -> Result<(), Problem> {
        let _changing = self.changing.lock().await;
        match self.store.delete_version(module, version).await? {
            Changed::Done(_) | Changed::Unchanged(_) => {}
            Changed::NotFound => return Err(no_version(module, version)),
            Changed::Needed(0) => {
                return Err(Problem::new(
                    409,
                    "version-active",
                    format!("{} is the active version of module \"{module}\"", version.short()),
                )
                .help("activate another version first"));
            }
            Changed::Needed(runs) => {
                return Err(Problem::new(
                    409,
                    "version-needed",
                    format!("{runs} runs in flight are pinned to {}", version.short()),
                )
                .help("wait until they have ended, or cancel them"));
            }
        }
        lock(&self.loaded).remove(&version);
        lock(&self.unloadable).remove(&version);
        lock(&self.manifests).remove(&(module.to_owned(), version));
        self.engine.forget(version);
        self.refresh().await?;
        Ok(())
    }
}

/// The policy that a version is active with; none if another version is active by now.
fn policy_of(snapshot: &Snapshot, module: &str, version: Digest) -> Option<Policy> {
    let active = &snapshot.modules.get(module)?.version;
    (active.digest == version).then_some(active.policy)
}

/// A component that was refused, for the one who uploaded it.
impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Problem {
        let problem = Problem::new(422, error.code(), error.to_string());
        match error.help() {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

/// A component that imports HTTP for a module that may reach nobody.
fn reaches_no_host(module: &str) -> Problem {
    Problem::new(
        422,
        "grant-missing",
        format!("the component imports wasi:http, and module \"{module}\" may reach no host"),
    )
    .help(format!(
        "name the hosts in the server's configuration file and send it SIGHUP: [modules.{module}] http = [\"api.example.com\"]"
    ))
}

fn no_version(module: &str, version: Digest) -> Problem {
    Problem::not_found("version", format!("{version} of module \"{module}\""))
}

fn unloadable(error: &super::Unloadable) -> Problem {
    match error {
        super::Unloadable::Store(error) => Problem::from(error.clone()),
        super::Unloadable::Version(message) => Problem::new(422, "version-unavailable", message.clone()),
    }
}
