//! Why did nothing happen? `GET /v1/events/{id}/triggers`: each trigger, and what became of the event there.
//!
//! What was decided when the event was received is stored: the runs that it started, and why it started none where a
//! trigger matched. The rest, names and conditions, is decided again on what is active now, and says so where that was
//! not active yet.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use dormouse_core::flow::Decision;
use dormouse_core::system;
use dormouse_core::trigger::OnEvent;
use dormouse_core::{EventId, FunctionName, RunId, Timestamp};
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
    trigger: Option<OnEvent>,
    /// `started`, a decision's word such as `duplicate`, `rate-limited`, `debounced`, `batched` or `skipped`,
    /// `other-trigger`, `other-name`, `condition-false`, `own-end`, `deployed-later` or `unknown`.
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
    let event = store
        .event(id)
        .await?
        .ok_or_else(|| Problem::not_found("event", id))?;
    let filter = RunFilter {
        event: Some(id),
        limit: RUNS_MAX,
        ..RunFilter::default()
    };
    let runs = store.runs(filter).await?;
    let mut decisions = store.decisions(id).await?;
    for decided in &mut decisions {
        if let (true, Some(run)) = (decided.decision.is_gathered(), decided.run) {
            let run = store.run(run).await?;
            decided.detail += &gathered(id, decided.decision, run.as_ref());
        }
    }
    let snapshot = app.registry().snapshot();
    let considered = snapshot.considered(&event.name, &event.payload);
    Ok(data(
        app.now(),
        explain(&event, &runs, &decisions, considered, app.now()),
    ))
}

/// What became of a run that is started by several events, or by the last of them.
fn gathered(event: EventId, decision: Decision, run: Option<&Run>) -> String {
    let Some(run) = run else {
        return "; the run has been deleted since".to_owned();
    };
    let now = match run.state.phase {
        Some(phase) => phase.as_str(),
        None => run.state.status.as_str(),
    };
    let now = now.to_lowercase();
    match decision {
        Decision::Debounced if run.event_id == event => format!(", which is this one; now it is {now}"),
        Decision::Debounced => format!(", which is {}; now it is {now}", run.event_id),
        _ => format!("; now it is {now}"),
    }
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
    let together = |run: &Run| {
        let mut decisions = decisions.iter();
        decisions.any(|decided| decided.decision.is_gathered() && decided.run == Some(run.id))
    };
    // Reruns are of the same event, and nobody's trigger started them.
    for run in runs.iter().filter(|run| run.rerun_of.is_none() && !together(run)) {
        stored.insert(&run.function, Stored::Started(run));
    }
    let mut told: BTreeMap<&FunctionName, bool> = stored.keys().map(|function| (*function, false)).collect();
    let mut views = Vec::new();
    let of_a_listener = system::told_of_a_listener(&event.payload);
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
                view.detail =
                    "the condition is not true: it is false, or asks for what the event does not have"
                        .to_owned();
            }
            (Match::Holds, Some(_)) if told.insert(function, true) == Some(true) => {
                view.outcome = "other-trigger";
                view.detail = "an event starts a function once, by the first trigger that matches".to_owned();
            }
            (Match::Holds, Some(found)) => tell(&mut view, *found),
            (Match::Holds, None) if of_a_listener => {
                view.outcome = "own-end";
                view.detail = "the run that has ended was started by such an event itself: its end starts no function, \
                               so that none hears of itself for ever"
                    .to_owned();
            }
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
    // Those that the event has nothing to do with come last.
    let far = |view: &TriggerView| view.outcome == "other-name";
    views.sort_by(|a, b| (far(a), &a.function_id).cmp(&(far(b), &b.function_id)));
    views
}

/// Says what is stored.
fn tell(view: &mut TriggerView, found: Stored<'_>) {
    match found {
        Stored::Started(run) => {
            view.outcome = "started";
            view.run_id = Some(run.id);
            let now = match run.state.phase {
                Some(phase) => phase.as_str(),
                None => run.state.status.as_str(),
            };
            view.detail = format!("run {} was created; now it is {}", run.id, now.to_lowercase());
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

#[cfg(test)]
mod tests {
    use dormouse_core::Json;

    use super::*;

    const RECEIVED: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn event() -> StoredEvent {
        StoredEvent {
            id: dormouse_core::EventId::from_parts(RECEIVED, [1; 10]),
            name: "shop/paid".to_owned(),
            external_id: None,
            ts: RECEIVED,
            received_at: RECEIVED,
            payload: Json::trusted(r#"{"name":"shop/paid","data":{}}"#),
        }
    }

    fn trigger(name: &str) -> OnEvent {
        OnEvent {
            event: name.to_owned(),
            condition: None,
        }
    }

    fn decided(function: &FunctionName) -> Decided {
        Decided {
            function: function.clone(),
            decision: dormouse_core::flow::Decision::RateLimited,
            at: RECEIVED,
            run: None,
            detail: "too many".to_owned(),
        }
    }

    fn outcomes(views: &[TriggerView]) -> Vec<(&str, &str)> {
        views
            .iter()
            .map(|view| (view.function_id.as_str(), view.outcome))
            .collect()
    }

    #[test]
    fn what_is_kept_counts_and_what_is_not_kept_is_decided_again() {
        let names = ["m/a", "m/b", "m/c", "m/d", "m/e"].map(|name| name.parse().expect("a name"));
        let [a, b, c, d, e]: &[FunctionName; 5] = &names;
        let (paid, other) = (trigger("shop/paid"), trigger("shop/other"));
        let considered = |function, trigger, matched, activated: i64| Considered {
            function,
            trigger,
            matched,
            activated_at: Some(Timestamp::from_millis(RECEIVED.as_millis() + activated)),
        };
        let views = explain(
            &event(),
            &[],
            &[decided(a), decided(e)],
            vec![
                considered(d, &other, Match::OtherName, -1),
                considered(a, &paid, Match::Holds, -1),
                considered(a, &paid, Match::Holds, -1),
                considered(a, &paid, Match::ConditionFalse, -1),
                considered(b, &paid, Match::Holds, 1),
                considered(c, &paid, Match::Holds, -1),
            ],
            RECEIVED,
        );
        assert_eq!(
            outcomes(&views),
            [
                ("m/a", "rate-limited"),
                ("m/a", "other-trigger"),
                ("m/a", "condition-false"),
                ("m/b", "deployed-later"),
                ("m/c", "unknown"),
                ("m/e", "rate-limited"),
                ("m/d", "other-name"),
            ]
        );
        assert!(
            views[5].trigger.is_none(),
            "no active trigger stands for what was decided"
        );
        assert!(views.iter().all(|view| !view.detail.is_empty()), "{views:?}");
    }
}
