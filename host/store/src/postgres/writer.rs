//! The one writer of a node: takes what is queued, makes one transaction of it, answers all.
//!
//! Batches as on SQLite: no delay, a request that fails takes nobody with it. What is different is that the database is
//! elsewhere. A lost connection is made again; while it cannot be, callers are told that the database is not available.
//! A deadlock or the like is tried again. When the connection is lost between COMMIT and its answer, the receipt says
//! what came of it, so that callers are told the truth and nothing is done twice.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_core::RunId;
use tokio::sync::Notify;

use super::cache::{Cache, lock_alone, lock_shared};
use super::connect::{Address, Purpose};
use super::execute::Writing;
use super::fault::{Attempt, Fault};
use super::marks::Marks;
use super::sql::{Cells, Conn, Key};
use super::{
    cancellations, command, cron, ending, ends, ingest, pausing, registry, runs, schedule, swaps, upkeep,
    waits, windows,
};
use crate::batch;
use crate::batch::queue::Inbox;
use crate::batch::request::{Answer, Request};
use crate::batch::runs::Work;
use crate::cron::{Tick, Ticked};
use crate::ends::{Tell, Told};
use crate::error::{Error, Result};
use crate::execute::Then;
use crate::ingest::Ingest;
use crate::schedule::Incarnation;

/// A transaction that Postgres wants done again is done so often.
pub(super) const TRIES: u32 = 8;
/// A transaction takes no longer than this, its commit apart.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(45);
/// A commit that is not answered within this time may or may not have been made.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(15);
/// So long it is tried to find out which.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to connect: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Receipts are deleted when there are so many new ones.
const RECEIPTS_KEPT: i64 = 512;

/// What a transaction does beside the rows it writes.
pub(super) struct Effects<'w> {
    /// Where the queues begin.
    pub(super) marks: &'w Marks,
    /// Other nodes may want to know of it.
    pub(super) tell: bool,
    /// Waiting runs were made ready: this node wants to know of it, too.
    pub(super) woke: bool,
    /// Runs were cancelled by events.
    pub(super) cancelled: Vec<RunId>,
}

/// The writer's own state.
pub(super) struct Writer {
    address: Arc<Address>,
    conn: Option<Conn>,
    cache: Cache,
    inbox: Inbox,
    marks: Arc<Marks>,
    /// Other nodes are told when this is nudged.
    tell: Arc<Notify>,
    /// This writer's name on receipts, and the number of its last one.
    writer: [u8; 16],
    number: i64,
    swept: i64,
    /// Until when it is not tried to connect, for how long after that, and why.
    down: Option<(Instant, Duration, String)>,
}

/// What came of a transaction's statements.
struct Applied {
    answers: Vec<Result<Answer>>,
    tell: bool,
    woke: bool,
    cancelled: Vec<RunId>,
}

impl Writer {
    /// A writer on a connection that works.
    pub(super) fn new(
        address: Arc<Address>,
        conn: Conn,
        inbox: Inbox,
        marks: Arc<Marks>,
        tell: Arc<Notify>,
        writer: [u8; 16],
    ) -> Writer {
        Writer {
            address,
            conn: Some(conn),
            cache: Cache::default(),
            inbox,
            marks,
            tell,
            writer,
            number: 0,
            swept: 0,
            down: None,
        }
    }

    /// Writes until the queue is closed. To be run in a task of its own: no caller's cancellation reaches into a
    /// transaction.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.inbox.next().await {
            let answers = self.commit(&batch.requests, batch.rows).await;
            batch.answer(answers);
        }
        if let Some(conn) = self.conn.take() {
            use sqlx::Connection as _;
            let _ = tokio::time::timeout(COMMIT_TIMEOUT, conn.pg.close()).await;
        }
        self.inbox.ended();
    }

    /// One transaction for all, or one for each when they can't be together.
    async fn commit(&mut self, requests: &[Request], rows: usize) -> Vec<Result<Answer>> {
        let began = Instant::now();
        let refs: Vec<&Request> = requests.iter().collect();
        let answers = match self.transaction(&refs).await {
            Ok(answers) => answers,
            Err(error) if concerns_all(&error) || requests.len() == 1 => {
                requests.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "a batch was rolled back; its requests are done one by one");
                let mut answers = Vec::with_capacity(requests.len());
                for request in requests {
                    answers.push(match self.transaction(&[request]).await {
                        Ok(mut answers) => answers.pop().unwrap_or(Err(Error::Busy)),
                        Err(error) => Err(error),
                    });
                }
                answers
            }
        };
        metrics::histogram!("dormouse_commit_seconds").record(began.elapsed().as_secs_f64());
        metrics::histogram!("dormouse_commit_rows").record(rows as f64);
        answers
    }

    /// Does the requests in one transaction, again if need be. After an error other than [`Error::Unknown`] nothing of
    /// them is written.
    async fn transaction(&mut self, requests: &[&Request]) -> Result<Vec<Result<Answer>>> {
        let (mut tries, mut lost) = (0, false);
        loop {
            let fault = match self.attempt(requests).await {
                Ok(answers) => return Ok(answers),
                Err(fault) => fault,
            };
            self.cache.forget();
            match fault {
                Fault::Refused(error) => return Err(error),
                Fault::Again(why) if tries < TRIES => {
                    tries += 1;
                    tracing::debug!(why, tries, "a transaction is done again");
                    repeated(tries).await;
                }
                // A connection that was idle may have ended long ago; a new one says how things are.
                Fault::Lost(why) if !lost && self.down.is_none() => {
                    lost = true;
                    tracing::warn!(why, "the connection to the database is made again");
                }
                fault => return Err(fault.into_error()),
            }
        }
    }

    async fn attempt(&mut self, requests: &[&Request]) -> Attempt<Vec<Result<Answer>>> {
        // Taken, so that a connection whose state is not known is not kept.
        let mut conn = self.connected().await?;
        let applied = tokio::time::timeout(TRANSACTION_TIMEOUT, self.apply(&mut conn, requests)).await;
        let applied = match applied {
            Ok(Ok(applied)) => applied,
            Ok(Err(Fault::Lost(why))) => return Err(Fault::Lost(why)),
            Ok(Err(fault)) => {
                self.roll_back(conn).await;
                return Err(fault);
            }
            Err(_) => return Err(Fault::Lost("the database does not answer".to_owned())),
        };
        let wrote = conn.wrote;
        let text = match wrote {
            true => {
                self.number += 1;
                format!("{}; COMMIT", self.receipt())
            }
            false => "COMMIT".to_owned(),
        };
        match tokio::time::timeout(COMMIT_TIMEOUT, conn.simple(text)).await {
            Ok(Ok(())) => self.conn = Some(conn),
            Ok(Err(Fault::Lost(why))) if wrote => self.resolve(why).await?,
            Err(_) if wrote => self.resolve("the commit was not answered".to_owned()).await?,
            Ok(Err(Fault::Lost(why))) => return Err(Fault::Lost(why)),
            Err(_) => return Err(Fault::Lost("the database does not answer".to_owned())),
            Ok(Err(fault)) => {
                self.roll_back(conn).await;
                return Err(fault);
            }
        }
        if applied.woke {
            self.inbox.wake();
        }
        self.inbox.cancel(applied.cancelled);
        if applied.tell {
            self.tell.notify_one();
        }
        Ok(applied.answers)
    }

    async fn roll_back(&mut self, mut conn: Conn) {
        if let Ok(Ok(())) = tokio::time::timeout(COMMIT_TIMEOUT, conn.simple("ROLLBACK")).await {
            self.conn = Some(conn);
        }
    }

    /// The connection, made again if it was lost. Not tried too often: callers wait for this.
    async fn connected(&mut self) -> Attempt<Conn> {
        if let Some(conn) = self.conn.take() {
            return Ok(conn);
        }
        if let Some((until, _, why)) = &self.down
            && Instant::now() < *until
        {
            return Err(Error::Unavailable(why.clone()).into());
        }
        match self.address.connect(Purpose::Write).await {
            Ok(conn) => {
                if self.down.take().is_some() {
                    tracing::info!("the database is there again");
                }
                Ok(conn)
            }
            Err(fault) => {
                let why = fault.into_error();
                let pause = match &self.down {
                    Some((_, pause, _)) => (*pause * 2).min(BACK_OFF.1),
                    None => BACK_OFF.0,
                };
                let text = match &why {
                    Error::Unavailable(text) => text.clone(),
                    other => other.to_string(),
                };
                self.down = Some((Instant::now() + pause, pause, text));
                Err(why.into())
            }
        }
    }

    // ---- receipts ------------------------------------------------------------------------------------------------

    fn receipt(&self) -> String {
        format!(
            "INSERT INTO receipts (writer, number, at_ms) VALUES ('{}', {}, (extract(epoch FROM clock_timestamp()) * 1000)::int8)",
            Incarnation(self.writer),
            self.number
        )
    }

    /// Finds out whether the last commit was made. Ok: it was. [`Fault::Again`]: it was not, and never will be.
    async fn resolve(&mut self, why: String) -> Attempt<()> {
        tracing::warn!(why, "a commit's outcome is not known; finding out");
        metrics::counter!("dormouse_commits_unknown_total").increment(1);
        let deadline = Instant::now() + RESOLVE_TIMEOUT;
        loop {
            let settled = tokio::time::timeout(COMMIT_TIMEOUT, self.settle()).await;
            let trouble = match settled {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => return Err(Fault::Again(why)),
                Ok(Err(fault)) => fault.into_error(),
                Err(_) => Error::Unavailable("the database does not answer".to_owned()),
            };
            if Instant::now() >= deadline {
                return Err(Error::Unknown(format!("{why}; {trouble}")).into());
            }
            // Whoever comes meanwhile need not wait for that.
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                batch = self.inbox.next() => match batch {
                    Some(batch) => batch.refuse(&trouble),
                    None => tokio::time::sleep(Duration::from_millis(200)).await,
                },
            }
        }
    }

    /// Whether the receipt of the last commit is there. If not, one that says that it was not made takes its place: then
    /// even a server that still works on it can no longer make it.
    async fn settle(&mut self) -> Attempt<bool> {
        self.down = None;
        let mut conn = self.address.connect(Purpose::Write).await?;
        let (writer, number) = (self.writer, self.number);
        conn.simple(self.address.begin(Purpose::Write)).await?;
        conn.execute(
            "INSERT INTO receipts (writer, number, at_ms) VALUES ($1, $2, -1) ON CONFLICT DO NOTHING",
            |args| {
                args.key(Key(writer)).int(number);
            },
        )
        .await?;
        let rows = conn
            .fetch(
                "SELECT at_ms FROM receipts WHERE writer = $1 AND number = $2",
                |args| {
                    args.key(Key(writer)).int(number);
                },
            )
            .await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::Corrupt("a receipt is not there".to_owned()))?;
        let made = Cells::of(row).int()? >= 0;
        conn.simple("COMMIT").await?;
        self.conn = Some(conn);
        Ok(made)
    }

    async fn sweep_receipts(&mut self, conn: &mut Conn) -> Attempt<()> {
        if self.number - self.swept < RECEIPTS_KEPT {
            return Ok(());
        }
        let (from, to) = (self.swept, self.number);
        conn.execute(
            "DELETE FROM receipts WHERE writer = $1 AND number >= $2 AND number < $3",
            |args| {
                args.key(Key(self.writer)).int(from).int(to);
            },
        )
        .await?;
        self.swept = to;
        Ok(())
    }

    // ---- a transaction's statements ------------------------------------------------------------------------------

    async fn apply(&mut self, conn: &mut Conn, requests: &[&Request]) -> Attempt<Applied> {
        let ingests: Vec<_> = requests
            .iter()
            .filter_map(|request| match request {
                Request::Ingest(ingest) => Some(ingest),
                Request::Append(append) => append.ingest.as_ref(),
                Request::Tick(tick) => tick.start.as_ref().map(|start| &start.ingest),
                Request::Tell(tell) => Some(&tell.ingest),
                _ => None,
            })
            .collect();
        let changes_registry = requests.iter().any(|request| {
            matches!(
                request,
                Request::PutVersion(_)
                    | Request::Activate(..)
                    | Request::DeleteVersion(..)
                    | Request::PutConfig(..)
                    | Request::PauseFunction(..)
                    | Request::ResumeFunction(..)
                    | Request::PutCancellation(..)
                    | Request::PutSchedules(..)
            )
        });
        let decided_on_registry = |request: &&Request| match request {
            Request::Tick(_) => true,
            Request::Append(append) => append.swap.is_some(),
            Request::AskVersion(_, asked, _) => asked.is_some(),
            _ => false,
        };
        let reads_registry = !ingests.is_empty() || requests.iter().any(decided_on_registry);
        let functions = || {
            ingests
                .iter()
                .flat_map(|ingest| &ingest.runs)
                .map(|run| &run.function)
        };
        if ingests.iter().any(|ingest| !ingest.runs.is_empty()) {
            // In a transaction of its own: the numbers are good whatever becomes of the runs.
            let unnumbered = self.cache.unnumbered(functions());
            if !unnumbered.is_empty() {
                let begin = self.address.begin(Purpose::Write);
                conn.simple(format!("{begin}; {}", lock_alone())).await?;
                self.cache.number_functions(conn, &unnumbered).await?;
                conn.simple("COMMIT").await?;
            }
        }
        let mut begin = self.address.begin(Purpose::Write);
        if changes_registry {
            begin += &format!("; {}", lock_alone());
        } else if reads_registry {
            begin += &format!("; {}", lock_shared());
        }
        begin += &waits::lock_names(&self.cache, requests, &ingests);
        conn.wrote = false;
        conn.simple(begin).await?;
        if changes_registry || reads_registry {
            let mut nodes: Vec<Incarnation> = ingests
                .iter()
                .flat_map(|ingest| &ingest.runs)
                .filter_map(|run| run.lease)
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            let events = ingests.iter().flat_map(|ingest| &ingest.events);
            let mut names: Vec<&str> = events.map(|event| event.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            self.cache.refresh(conn, &nodes, &names).await?;
        }
        let marks = Arc::clone(&self.marks);
        let mut effects = Effects {
            marks: &marks,
            tell: changes_registry,
            woke: false,
            cancelled: Vec::new(),
        };
        let mut answers: Vec<Option<Result<Answer>>> = Vec::new();
        answers.resize_with(requests.len(), || None);
        let woken = waits::candidates(conn, &self.cache, requests, &ingests).await?;
        let collecting = windows::candidates(conn, &self.cache, &ingests).await?;
        let locked = locks(requests, &ingests, (woken, collecting));
        let carried = appends(
            conn,
            &mut self.cache,
            &mut effects,
            requests,
            &locked,
            &mut answers,
        )
        .await?;
        let ticks = ticks(conn, &self.cache, requests, &mut answers).await?;
        let tells = tells(conn, &self.cache, requests, &mut answers).await?;
        let begun = (carried, ticks, tells);
        self.ingests(conn, &mut effects, requests, begun, &locked, &mut answers)
            .await?;
        for (request, answer) in requests.iter().zip(&mut answers) {
            if request.is_grouped() {
                continue;
            }
            *answer = Some(match self.single(conn, &mut effects, request).await {
                Ok(answer) => Ok(answer),
                // Decided before anything was written.
                Err(Fault::Refused(error @ (Error::DeclaredDead | Error::StaleRegistry))) => Err(error),
                Err(fault) => return Err(fault),
            });
        }
        self.sweep_receipts(conn).await?;
        Ok(Applied {
            answers: answers
                .into_iter()
                .map(|answer| answer.unwrap_or(Err(Error::Busy)))
                .collect(),
            tell: effects.tell,
            woke: effects.woke,
            cancelled: effects.cancelled,
        })
    }

    async fn ingests<'r>(
        &mut self,
        conn: &mut Conn,
        effects: &mut Effects<'_>,
        requests: &[&'r Request],
        (carried, ticks, tells): Begun<'r>,
        locked: &Locked,
        answers: &mut [Option<Result<Answer>>],
    ) -> Attempt<()> {
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
        let mut created = ingest::ingest(
            conn,
            &mut self.cache,
            effects,
            &ingests,
            (&locked.runs, locked.awaiting),
        )
        .await?;
        let asked = created.split_off(started);
        let told = created.split_off(ticked);
        for ((place, _), created) in tells.into_iter().zip(told) {
            answers[place] = Some(Ok(Answer::Told(Told::Done(created?))));
        }
        // They were checked before their schedules were moved.
        for ((place, tick), created) in ticks.into_iter().zip(created.split_off(own)) {
            let created = created?.first().copied();
            cron::leave(conn, tick, created).await?;
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

    async fn single(
        &mut self,
        conn: &mut Conn,
        effects: &mut Effects<'_>,
        request: &Request,
    ) -> Attempt<Answer> {
        let cache = &mut self.cache;
        Ok(match request {
            Request::Append(_)
            | Request::Ingest(_)
            | Request::Tick(_)
            | Request::Tell(_)
            | Request::Join(..)
            | Request::Heartbeat(..)
            | Request::Leave(_)
            | Request::Drain(_) => {
                return Err(Error::Corrupt("a request was handed to the wrong place".to_owned()).into());
            }
            Request::Claim(claim, freed) => {
                Answer::Claimed(schedule::claim(conn, cache, effects, claim, *freed).await?)
            }
            Request::FireTimers(fire) => {
                Answer::Fired(schedule::fire_timers(conn, cache, effects, fire).await?)
            }
            Request::TakeOver(limit, now) => {
                Answer::Count(schedule::take_over(conn, effects, *limit, *now).await?)
            }
            Request::Cancel(run, now) => Answer::Commanded(command::cancel(conn, effects, *run, *now).await?),
            Request::CancelOrphans(limit, now) => {
                Answer::Orphans(command::cancel_orphans(conn, effects, *limit, *now).await?)
            }
            Request::Expire(limit, now) => {
                Answer::Expired(ending::expire(conn, effects, *limit, *now).await?)
            }
            Request::Wake(run, operation, now) => {
                Answer::Commanded(command::wake(conn, effects, *run, *operation, *now).await?)
            }
            Request::Unblock(module, now) => {
                Answer::Count(command::unblock(conn, effects, module, *now).await?)
            }
            Request::RetryUnreadable(release, limit, now) => {
                Answer::Count(command::retry_unreadable(conn, effects, release, *limit, *now).await?)
            }
            Request::AskVersion(run, asked, now) => {
                Answer::Commanded(swaps::ask(conn, cache, effects, *run, asked.as_ref(), *now).await?)
            }
            Request::WakeToRestart(restart) => {
                Answer::Count(swaps::wake_to_restart(conn, effects, restart).await?)
            }
            Request::Pause(run) => Answer::Commanded(pausing::pause(conn, effects, *run).await?),
            Request::Resume(run, now) => Answer::Commanded(pausing::resume(conn, effects, *run, *now).await?),
            Request::PauseFunction(function, now) => {
                Answer::Changed(pausing::function(conn, cache, function, Some(*now)).await?)
            }
            Request::ResumeFunction(function) => {
                Answer::Changed(pausing::function(conn, cache, function, None).await?)
            }
            Request::ReleaseHeld(limit, now) => {
                Answer::Count(pausing::release(conn, effects, *limit, *now).await?)
            }
            Request::PutCancellation(new) => {
                Answer::Cancellation(cancellations::put(conn, cache, new).await?)
            }
            Request::DeleteCancellation(id) => Answer::Count(cancellations::delete(conn, *id).await?),
            Request::CancelExamined(examined) => {
                Answer::Cancelled(cancellations::examined(conn, effects, examined).await?)
            }
            Request::Signal(signal, data, now) => {
                Answer::Signalled(waits::signal(conn, effects, signal, data, *now).await?)
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

/// Does the appends. Returns the ingests that came with them and are to be stored.
async fn appends<'r>(
    conn: &mut Conn,
    cache: &mut Cache,
    effects: &mut Effects<'_>,
    requests: &[&'r Request],
    locked: &Locked,
    answers: &mut [Option<Result<Answer>>],
) -> Attempt<Vec<&'r Ingest>> {
    let mut carried = Vec::new();
    if locked.runs.is_empty() {
        return Ok(carried);
    }
    let mut work = Work::default();
    runs::load(conn, &mut work, locked.runs.iter().copied().collect()).await?;
    for (request, answer) in requests.iter().zip(answers) {
        let Request::Append(append) = request else {
            continue;
        };
        if let Some(ingest) = &append.ingest
            && let Err(error) = batch::ingest::check_carried(&*cache, ingest)
        {
            *answer = Some(Err(error));
            continue;
        }
        let to = match batch::swaps::target(&*cache, append) {
            Ok(to) => to,
            Err(error) => {
                *answer = Some(Err(error));
                continue;
            }
        };
        let mut writing = Writing::on(conn);
        let appended = batch::execute::append(&mut writing, &mut work, append, to).await;
        let (appended, fresh) = writing.settle(appended)?;
        carried.extend(append.ingest.as_ref().filter(|_| fresh));
        *answer = Some(Ok(Answer::Appended(appended)));
    }
    waits::remember_paths(conn, cache, &work).await?;
    effects.woke |= work.woke;
    effects.tell |= runs::flush(conn, &mut work, effects.marks).await?;
    Ok(carried)
}

/// Moves schedules on. Returns the ticks that are to be started, with their places among the requests.
async fn ticks<'r>(
    conn: &mut Conn,
    cache: &Cache,
    requests: &[&'r Request],
    answers: &mut [Option<Result<Answer>>],
) -> Attempt<Vec<(usize, &'r Tick)>> {
    let mut started = Vec::new();
    for (place, request) in requests.iter().enumerate() {
        let Request::Tick(tick) = *request else {
            continue;
        };
        if let Err(error) = batch::cron::check(cache, tick) {
            answers[place] = Some(Err(error));
        } else if !cron::move_on(conn, tick).await? {
            answers[place] = Some(Ok(Answer::Ticked(Ticked::Lost)));
        } else if tick.start.is_some() {
            started.push((place, tick));
        } else {
            cron::leave(conn, tick, None).await?;
            answers[place] = Some(Ok(Answer::Ticked(Ticked::Done(None))));
        }
    }
    Ok(started)
}

/// Takes ends off the list. Returns those that are to be told, with their places among the requests.
async fn tells<'r>(
    conn: &mut Conn,
    cache: &Cache,
    requests: &[&'r Request],
    answers: &mut [Option<Result<Answer>>],
) -> Attempt<Vec<(usize, &'r Tell)>> {
    let mut told = Vec::new();
    for (place, request) in requests.iter().enumerate() {
        let Request::Tell(tell) = *request else {
            continue;
        };
        if let Err(error) = batch::ends::check(cache, tell) {
            answers[place] = Some(Err(error));
        } else if ends::take(conn, tell.run).await? {
            told.push((place, tell));
        } else {
            answers[place] = Some(Ok(Answer::Told(Told::Before)));
        }
    }
    Ok(told)
}

/// What is to be stored with other things: by appends, by ticks, by ends that are told.
type Begun<'r> = (Vec<&'r Ingest>, Vec<(usize, &'r Tick)>, Vec<(usize, &'r Tell)>);

/// The runs that a batch's appends and events are about, locked in one go.
struct Locked {
    runs: HashSet<RunId>,
    /// Events of the batch may end waits of these runs.
    awaiting: bool,
}

/// The runs to lock: those that are appended to, those that may be woken, and those that wait for more events.
fn locks(
    requests: &[&Request],
    ingests: &[&Ingest],
    (woken, collecting): (Vec<RunId>, Vec<RunId>),
) -> Locked {
    let mut locked = Locked {
        awaiting: !woken.is_empty(),
        runs: woken.into_iter().chain(collecting).collect(),
    };
    for request in requests {
        if let Request::Append(append) = request {
            locked.runs.insert(append.run);
            if matches!(append.then, Then::Complete { .. } | Then::Fail { .. }) {
                locked.runs.extend(append.parent);
            }
            locked.awaiting |= !append.waits.is_empty();
        }
    }
    // An event may cancel a run that an event before it has started.
    let mut begun = ingests.iter().flat_map(|ingest| &ingest.runs);
    locked.awaiting |= begun.any(|run| !run.ends.cancel_on.is_empty());
    locked
}

/// Whether an error concerns all requests of a batch alike.
fn concerns_all(error: &Error) -> bool {
    matches!(
        error,
        Error::Fatal(_) | Error::Full(_) | Error::Unavailable(_) | Error::Unknown(_)
    )
}

/// Before doing a transaction again: a pause that grows, and differs from that of the other one who is in the way.
pub(super) async fn repeated(tries: u32) {
    metrics::counter!("dormouse_transactions_repeated_total").increment(1);
    let most = 4_u64 << tries.min(6);
    tokio::time::sleep(Duration::from_millis(
        1 + RandomState::new().hash_one(tries) % most,
    ))
    .await;
}
