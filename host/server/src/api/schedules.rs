//! `/v1/schedules`: when functions start by the clock, and what became of their last ticks.

use axum::extract::State;
use dormouse_core::cron::{CatchUp, Overlap};
use dormouse_core::{FunctionName, RunId, Timestamp};
use serde::Serialize;

use super::envelope::{Answer, data};
use super::query::{self, Params};
use crate::access::Access;
use crate::app::{App, ScheduleState};

#[derive(Serialize)]
struct ScheduleView {
    function_id: FunctionName,
    cron: String,
    zone: String,
    jitter_ms: u64,
    overlap: Overlap,
    catch_up: CatchUp,
    /// The function is paused: nothing ticks.
    paused: bool,
    /// When the next tick begins, jitter included.
    next_at: Option<Timestamp>,
    /// The run whose end the next tick waits for.
    waits_for: Option<RunId>,
    last: Option<LastView>,
    last_skipped: Option<SkippedView>,
}

/// The last tick that has started a run.
#[derive(Serialize)]
struct LastView {
    scheduled_at: Timestamp,
    run_id: RunId,
}

/// The last tick that has started none.
#[derive(Serialize)]
struct SkippedView {
    scheduled_at: Timestamp,
    decided_at: Timestamp,
    reason: String,
}

impl ScheduleView {
    fn of(state: ScheduleState) -> ScheduleView {
        let schedule = &state.active.schedule;
        ScheduleView {
            function_id: state.active.function.clone(),
            cron: state.active.cron.clone(),
            zone: schedule.zone().to_owned(),
            jitter_ms: u64::try_from(schedule.jitter().as_millis()).unwrap_or(u64::MAX),
            overlap: schedule.overlap(),
            catch_up: schedule.catch_up(),
            paused: state.paused,
            next_at: state.next_at,
            waits_for: state.waits_for,
            last: state.last.map(|last| LastView {
                scheduled_at: last.tick,
                run_id: last.run,
            }),
            last_skipped: state.skipped.map(|skipped| SkippedView {
                scheduled_at: skipped.tick,
                decided_at: skipped.at,
                reason: skipped.reason,
            }),
        }
    }
}

/// `GET`: of all functions that are active, by their names.
pub(super) async fn list(State(app): State<App>, access: Access, params: Params) -> Answer {
    params.only(&["module"])?;
    let module = params.get("module").map(query::module).transpose()?;
    module.map_or(Ok(()), |module| access.module(module))?;
    let found = app.schedules().await?;
    let views: Vec<ScheduleView> = found
        .into_iter()
        .filter(|state| module.is_none_or(|module| module == state.active.function.module()))
        .filter(|state| access.sees(state.active.function.module()))
        .map(ScheduleView::of)
        .collect();
    Ok(data(app.now(), views))
}
