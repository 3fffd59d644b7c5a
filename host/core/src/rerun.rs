//! Where a rerun begins that takes over what an earlier run recorded: which entries are copied, or why none can be.
//!
//! A copied prefix of a journal replays like any other, strictly: the rerun has the same random seed and begins at the same
//! time, so the same code asks for the same things. What is open in the prefix has to be able to end in the new run. Times
//! can; an event, a signal, another run or a request of the host's was asked for by the earlier run and comes to that one.
//! Absent on purpose: copying, and which version the rerun is on.

use serde::Deserialize;

use crate::journal::{Entry, Event, OperationKind, Seq};

/// The step that is the first to be done anew.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum FromStep {
    /// By the number of one of its entries.
    Seq(Seq),
    /// By its name: the first of that name.
    Name(String),
}

/// Why a rerun cannot begin there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The run has not recorded such a step.
    #[error("the run has recorded no such step")]
    NoStep,
    /// Something is open before it that would never end in the new run.
    #[error("{} \"{name}\" (entry {seq}) was begun before it and had not ended, and its result comes to the earlier run alone", .kind.as_str())]
    Open {
        /// What it is.
        kind: OperationKind,
        /// Its name.
        name: String,
        /// Its entry: a rerun can begin there.
        seq: Seq,
    },
}

/// How much of a journal is copied: the number of the first entry that is not.
///
/// # Errors
/// When there is no such step, or a copy of what comes before it could not go on.
pub fn cut(entries: &[Entry], from: &FromStep) -> Result<Seq, Refused> {
    let chosen = entries.iter().find(|entry| match from {
        FromStep::Seq(seq) => entry.seq == *seq && step(entry).is_some(),
        FromStep::Name(name) => step(entry).is_some_and(|step| step.name == *name),
    });
    let chosen = chosen.and_then(step).ok_or(Refused::NoStep)?;
    // A body that was tried several times begins with its first try.
    let first = entries
        .iter()
        .find(|entry| step(entry).as_ref() == Some(&chosen))
        .ok_or(Refused::NoStep)?;
    let before = first.seq;
    let copied = || entries.iter().filter(|entry| entry.seq < before);
    for entry in copied() {
        if let Event::Started { kind, name, .. } = &entry.event
            && !matches!(kind, OperationKind::Sleep | OperationKind::SleepUntil)
            && !copied().any(|later| closes(later) == Some(entry.seq))
        {
            return Err(Refused::Open {
                kind: *kind,
                name: name.clone(),
                seq: entry.seq,
            });
        }
    }
    Ok(before)
}

/// Which step an entry belongs to, if it is one that asks for something.
#[derive(PartialEq)]
struct Step<'e> {
    kind: Option<OperationKind>,
    name: &'e str,
    occurrence: u32,
}

fn step(entry: &Entry) -> Option<Step<'_>> {
    let (kind, name, occurrence) = match &entry.event {
        Event::Step { name, occurrence, .. } | Event::Deferred { name, occurrence, .. } => {
            (None, name, occurrence)
        }
        Event::Started {
            kind,
            name,
            occurrence,
            ..
        } => (Some(*kind), name, occurrence),
        Event::Delivered { .. } | Event::Cancelled { .. } | Event::Tried { .. } => return None,
    };
    Some(Step {
        kind,
        name,
        occurrence: *occurrence,
    })
}

fn closes(entry: &Entry) -> Option<Seq> {
    match entry.event {
        Event::Delivered { operation, .. } | Event::Cancelled { operation } => Some(operation),
        Event::Step { .. } | Event::Deferred { .. } | Event::Started { .. } | Event::Tried { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use crate::json::Json;
    use crate::time::Timestamp;

    fn entry(seq: Seq, event: Event) -> Entry {
        Entry {
            seq,
            at: Timestamp::from_millis(1_000 + i64::from(seq)),
            event,
        }
    }

    fn body(seq: Seq, name: &str, occurrence: u32) -> Entry {
        entry(
            seq,
            Event::Step {
                name: name.to_owned(),
                occurrence,
                attempt: 1,
                started_at: Timestamp::from_millis(1_000),
                outcome: Ok(Json::null()),
            },
        )
    }

    fn deferred(seq: Seq, name: &str) -> Entry {
        entry(
            seq,
            Event::Deferred {
                name: name.to_owned(),
                occurrence: 0,
                attempt: 1,
                started_at: Timestamp::from_millis(1_000),
                failure: Failure::terminal("x", "x"),
                due_at: Timestamp::from_millis(2_000),
            },
        )
    }

    fn started(seq: Seq, kind: OperationKind, name: &str) -> Entry {
        entry(
            seq,
            Event::Started {
                kind,
                name: name.to_owned(),
                occurrence: 0,
                input_hash: 1,
                input: Json::null(),
                due_at: None,
            },
        )
    }

    fn delivered(seq: Seq, operation: Seq) -> Entry {
        entry(
            seq,
            Event::Delivered {
                operation,
                outcome: Ok(Json::null()),
            },
        )
    }

    fn named(name: &str) -> FromStep {
        FromStep::Name(name.to_owned())
    }

    #[test]
    fn a_step_is_found_by_name_or_by_any_of_its_entries_and_begins_with_its_first_try() {
        let entries = [
            body(10, "a", 0),
            deferred(11, "b"),
            delivered(12, 11),
            body(13, "b", 0),
            body(14, "a", 1),
        ];
        for (from, expected) in [
            (named("a"), Ok(10)),
            (named("b"), Ok(11)),
            (FromStep::Seq(11), Ok(11)),
            (FromStep::Seq(13), Ok(11)),
            (FromStep::Seq(14), Ok(14)),
            (FromStep::Seq(12), Err(Refused::NoStep)),
            (FromStep::Seq(9), Err(Refused::NoStep)),
            (FromStep::Seq(15), Err(Refused::NoStep)),
            (named("c"), Err(Refused::NoStep)),
        ] {
            assert_eq!(cut(&entries, &from), expected, "{from:?}");
        }
        assert_eq!(cut(&[], &named("a")), Err(Refused::NoStep));
    }

    #[test]
    fn tries_in_vain_are_copied_with_the_request_they_belong_to() {
        let tried = |seq, operation, attempt| {
            let failure = Failure::new("http-failed", "x");
            let at = Timestamp::from_millis(1_000);
            entry(
                seq,
                Event::Tried {
                    operation,
                    attempt,
                    started_at: at,
                    failure,
                    due_at: at,
                },
            )
        };
        let entries = [
            started(0, OperationKind::Fetch, "get"),
            tried(1, 0, 1),
            body(2, "between", 0),
            tried(3, 0, 2),
            delivered(4, 0),
            body(5, "after", 0),
        ];
        assert_eq!(cut(&entries, &named("after")), Ok(5));
        assert_eq!(cut(&entries, &named("get")), Ok(0));
        assert!(matches!(
            cut(&entries, &named("between")),
            Err(Refused::Open { seq: 0, .. })
        ));
        assert_eq!(cut(&entries, &FromStep::Seq(3)), Err(Refused::NoStep));
    }

    #[test]
    fn what_is_open_before_the_step_must_be_able_to_end() {
        let sleeping = [
            started(0, OperationKind::Sleep, "nap"),
            deferred(1, "a"),
            body(2, "b", 0),
        ];
        assert_eq!(cut(&sleeping, &named("b")), Ok(2));
        for kind in [
            OperationKind::Sql,
            OperationKind::WaitForEvent,
            OperationKind::WaitForSignal,
            OperationKind::Invoke,
            OperationKind::SendEvents,
            OperationKind::Fetch,
            OperationKind::SendSignal,
        ] {
            let open = [
                started(0, kind, "x"),
                body(1, "b", 0),
                delivered(2, 0),
                body(3, "c", 0),
            ];
            let refused = Refused::Open {
                kind,
                name: "x".to_owned(),
                seq: 0,
            };
            assert_eq!(cut(&open, &named("b")), Err(refused), "{kind:?}");
            assert_eq!(cut(&open, &named("x")), Ok(0), "{kind:?}");
            assert_eq!(cut(&open, &named("c")), Ok(3), "it has ended by then");
        }
    }
}
