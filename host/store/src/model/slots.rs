//! Concurrency limits in the model: what is taken and who waits is looked up among all runs.

use std::collections::BTreeSet;

use dormouse_core::flow::Taken;
use dormouse_core::flow::concurrency::{Scope, declared};
use dormouse_core::run::{Event, Phase};
use dormouse_core::{Digest, FunctionName, RunId, Timestamp};

use super::World;
use super::run::ModelRun;
use crate::error::Result;
use crate::schedule::{Claim, ClaimedBatch};

/// Whose slots, and their name.
type Pool = (Option<FunctionName>, String);

/// What a run needs, each with its limit.
type Asked = Vec<(Pool, Option<u32>)>;

impl ModelRun {
    fn pools(&self) -> Vec<Pool> {
        let pool = |need: &dormouse_core::flow::Need| {
            let function = (need.scope == Scope::Function).then(|| self.shown.function.clone());
            (function, need.name.clone())
        };
        self.needs.iter().map(pool).collect()
    }
}

impl World {
    fn asked(&self, run: &ModelRun) -> Asked {
        let function = &run.shown.function;
        let active = self
            .versions
            .iter()
            .find(|version| version.active && version.module == function.module());
        let limits = active.and_then(|version| {
            declared(version.manifest.as_str())
                .get(function.function())
                .cloned()
        });
        let limit = |need: &dormouse_core::flow::Need| need.limit(limits.as_deref());
        run.pools().into_iter().zip(run.needs.iter().map(limit)).collect()
    }

    /// What executes.
    pub(super) fn taken(&self) -> Taken<Pool> {
        let mut count = std::collections::HashMap::new();
        for run in self.runs.values() {
            if run.shown.state.phase == Some(Phase::Executing) {
                for pool in run.pools() {
                    *count.entry(pool).or_insert(0) += 1;
                }
            }
        }
        let mut taken = Taken::default();
        for (pool, number) in count {
            taken.insert(pool, number);
        }
        taken
    }

    /// Lets those go that wait in lines and for which there is room.
    pub(super) fn serve_lines(
        &mut self,
        taken: &mut Taken<Pool>,
        claim: &Claim,
        batch: &mut ClaimedBatch,
        lacking: &mut BTreeSet<Digest>,
    ) -> Result<()> {
        let lines = self.runs.values().filter_map(|run| {
            let (place, since) = run.line?;
            Some((since, run.shown.id, place))
        });
        let lines: BTreeSet<(Timestamp, RunId, usize)> = lines.collect();
        for (since, id, place) in lines {
            let Some(run) = self.runs.get(&id) else { continue };
            let (asked, version) = (self.asked(run), run.shown.version);
            if !taken.has_room(&asked[place].0, asked[place].1) || batch.claimed.len() >= claim.limit as usize
            {
                continue;
            }
            if claim
                .versions
                .as_ref()
                .is_some_and(|versions| !versions.contains(&version))
            {
                lacking.insert(version);
                continue;
            }
            match taken.take(&asked) {
                Ok(()) => self.lease(taken, &asked, id, claim, batch)?,
                Err(full) => self.line(id, full, since, &asked)?,
            }
        }
        Ok(())
    }

    /// Leases a ready run, or puts it into a line.
    pub(super) fn serve(
        &mut self,
        taken: &mut Taken<Pool>,
        id: RunId,
        claim: &Claim,
        batch: &mut ClaimedBatch,
    ) -> Result<()> {
        let run = self.of(id)?;
        let since = run.due.unwrap_or(claim.now);
        let Some(run) = self.runs.get(&id) else {
            return Ok(());
        };
        let asked = self.asked(run);
        match taken.take(&asked) {
            Ok(()) => self.lease(taken, &asked, id, claim, batch),
            Err(full) => {
                batch.waiting += 1;
                self.of(id)?.on(Event::Limit)?;
                self.line(id, full, since, &asked)
            }
        }
    }

    fn lease(
        &mut self,
        taken: &mut Taken<Pool>,
        asked: &Asked,
        id: RunId,
        claim: &Claim,
        batch: &mut ClaimedBatch,
    ) -> Result<()> {
        if self.of(id)?.claim(claim.node, claim.now)? {
            batch.claimed.push(self.claimed(id)?);
        } else {
            taken.give_back(asked);
            batch.blocked.push(id);
        }
        Ok(())
    }

    fn line(&mut self, id: RunId, place: usize, since: Timestamp, asked: &Asked) -> Result<()> {
        let limit = asked[place].1.unwrap_or_default();
        let run = self.of(id)?;
        run.line = Some((place, since));
        run.shown.reason = Some(run.needs[place].reason(limit));
        Ok(())
    }
}
