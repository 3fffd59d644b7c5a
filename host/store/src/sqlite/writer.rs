//! The one writer: takes what is queued, makes one transaction of it, answers all.
//!
//! While a commit waits for the disk, the next batch gathers, so there is no artificial delay: a lone caller pays one
//! commit, and under load a commit is shared by hundreds. A request that fails takes nobody with it: the batch is
//! rolled back and done again one by one. The exception is a device that fails: then nothing can be promised any
//! more, everybody is told so, and the writer stops.

use std::time::Instant;

use dormouse_core::RunId;
use sqlx::{Connection as _, SqliteConnection};

use super::cache::Cache;
use super::execute::Writing;
use super::sql::execute;
use super::{
    cancellations, command, cron, ending, ends, ingest, pausing, registry, runs, schedule, swaps, upkeep,
    waits,
};
use crate::batch;
use crate::batch::queue::{Inbox, Queue, queue};
use crate::batch::request::{Answer, Request};
use crate::batch::runs::Work;
use crate::cron::{Tick, Ticked};
use crate::ends::{Tell, Told};
use crate::error::{Error, Result};
use crate::ingest::Ingest;

/// What is to be stored with other things: by appends, by ticks, by ends that are told.
type Begun<'r> = (Vec<&'r Ingest>, Vec<(usize, &'r Tick)>, Vec<(usize, &'r Tell)>);

/// The writer's own state.
pub(super) struct Writer {
    conn: SqliteConnection,
    cache: Cache,
    inbox: Inbox,
    /// The transaction at work has made waiting runs ready.
    woke: bool,
    /// And cancelled these by events.
    cancelled: Vec<RunId>,
    /// Held until the connection is closed.
    _lock: super::lock::DirectoryLock,
}

impl Writer {
    /// Starts the writer on its connection.
    pub(super) async fn start(
        mut conn: SqliteConnection,
        lock: super::lock::DirectoryLock,
        capacity: usize,
    ) -> Result<Queue> {
        let cache = Cache::load(&mut conn).await?;
        let (queue, inbox) = queue(capacity);
        let writer = Writer {
            conn,
            cache,
            inbox,
            woke: false,
            cancelled: Vec::new(),
            _lock: lock,
        };
        // A task of its own: no caller's cancellation reaches into a transaction.
        tokio::spawn(writer.run());
        Ok(queue)
    }

    async fn run(mut self) {
        while let Some(batch) = self.inbox.next().await {
            let answers = self.commit(&batch.requests, batch.rows).await;
            batch.answer(answers);
            if let Some(error) = self.inbox.fatal().cloned() {
                tracing::error!(%error, "a write could not be made durable: the store stops");
                self.inbox.stop(&error);
                break;
            }
        }
        if self.inbox.fatal().is_none()
            && let Err(error) = self.conn.close().await
        {
            tracing::warn!(%error, "the database was not closed cleanly; nothing is lost");
        }
        drop(self._lock);
        self.inbox.ended();
    }

    /// One transaction for all, or one for each when they can't be together.
    async fn commit(&mut self, requests: &[Request], rows: usize) -> Vec<Result<Answer>> {
        let began = Instant::now();
        let refs: Vec<&Request> = requests.iter().collect();
        let answers = match self.transaction(&refs).await {
            Ok(answers) => answers,
            Err(error) if self.is_final(&error) || requests.len() == 1 => {
                requests.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "a batch was rolled back; its requests are done one by one");
                let mut answers = Vec::with_capacity(requests.len());
                for request in requests {
                    answers.push(match self.inbox.fatal() {
                        Some(error) => Err(error.clone()),
                        None => match self.transaction(&[request]).await {
                            Ok(mut answers) => answers.pop().unwrap_or(Err(Error::Busy)),
                            Err(error) => {
                                self.is_final(&error);
                                Err(error)
                            }
                        },
                    });
                }
                answers
            }
        };
        metrics::histogram!("dormouse_commit_seconds").record(began.elapsed().as_secs_f64());
        metrics::histogram!("dormouse_commit_rows").record(rows as f64);
        answers
    }

    /// Whether an error concerns all requests alike. A fatal one is remembered.
    fn is_final(&self, error: &Error) -> bool {
        match error {
            Error::Fatal(_) => {
                self.inbox.set_fatal(error.clone());
                true
            }
            Error::Full(_) | Error::Unavailable(_) => true,
            _ => false,
        }
    }

    /// Does the requests in one transaction. After an error nothing of them is written.
    async fn transaction(&mut self, requests: &[&Request]) -> Result<Vec<Result<Answer>>> {
        execute(&mut self.conn, "BEGIN IMMEDIATE", |_| {}).await?;
        let done = match self.apply(requests).await {
            Ok(answers) => execute(&mut self.conn, "COMMIT", |_| {}).await.map(|_| answers),
            Err(error) => Err(error),
        };
        if std::mem::take(&mut self.woke) && done.is_ok() {
            self.inbox.wake();
        }
        let cancelled = std::mem::take(&mut self.cancelled);
        if done.is_ok() {
            self.inbox.cancel(cancelled);
        }
        if done.is_err() {
            // SQLite has rolled back by itself after some errors; then this one says so, which is fine.
            let _ = execute(&mut self.conn, "ROLLBACK", |_| {}).await;
            match Cache::load(&mut self.conn).await {
                Ok(cache) => self.cache = cache,
                // What is remembered may not be what is stored, so nothing more may be decided on it.
                Err(error) => {
                    self.inbox.set_fatal(Error::Fatal(format!(
                        "after a rollback the database cannot be read: {error}"
                    )));
                }
            }
        }
        done
    }

    async fn apply(&mut self, requests: &[&Request]) -> Result<Vec<Result<Answer>>> {
        let mut answers: Vec<Option<Result<Answer>>> = Vec::new();
        answers.resize_with(requests.len(), || None);
        let carried = self.appends(requests, &mut answers).await?;
        let ticks = self.ticks(requests, &mut answers).await?;
        let tells = self.tells(requests, &mut answers).await?;
        self.ingests(requests, (carried, ticks, tells), &mut answers)
            .await?;
        for (request, answer) in requests.iter().zip(&mut answers) {
            if request.is_grouped() {
                continue;
            }
            // Claims look at what single requests may have freed; what appends have is known.
            self.cache.slots_freed |= may_free_slots(request);
            *answer = Some(match self.single(request).await {
                Ok(answer) => Ok(answer),
                // Decided before anything was written.
                Err(error @ (Error::DeclaredDead | Error::StaleRegistry)) => Err(error),
                Err(error) => return Err(error),
            });
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Err(Error::Busy)))
            .collect())
    }

    /// Does the appends. Returns the ingests that came with them and are to be stored.
    async fn appends<'r>(
        &mut self,
        requests: &[&'r Request],
        answers: &mut [Option<Result<Answer>>],
    ) -> Result<Vec<&'r Ingest>> {
        let ids: Vec<_> = requests
            .iter()
            .filter_map(|request| match request {
                Request::Append(append) => Some(append.run),
                _ => None,
            })
            .collect();
        let mut carried = Vec::new();
        if ids.is_empty() {
            return Ok(carried);
        }
        let mut work = Work::default();
        runs::load(&mut self.conn, &mut work, ids).await?;
        for (request, answer) in requests.iter().zip(answers) {
            let Request::Append(append) = request else {
                continue;
            };
            if let Some(ingest) = &append.ingest
                && let Err(error) = batch::ingest::check_carried(&self.cache, ingest)
            {
                *answer = Some(Err(error));
                continue;
            }
            let to = match batch::swaps::target(&self.cache, append) {
                Ok(to) => to,
                Err(error) => {
                    *answer = Some(Err(error));
                    continue;
                }
            };
            let (appended, fresh) =
                batch::execute::append(&mut Writing(&mut self.conn), &mut work, append, to).await?;
            carried.extend(append.ingest.as_ref().filter(|_| fresh));
            *answer = Some(Ok(Answer::Appended(appended)));
        }
        waits::remember_paths(&mut self.conn, &mut self.cache, &work).await?;
        self.woke |= work.woke;
        self.cache.slots_freed |= work.freed;
        runs::flush(&mut self.conn, &mut work).await?;
        Ok(carried)
    }

    /// Moves schedules on. Returns the ticks that are to be started, with their places among the requests.
    async fn ticks<'r>(
        &mut self,
        requests: &[&'r Request],
        answers: &mut [Option<Result<Answer>>],
    ) -> Result<Vec<(usize, &'r Tick)>> {
        let mut started = Vec::new();
        for (place, request) in requests.iter().enumerate() {
            let Request::Tick(tick) = *request else {
                continue;
            };
            if let Err(error) = batch::cron::check(&self.cache, tick) {
                answers[place] = Some(Err(error));
            } else if !cron::move_on(&mut self.conn, tick).await? {
                answers[place] = Some(Ok(Answer::Ticked(Ticked::Lost)));
            } else if tick.start.is_some() {
                started.push((place, tick));
            } else {
                cron::leave(&mut self.conn, tick, None).await?;
                answers[place] = Some(Ok(Answer::Ticked(Ticked::Done(None))));
            }
        }
        Ok(started)
    }

    /// Takes ends off the list. Returns those that are to be told, with their places among the requests.
    async fn tells<'r>(
        &mut self,
        requests: &[&'r Request],
        answers: &mut [Option<Result<Answer>>],
    ) -> Result<Vec<(usize, &'r Tell)>> {
        let mut told = Vec::new();
        for (place, request) in requests.iter().enumerate() {
            let Request::Tell(tell) = *request else {
                continue;
            };
            if let Err(error) = batch::ends::check(&self.cache, tell) {
                answers[place] = Some(Err(error));
            } else if ends::take(&mut self.conn, tell.run).await? {
                told.push((place, tell));
            } else {
                answers[place] = Some(Ok(Answer::Told(Told::Before)));
            }
        }
        Ok(told)
    }

    async fn ingests<'r>(
        &mut self,
        requests: &[&'r Request],
        (carried, ticks, tells): Begun<'r>,
        answers: &mut [Option<Result<Answer>>],
    ) -> Result<()> {
        let own = carried.len();
        let mut ingests = carried;
        ingests.extend(batch::cron::ingests(&ticks));
        let ticked = ingests.len();
        ingests.extend(batch::ends::ingests(&tells));
        let started = ingests.len();
        let mut places = Vec::new();
        for (place, request) in requests.iter().enumerate() {
            if let Request::Ingest(ingest) = request {
                ingests.push(ingest);
                places.push(place);
            }
        }
        if ingests.is_empty() {
            return Ok(());
        }
        let ingested = ingest::ingest(&mut self.conn, &mut self.cache, &ingests).await?;
        let mut created = ingested.answers;
        self.woke |= ingested.woken;
        self.cancelled.extend(ingested.cancelled);
        let asked = created.split_off(started);
        let told = created.split_off(ticked);
        for ((place, _), created) in tells.into_iter().zip(told) {
            answers[place] = Some(Ok(Answer::Told(Told::Done(created?))));
        }
        // They were checked before their schedules were moved.
        for ((place, tick), created) in ticks.into_iter().zip(created.split_off(own)) {
            let created = created?.first().copied();
            cron::leave(&mut self.conn, tick, created).await?;
            answers[place] = Some(Ok(Answer::Ticked(Ticked::Done(created))));
        }
        // They were checked before their entries were written: what fails now takes the entries with it.
        for carried in created {
            carried?;
        }
        for (place, created) in places.into_iter().zip(asked) {
            answers[place] = Some(created.map(Answer::Created));
        }
        Ok(())
    }

    async fn single(&mut self, request: &Request) -> Result<Answer> {
        let conn = &mut self.conn;
        let cache = &mut self.cache;
        Ok(match request {
            Request::Append(_) | Request::Ingest(_) | Request::Tick(_) | Request::Tell(_) => {
                return Err(Error::Corrupt(
                    "a grouped request was taken for a single one".to_owned(),
                ));
            }
            Request::Claim(claim, _) => Answer::Claimed(schedule::claim(conn, cache, claim).await?),
            Request::FireTimers(fire) => Answer::Fired(schedule::fire_timers(conn, cache, fire).await?),
            Request::Join(node, now) => Answer::Standing(schedule::join(conn, cache, node, *now).await?),
            Request::Heartbeat(node, now) => {
                Answer::Standing(schedule::heartbeat(conn, cache, *node, *now).await?)
            }
            Request::Drain(node) => Answer::Count(schedule::drain(conn, *node).await?),
            Request::Leave(node) => {
                schedule::leave(conn, cache, *node).await?;
                Answer::Done
            }
            Request::TakeOver(limit, now) => Answer::Count(schedule::take_over(conn, *limit, *now).await?),
            Request::Cancel(run, now) => {
                let (commanded, woken) = command::cancel(conn, *run, *now).await?;
                self.woke |= woken;
                Answer::Commanded(commanded)
            }
            Request::CancelOrphans(limit, now) => {
                Answer::Orphans(command::cancel_orphans(conn, *limit, *now).await?)
            }
            Request::Expire(limit, now) => {
                let (expired, woken) = ending::expire(conn, *limit, *now).await?;
                self.woke |= woken;
                Answer::Expired(expired)
            }
            Request::Wake(run, operation, now) => {
                Answer::Commanded(command::wake(conn, *run, *operation, *now).await?)
            }
            Request::Unblock(module, now) => Answer::Count(command::unblock(conn, module, *now).await?),
            Request::RetryUnreadable(release, limit, now) => {
                Answer::Count(command::retry_unreadable(conn, release, *limit, *now).await?)
            }
            Request::AskVersion(run, asked, now) => {
                Answer::Commanded(swaps::ask(conn, cache, *run, asked.as_ref(), *now).await?)
            }
            Request::WakeToRestart(restart) => Answer::Count(swaps::wake_to_restart(conn, restart).await?),
            Request::Pause(run) => Answer::Commanded(pausing::pause(conn, *run).await?),
            Request::Resume(run, now) => Answer::Commanded(pausing::resume(conn, *run, *now).await?),
            Request::PauseFunction(function, now) => {
                Answer::Changed(pausing::function(conn, cache, function, Some(*now)).await?)
            }
            Request::ResumeFunction(function) => {
                Answer::Changed(pausing::function(conn, cache, function, None).await?)
            }
            Request::ReleaseHeld(limit, now) => Answer::Count(pausing::release(conn, *limit, *now).await?),
            Request::PutCancellation(new) => {
                Answer::Cancellation(cancellations::put(conn, cache, new).await?)
            }
            Request::DeleteCancellation(id) => Answer::Count(cancellations::delete(conn, *id).await?),
            Request::CancelExamined(examined) => {
                let (runs, woken) = cancellations::examined(conn, examined).await?;
                self.woke |= woken;
                Answer::Cancelled(runs)
            }
            Request::Signal(signal, data, now) => {
                let (run, woken) = waits::signal(conn, signal, data, *now).await?;
                self.woke |= woken;
                Answer::Signalled(run)
            }
            Request::PutSchedules(new) => {
                cron::put(conn, cache, new).await?;
                Answer::Done
            }
            Request::PutVersion(version) => {
                Answer::Stored(registry::put_version(conn, cache, version).await?)
            }
            Request::Activate(module, digest, policy, now) => {
                Answer::Changed(registry::activate(conn, cache, module, *digest, *policy, *now).await?)
            }
            Request::DeleteVersion(module, digest) => {
                Answer::Changed(registry::delete_version(conn, cache, module, *digest).await?)
            }
            Request::PutConfig(document, now) => {
                Answer::Revision(registry::put_config(conn, document, *now).await?)
            }
            Request::Probe(now) => {
                upkeep::probe(conn, *now).await?;
                Answer::Done
            }
            Request::Prune(before, limit) => Answer::Count(upkeep::prune(conn, *before, *limit).await?),
        })
    }
}

/// Whether a single request may end leases, or change what limits say. Cheap to be wrong about: a claim looks then.
fn may_free_slots(request: &Request) -> bool {
    !matches!(
        request,
        Request::Claim(..)
            | Request::FireTimers(_)
            | Request::Heartbeat(..)
            | Request::Probe(_)
            | Request::Signal(..)
            | Request::Prune(..)
            | Request::PutSchedules(_)
            | Request::ReleaseHeld(..)
    )
}
