//! `/runs/{id}`: one run: how it stands and why, its steps, what came of it, its logs, and the event that began it.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use dormouse_core::run::Phase;
use dormouse_core::{Json, RunId, Timestamp};
use maud::{Markup, html};

use super::{Failed, layout, payload};
use crate::api::{self, AttemptView, LogView, RunView, StepView};
use crate::app::App;
use crate::problem::Problem;

/// All that the page shows.
struct Shown {
    run: RunView,
    event: Option<Json>,
    logs: Vec<LogView>,
    more_logs: bool,
    now: Timestamp,
}

pub(super) async fn page(State(app): State<App>, Path(id): Path<String>) -> Result<Markup, Failed> {
    let shown = gather(&app, &id).await?;
    let id = shown.run.run_id;
    // A run that has ended changes no more.
    let stream = shown
        .run
        .ended_at
        .is_none()
        .then(|| format!("/v1/runs/{id}/stream"));
    let body = html! {
        div data-stream=[stream] data-fragment={ "/runs/" (id) "/fragment" } { (content(&shown)) }
    };
    Ok(layout::page(
        &format!("{} {id}", shown.run.function_id),
        layout::Tab::Runs,
        &body,
    ))
}

pub(super) async fn fragment(State(app): State<App>, Path(id): Path<String>) -> Result<Markup, Failed> {
    Ok(content(&gather(&app, &id).await?))
}

pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Failed> {
    let run = id_of(&id)?;
    match app.cancel(run).await {
        // It ended while the button was on its way: the page says how.
        Ok(_) => {}
        Err(problem) if problem.code == "already-ended" => {}
        Err(problem) => return Err(Failed(problem)),
    }
    Ok(back(run))
}

pub(super) async fn wake(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Failed> {
    let run = id_of(&id)?;
    match app.wake(run).await {
        // It woke by itself while the button was on its way.
        Ok(_) => {}
        Err(problem) if matches!(problem.code, "already-ended" | "nothing-to-wake") => {}
        Err(problem) => return Err(Failed(problem)),
    }
    Ok(back(run))
}

fn back(run: RunId) -> Response {
    Redirect::to(&format!("/runs/{run}")).into_response()
}

/// An id that is not one is nothing that a page is about.
fn id_of(text: &str) -> Result<RunId, Problem> {
    api::run_id(text).map_err(|_| Problem::not_found("run", text))
}

async fn gather(app: &App, id: &str) -> Result<Shown, Problem> {
    let id = id_of(id)?;
    let run = api::whole_run(app, id).await?;
    let event = app.store().event(run.event_id).await?.map(|event| event.payload);
    let (logs, more_logs) = api::log_page(app, id).await?;
    Ok(Shown {
        run,
        event,
        logs,
        more_logs,
        now: app.now(),
    })
}

fn content(shown: &Shown) -> Markup {
    let Shown {
        run,
        event,
        logs,
        more_logs,
        now,
    } = shown;
    let steps = run.steps.as_deref().unwrap_or_default();
    html! {
        div.title {
            h1 { (run.function_id) }
            span.state { (layout::state(run)) }
        }
        p.mono.muted { (run.run_id) }
        (not_moving(run, *now))
        (migration(run))
        dl.facts {
            div { dt { "Queued" } dd { (layout::time(run.queued_at)) } }
            @if let Some(at) = run.run_started_at { div { dt { "Started" } dd { (layout::time(at)) } } }
            @if let Some(at) = run.ended_at { div { dt { "Ended" } dd { (layout::time(at)) } } }
            div { dt { @if run.ended_at.is_some() { "Took" } @else { "Since" } } dd { (layout::duration(run.taken(*now))) } }
            div { dt { "Version" } dd.mono title=(run.version) { (run.version.short()) } }
            div { dt { "Record" } dd {
                a href={ "/v1/runs/" (run.run_id) "/journal" } { "Journal" } " · "
                a href={ "/v1/runs/" (run.run_id) } { "JSON" } " · "
                a href={ "/v1/events/" (run.event_id) } { "Event" }
                @if let Some(parent) = run.parent_run_id { " · " a href={ "/runs/" (parent) } { "Invoked by" } }
                @if let Some(failed) = run.failed_run_id { " · " a href={ "/runs/" (failed) } { "Handles the failure of" } }
                @if let Some(handler) = run.on_failure_run_id { " · " a href={ "/runs/" (handler) } { "Failure handled by" } }
            } }
        }
        (buttons(run))
        @if let Some(error) = &run.error {
            section.error aria-labelledby="error" {
                h2 #error { "Error " code { (error.code) } }
                @if let Some(step) = &error.step { p { "In step " strong { (step) } } }
                pre { (error.message) }
                @if !error.frames.is_empty() {
                    details #frames open { summary { "Where" } pre { @for frame in &error.frames { (frame) "\n" } } }
                }
                @if let Some(details) = &error.details { (payload::block(details)) }
            }
        }
        @if let Some(output) = &run.output {
            section aria-labelledby="output" {
                h2 #output { @if run.completed() { "Result" } @else { "Output" } }
                (payload::block(output))
            }
        }
        section aria-labelledby="steps" {
            h2 #steps { "Steps " span.count { (steps.len()) } }
            @if steps.is_empty() { p.muted { "No step has an outcome yet." } }
            ol.steps { @for step in steps { (step_of(step, *now)) } }
        }
        (versions(run))
        section aria-labelledby="logs" {
            h2 #logs { "Logs " span.count { (logs.len()) @if *more_logs { "+" } } }
            @if logs.is_empty() { p.muted { "The function has logged nothing." } } @else { (log(logs)) }
            @if *more_logs {
                p { a href={ "/v1/runs/" (run.run_id) "/logs?limit=10000" } { "More as JSON" } }
            }
        }
        @if let Some(event) = event {
            section aria-labelledby="event" {
                h2 #event { "Event" }
                (payload::block(event))
            }
        }
    }
}

/// The line that answers "why is it not moving?".
fn not_moving(run: &RunView, now: Timestamp) -> Markup {
    let Some(phase) = run.state.phase else {
        return html! {
            @if let Some(reason) = &run.reason { p.moving { strong { (reason) } } }
        };
    };
    let plain = match phase {
        Phase::Queued => "It is ready and waits for a node to take it.",
        Phase::Executing => "It is moving: a node drives it now.",
        Phase::Sleeping => "It sleeps.",
        Phase::Waiting => "It waits for something from outside.",
        Phase::BackingOff => "A step failed and is tried again.",
        Phase::Limited => "Flow control holds it back.",
        Phase::Paused => "It is paused until someone resumes it.",
        Phase::Blocked => "It cannot go on until someone does something about the error below.",
    };
    html! {
        p.moving role="status" {
            (plain)
            @if let Some(reason) = &run.reason { " " strong { (reason) } }
            @if let Some(at) = run.wake_at { " " (layout::until(at, now)) "." }
        }
    }
}

/// What becomes of it when another version of its module is active.
fn migration(run: &RunView) -> Markup {
    let Some(migration) = &run.migration else {
        return html! {};
    };
    let to = migration.to;
    html! {
        p.moving {
            @if let Some(error) = &migration.error {
                "It stays on its version and does not go over to " span.mono title=(to) { (to.short()) } ": " strong { (error.message) }
            } @else if migration.state == "restarts" {
                "It begins again on version " span.mono title=(to) { (to.short()) } "."
            } @else {
                "It goes over to version " span.mono title=(to) { (to.short()) } " when it next does something."
            }
        }
    }
}

/// Which versions it has had, if it has had several or could not go over to one.
fn versions(run: &RunView) -> Markup {
    html! {
        @if !run.swaps.is_empty() {
            section aria-labelledby="versions" {
                h2 #versions { "Versions " span.count { (run.swaps.len()) } }
                div.scroll { table {
                    thead { tr {
                        th scope="col" { "Time" }
                        th scope="col" { "From" }
                        th scope="col" { "To" }
                        th scope="col" { "Outcome" }
                    } }
                    tbody { @for swap in &run.swaps { tr {
                        td.mono { (layout::clock(swap.at)) }
                        td.mono title=(swap.from) { (swap.from.short()) }
                        td.mono title=(swap.to) { (swap.to.short()) }
                        td {
                            @match &swap.error {
                                None => { (swap.outcome) ", from entry " (swap.seq) " on" }
                                Some(error) => { "stayed: " (error.message) }
                            }
                        }
                    } } }
                } }
            }
        }
    }
}

fn buttons(run: &RunView) -> Markup {
    let Some(phase) = run.state.phase else {
        return html! {};
    };
    let wakes = matches!(
        phase,
        Phase::Sleeping | Phase::BackingOff | Phase::Waiting | Phase::Blocked
    );
    html! {
        div.buttons {
            @if wakes {
                form method="post" action={ "/runs/" (run.run_id) "/wake" } {
                    button type="submit" { @if phase == Phase::Blocked { "Try again" } @else { "Wake now" } }
                }
            }
            form method="post" action={ "/runs/" (run.run_id) "/cancel" } data-confirm={ "Cancel run " (run.run_id) "?" } {
                button.danger type="submit" { "Cancel run" }
            }
        }
    }
}

fn step_of(step: &StepView, now: Timestamp) -> Markup {
    let first = step.attempts.first().map(|attempt| attempt.started_at);
    let last = step.attempts.last().and_then(|attempt| attempt.ended_at);
    let took = first.map(|first| last.unwrap_or(now).since(first));
    let failures = step.attempts.iter().any(|attempt| attempt.error.is_some());
    let input = step
        .input
        .as_ref()
        .filter(|_| step.kind != "sleep" && step.kind != "sleep-until");
    let output = step
        .output
        .as_ref()
        .filter(|output| output.as_str() != "null" || input.is_some());
    html! {
        li id={ "step-" (step.seq) } {
            div.step {
                (layout::badge(step.status))
                span.name { (step.name) @if step.occurrence > 0 { span.muted { " #" (step.occurrence + 1) } } }
                span.kind { (step.kind) }
                @if let Some(child) = step.child_run_id { a.mono href={ "/runs/" (child) } { "run" } }
                @if step.attempts.len() > 1 { span.muted { (step.attempts.len()) " attempts" } }
                span.took {
                    @if let Some(at) = step.wake_at { (layout::until(at, now)) }
                    @else if let Some(took) = took { (layout::duration(took)) }
                }
            }
            @if step.attempts.len() > 1 || failures {
                details id={ "attempts-" (step.seq) } open[step.status != "completed"] {
                    summary { "Attempts" }
                    ol.attempts { @for attempt in &step.attempts { (attempt_of(attempt)) } }
                }
            }
            @if let Some(input) = input {
                details id={ "input-" (step.seq) } { summary { "Input" } (payload::block(input)) }
            }
            @if let Some(output) = output {
                details id={ "output-" (step.seq) } { summary { "Output" } (payload::block(output)) }
            }
        }
    }
}

fn attempt_of(attempt: &AttemptView) -> Markup {
    let word = match (&attempt.error, attempt.ended_at) {
        (Some(_), _) => "failed",
        (None, Some(_)) => "completed",
        (None, None) => "executing",
    };
    html! {
        li {
            div.step {
                (layout::badge(word))
                span { "attempt " (attempt.attempt) }
                span.muted { (layout::clock(attempt.started_at)) }
                @if let Some(ended) = attempt.ended_at {
                    span.took { (layout::duration(ended.since(attempt.started_at))) }
                }
            }
            @if let Some(error) = &attempt.error {
                pre { @if let Some(code) = &error.code { (code) ": " } (error.message) }
                @if let Some(details) = &error.details { (payload::block(details)) }
            }
        }
    }
}

fn log(lines: &[LogView]) -> Markup {
    html! {
        div.scroll { table.log {
            thead { tr {
                th scope="col" { "Time" }
                th scope="col" { "Level" }
                th scope="col" { "Step" }
                th scope="col" { "Message" }
            } }
            tbody { @for line in lines { tr.{ "level-" (line.level) } {
                td.mono { (layout::clock(line.at)) }
                td { (line.level) }
                td { (line.step.as_deref().unwrap_or_default()) }
                td {
                    span.message { (line.message) }
                    @if let Some(fields) = &line.fields { " " code.muted { (fields.as_str()) } }
                }
            } } }
        } }
    }
}
