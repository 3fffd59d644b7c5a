//! From the end of a run to the events that tell of it, and to the runs that these start: one commit.
//!
//! Triggers are matched against what is active when the end is told. The handler of a failure is of the version that the
//! failed run was pinned to, as everything else of that run was. Its run's id follows from the failed run, so there is one.

use dormouse_core::system::{Ended, FAILED, Kinds};
use dormouse_core::{Digest, FunctionName, Timestamp};
use dormouse_store::ingest::{Ingest, NewRun};

use super::{SentEvent, started, stored};
use crate::registry::{Registry, Snapshot};

/// Who handles a failure.
pub(crate) struct Handler {
    pub(crate) function: FunctionName,
    pub(crate) version: Digest,
}

/// The events that tell of an end, and the runs that they start on this registry.
pub(crate) fn told(
    registry: &Registry,
    snapshot: &Snapshot,
    ended: &Ended<'_>,
    kinds: Kinds,
    handler: Option<&Handler>,
    now: Timestamp,
) -> Ingest {
    let mut ingest = Ingest {
        events: Vec::new(),
        runs: Vec::new(),
        generation: snapshot.generation,
        now,
    };
    for name in kinds.names() {
        let told = match ended.told(name) {
            Ok(told) => told,
            Err(error) => {
                tracing::error!(run_id = %ended.run, name, %error, "the end of a run cannot be told");
                continue;
            }
        };
        let event = SentEvent {
            id: told.id,
            accepted: told.event,
            dedupe: None,
        };
        let handler = handler.filter(|_| name == FAILED);
        if let Some(Handler { function, version }) = handler {
            let run = started(registry, snapshot, function, *version, &event, now);
            ingest.runs.push(NewRun {
                id: ended.handler(),
                // What would drop it is for what events start: a failure is handled once.
                admission: run.admission.clone().waiting(),
                ..run
            });
        }
        let matching = match told.starts {
            true => snapshot.matching(name, &event.accepted.payload),
            false => Vec::new(),
        };
        for (function, version) in matching {
            if handler.is_none_or(|handler| handler.function != *function) {
                ingest
                    .runs
                    .push(started(registry, snapshot, function, version, &event, now));
            }
        }
        ingest.events.push(stored(&event, now));
    }
    ingest
}
