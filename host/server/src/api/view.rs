//! What the API and the pages show of a run: the store's row and the journal's entries, put together.
//!
//! Pure: rows in, views out. Absent on purpose: a body that is open right now, which only its node knows; a step is
//! there once its first attempt has ended.

use dormouse_core::journal::{Entry, Event};
use dormouse_core::run::{RunError, State, Status};
use dormouse_core::swap::{Active, Course, Swap, course, function_gone, refusal, writer};
use dormouse_core::{Digest, EventId, Failure, Json, Outcome, RunId, Seq, Timestamp};
use dormouse_store::execute::LogLine;
use dormouse_store::read::{Run, StoredEvent};
use serde::{Deserialize, Serialize};

use super::steps::{BODY, StepView, Steps};

/// A run as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RunView {
    /// Its id.
    pub(crate) run_id: RunId,
    /// `module/function`.
    pub(crate) function_id: String,
    /// The version it is pinned to.
    pub(crate) version: Digest,
    /// The event that started it.
    pub(crate) event_id: EventId,
    /// All events that started it, if it was started by several. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_ids: Option<Vec<EventId>>,
    /// The run it is a rerun of, under Inngest's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) original_run_id: Option<RunId>,
    /// The run whose step has invoked it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent_run_id: Option<RunId>,
    /// The run whose failure it handles. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed_run_id: Option<RunId>,
    /// The run that handles its failure. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_failure_run_id: Option<RunId>,
    /// Inngest's word.
    pub(crate) status: &'static str,
    /// What it is doing, while it has not ended.
    pub(crate) phase: Option<&'static str>,
    /// Why it is in that phase.
    pub(crate) reason: Option<String>,
    /// When it wakes by itself.
    pub(crate) wake_at: Option<Timestamp>,
    /// When it was queued.
    pub(crate) queued_at: Timestamp,
    /// When it was first claimed.
    pub(crate) run_started_at: Option<Timestamp>,
    /// When it ended.
    pub(crate) ended_at: Option<Timestamp>,
    /// Its output. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<Json>,
    /// Why it failed or is blocked.
    pub(crate) error: Option<RunError>,
    /// The version that a person wants it on, whatever is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) asked_version: Option<Digest>,
    /// The version that it is to go over to, and whether it can. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) migration: Option<MigrationView>,
    /// The versions that it went over to, or could not, oldest first. Not in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) swaps: Vec<SwapView>,
    /// Its steps. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) steps: Option<Vec<StepView>>,
    /// The state the words above say.
    #[serde(skip)]
    pub(crate) state: State,
}

impl RunView {
    /// A run without its steps.
    pub(crate) fn of(run: &Run) -> RunView {
        RunView {
            run_id: run.id,
            function_id: run.function.to_string(),
            version: run.version,
            event_id: run.event_id,
            event_ids: None,
            original_run_id: run.rerun_of,
            parent_run_id: run.parent,
            failed_run_id: None,
            on_failure_run_id: None,
            status: run.state.status.as_str(),
            phase: run.state.phase.map(|phase| phase.as_str()),
            reason: run.reason.clone(),
            wake_at: run.wake_at,
            queued_at: run.queued_at,
            run_started_at: run.started_at,
            ended_at: run.ended_at,
            output: run.output.clone(),
            error: run.error.clone(),
            asked_version: run.asked,
            migration: None,
            swaps: Vec::new(),
            steps: None,
            state: run.state,
        }
    }

    /// A run with its steps.
    pub(crate) fn with_steps(run: &Run, steps: &Steps) -> RunView {
        let steps = steps.all(run.state).collect();
        RunView {
            steps: Some(steps),
            ..RunView::of(run)
        }
    }

    /// How long it took, or has taken until now, from being queued.
    pub(crate) fn taken(&self, now: Timestamp) -> std::time::Duration {
        self.ended_at.unwrap_or(now).since(self.queued_at)
    }

    /// Whether it has ended well.
    pub(crate) fn completed(&self) -> bool {
        self.state.status == Status::Completed
    }
}

/// What a run is to become, as its module's policy has it, or a person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MigrationView {
    /// The active version, or the one that a person wants it on.
    pub(crate) to: Digest,
    /// `due`: it goes over when it next does something. `restarts`: it is about to begin again there. `stays`: it cannot.
    pub(crate) state: &'static str,
    /// Why it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<RunError>,
}

impl MigrationView {
    /// Of a run in flight with these swaps.
    pub(crate) fn of(run: &Run, active: Option<Active>, swaps: &[Swap]) -> Option<MigrationView> {
        run.state.phase?;
        let (to, error) = match course(run.version, run.asked, active, |_| false) {
            Course::Stay => return None,
            Course::Restart(to) => {
                return Some(MigrationView {
                    to,
                    state: "restarts",
                    error: None,
                });
            }
            Course::Move(to) => (to, refusal(swaps, run.journal_base, to).cloned()),
            Course::FunctionGone(to) => (to, Some(function_gone(run.function.function(), to))),
        };
        let state = if error.is_some() { "stays" } else { "due" };
        Some(MigrationView { to, state, error })
    }
}

/// A run went over to another version, or could not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SwapView {
    /// The number that the run's next entry had.
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    pub(crate) from: Digest,
    pub(crate) to: Digest,
    /// `moved`, `restarted` or `stayed`.
    pub(crate) outcome: &'static str,
    /// Why it stayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<RunError>,
}

impl SwapView {
    /// A swap.
    pub(crate) fn of(swap: &Swap) -> SwapView {
        SwapView {
            seq: swap.seq,
            at: swap.at,
            from: swap.from,
            to: swap.to,
            outcome: match (&swap.stayed, swap.restarted) {
                (Some(_), _) => "stayed",
                (None, true) => "restarted",
                (None, false) => "moved",
            },
            error: swap.stayed.clone(),
        }
    }
}

/// An entry of a journal as the API shows it. Members that its kind does not have are left out.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct EntryView {
    seq: Seq,
    at: Timestamp,
    /// `step`, `deferred`, `started`, `delivered`, `cancelled` or `tried`.
    entry: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurrence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at: Option<Timestamp>,
    /// Hexadecimal: readers of JSON elsewhere don't keep 64 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    input_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    /// The version that wrote it, where the run has had several.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Digest>,
}

impl EntryView {
    /// An entry of a run that went over from version to version.
    pub(crate) fn written(entry: Entry, run: &Run, swaps: &[Swap]) -> EntryView {
        let by = run.swapped.moved.then(|| writer(swaps, run.version, entry.seq));
        EntryView {
            version: by,
            ..EntryView::of(entry)
        }
    }

    /// An entry.
    pub(crate) fn of(entry: Entry) -> EntryView {
        let Entry { seq, at, event } = entry;
        let base = EntryView {
            seq,
            at,
            ..EntryView::default()
        };
        let split = |outcome: Outcome| match outcome {
            Ok(output) => (Some(output), None),
            Err(failure) => (None, Some(failure)),
        };
        match event {
            Event::Step {
                name,
                occurrence,
                attempt,
                started_at,
                outcome,
            } => {
                let (output, error) = split(outcome);
                EntryView {
                    entry: "step",
                    name: Some(name),
                    kind: Some(BODY),
                    occurrence: Some(occurrence),
                    attempt: Some(attempt),
                    started_at: Some(started_at),
                    output,
                    error,
                    ..base
                }
            }
            Event::Deferred {
                name,
                occurrence,
                attempt,
                started_at,
                failure,
                due_at,
            } => EntryView {
                entry: "deferred",
                name: Some(name),
                kind: Some(BODY),
                occurrence: Some(occurrence),
                attempt: Some(attempt),
                started_at: Some(started_at),
                due_at: Some(due_at),
                error: Some(failure),
                ..base
            },
            Event::Started {
                kind,
                name,
                occurrence,
                input_hash,
                input,
                due_at,
            } => EntryView {
                entry: "started",
                name: Some(name),
                kind: Some(kind.as_str()),
                occurrence: Some(occurrence),
                due_at,
                input_hash: Some(format!("{input_hash:016x}")),
                input: Some(input),
                ..base
            },
            Event::Delivered { operation, outcome } => {
                let (output, error) = split(outcome);
                EntryView {
                    entry: "delivered",
                    operation: Some(operation),
                    output,
                    error,
                    ..base
                }
            }
            Event::Cancelled { operation } => EntryView {
                entry: "cancelled",
                operation: Some(operation),
                ..base
            },
            Event::Tried {
                operation,
                attempt,
                started_at,
                failure,
                due_at,
            } => EntryView {
                entry: "tried",
                operation: Some(operation),
                attempt: Some(attempt),
                started_at: Some(started_at),
                due_at: Some(due_at),
                error: Some(failure),
                ..base
            },
        }
    }
}

/// A log line as the API shows it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct LogView {
    pub(crate) number: u32,
    pub(crate) at: Timestamp,
    pub(crate) level: String,
    pub(crate) step: Option<String>,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fields: Option<Json>,
}

impl LogView {
    /// A line.
    pub(crate) fn of(line: LogLine) -> LogView {
        let LogLine {
            number,
            at,
            level,
            step,
            message,
            fields,
        } = line;
        LogView {
            number,
            at,
            level,
            step,
            message,
            fields,
        }
    }
}

/// An event in Inngest's shape. What a single tenant does not have (account, environment, source) is left out.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct EventView {
    internal_id: EventId,
    id: String,
    name: String,
    data: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<Json>,
    /// Unix milliseconds, as Inngest's.
    ts: i64,
    received_at: Timestamp,
}

impl EventView {
    /// An event.
    pub(crate) fn of(event: StoredEvent) -> EventView {
        /// The members of the payload that no column has.
        #[derive(Default, Deserialize)]
        struct Payload {
            data: Option<Json>,
            user: Option<Json>,
            v: Option<Json>,
        }
        // The payload was made by us; one that cannot be read is shown without those members.
        let payload: Payload = event.payload.read().unwrap_or_default();
        EventView {
            internal_id: event.id,
            id: event.external_id.unwrap_or_else(|| event.id.to_string()),
            name: event.name,
            data: payload.data,
            user: payload.user,
            v: payload.v,
            ts: event.ts.as_millis(),
            received_at: event.received_at,
        }
    }
}
