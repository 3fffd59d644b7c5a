//! What a run waits for that others bring: the wait is a row, in the commit of the entry that opens it.
//!
//! Who brings it completes the operation; the run finds the completion when it next wants to wait. Absent on purpose:
//! matching, which the store does in its commits with what `core::wait` says.

use dormouse_core::journal::OperationKind;
use dormouse_core::operation::{SendSignal, WaitForEvent, WaitForSignal};
use dormouse_core::replay::Open;
use dormouse_core::system::Kinds;
use dormouse_core::{Failure, Json, Seq, Timestamp};
use dormouse_engine::Stop;
use dormouse_store::wait::{NewWait, WaitOn};

use super::leg::LegHost;

/// Whether others bring what an operation waits for.
pub(super) fn is_external(kind: OperationKind) -> bool {
    matches!(
        kind,
        OperationKind::WaitForEvent
            | OperationKind::WaitForSignal
            | OperationKind::Invoke
            // Who had it is known once it is sent.
            | OperationKind::SendSignal
    )
}

impl LegHost {
    /// A commit's events end the waits that it stores too, which is right for what the guest waits for and then sends.
    /// What it sends and then waits for must not share a commit: the wait would see what came before it.
    pub(super) async fn keep_order(&mut self, kind: OperationKind) -> Result<(), Stop> {
        let sends = !self.outgoing.is_empty() || !self.invoking.is_empty();
        let crosses = match kind {
            OperationKind::WaitForEvent => sends,
            OperationKind::WaitForSignal => !self.signalling.is_empty(),
            _ => false,
        };
        if crosses && !self.replay.is_replaying() {
            self.flush().await?;
        }
        Ok(())
    }

    /// A new entry waits for an event: the wait is kept for its commit.
    pub(super) fn wait_for_event(&mut self, operation: Seq, input: &Json, at: Timestamp) {
        if let Ok(asked) = WaitForEvent::read(input, at, &self.run.event) {
            if !Kinds::named(&asked.wait.event).is_empty() {
                self.worker.scheduler.listens();
            }
            self.waits.push(NewWait {
                operation,
                on: WaitOn::Event(asked.wait),
            });
        }
    }

    /// A new entry waits for a signal.
    pub(super) fn wait_for_signal(&mut self, operation: Seq, input: &Json, at: Timestamp) {
        if let Ok(asked) = WaitForSignal::read(input, at) {
            self.waits.push(NewWait {
                operation,
                on: WaitOn::Signal(asked.wait),
            });
        }
    }

    /// What is wrong with a wait, as its result.
    pub(super) fn refused_wait(
        &self,
        kind: OperationKind,
        operation: Seq,
        input: &Json,
        at: Timestamp,
    ) -> Option<Failure> {
        match kind {
            OperationKind::WaitForSignal => WaitForSignal::read(input, at).err(),
            OperationKind::SendSignal => SendSignal::read(input).err(),
            OperationKind::Invoke => self.read_invoke(operation, input, at).err(),
            _ => WaitForEvent::read(input, at, &self.run.event).err(),
        }
    }

    /// The waits that the next commit stores: those that were not given up meanwhile.
    pub(super) fn new_waits(&self) -> Vec<NewWait> {
        let open = |wait: &&NewWait| self.replay.is_open(wait.operation);
        self.waits.iter().filter(open).cloned().collect()
    }
}

/// What an open operation waits for, for a person.
pub(super) fn describe(open: &Open<'_>) -> String {
    #[derive(serde::Deserialize)]
    struct Input {
        event: Option<String>,
        signal: Option<String>,
        function: Option<String>,
    }
    let input: Option<Input> = open.input.and_then(|input| input.read().ok());
    let step = open.name;
    match (open.kind, input) {
        (
            Some(OperationKind::WaitForEvent),
            Some(Input {
                event: Some(event), ..
            }),
        ) => format!("event \"{event}\" (step \"{step}\")"),
        (
            Some(OperationKind::WaitForSignal),
            Some(Input {
                signal: Some(signal), ..
            }),
        ) => format!("signal \"{signal}\" (step \"{step}\")"),
        (
            Some(OperationKind::Invoke),
            Some(Input {
                function: Some(function),
                ..
            }),
        ) => format!("function \"{function}\" (step \"{step}\")"),
        _ => format!("\"{step}\""),
    }
}
