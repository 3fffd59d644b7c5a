//! Pausing and resuming: of single runs, and of functions.
//!
//! A paused function's new runs are created and held; those in flight go on. A paused run does nothing; what it waits for
//! goes on, and is delivered when it is resumed.

use dormouse_core::run::State;
use dormouse_core::{FunctionName, RunId};
use dormouse_store::command::Commanded;

use super::{App, ended, uncancelled};
use crate::problem::Problem;

impl App {
    /// Pauses a run: at once, or while it executes, when what it does now is recorded. Its state afterwards; done again
    /// it changes nothing.
    ///
    /// # Errors
    /// `not-found`, `already-ended`, or `not-pausable` for one that is blocked.
    pub async fn pause(&self, run: RunId) -> Result<State, Problem> {
        let app = self.clone();
        uncancelled(async move {
            let commanded = app.0.store.pause(run).await?;
            app.0.feed.run(run);
            match commanded {
                Commanded::Done(state) => {
                    app.may_move_up(run).await?;
                    Ok(state)
                }
                Commanded::Refused(state) if state.status.is_terminal() => Err(ended(run, state)),
                Commanded::Refused(state) => Err(Problem::new(
                    409,
                    "not-pausable",
                    format!(
                        "run {run} is {} and does nothing that could be paused",
                        state.describe()
                    ),
                )
                .help("wake it to try it again, or cancel it")),
                Commanded::NotFound => Err(Problem::not_found("run", run)),
            }
        })
        .await
    }

    /// Lets a paused run on, or takes a pause back that has not happened yet.
    ///
    /// # Errors
    /// `not-found`, `already-ended` or `not-paused`.
    pub async fn resume(&self, run: RunId) -> Result<State, Problem> {
        let app = self.clone();
        uncancelled(async move {
            match app.0.store.resume(run, app.now()).await? {
                Commanded::Done(state) => {
                    app.0.scheduler.nudge();
                    if let Some(delayed) = app.0.store.run(run).await?.and_then(|run| run.wake_at) {
                        app.0.scheduler.timer(delayed);
                    }
                    app.0.feed.run(run);
                    Ok(state)
                }
                Commanded::Refused(state) if state.status.is_terminal() => Err(ended(run, state)),
                Commanded::Refused(state) => Err(Problem::new(
                    409,
                    "not-paused",
                    format!("run {run} is {} and not paused", state.describe()),
                )),
                Commanded::NotFound => Err(Problem::not_found("run", run)),
            }
        })
        .await
    }

    /// Pauses a function: its new runs are created and held, those in flight go on. True: it was not paused before.
    ///
    /// # Errors
    /// `not-found` when no active module has it.
    pub async fn pause_function(&self, function: &FunctionName) -> Result<bool, Problem> {
        let (app, function) = (self.clone(), function.clone());
        uncancelled(async move {
            if app.0.registry.refresh().await?.function(&function).is_none() {
                return Err(no_function(&function));
            }
            let changed = app.0.store.pause_function(&function, app.now()).await?;
            let changed = matches!(changed, dormouse_store::registry::Changed::Done(_));
            app.0.registry.refresh().await?;
            app.0.feed.registry();
            tracing::info!(%function, changed, "paused");
            Ok(changed)
        })
        .await
    }

    /// Resumes a function: what was held begins, oldest first. True: it was paused before.
    ///
    /// # Errors
    /// `not-found` when no active module has it and it is not paused either.
    pub async fn resume_function(&self, function: &FunctionName) -> Result<bool, Problem> {
        let (app, function) = (self.clone(), function.clone());
        uncancelled(async move {
            let snapshot = app.0.registry.refresh().await?;
            if snapshot.function(&function).is_none() && !snapshot.paused.contains(&function) {
                return Err(no_function(&function));
            }
            let changed = app.0.store.resume_function(&function).await?;
            let changed = matches!(changed, dormouse_store::registry::Changed::Done(_));
            app.0.registry.refresh().await?;
            app.0.scheduler.resumed();
            app.0.feed.registry();
            tracing::info!(%function, changed, "resumed");
            Ok(changed)
        })
        .await
    }
}

fn no_function(function: &FunctionName) -> Problem {
    Problem::not_found("function", function)
        .help("`dormouse functions list` shows the functions that are deployed")
}
