//! Pausing in the model.

use dormouse_core::run::{Event, Phase, Status};
use dormouse_core::{FunctionName, RunId, Timestamp};

use super::World;
use super::run::ModelRun;
use crate::command::Commanded;
use crate::error::Result;
use crate::registry::Changed;

/// The same words as the stores', written down once more.
const PAUSED: &str = "paused: resume it to let it on";

impl ModelRun {
    /// Pauses the run, as a person has asked.
    pub(super) fn hold(&mut self) -> Result<()> {
        self.on(Event::Pause)?;
        self.shown.owner = None;
        self.shown.reason = Some(PAUSED.to_owned());
        (self.to_pause, self.held) = (false, false);
        Ok(())
    }

    /// Pauses a new run for its function.
    pub(super) fn hold_for_function(&mut self) -> Result<()> {
        self.on(Event::Pause)?;
        let function = &self.shown.function;
        self.shown.reason = Some(format!(
            "the function {function} is paused: the run begins when it is resumed"
        ));
        Ok(())
    }

    fn let_on(&mut self, now: Timestamp) -> Result<()> {
        (self.to_pause, self.held) = (false, false);
        let begins = self.shown.queued_at;
        if let Some((throttle, _)) = self.throttle.clone()
            && self.shown.state.status == Status::Scheduled
        {
            let held = throttle.later(begins.max(now));
            self.on(Event::Throttle)?;
            self.shown.reason = Some(held.reason);
            self.shown.queued_at = held.until;
            self.set_due(Some(held.until));
            return Ok(());
        }
        if self.shown.state.status == Status::Scheduled && begins > now {
            self.on(Event::Delay)?;
            self.shown.reason = Some(format!("starts at {begins}"));
            self.set_due(Some(begins));
            return Ok(());
        }
        self.ready(Event::Resume, now)
    }
}

impl World {
    pub(super) fn pause(&mut self, id: RunId) -> Result<Commanded> {
        let waited = self.waiting(&[id]);
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(Commanded::NotFound);
        };
        match run.shown.state.phase {
            None | Some(Phase::Blocked) => return Ok(Commanded::Refused(run.shown.state)),
            Some(Phase::Paused) => {
                run.held = false;
                run.shown.reason = Some(PAUSED.to_owned());
            }
            Some(Phase::Executing) => {
                run.to_pause = true;
                run.shown.reason = Some("will be paused when what it does now is recorded".to_owned());
            }
            Some(_) => run.hold()?,
        }
        let state = run.shown.state;
        self.left(waited, None)?;
        Ok(Commanded::Done(state))
    }

    pub(super) fn resume(&mut self, id: RunId, now: Timestamp) -> Result<Commanded> {
        let Some(run) = self.runs.get_mut(&id) else {
            return Ok(Commanded::NotFound);
        };
        if run.shown.state.phase == Some(Phase::Paused) {
            run.let_on(now)?;
        } else if run.to_pause {
            run.to_pause = false;
            run.shown.reason = None;
        } else {
            return Ok(Commanded::Refused(run.shown.state));
        }
        Ok(Commanded::Done(run.shown.state))
    }

    pub(super) fn pause_function(&mut self, function: &FunctionName) -> Changed {
        let changed = self.paused.insert(function.clone());
        self.function_changed(changed)
    }

    pub(super) fn resume_function(&mut self, function: &FunctionName) -> Changed {
        let changed = self.paused.remove(function);
        self.function_changed(changed)
    }

    fn function_changed(&mut self, changed: bool) -> Changed {
        if !changed {
            return Changed::Unchanged(self.generation());
        }
        self.registry_changes += 1;
        Changed::Done(self.generation())
    }

    pub(super) fn release_held(&mut self, limit: u32, now: Timestamp) -> Result<u32> {
        let free = |run: &&ModelRun| run.held && !self.paused.contains(&run.shown.function);
        let ids: Vec<RunId> = self
            .runs
            .values()
            .filter(free)
            .map(|run| run.shown.id)
            .take(limit as usize)
            .collect();
        for id in &ids {
            self.of(*id)?.let_on(now)?;
        }
        Ok(ids.len() as u32)
    }
}
