//! The runs this node drives or keeps parked, and the mail to each.
//!
//! A run has at most one task. Mail that comes while the task is on its way out is not lost: leaving the table and
//! looking into the mailbox happen under one lock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use dormouse_core::RunId;
use dormouse_engine::Interrupt;
use dormouse_store::schedule::ClaimedRun;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Slot;

/// For how long an open body may go on after its run was cancelled.
const CANCEL_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// What a run's task is told.
pub(crate) enum Mail {
    /// The run is leased to this node again: go on.
    Claimed(Box<ClaimedRun>, Slot),
    /// The run was cancelled.
    Cancelled,
    /// The node is shutting down.
    Drain,
}

/// A task's end of it.
pub(crate) struct Mailbox {
    pub(crate) receiver: UnboundedReceiver<Mail>,
    /// Ends the guest wherever it is.
    pub(crate) interrupt: Interrupt,
}

struct Resident {
    /// The epoch under which it was last claimed.
    epoch: i64,
    sender: UnboundedSender<Mail>,
    interrupt: Interrupt,
}

/// The table.
#[derive(Default)]
pub(crate) struct Table(Mutex<HashMap<RunId, Resident>>);

impl Table {
    /// Gives a claimed run to its task, or back with a new mailbox when it has none.
    pub(crate) fn deliver(
        &self,
        id: RunId,
        run: Box<ClaimedRun>,
        slot: Slot,
    ) -> Option<(Box<ClaimedRun>, Slot, Mailbox)> {
        let mut residents = self.lock();
        let epoch = run.epoch;
        let (run, slot) = match residents.get_mut(&id) {
            Some(resident) => {
                resident.epoch = epoch;
                match resident.sender.send(Mail::Claimed(run, slot)) {
                    Ok(()) => return None,
                    // The task has died without leaving (a panic): another takes its place.
                    Err(lost) => match lost.0 {
                        Mail::Claimed(run, slot) => (run, slot),
                        Mail::Cancelled | Mail::Drain => return None,
                    },
                }
            }
            None => (run, slot),
        };
        let (sender, receiver) = unbounded_channel();
        let interrupt = Interrupt::new();
        residents.insert(
            id,
            Resident {
                epoch,
                sender,
                interrupt: interrupt.clone(),
            },
        );
        Some((run, slot, Mailbox { receiver, interrupt }))
    }

    /// A task wants to leave. If a claim has come in for it, it gets that and stays.
    pub(crate) fn leave(&self, id: RunId, mailbox: &mut Mailbox) -> Option<(Box<ClaimedRun>, Slot)> {
        let mut residents = self.lock();
        while let Ok(mail) = mailbox.receiver.try_recv() {
            if let Mail::Claimed(run, slot) = mail {
                return Some((run, slot));
            }
        }
        residents.remove(&id);
        None
    }

    /// Tells a run's task that the run was cancelled; a guest that does not come to a call is ended after a grace.
    pub(crate) fn cancel(&self, id: RunId) {
        let residents = self.lock();
        if let Some(resident) = residents.get(&id) {
            // A task on its way out needs no telling.
            let _ = resident.sender.send(Mail::Cancelled);
            let interrupt = resident.interrupt.clone();
            tokio::spawn(async move {
                tokio::time::sleep(CANCEL_GRACE).await;
                interrupt.trap_now();
            });
        }
    }

    /// As [`Table::cancel`], unless the run has been claimed anew since.
    pub(super) fn cancel_lease(&self, id: RunId, epoch: i64) {
        let still = self
            .lock()
            .get(&id)
            .is_some_and(|resident| resident.epoch == epoch);
        if still {
            self.cancel(id);
        }
    }

    /// The runs with a task here, each with the epoch under which it was last claimed.
    pub(super) fn leases(&self) -> Vec<(RunId, i64)> {
        self.lock()
            .iter()
            .map(|(run, resident)| (*run, resident.epoch))
            .collect()
    }

    /// Tells all tasks that the node is shutting down.
    pub(crate) fn drain(&self) {
        for resident in self.lock().values() {
            let _ = resident.sender.send(Mail::Drain);
        }
    }

    /// Ends all guests wherever they are. Returns how many tasks there were.
    pub(crate) fn interrupt_all(&self) -> usize {
        let residents = self.lock();
        for resident in residents.values() {
            resident.interrupt.trap_now();
        }
        residents.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Resident>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
