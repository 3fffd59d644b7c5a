//! A run's steps, folded from its journal: several entries make one step.
//!
//! A body's failed attempts (`deferred`) and its final one (`step`) are one step with attempts; an operation's
//! `started` and `delivered` or `cancelled` are one step with one attempt. Pure, and incremental, so that a stream
//! reads each entry once.

use std::collections::HashMap;

use dormouse_core::journal::{Entry, Event, OperationKind};
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{Failure, Json, Outcome, RunId, Seq, Timestamp, invoke};
use serde::Serialize;

use super::view::HIDDEN;
use crate::access::Access;

/// The kind of a step that is a body.
pub(crate) const BODY: &str = "run";

/// A step as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StepView {
    /// The number of its first entry.
    pub(crate) seq: Seq,
    /// Its name.
    pub(crate) name: String,
    /// Which use of the name by this kind, from 0.
    pub(crate) occurrence: u32,
    /// `run` for a body, else the operation's kind.
    pub(crate) kind: &'static str,
    /// `completed`, `failed`, `cancelled`, `backing-off`, `executing`, `sleeping` or `waiting`.
    pub(crate) status: &'static str,
    /// When it wakes by itself, while it waits.
    pub(crate) wake_at: Option<Timestamp>,
    /// What the host was asked to perform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<Json>,
    /// The run that it has invoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) child_run_id: Option<RunId>,
    /// Its output, once it has one.
    pub(crate) output: Option<Json>,
    /// Its tries, in order. An operation has one.
    pub(crate) attempts: Vec<AttemptView>,
}

impl StepView {
    /// Leaves out what whoever asks may not see.
    pub(crate) fn hide(&mut self, access: &Access) {
        if access.payloads() {
            return;
        }
        self.input = None;
        self.output = None;
        for failure in self
            .attempts
            .iter_mut()
            .filter_map(|attempt| attempt.error.as_mut())
        {
            HIDDEN.clone_into(&mut failure.message);
            failure.details = None;
        }
    }
}

/// One try of a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AttemptView {
    /// From 1.
    pub(crate) attempt: u32,
    /// When it began.
    pub(crate) started_at: Timestamp,
    /// When it ended.
    pub(crate) ended_at: Option<Timestamp>,
    /// Why it failed.
    pub(crate) error: Option<Failure>,
}

/// How far a step is, as the journal alone tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// An operation is open.
    Open(OperationKind),
    /// A body's next attempt is due later.
    BackingOff,
    /// A body's next attempt is due.
    Due,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Debug)]
struct Step {
    view: StepView,
    progress: Progress,
}

/// The steps of a journal read so far.
#[derive(Debug)]
pub(crate) struct Steps {
    run: RunId,
    steps: Vec<Step>,
    /// Bodies without a final outcome, by name and occurrence.
    bodies: HashMap<(String, u32), usize>,
    /// Open operations, a body's back-off among them, by their entry's number.
    operations: HashMap<Seq, usize>,
}

impl Steps {
    /// The steps of a run of whose journal nothing was read yet.
    pub(crate) fn new(run: RunId) -> Steps {
        Steps {
            run,
            steps: Vec::new(),
            bodies: HashMap::new(),
            operations: HashMap::new(),
        }
    }

    /// The steps of a whole journal.
    pub(crate) fn of(run: RunId, entries: impl IntoIterator<Item = Entry>) -> Steps {
        let mut steps = Steps::new(run);
        for entry in entries {
            steps.push(entry);
        }
        steps
    }

    /// Takes the next entry. Returns the place of the step that it belongs to.
    pub(crate) fn push(&mut self, entry: Entry) -> Option<usize> {
        let Entry { seq, at, event } = entry;
        match event {
            Event::Step {
                name,
                occurrence,
                attempt,
                started_at,
                outcome,
            } => {
                let index = self.body(seq, &name, occurrence);
                self.bodies.remove(&(name, occurrence));
                let step = &mut self.steps[index];
                let error = outcome.as_ref().err().cloned();
                step.view.attempts.push(AttemptView {
                    attempt,
                    started_at,
                    ended_at: Some(at),
                    error,
                });
                step.finish(outcome);
                Some(index)
            }
            Event::Deferred {
                name,
                occurrence,
                attempt,
                started_at,
                failure,
                due_at,
            } => {
                let index = self.body(seq, &name, occurrence);
                let step = &mut self.steps[index];
                step.view.attempts.push(AttemptView {
                    attempt,
                    started_at,
                    ended_at: Some(at),
                    error: Some(failure),
                });
                step.view.wake_at = Some(due_at);
                step.progress = Progress::BackingOff;
                self.operations.insert(seq, index);
                Some(index)
            }
            Event::Started {
                kind,
                name,
                occurrence,
                input,
                due_at,
                ..
            } => {
                self.operations.insert(seq, self.steps.len());
                self.steps.push(Step {
                    view: StepView {
                        seq,
                        name,
                        occurrence,
                        kind: kind.as_str(),
                        status: "",
                        wake_at: due_at,
                        input: Some(input),
                        child_run_id: (kind == OperationKind::Invoke)
                            .then(|| invoke::child(self.run, seq, at)),
                        output: None,
                        attempts: vec![AttemptView {
                            attempt: 1,
                            started_at: at,
                            ended_at: None,
                            error: None,
                        }],
                    },
                    progress: Progress::Open(kind),
                });
                Some(self.steps.len() - 1)
            }
            Event::Delivered { operation, outcome } => {
                let index = self.operations.remove(&operation)?;
                let step = &mut self.steps[index];
                step.retried();
                step.view.wake_at = None;
                if step.progress == Progress::BackingOff {
                    step.progress = Progress::Due;
                } else {
                    if let Some(attempt) = step.view.attempts.last_mut() {
                        attempt.ended_at = Some(at);
                        attempt.error = outcome.as_ref().err().cloned();
                    }
                    step.finish(outcome);
                }
                Some(index)
            }
            Event::Tried {
                operation,
                attempt,
                started_at,
                failure,
                due_at,
            } => {
                let index = *self.operations.get(&operation)?;
                let view = &mut self.steps[index].view;
                // The one that was begun with the step, or after the last.
                view.attempts.retain(|attempt| attempt.ended_at.is_some());
                view.attempts.push(AttemptView {
                    attempt,
                    started_at,
                    ended_at: Some(at),
                    error: Some(failure),
                });
                view.wake_at = Some(due_at);
                Some(index)
            }
            Event::Cancelled { operation } => {
                let index = self.operations.remove(&operation)?;
                let step = &mut self.steps[index];
                if step.progress != Progress::BackingOff
                    && let Some(attempt) = step.view.attempts.last_mut()
                {
                    attempt.ended_at = Some(at);
                }
                step.view.wake_at = None;
                step.progress = Progress::Cancelled;
                Some(index)
            }
        }
    }

    /// All steps of a run in some state.
    pub(crate) fn all(&self, state: State) -> impl Iterator<Item = StepView> {
        self.steps.iter().map(move |step| step.shown(state))
    }

    /// One step of a run in some state.
    pub(crate) fn get(&self, index: usize, state: State) -> Option<StepView> {
        self.steps.get(index).map(|step| step.shown(state))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The body with this name that has no final outcome, or a new one.
    fn body(&mut self, seq: Seq, name: &str, occurrence: u32) -> usize {
        if let Some(index) = self.bodies.get(&(name.to_owned(), occurrence)) {
            return *index;
        }
        let index = self.steps.len();
        self.bodies.insert((name.to_owned(), occurrence), index);
        self.steps.push(Step {
            view: StepView {
                seq,
                name: name.to_owned(),
                occurrence,
                kind: BODY,
                status: "",
                wake_at: None,
                input: None,
                child_run_id: None,
                output: None,
                attempts: Vec::new(),
            },
            progress: Progress::Due,
        });
        index
    }
}

impl Step {
    /// An operation that was tried before has its outcome: by one more try, which began when it was due.
    fn retried(&mut self) {
        if let (Progress::Open(_), Some(due_at), Some(last)) =
            (self.progress, self.view.wake_at, self.view.attempts.last())
            && last.ended_at.is_some()
        {
            let attempt = last.attempt + 1;
            self.view.attempts.push(AttemptView {
                attempt,
                started_at: due_at,
                ended_at: None,
                error: None,
            });
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        self.view.wake_at = None;
        match outcome {
            Ok(output) => {
                self.progress = Progress::Completed;
                self.view.output = Some(output);
            }
            Err(_) => self.progress = Progress::Failed,
        }
    }

    /// A run that has ended has no open steps, whatever its journal says last.
    fn shown(&self, state: State) -> StepView {
        let over = state.status.is_terminal();
        let status = match self.progress {
            Progress::Completed => "completed",
            Progress::Failed => "failed",
            Progress::Cancelled => "cancelled",
            Progress::Due if state.status == Status::Failed => "failed",
            Progress::Open(_) | Progress::BackingOff | Progress::Due if over => "cancelled",
            Progress::BackingOff => Phase::BackingOff.as_str(),
            Progress::Due => Phase::Executing.as_str(),
            Progress::Open(OperationKind::Fetch) if self.view.wake_at.is_some() => Phase::BackingOff.as_str(),
            Progress::Open(OperationKind::Sleep | OperationKind::SleepUntil) => Phase::Sleeping.as_str(),
            Progress::Open(
                OperationKind::WaitForEvent | OperationKind::WaitForSignal | OperationKind::Invoke,
            ) => Phase::Waiting.as_str(),
            Progress::Open(
                OperationKind::Sql
                | OperationKind::SendEvents
                | OperationKind::SendSignal
                | OperationKind::Fetch,
            ) => Phase::Executing.as_str(),
        };
        let wake_at = self.view.wake_at.filter(|_| !over);
        StepView {
            status,
            wake_at,
            ..self.view.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: State = State::live(Status::Running, Phase::Executing);

    fn run() -> RunId {
        RunId::from_parts(at(1), [7; 10])
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn deferred(seq: Seq, name: &str, attempt: u32, due: i64) -> Entry {
        let event = Event::Deferred {
            name: name.to_owned(),
            occurrence: 0,
            attempt,
            started_at: at(i64::from(seq) * 10),
            failure: Failure::new("x", format!("failed {attempt}")),
            due_at: at(due),
        };
        Entry {
            seq,
            at: at(i64::from(seq) * 10 + 1),
            event,
        }
    }

    fn step(seq: Seq, name: &str, occurrence: u32, attempt: u32, outcome: Outcome) -> Entry {
        let started_at = at(i64::from(seq) * 10);
        let event = Event::Step {
            name: name.to_owned(),
            occurrence,
            attempt,
            started_at,
            outcome,
        };
        Entry {
            seq,
            at: at(i64::from(seq) * 10 + 1),
            event,
        }
    }

    fn sleep(seq: Seq, name: &str, due: i64) -> Entry {
        let event = Event::Started {
            kind: OperationKind::Sleep,
            name: name.to_owned(),
            occurrence: 0,
            input_hash: 0,
            input: Json::trusted("{}"),
            due_at: Some(at(due)),
        };
        Entry {
            seq,
            at: at(i64::from(seq) * 10),
            event,
        }
    }

    fn delivered(seq: Seq, operation: Seq) -> Entry {
        Entry {
            seq,
            at: at(i64::from(seq) * 10),
            event: Event::Delivered {
                operation,
                outcome: Ok(Json::null()),
            },
        }
    }

    fn shown(entries: Vec<Entry>, state: State) -> Vec<StepView> {
        Steps::of(run(), entries).all(state).collect()
    }

    #[test]
    fn failed_attempts_and_the_final_one_are_one_step() {
        let entries = vec![
            deferred(0, "charge", 1, 1_000),
            delivered(1, 0),
            deferred(2, "charge", 2, 2_000),
            delivered(3, 2),
            step(4, "charge", 0, 3, Ok(Json::trusted("7"))),
        ];
        let views = shown(entries, RUNNING);
        assert_eq!(views.len(), 1);
        let view = &views[0];
        assert_eq!((view.seq, view.kind, view.status), (0, "run", "completed"));
        assert_eq!(view.output, Some(Json::trusted("7")));
        let attempts: Vec<_> = view
            .attempts
            .iter()
            .map(|try_| (try_.attempt, try_.error.is_some()))
            .collect();
        assert_eq!(attempts, [(1, true), (2, true), (3, false)]);
        assert_eq!(view.attempts[2].ended_at, Some(at(41)));
    }

    #[test]
    fn a_step_that_backs_off_says_until_when_and_then_that_it_is_due() {
        let mut entries = vec![deferred(0, "charge", 1, 1_000)];
        let view = &shown(entries.clone(), RUNNING)[0];
        assert_eq!((view.status, view.wake_at), ("backing-off", Some(at(1_000))));
        entries.push(delivered(1, 0));
        let view = &shown(entries.clone(), RUNNING)[0];
        assert_eq!((view.status, view.wake_at), ("executing", None));
    }

    #[test]
    fn a_retry_of_one_branch_is_told_apart_from_what_happens_beside_it() {
        let entries = vec![
            deferred(0, "a", 1, 1_000),
            sleep(1, "nap", 500),
            step(2, "b", 0, 1, Ok(Json::null())),
            delivered(3, 1),
            delivered(4, 0),
            step(5, "a", 0, 2, Ok(Json::trusted("1"))),
            step(6, "b", 1, 1, Err(Failure::terminal("x", "no"))),
        ];
        let views = shown(entries, RUNNING);
        let summary: Vec<_> = views
            .iter()
            .map(|view| {
                (
                    view.name.as_str(),
                    view.occurrence,
                    view.status,
                    view.attempts.len(),
                )
            })
            .collect();
        assert_eq!(
            summary,
            [
                ("a", 0, "completed", 2),
                ("nap", 0, "completed", 1),
                ("b", 0, "completed", 1),
                ("b", 1, "failed", 1)
            ]
        );
    }

    #[test]
    fn operations_are_open_until_delivered_or_cancelled() {
        let cancelled = Entry {
            seq: 2,
            at: at(20),
            event: Event::Cancelled { operation: 1 },
        };
        let views = shown(vec![sleep(0, "a", 900), sleep(1, "b", 900), cancelled], RUNNING);
        assert_eq!((views[0].status, views[0].wake_at), ("sleeping", Some(at(900))));
        assert_eq!((views[1].status, views[1].wake_at), ("cancelled", None));
        assert_eq!(views[1].attempts[0].ended_at, Some(at(20)));
    }

    #[test]
    fn a_run_that_has_ended_has_no_open_steps() {
        let entries = || vec![sleep(0, "a", 900), deferred(1, "b", 1, 800)];
        for status in [Status::Completed, Status::Failed, Status::Cancelled] {
            for view in shown(entries(), State { status, phase: None }) {
                assert_eq!((view.status, view.wake_at), ("cancelled", None), "{}", view.name);
            }
        }
    }

    #[test]
    fn entries_taken_one_by_one_name_the_step_they_changed() {
        let mut steps = Steps::new(run());
        assert_eq!(steps.push(sleep(0, "a", 900)), Some(0));
        assert_eq!(steps.push(step(1, "b", 0, 1, Ok(Json::null()))), Some(1));
        assert_eq!(steps.push(delivered(2, 0)), Some(0));
        assert_eq!(
            steps.push(delivered(3, 0)),
            None,
            "delivered twice changes nothing"
        );
        assert_eq!(steps.len(), 2);
    }
}
