//! Which version a single run is on: what a person says of it counts before what deploys say of all, until it is taken back.

use dormouse_core::run::{RunError, State};
use dormouse_core::swap::refusal;
use dormouse_core::{Digest, RunId};
use dormouse_store::Error;
use dormouse_store::command::Commanded;
use dormouse_store::read::Run;
use dormouse_store::swap::Asked;

use super::{App, ended, uncancelled};
use crate::problem::Problem;

impl App {
    /// Has a run go over to a version with the next thing it does, if that asks for all that the run has recorded: to the
    /// active one if none is named. It stays there whatever is deployed. A blocked run is tried again.
    ///
    /// # Errors
    /// `not-found` for the run, the version, or the function in it; `already-ended`; `migration-refused` when it is known that
    /// it cannot.
    pub async fn migrate(&self, run: RunId, version: Option<Digest>) -> Result<State, Problem> {
        let app = self.clone();
        uncancelled(async move {
            let found = app.in_flight(run).await?;
            let module = found.function.module();
            let snapshot = app.0.registry.refresh().await?;
            let active = || snapshot.modules.get(module).map(|active| active.version.digest);
            let version = version.or_else(active);
            let version = version.ok_or_else(|| Problem::not_found("module", format!("\"{module}\"")))?;
            let (_, manifest) = app.0.registry.kept(module, version).await?;
            if manifest.function(found.function.function()).is_none() {
                return Err(Problem::not_found(
                    "function",
                    format!("{} in version {}", found.function, version.short()),
                ));
            }
            let swaps = app.0.store.swaps(run).await?;
            if let Some(why) =
                refusal(&swaps, found.journal_base, version).filter(|_| found.version != version)
            {
                return Err(refused(run, version, why));
            }
            app.ask_version(&found, Some(version)).await
        })
        .await
    }

    /// Has a run stay on the version it has, whatever is deployed.
    ///
    /// # Errors
    /// `not-found`, `already-ended`.
    pub async fn pin(&self, run: RunId) -> Result<State, Problem> {
        let app = self.clone();
        uncancelled(async move {
            let found = app.in_flight(run).await?;
            let version = found.version;
            app.ask_version(&found, Some(version)).await
        })
        .await
    }

    /// Has a run go by what deploys say again.
    ///
    /// # Errors
    /// `not-found`, `already-ended`.
    pub async fn follow(&self, run: RunId) -> Result<State, Problem> {
        let app = self.clone();
        uncancelled(async move {
            let found = app.in_flight(run).await?;
            app.ask_version(&found, None).await
        })
        .await
    }

    async fn in_flight(&self, run: RunId) -> Result<Run, Problem> {
        let found = self.0.store.run(run).await?;
        let found = found.ok_or_else(|| Problem::not_found("run", run))?;
        match found.state.status.is_terminal() {
            true => Err(ended(run, found.state)),
            false => Ok(found),
        }
    }

    async fn ask_version(&self, run: &Run, version: Option<Digest>) -> Result<State, Problem> {
        let module = run.function.module();
        let asked = version.map(|version| Asked {
            module: module.to_owned(),
            version,
        });
        let commanded = self.0.store.ask_version(run.id, asked, self.now()).await;
        let commanded = match commanded {
            Err(Error::StaleRegistry) => {
                let version = version.unwrap_or(run.version);
                return Err(Problem::not_found(
                    "version",
                    format!("{version} of module \"{module}\""),
                ));
            }
            answered => answered?,
        };
        match commanded {
            Commanded::Done(state) => {
                tracing::info!(run_id = %run.id, version = ?version.as_ref().map(Digest::short), "what is asked of the run's version");
                self.0.scheduler.nudge();
                self.0.feed.run(run.id);
                Ok(state)
            }
            Commanded::Refused(state) => Err(ended(run.id, state)),
            Commanded::NotFound => Err(Problem::not_found("run", run.id)),
        }
    }
}

fn refused(run: RunId, version: Digest, why: &RunError) -> Problem {
    Problem::new(
        409,
        "migration-refused",
        format!("run {run} cannot go over to {}: {}", version.short(), why.message),
    )
    .help("deploy a version that asks for all that it has recorded, or rerun it")
}
