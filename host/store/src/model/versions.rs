//! Modules and their versions in the model.

use dormouse_core::run::{Event, Phase, Status};
use dormouse_core::swap::Policy;
use dormouse_core::{Digest, RunId, Timestamp};

use super::World;
use crate::command::Commanded;
use crate::error::{Error, Result};
use crate::registry::{Changed, NewVersion, Registry, Stored, Version};
use crate::swap::{Asked, ToRestart};

impl World {
    pub(super) fn find_version(&self, module: &str, digest: Digest) -> Option<usize> {
        self.versions
            .iter()
            .position(|version| version.module == module && version.digest == digest)
    }

    fn live_runs(&self, version: &Version) -> u64 {
        let live = self.runs.values().map(|run| &run.shown).filter(|run| {
            !run.state.status.is_terminal()
                && run.version == version.digest
                && run.function.module() == version.module
        });
        live.count() as u64
    }

    /// Makes a version active under a policy; false if it was.
    fn set_active(&mut self, index: usize, policy: Option<Policy>, now: Timestamp) -> bool {
        let version = &mut self.versions[index];
        if version.active {
            let changes = policy.is_some_and(|policy| policy != version.policy);
            version.policy = policy.unwrap_or(version.policy);
            return changes;
        }
        let module = self.versions[index].module.clone();
        for version in self
            .versions
            .iter_mut()
            .filter(|version| version.module == module)
        {
            version.active = false;
            version.activated_at = None;
            version.policy = Policy::Pin;
        }
        self.versions[index].active = true;
        self.versions[index].activated_at = Some(now);
        self.versions[index].policy = policy.unwrap_or_default();
        true
    }

    pub(super) fn put_version(&mut self, version: NewVersion) -> Stored {
        let found = self.find_version(&version.module, version.digest);
        let new = found.is_none();
        let index = found.unwrap_or_else(|| {
            self.versions.push(Version {
                module: version.module,
                digest: version.digest,
                manifest: version.manifest,
                size: version.size,
                uploaded_by: version.uploaded_by,
                message: version.message,
                uploaded_at: version.now,
                active: false,
                activated_at: None,
                policy: Policy::Pin,
                live_runs: 0,
            });
            self.versions.len() - 1
        });
        let activated = version.activate && self.set_active(index, version.policy, version.now);
        if new || activated {
            self.registry_changes += 1;
        }
        Stored {
            new,
            activated,
            generation: self.generation(),
        }
    }

    pub(super) fn activate(
        &mut self,
        module: &str,
        digest: Digest,
        policy: Option<Policy>,
        now: Timestamp,
    ) -> Changed {
        let Some(index) = self.find_version(module, digest) else {
            return Changed::NotFound;
        };
        if !self.set_active(index, policy, now) {
            return Changed::Unchanged(self.generation());
        }
        self.registry_changes += 1;
        Changed::Done(self.generation())
    }

    pub(super) fn delete_version(&mut self, module: &str, digest: Digest) -> Changed {
        let Some(index) = self.find_version(module, digest) else {
            return Changed::NotFound;
        };
        if self.versions[index].active {
            return Changed::Needed(0);
        }
        let asked = self.runs.values().map(|run| &run.shown).filter(|run| {
            !run.state.status.is_terminal()
                && run.function.module() == module
                && run.version != digest
                && run.asked == Some(digest)
        });
        let live = self.live_runs(&self.versions[index]) + asked.count() as u64;
        if live > 0 {
            return Changed::Needed(live);
        }
        self.versions.remove(index);
        self.registry_changes += 1;
        Changed::Done(self.generation())
    }

    pub(super) fn ask_version(
        &mut self,
        run: RunId,
        asked: Option<Asked>,
        now: Timestamp,
    ) -> Result<Commanded> {
        let known = |asked: &Asked| self.find_version(&asked.module, asked.version).is_some();
        if !asked.as_ref().is_none_or(known) {
            return Err(Error::StaleRegistry);
        }
        let Some(run) = self.runs.get_mut(&run) else {
            return Ok(Commanded::NotFound);
        };
        match run.shown.state.phase {
            None => return Ok(Commanded::Refused(run.shown.state)),
            Some(Phase::Blocked) => run.unblock(now)?,
            Some(_) => {}
        }
        run.shown.asked = asked.map(|asked| asked.version);
        Ok(Commanded::Done(run.shown.state))
    }

    pub(super) fn wake_to_restart(&mut self, restart: ToRestart) -> Result<u32> {
        let mut count = 0;
        for run in self.runs.values_mut() {
            let shown = &run.shown;
            let rests = matches!(
                shown.state.phase,
                Some(Phase::Sleeping | Phase::Waiting | Phase::BackingOff)
            );
            let meant = rests
                && shown.state.status == Status::Running
                && shown.asked.is_none()
                && shown.version != restart.to
                && shown.function.module() == restart.module
                && restart
                    .functions
                    .iter()
                    .any(|name| name == shown.function.function());
            if meant && count < restart.limit {
                run.ready(Event::Wake, restart.now)?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn registry(&self) -> Registry {
        let mut active: Vec<Version> = self
            .versions
            .iter()
            .filter(|version| version.active)
            .cloned()
            .collect();
        active.sort_by(|a, b| a.module.cmp(&b.module));
        Registry {
            generation: self.generation(),
            active,
            paused: self.paused.iter().cloned().collect(),
        }
    }

    pub(super) fn versions_of(&self, module: &str) -> Vec<Version> {
        let of_module = self.versions.iter().filter(|version| version.module == module);
        let mut versions: Vec<Version> = of_module
            .map(|version| Version {
                live_runs: self.live_runs(version),
                ..version.clone()
            })
            .collect();
        // Uploaded in the same millisecond: by digest, so that the order is one.
        versions.sort_by_key(|version| (std::cmp::Reverse(version.uploaded_at), version.digest));
        versions
    }
}
