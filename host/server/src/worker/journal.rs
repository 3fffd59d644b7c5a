//! A leg's way to the store: loading the journal, appending to it, and what to do when either has trouble.

use dormouse_core::Entry;
use dormouse_core::journal::Record;
use dormouse_core::limit;
use dormouse_core::replay::Replay;
use dormouse_core::run::RunError;
use dormouse_engine::Stop;
use dormouse_store::Error;
use dormouse_store::command::unreadable;
use dormouse_store::execute::{Append, Appended, Then};
use dormouse_store::schedule::ClaimedRun;

use super::Worker;
use super::leg::{Ending, LegHost};

/// A run's stored journal as a replay machine.
pub(crate) fn replay_of(run: &ClaimedRun, records: Vec<Record>) -> Result<Replay, String> {
    let entries: Result<Vec<Entry>, _> = records.into_iter().map(Entry::decode).collect();
    let entries = entries.map_err(|error| error.to_string())?;
    Replay::new(entries, run.journal_base, run.queued_at).map_err(|error| error.to_string())
}

impl Worker {
    /// The run's journal as a replay machine. None when the run was blocked or the node stops.
    pub(super) async fn load_journal(&self, run: &ClaimedRun) -> Option<Replay> {
        let records = if run.journal_next == run.journal_base {
            Vec::new()
        } else {
            loop {
                match self.store.journal(run.id, run.journal_base).await {
                    Ok(records) => break records,
                    // Asking again would not change it.
                    Err(Error::Corrupt(message)) => {
                        self.block_unreadable(run, message).await;
                        return None;
                    }
                    Err(error) => {
                        if !self.pause(&error).await {
                            return None;
                        }
                    }
                }
            }
        };
        match replay_of(run, records) {
            Ok(replay) => Some(replay),
            Err(message) => {
                self.block_unreadable(run, message).await;
                None
            }
        }
    }

    /// What this release cannot read, another may have written: its nodes try for themselves.
    async fn block_unreadable(&self, run: &ClaimedRun, message: String) {
        self.block(run, unreadable(message, self.scheduler.release()))
            .await;
    }
}

impl LegHost {
    /// Makes everything so far durable and moves the run on, in one commit.
    ///
    /// Trouble of the store is waited out, since the run cannot go on without it; a lost lease ends the leg.
    pub(super) async fn append(&mut self, then: Then) -> Result<Appended, Stop> {
        self.append_staying(then, None).await
    }

    /// The same; and, of a run that tries another version, why it stays on its own.
    pub(super) async fn append_staying(
        &mut self,
        then: Then,
        stays: Option<RunError>,
    ) -> Result<Appended, Stop> {
        let records: Vec<_> = self.replay.pending().iter().map(Entry::encode).collect();
        let bytes: usize = records
            .iter()
            .map(|record| {
                record.name.len() + record.meta.len() + record.payload.as_ref().map_or(0, |json| json.len())
            })
            .sum();
        let too_large = self.journal_bytes + bytes as u64 > limit::JOURNAL_BYTES_MAX as u64;
        if too_large && !matches!(then, Then::Fail { .. } | Then::Block { .. }) {
            return Err(self.fail(RunError::new(
                "journal-too-large",
                format!(
                    "the run's journal would be larger than {} bytes: return less from steps, or go on with \
                     continue-with",
                    limit::JOURNAL_BYTES_MAX
                ),
            )));
        }
        let terminal = match &then {
            Then::Complete { .. } => Some("Completed"),
            Then::Fail { .. } => Some("Failed"),
            _ => None,
        };
        let mut append = Append {
            run: self.run.id,
            owner: self.worker.scheduler.node(),
            epoch: self.run.epoch,
            records,
            logs: std::mem::take(&mut self.logs),
            ingest: None,
            waits: Vec::new(),
            signals: self.new_signals(),
            parent: self.run.parent,
            swap: self.swap(&then, stays),
            then,
            now: self.worker.clock.now(),
        };
        let appended = loop {
            (append.ingest, append.waits) = self.carried(append.now);
            match self.worker.store.append(append.clone()).await {
                Ok(appended) => break appended,
                // Modules have changed since it was decided what the events start: decide again.
                Err(Error::StaleRegistry) => {
                    if let Err(error) = self.worker.registry.refresh().await
                        && !self.worker.pause(&error).await
                    {
                        return Err(self.end(Ending::Gone));
                    }
                    if let Some(swap) = &mut append.swap {
                        swap.generation = self.swap_again(swap).await?;
                    }
                }
                // What is on disk is known again after reading it.
                Err(Error::Unknown(_)) => return Err(self.end(Ending::Reload)),
                Err(error) => {
                    if !self.worker.pause(&error).await {
                        return Err(self.end(Ending::Gone));
                    }
                }
            }
        };
        match appended {
            Appended::Lost(why) => {
                tracing::info!(?why, "the lease is gone: what this leg did is discarded");
                Err(self.end(Ending::Gone))
            }
            appended => {
                let paused = appended == Appended::Paused;
                self.replay.committed();
                if let Some(swap) = &append.swap {
                    self.swapped(swap);
                }
                self.waits.clear();
                self.signalling.clear();
                if let Some(ingest) = &append.ingest {
                    self.carried_out(ingest);
                }
                if self.has_invoked && !matches!(append.then, Then::Continue) {
                    self.worker.scheduler.orphaned();
                }
                self.journal_bytes += bytes as u64;
                self.worker.feed.run(self.run.id);
                if paused {
                    tracing::info!("paused");
                    return Err(self.end(Ending::Gone));
                }
                if let Then::Fail { error } | Then::Block { error } = &append.then {
                    tracing::warn!(
                        step = error.step,
                        code = error.code,
                        error = error.message,
                        "run stopped"
                    );
                }
                if let Some(status) = terminal {
                    metrics::counter!("dormouse_runs_total", "status" => status).increment(1);
                    self.worker.scheduler.ended();
                }
                Ok(appended)
            }
        }
    }

    /// Makes everything so far durable before an effect. Free when it is already.
    pub(super) async fn flush(&mut self) -> Result<(), Stop> {
        if self.replay.pending().is_empty() {
            return Ok(());
        }
        self.append(Then::Continue).await.map(|_| ())
    }
}
