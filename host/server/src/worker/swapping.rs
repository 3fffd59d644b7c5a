//! Going over to the active version: which version a run is driven with, and what becomes of it when that is not its own.
//!
//! A leg on another version than the run's own is a *trial*: the journal is replayed on it, and the first thing that it does
//! after that (an entry, a wait, an end) carries the run over, in the same commit. If it asks for something else than is
//! recorded, or is ended before it has done anything, the run stays on its own version, which is kept with the run, and goes
//! on there under the same lease. Which way a run goes is decided by `dormouse_core::swap`.

use dormouse_core::Digest;
use dormouse_core::journal::Event;
use dormouse_core::run::RunError;
use dormouse_core::swap::{Course, course, function_gone, refusal};
use dormouse_engine::Stop;
use dormouse_store::Error;
use dormouse_store::execute::{Append, Appended, Then};
use dormouse_store::schedule::ClaimedRun;
use dormouse_store::swap::NewSwap;

use super::leg::{Ending, LegHost};
use super::{Program, Worker};
use crate::registry::Unloadable;

/// A version that a run tries and has not gone over to yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    /// The version.
    to: Digest,
    /// The registry's generation that this was decided on.
    generation: i64,
}

/// What a run is driven with.
pub(super) struct Chosen {
    pub(super) program: Program,
    /// The program is another version's than the run's own.
    pub(super) trial: Option<Trial>,
    /// The run stays on its own version though it should go over to this one.
    pub(super) refused: Option<Digest>,
}

/// Why a run is not driven.
pub(super) enum NotDriven {
    /// Its own version cannot be run.
    Unloadable(Unloadable),
    /// It is not this node's to drive any more.
    Over,
    /// What is active has changed: it is to be decided again.
    Again,
}

impl From<Error> for NotDriven {
    fn from(error: Error) -> NotDriven {
        NotDriven::Unloadable(error.into())
    }
}

impl Worker {
    /// Decides which version a run is driven with, and loads it.
    pub(super) async fn choose(&self, run: &ClaimedRun) -> Result<Chosen, NotDriven> {
        loop {
            let snapshot = self.registry.snapshot();
            let (to, gone) = match course(run.version, run.asked, snapshot.active(&run.function), |_| false) {
                Course::Stay => return self.own(run, None).await,
                Course::Move(to) => (to, None),
                Course::Restart(to) => return self.begin_anew(run, to, snapshot.generation).await,
                Course::FunctionGone(to) => (to, Some(function_gone(run.function.function(), to))),
            };
            if run.swapped.stayed && refusal(&self.store.swaps(run.id).await?, run.journal_base, to).is_some()
            {
                return self.own(run, Some(to)).await;
            }
            let generation = snapshot.generation;
            let why = match gone {
                Some(why) => why,
                None => match self.try_program(run, to).await {
                    Ok(program) => {
                        return Ok(Chosen {
                            program,
                            trial: Some(Trial { to, generation }),
                            refused: None,
                        });
                    }
                    Err(Unloadable::Store(error)) => return Err(error.into()),
                    Err(Unloadable::Version(message)) => RunError::new("version-unavailable", message),
                },
            };
            match self.stay(run, to, generation, why).await {
                Ok(Appended::Done | Appended::Completions(_)) => return self.own(run, Some(to)).await,
                Ok(Appended::Paused | Appended::Lost(_)) => return Err(NotDriven::Over),
                // Something else is active: it is decided again.
                Err(Error::StaleRegistry) => {
                    self.registry.refresh().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Drops what a run has recorded, and makes it ready on another version: whoever claims it begins at the beginning.
    async fn begin_anew(&self, run: &ClaimedRun, to: Digest, generation: i64) -> Result<Chosen, NotDriven> {
        match self.try_program(run, to).await {
            Ok(_) => {}
            Err(Unloadable::Store(error)) => return Err(error.into()),
            // What is recorded is not dropped for a version that cannot be run here.
            Err(Unloadable::Version(why)) => {
                tracing::error!(%to, why, "the run does not begin again");
                return self.own(run, Some(to)).await;
            }
        }
        let swap = NewSwap {
            module: run.function.module().to_owned(),
            to,
            stays: None,
            generation,
        };
        let append = Append {
            swap: Some(swap),
            ..self.nothing(run, Then::Restart)
        };
        match self.store.append(append).await {
            Ok(appended) => {
                if appended == Appended::Done {
                    metrics::counter!("dormouse_swaps_total", "outcome" => "restarted").increment(1);
                    tracing::info!(%to, "the run begins again on another version");
                }
                self.scheduler.orphaned();
                self.scheduler.nudge();
                self.feed.run(run.id);
                Err(NotDriven::Over)
            }
            // Something else is active: it is decided again.
            Err(Error::StaleRegistry) => {
                self.registry.refresh().await?;
                Err(NotDriven::Again)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn own(&self, run: &ClaimedRun, refused: Option<Digest>) -> Result<Chosen, NotDriven> {
        let program = self.try_program(run, run.version).await;
        Ok(Chosen {
            program: program.map_err(NotDriven::Unloadable)?,
            trial: None,
            refused,
        })
    }

    /// Keeps with a run that it stays on its own version.
    async fn stay(
        &self,
        run: &ClaimedRun,
        to: Digest,
        generation: i64,
        why: RunError,
    ) -> Result<Appended, Error> {
        let swap = NewSwap {
            module: run.function.module().to_owned(),
            to,
            stays: Some(why.clone()),
            generation,
        };
        let append = Append {
            swap: Some(swap),
            ..self.nothing(run, Then::Continue)
        };
        let appended = self.store.append(append).await?;
        if appended == Appended::Done {
            stayed(to, &why);
            self.feed.run(run.id);
        }
        Ok(appended)
    }

    /// Whether a run that is claimed anew would be driven with another version than its own.
    fn goes_over(&self, run: &ClaimedRun, refused: Option<Digest>) -> bool {
        let active = self.registry.snapshot().active(&run.function);
        course(run.version, run.asked, active, |to| refused == Some(to)) != Course::Stay
    }

    /// Whether a run should go over to a version, as far as is known here.
    fn should_go(&self, run: &ClaimedRun, to: Digest) -> bool {
        let active = self.registry.snapshot().active(&run.function);
        matches!(course(run.version, run.asked, active, |_| false), Course::Move(version) | Course::FunctionGone(version) if version == to)
    }
}

fn stayed(to: Digest, why: &RunError) {
    metrics::counter!("dormouse_swaps_total", "outcome" => "stayed").increment(1);
    tracing::warn!(%to, code = why.code, why = why.message, "the run stays on its version");
}

impl LegHost {
    /// Whether another version than the run's own is being tried, and has done nothing yet.
    pub(super) fn is_trial(&self) -> bool {
        self.trial.is_some() && self.replay.pending().is_empty()
    }

    /// Ends the leg when the run is to begin again on another version. Looked at when the registry has changed.
    pub(super) fn check_version(&mut self) -> Result<(), Stop> {
        let generation = self.worker.registry.snapshot().generation;
        if self.generation == generation {
            return Ok(());
        }
        self.generation = generation;
        let active = self.worker.registry.snapshot().active(&self.run.function);
        let refused = |to| self.refused == Some(to);
        match course(self.run.version, self.run.asked, active, refused) {
            Course::Restart(_) => Err(self.end(Ending::Reload)),
            Course::Stay | Course::Move(_) | Course::FunctionGone(_) => Ok(()),
        }
    }

    /// Whether the instance may go on with a run that is claimed anew, as far as versions are concerned.
    pub(super) fn is_still_right(&self, run: &ClaimedRun) -> bool {
        run.version == self.run.version && !self.worker.goes_over(run, self.refused)
    }

    /// What an append says of the run's version. What hands a run back without having done anything says nothing.
    pub(super) fn swap(&self, then: &Then, stays: Option<RunError>) -> Option<NewSwap> {
        let Trial { to, generation } = self.trial?;
        let hands_back = matches!(then, Then::Release { .. } | Then::Continue | Then::Block { .. });
        if stays.is_none() && hands_back && self.replay.pending().is_empty() {
            return None;
        }
        Some(NewSwap {
            module: self.run.function.module().to_owned(),
            to,
            stays,
            generation,
        })
    }

    /// An append with a swap came too late: something else is active, or has been said of what is. Answers with the generation
    /// that it is to be tried with again.
    ///
    /// # Errors
    /// When the run is to be driven with another version than it was.
    pub(super) async fn swap_again(&mut self, swap: &NewSwap) -> Result<i64, Stop> {
        let generation = self.worker.registry.snapshot().generation;
        if self.worker.should_go(&self.run, swap.to) {
            return Ok(generation);
        }
        // A body that was executed is not executed again by another version, if that can be helped.
        let executed = |event: &Event| matches!(event, Event::Step { .. } | Event::Deferred { .. });
        let pending = self.replay.pending();
        if swap.stays.is_none() && pending.iter().any(|entry| executed(&entry.event)) {
            loop {
                match self.worker.store.version(&swap.module, swap.to).await {
                    Ok(Some(_)) => return Ok(generation),
                    Ok(None) => break,
                    Err(error) => {
                        if !self.worker.pause(&error).await {
                            return Err(self.end(Ending::Gone));
                        }
                    }
                }
            }
        }
        Err(self.end(Ending::Reload))
    }

    /// An append with a swap is durable.
    pub(super) fn swapped(&mut self, swap: &NewSwap) {
        self.trial = None;
        self.run.host_traps = 0;
        match &swap.stays {
            Some(why) => {
                self.run.swapped.stayed = true;
                stayed(swap.to, why);
            }
            None => {
                metrics::counter!("dormouse_swaps_total", "outcome" => "moved").increment(1);
                tracing::info!(from = %self.run.version, to = %swap.to, "the run has gone over to another version");
                self.run.version = swap.to;
                self.run.swapped.moved = true;
            }
        }
    }
}
