//! One run, live: server-sent events `run`, `step`, `log` and, last, `done`; each carries JSON.
//!
//! The first state is sent at once. Changes only nudge: what is sent is read from the store, so a missed nudge costs time
//! and nothing else. Under load, nudges within a tenth of a second become one.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use dormouse_core::{RunId, Seq};
use dormouse_store::read::Run;
use futures::Stream;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, interval, sleep_until};

use super::envelope::Failed;
use super::query::{self, Params};
use super::runs;
use super::steps::Steps;
use super::view::{LogView, RunView};
use crate::access::Access;
use crate::app::App;
use crate::feed::{Change, Following};
use crate::problem::Problem;

/// Changes within some time of the last look are looked at together. After a rest that time is short, so that an end that
/// comes right after a step is known at once; each look that follows soon doubles it, up to this.
const COALESCE_MAX: Duration = Duration::from_millis(100);
/// That time after a rest.
const COALESCE_MIN: Duration = Duration::from_millis(3);
/// So that proxies and clients know that the stream lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often to see whether the node stops.
const TICK: Duration = Duration::from_secs(1);
/// After how many ticks to look without a nudge: one may have been missed.
const LOOK_EVERY: u32 = 5;
/// Log lines in one read.
const LOG_BATCH: u32 = 500;

/// Nudges about one run.
pub(super) struct Nudges {
    app: App,
    run: RunId,
    changes: broadcast::Receiver<Change>,
    /// Has this node look at the run when another one drives it.
    _following: Following,
    tick: tokio::time::Interval,
    ticks: u32,
    looked: Instant,
    coalesce: Duration,
}

impl Nudges {
    /// Listens from now on.
    pub(super) fn new(app: &App, run: RunId) -> Nudges {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // An interval's first tick comes at once, and nobody needs it.
        tick.reset();
        Nudges {
            app: app.clone(),
            run,
            changes: app.changes(),
            _following: app.inner().feed.follow(run),
            tick,
            ticks: 0,
            looked: Instant::now() - COALESCE_MAX,
            coalesce: COALESCE_MIN,
        }
    }

    /// Waits until it is worth looking again. False: the node stops.
    pub(super) async fn next(&mut self) -> bool {
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Ok(Change::Run(run)) if run == self.run => break,
                    Ok(_) => {}
                    // Some were missed: one of them may have been ours.
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return false,
                },
                _ = self.tick.tick() => {
                    if self.app.inner().draining.load(Ordering::Relaxed) {
                        return false;
                    }
                    self.ticks += 1;
                    if self.ticks.is_multiple_of(LOOK_EVERY) {
                        break;
                    }
                }
            }
        }
        sleep_until(self.looked + self.coalesce).await;
        // What has come in until here is seen by the look that follows.
        while let Ok(_) | Err(TryRecvError::Lagged(_)) = self.changes.try_recv() {}
        let now = Instant::now();
        self.coalesce = coalesce(self.coalesce, now - self.looked);
        self.looked = now;
        true
    }
}

/// For how long to gather changes next time, when it was `last`, and so much has passed `between` two looks.
fn coalesce(last: Duration, between: Duration) -> Duration {
    if between > 2 * COALESCE_MAX {
        COALESCE_MIN
    } else {
        (last * 2).min(COALESCE_MAX)
    }
}

/// `GET /v1/runs/{id}/stream`.
pub(super) async fn stream(
    State(app): State<App>,
    access: Access,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response, Failed> {
    params.only(&[])?;
    let id = query::run_id(&id)?;
    let nudges = Nudges::new(&app, id);
    // A run that is not there is answered as everywhere else, not in a stream.
    runs::find(&app, id).await?;
    let follower = Follower::new(app, access, id, nudges);
    Ok(Sse::new(follower.events())
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response())
}

/// What has been sent, and what is to be.
struct Follower {
    app: App,
    access: Access,
    id: RunId,
    nudges: Nudges,
    started: bool,
    finished: bool,
    sent: Option<RunView>,
    steps: Steps,
    base: Seq,
    next_entry: Seq,
    next_line: u32,
    pending: VecDeque<Event>,
}

impl Follower {
    fn new(app: App, access: Access, id: RunId, nudges: Nudges) -> Follower {
        Follower {
            app,
            access,
            id,
            nudges,
            started: false,
            finished: false,
            sent: None,
            steps: Steps::new(id),
            base: 0,
            next_entry: 0,
            next_line: 0,
            pending: VecDeque::new(),
        }
    }

    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        futures::stream::unfold(self, |mut follower| async move {
            loop {
                if let Some(event) = follower.pending.pop_front() {
                    return Some((Ok(event), follower));
                }
                if follower.finished {
                    return None;
                }
                if follower.started && !follower.nudges.next().await {
                    return None;
                }
                follower.started = true;
                if let Err(problem) = follower.look().await {
                    // The client connects again, and is told what is wrong if it still is.
                    tracing::debug!(run_id = %follower.id, %problem, "a stream ended early");
                    return None;
                }
            }
        })
    }

    /// Reads what is new and queues it. The row comes first: entries and lines that are read after it are at least as
    /// new, so nothing is missing when it says that the run has ended.
    async fn look(&mut self) -> Result<(), Problem> {
        let run = runs::find(&self.app, self.id).await?;
        if run.journal_base != self.base {
            // It began anew: the entries before are gone.
            self.steps = Steps::new(self.id);
            self.base = run.journal_base;
            self.next_entry = run.journal_base;
        }
        let view = RunView::of(&run, &self.access);
        if self.sent.as_ref() != Some(&view) {
            self.queue("run", &view);
            self.sent = Some(view);
        }
        self.entries(&run).await?;
        self.lines().await?;
        if run.state.status.is_terminal() {
            self.queue("done", &RunView::with_steps(&run, &self.steps, &self.access));
            self.finished = true;
        }
        Ok(())
    }

    async fn entries(&mut self, run: &Run) -> Result<(), Problem> {
        let mut changed: BTreeSet<usize> = BTreeSet::new();
        for entry in runs::entries(&self.app, run, self.next_entry).await? {
            self.next_entry = entry.seq + 1;
            changed.extend(self.steps.push(entry));
        }
        if run.state.status.is_terminal() {
            // The end closes what was open, which no entry says.
            changed.extend((0..self.steps.len()).filter(|index| self.closes(*index, run)));
        }
        for index in changed {
            if let Some(mut step) = self.steps.get(index, run.state) {
                step.hide(&self.access);
                self.queue("step", &step);
            }
        }
        Ok(())
    }

    /// Whether a step is shown otherwise now that the run has ended.
    fn closes(&self, index: usize, run: &Run) -> bool {
        let live = dormouse_core::run::State::NEW;
        self.steps.get(index, live) != self.steps.get(index, run.state)
    }

    async fn lines(&mut self) -> Result<(), Problem> {
        if !self.access.payloads() {
            return Ok(());
        }
        loop {
            let lines = self.app.store().logs(self.id, self.next_line, LOG_BATCH).await?;
            let full = lines.len() == LOG_BATCH as usize;
            for line in lines {
                self.next_line = line.number + 1;
                self.queue("log", &LogView::of(line));
            }
            if !full {
                return Ok(());
            }
        }
    }

    fn queue<T: Serialize>(&mut self, name: &str, data: &T) {
        match Event::default().event(name).json_data(data) {
            Ok(event) => self.pending.push_back(event),
            Err(error) => {
                tracing::error!(run_id = %self.id, %error, "an event of a stream cannot be written")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_change_is_seen_soon_and_a_stream_of_them_rarely() {
        let mut last = COALESCE_MAX;
        last = coalesce(last, Duration::from_secs(1));
        assert_eq!(last, COALESCE_MIN);
        // Changes without end: a look takes a few milliseconds itself, and the pace still slows down to the longest.
        let mut looks = 0;
        let mut passed = Duration::ZERO;
        while passed < Duration::from_secs(10) {
            let between = last + Duration::from_millis(5);
            passed += between;
            looks += 1;
            last = coalesce(last, between);
        }
        assert_eq!(last, COALESCE_MAX);
        assert!(looks <= 105, "{looks}");
    }
}
