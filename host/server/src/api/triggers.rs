//! Why did nothing happen? `GET /v1/events/{id}/triggers`: each trigger, and what became of the event there.
//!
//! What was decided when the event was received is stored: the runs that it started, and why it started none where a
//! trigger matched. The rest, names and conditions, is decided again on what is active now, and says so where that was
//! not active yet.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use dormouse_core::trigger::Trigger;
use dormouse_core::{FunctionName, RunId, Timestamp};
use dormouse_store::read::{Decided, Run, RunFilter, StoredEvent};
use serde::Serialize;

use super::envelope::{Answer, data};
use super::history::RUNS_MAX;
use super::query::{self, Params};
use crate::app::App;
use crate::problem::Problem;
use crate::registry::{Considered, Match};

/// What became of an event at one trigger.
#[derive(Debug, PartialEq, Serialize)]
struct TriggerView {
    function_id: String,
    /// None: what the function has no such trigger for any more.
    trigger: Option<Trigger>,
    /// `started`, a decision's word such as `duplicate` or `rate-limited`, `other-trigger`, `other-name`, `condition-false`,
    /// `deployed-later` or `unknown`.
    outcome: &'static str,
    /// The run that was started, or that stands in the place of one.
    run_id: Option<RunId>,
    /// For a person.
    detail: String,
    /// When that was decided: when the event was received, or now.
    decided_at: Timestamp,
}

/// `GET /v1/events/{id}/triggers`.
pub(super) async fn triggers(State(app): State<App>, Path(id): Path<String>, params: Params) -> Answer {
    params.only(&[])?;
    let id = query::event_id(&id)?;
    let store = app.store();
    let event = store.event(id).await?.ok_or_else(|| Problem::not_found("event", id))?;
    let filter = RunFilter {
        event: Some(id),
        limit: RUNS_MAX,
        ..RunFilter::default()
    };
    let runs = store.runs(filter).await?;
    let decisions = store.decisions(id).await?;
    let snapshot = app.registry().snapshot();
    let considered = snapshot.considered(&event.name, &event.payload);
    Ok(data(app.now(), explain(&event, &runs, &decisions, considered, app.now())))
}

/// What is stored about one function.
#[derive(Clone, Copy)]
enum Stored<'a> {
    Started(&'a Run),
    Kept(&'a Decided),
}

fn explain(
    event: &StoredEvent,
    runs: &[Run],
    decisions: &[Decided],
    considered: Vec<Considered<'_>>,
    now: Timestamp,
) -> Vec<TriggerView> {
    let mut stored: BTreeMap<&FunctionName, Stored<'_>> = BTreeMap::new();
    for decided in decisions {
        stored.insert(&decided.function, Stored::Kept(decided));
    }
    // Reruns are of the same event, and nobody's trigger started them.
    for run in runs.iter().filter(|run| run.rerun_of.is_none()) {
        stored.insert(&run.function, Stored::Started(run));
    }
    let mut told: BTreeMap<&FunctionName, bool> = stored.keys().map(|function| (*function, false)).collect();
    let mut views = Vec::new();
    for Considered {
        function,
        trigger,
        matched,
        activated_at,
    } in considered
    {
        let mut view = TriggerView {
            function_id: function.to_string(),
            trigger: Some(trigger.clone()),
            outcome: "unknown",
            run_id: None,
            detail: String::new(),
            decided_at: now,
        };
        match (matched, stored.get(function)) {
            (Match::OtherName, _) => {
                view.outcome = "other-name";
                view.detail = format!("the event is \"{}\"", event.name);
            }
            (Match::ConditionFalse, _) => {
                view.outcome = "condition-false";
                view.detail = "the condition does not hold for this event".to_owned();
            }
            (Match::Holds, Some(_)) if told.insert(function, true) == Some(true) => {
                view.outcome = "other-trigger";
                view.detail = "an event starts a function once, by the first trigger that matches".to_owned();
            }
            (Match::Holds, Some(found)) => tell(&mut view, *found),
            (Match::Holds, None) if activated_at.is_some_and(|at| at > event.received_at) => {
                view.outcome = "deployed-later";
                view.detail = "what is active now was activated after the event was received".to_owned();
            }
            (Match::Holds, None) => {
                view.detail =
                    "nothing is kept of what became of it: its run may have been deleted since".to_owned();
            }
        }
        views.push(view);
    }
    // What was started or decided by triggers that are gone, or without one.
    for (function, found) in stored {
        if told.get(function) == Some(&false) {
            let mut view = TriggerView {
                function_id: function.to_string(),
                trigger: None,
                outcome: "unknown",
                run_id: None,
                detail: String::new(),
                decided_at: now,
            };
            tell(&mut view, found);
            views.push(view);
        }
    }
    views.sort_by(|a, b| a.function_id.cmp(&b.function_id));
    views
}

/// Says what is stored.
fn tell(view: &mut TriggerView, found: Stored<'_>) {
    match found {
        Stored::Started(run) => {
            view.outcome = "started";
            view.run_id = Some(run.id);
            view.detail = format!("run {} was created", run.id);
            view.decided_at = run.id.time();
        }
        Stored::Kept(decided) => {
            view.outcome = decided.decision.as_str();
            view.run_id = decided.run;
            view.detail.clone_from(&decided.detail);
            view.decided_at = decided.at;
        }
    }
}
