//! What a run invokes: the child and its event are in the commit of the entry that invokes, and the wait for its end too.
//!
//! Exactly once: whoever finds the entry finds the child. Its id follows from the entry. Whether there is such a function
//! is decided in the moment of the commit; if not, the wait is for nothing. Absent on purpose: the child's end, which
//! completes the step in the store, and cancelling it, which the scheduler does for all that are given up.

use dormouse_core::invoke::{self, Caller, Invoke, OnCancel};
use dormouse_core::system;
use dormouse_core::{Failure, Json, Seq, Timestamp};
use dormouse_store::ingest::Ingest;
use dormouse_store::wait::{ChildWait, NewWait, WaitOn};

use super::leg::LegHost;
use crate::registry::Snapshot;
use crate::router::{self, Invoked};

/// An invoke whose entry is not durable.
pub(super) struct Invoking {
    operation: Seq,
    asked: Invoke,
}

impl LegHost {
    /// What an entry invokes.
    pub(super) fn read_invoke(&self, operation: Seq, input: &Json, at: Timestamp) -> Result<Invoke, Failure> {
        let caller = Caller {
            run: self.run.id,
            function: &self.run.function,
            depth: self.run.depth,
        };
        Invoke::read(input, caller, operation, at)
    }

    /// A new entry invokes: it is kept for its commit. What is wrong with it is its result.
    pub(super) fn invoke(&mut self, operation: Seq, input: &Json, at: Timestamp) {
        if let Ok(asked) = self.read_invoke(operation, input, at) {
            self.invoking.push(Invoking { operation, asked });
        }
    }

    /// Adds the children to what the next commit carries, and their waits. One that was given up meanwhile is not begun,
    /// unless it is to go on alone.
    pub(super) fn carry_children(&self, ingest: &mut Ingest, waits: &mut Vec<NewWait>, snapshot: &Snapshot) {
        for Invoking { operation, asked } in &self.invoking {
            let open = self.replay.is_open(*operation);
            if !open && asked.on_cancel == OnCancel::Cancel {
                continue;
            }
            let on = match snapshot.function(&asked.function) {
                Some((version, _)) => {
                    let invoked = Invoked {
                        run: asked.child,
                        function: &asked.function,
                        version,
                        event_id: asked.event_id,
                        event: &asked.event,
                        parent: self.run.id,
                        depth: self.run.depth + 1,
                        // What listens would otherwise hear of itself, for ever.
                        told: !system::listens(&self.run.function, &self.run.event),
                    };
                    router::add_invoked(&self.worker.registry, snapshot, ingest, invoked);
                    WaitOn::Child(ChildWait {
                        child: asked.child,
                        cancels: asked.on_cancel == OnCancel::Cancel,
                    })
                }
                None => WaitOn::Nothing(invoke::not_found(&asked.function)),
            };
            if open {
                waits.push(NewWait {
                    operation: *operation,
                    on,
                });
            }
        }
    }
}
