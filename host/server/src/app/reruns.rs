//! Doing a run once more: from the beginning, or from a step on with what was recorded before it.

use dormouse_core::event::{self, Accepted};
use dormouse_core::journal::Entry;
use dormouse_core::rerun::{FromStep, Refused, cut};
use dormouse_core::{EventId, Json, RunId};
use dormouse_store::ingest::Copied;

use super::{App, refused, uncancelled};
use crate::problem::Problem;
use crate::router::{Rerun, RerunEvent, SentEvent};

/// The name under which an edited event is stored: one that starts nothing and ends nobody's wait. Functions see the name of
/// the event that was edited.
const EDITED: &str = "dormouse/function.rerun";

impl App {
    /// Starts a new run of the earlier run's function, on the version that is active now, with the same event, or with `input`
    /// as its data. With `from_step`, what is recorded before that step is taken over. The earlier run stays as it is.
    ///
    /// # Errors
    /// `not-found` for the run, its function, its event or the step; `rerun-not-possible` when something before the step
    /// had not ended; `already-running` when the function is a singleton and a run of the key lives; what is wrong with `input`.
    pub async fn rerun(
        &self,
        run: RunId,
        from_step: Option<FromStep>,
        input: Option<Json>,
    ) -> Result<(RunId, EventId), Problem> {
        self.accepting()?;
        let app = self.clone();
        uncancelled(async move {
            let rerun = app.plan(run, from_step, input).await?;
            let routed = app.0.router.rerun(rerun, app.now()).await?;
            let ids = (routed.run.id, routed.run.event_id);
            let refused = refused(&routed, app.now());
            app.0.scheduler.begin(vec![routed]);
            app.0.feed.run(ids.0);
            refused.map_or(Ok(ids), Err)
        })
        .await
    }

    async fn plan(&self, id: RunId, from: Option<FromStep>, input: Option<Json>) -> Result<Rerun, Problem> {
        // Another node may have activated what it is done on.
        self.0.registry.refresh().await?;
        let store = self.store();
        let of = store
            .run(id)
            .await?
            .ok_or_else(|| Problem::not_found("run", id))?;
        let event = store.event(of.event_id).await?;
        let event = event.ok_or_else(|| Problem::not_found("event", of.event_id))?;
        let copy = match from {
            Some(from) => self.copied(&of, &from).await?,
            None => None,
        };
        let event = match input {
            None => RerunEvent::Same(event.payload),
            Some(data) => RerunEvent::Edited(self.edited(&event.payload, data)?),
        };
        Ok(Rerun { of, event, copy })
    }

    /// What the new run takes over; none when that is nothing.
    async fn copied(
        &self,
        of: &dormouse_store::read::Run,
        from: &FromStep,
    ) -> Result<Option<Copied>, Problem> {
        let records = self.store().journal(of.id, of.journal_base).await?;
        let entries: Vec<Entry> = records
            .iter()
            .map(|record| Entry::decode(record.clone()))
            .collect::<Result<_, _>>()
            .map_err(|error| Problem::new(500, "store-corrupt", error.to_string()))?;
        let before = cut(&entries, from).map_err(|refused| match refused {
            Refused::NoStep => {
                let name = match from {
                    FromStep::Seq(seq) => seq.to_string(),
                    FromStep::Name(name) => format!("\"{name}\""),
                };
                Problem::not_found("step", format!("{name} that run {} has recorded", of.id))
                    .help("the run's page and `dormouse runs get` list its steps")
            }
            Refused::Open { seq, .. } => Problem::new(409, "rerun-not-possible", refused.to_string())
                .help(format!("begin there: from_step {seq}")),
        })?;
        if before == 0 {
            return Ok(None);
        }
        let copied = records.iter().filter(|record| record.seq < before);
        let bytes = copied.map(|record| {
            record.name.len() + record.meta.len() + record.payload.as_ref().map_or(0, Json::len)
        });
        Ok(Some(Copied {
            run: of.id,
            base: of.journal_base,
            before,
            bytes: bytes.sum::<usize>() as u64,
        }))
    }

    /// The event of the earlier run with other data, under an id of its own.
    fn edited(&self, payload: &Json, data: Json) -> Result<SentEvent, Problem> {
        let name = payload.read::<serde_json::Value>().ok();
        let name = name.and_then(|event| Some(event["name"].as_str()?.to_owned()));
        let now = self.now();
        let id = self.0.router.new_event_id(now);
        let accepted = event::internal(name.as_deref().unwrap_or(EDITED), data, id, now)
            .map_err(|error| Problem::new(400, error.code(), error.to_string()))?;
        Ok(SentEvent {
            id,
            accepted: Accepted {
                name: EDITED.to_owned(),
                ..accepted
            },
            dedupe: None,
        })
    }
}
