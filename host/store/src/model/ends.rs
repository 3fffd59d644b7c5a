//! Ends of runs in the model, as far as somebody listens to them.

use dormouse_core::RunId;
use dormouse_core::manifest::Manifest;
use dormouse_core::system::Kinds;

use super::World;
use crate::ends::{Tell, Told, Untold};
use crate::error::{Error, Result};
use crate::wait::WaitOn;

impl World {
    /// What somebody listens to.
    fn listened(&self) -> Kinds {
        let versions = self.versions.iter();
        let manifests = versions.filter_map(|version| Manifest::parse(version.manifest.as_str()).ok());
        manifests.fold(self.awaited, |all, manifest| all.and(manifest.listens()))
    }

    /// What a run waits for is remembered for good.
    pub(super) fn await_ends(&mut self, run: RunId) -> Result<()> {
        let waits = self.of(run)?.waits.values();
        let names = waits.filter_map(|wait| match &wait.on {
            WaitOn::Event(on) => Some(Kinds::named(&on.event)),
            _ => None,
        });
        let kinds = names.fold(Kinds::NONE, Kinds::and);
        self.awaited = self.awaited.and(kinds);
        Ok(())
    }

    /// A run has ended.
    pub(super) fn ended(&mut self, run: RunId) -> Result<()> {
        let kinds = Kinds::of(self.of(run)?.shown.state.status).among(self.listened());
        if !kinds.is_empty() {
            self.ends.insert(run, kinds);
        }
        Ok(())
    }

    pub(super) fn untold(&self, limit: u32) -> Vec<Untold> {
        let ends = self.ends.iter().take(limit as usize);
        ends.map(|(run, kinds)| Untold {
            run: *run,
            kinds: *kinds,
        })
        .collect()
    }

    pub(super) fn tell(&mut self, tell: Tell) -> Result<Told> {
        if tell.ingest.generation != self.generation() {
            return Err(Error::StaleRegistry);
        }
        if !self.ends.contains_key(&tell.run) {
            return Ok(Told::Before);
        }
        let created = self.ingest(tell.ingest)?;
        self.ends.remove(&tell.run);
        Ok(Told::Done(created))
    }
}
