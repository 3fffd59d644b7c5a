//! Appending to journals: the fence, then the entries, then what the run does next. The same on every database.

use std::future::Future;

use dormouse_core::journal::{Entry, Event as Recorded, Record, RecordKind};
use dormouse_core::run::{End, Event, Status};
use dormouse_core::{Failure, Json, Outcome, RunId, Seq, Timestamp};

use super::runs::{Hold, RunRow, Work, place};
use super::{children, swaps, waits};
use crate::error::{Error, Result};
use crate::execute::{Append, Appended, Completion, Lost, Then};

/// What a decision may have to look up, in the transaction that it is part of and after the run's row is read.
pub(crate) trait Look: Send {
    /// A run's journal as stored, from an entry on.
    fn journal(&mut self, run: RunId, from: Seq) -> impl Future<Output = Result<Vec<Record>>> + Send;

    /// A run's completions as stored, earliest first.
    fn completions(&mut self, run: RunId) -> impl Future<Output = Result<Vec<Completion>>> + Send;

    /// Payloads of a name's events that were received since some time, the latest first, at most `limit`.
    fn received(
        &mut self,
        name: &str,
        from: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Json>>> + Send;

    /// The payload of the event that started a run.
    fn started_by(&mut self, run: RunId) -> impl Future<Output = Result<Option<Json>>> + Send;

    /// The run and the operation that wait for a signal, as stored.
    fn signal_holder(&mut self, signal: &str) -> impl Future<Output = Result<Option<(RunId, Seq)>>> + Send;

    /// The operation of a run that waits for the end of another, as stored.
    fn caller(&mut self, parent: RunId, child: RunId) -> impl Future<Output = Result<Option<Seq>>> + Send;

    /// Reads a run's row into the batch, unless it is there.
    fn load(&mut self, work: &mut Work, run: RunId) -> impl Future<Output = Result<()>> + Send;
}

/// Applies one append to the batch. `to` is the number of the version that its swap is about. True: what comes with the
/// entries is to be stored too.
pub(crate) async fn append(
    look: &mut impl Look,
    work: &mut Work,
    append: &Append,
    to: Option<i64>,
) -> Result<(Appended, bool)> {
    let id = append.run;
    let row = match fence(work.get(id), append) {
        Ok(row) => row,
        Err(lost) => return Ok((Appended::Lost(lost), false)),
    };
    let known = row.journal_next;
    let repeated = append.records.first().is_some_and(|first| first.seq != known);
    let fresh = if repeated {
        already_stored(look, work, append).await?;
        &[]
    } else {
        append.records.as_slice()
    };
    if let Some((place, record)) = (known..).zip(fresh).find(|(place, record)| *place != record.seq) {
        return Err(Error::Corrupt(format!(
            "run {id}: entry {} where entry {place} belongs",
            record.seq
        )));
    }
    let (completions, waits) = (row.completions, row.waits);
    if completions || waits {
        for operation in fresh.iter().filter_map(closes) {
            if completions {
                work.delivered(id, operation);
            }
            if waits {
                work.give_up_wait(id, operation);
            }
        }
    }
    store(work, append, fresh)?;
    if !repeated {
        if let Some(to) = to {
            swaps::apply(work, append, to, known)?;
        }
        waits::register(look, work, append).await?;
        waits::send(look, work, append).await?;
    }
    if super::pausing::takes(work, append)? {
        return Ok((Appended::Paused, !repeated));
    }
    let completions = work.get(id).is_some_and(|row| row.completions);
    if let Then::Suspend { known, .. } = &append.then
        && completions
    {
        // What is left after this append's deliveries, and is news, keeps the run from waiting.
        let left = completions_left(look, work, id).await?;
        if left
            .iter()
            .any(|completion| !known.contains(&completion.operation))
        {
            return Ok((Appended::Completions(left), !repeated));
        }
        if left.is_empty() {
            work.advance(id, |row| row.completions = false)?;
        }
    }
    follow(work, append)?;
    let invoked = work.get(id).is_some_and(|row| row.parent.is_some());
    if invoked && let Some(outcome) = children::outcome(&append.then) {
        children::ended(look, work, id, outcome, append.now).await?;
    }
    // A run that was to begin anew, or to be handed back, may have been paused by that.
    let paused = work.get(id).is_some_and(|row| row.hold == Hold::Person);
    let appended = if paused { Appended::Paused } else { Appended::Done };
    Ok((appended, !repeated))
}

/// Proves the lease.
fn fence<'w>(row: Option<&'w RunRow>, append: &Append) -> std::result::Result<&'w RunRow, Lost> {
    let row = row.ok_or(Lost::Gone)?;
    if row.state.status == Status::Cancelled {
        return Err(Lost::Cancelled);
    }
    if row.owner != Some(append.owner) || row.epoch != append.epoch {
        return Err(Lost::TakenOver);
    }
    Ok(row)
}

/// The operation that an entry closes.
fn closes(record: &Record) -> Option<Seq> {
    if !matches!(record.kind, RecordKind::Delivered | RecordKind::Cancelled) {
        return None;
    }
    match Entry::decode(record.clone()).ok()?.event {
        Recorded::Delivered { operation, .. } | Recorded::Cancelled { operation } => Some(operation),
        _ => None,
    }
}

/// Writes an append's entries and log lines.
fn store(work: &mut Work, append: &Append, fresh: &[Record]) -> Result<()> {
    let id = append.run;
    let bytes: usize = fresh.iter().map(record_bytes).sum();
    let lines = append.logs.iter().map(|line| line.number + 1).max().unwrap_or(0);
    for record in fresh {
        work.journal(id, record.clone());
    }
    for line in &append.logs {
        work.log(id, line.clone());
    }
    if fresh.is_empty() && append.logs.is_empty() {
        return Ok(());
    }
    work.advance(id, |row| {
        row.journal_next += fresh.len() as u32;
        row.journal_bytes += bytes as u64;
        row.log_lines = row.log_lines.max(lines);
        if !fresh.is_empty() {
            row.claims = 0;
            row.host_traps = 0;
        }
    })
}

/// What an entry counts towards the size of its journal.
fn record_bytes(record: &Record) -> usize {
    record.name.len() + record.meta.len() + record.payload.as_ref().map_or(0, Json::len)
}

/// Does what follows the entries.
fn follow(work: &mut Work, append: &Append) -> Result<()> {
    let id = append.run;
    let now = append.now;
    match &append.then {
        Then::Continue => Ok(()),
        Then::Suspend {
            wait,
            reason,
            wake_at,
            known: _,
        } => work.change(id, |row| {
            row.on(Event::Suspend(*wait), Some(reason.clone()))?;
            row.owner = None;
            row.due = *wake_at;
            row.claims = 0;
            Ok(())
        }),
        Then::Release { host_trap } => work.change(id, |row| {
            row.ready(Event::Release, now)?;
            if *host_trap {
                row.host_traps += 1;
            } else {
                row.claims = 0;
            }
            Ok(())
        }),
        Then::Complete { output } => {
            end(work, append, End::Completed)?;
            work.outcome(id, Some(output.clone()), None);
            Ok(())
        }
        Then::Fail { error } => {
            end(work, append, End::Failed)?;
            work.outcome(id, None, Some(error.clone()));
            Ok(())
        }
        Then::ContinueWith { continued } => {
            begin_anew(work, append, true)?;
            work.blob(id.to_bytes(), place::CONTINUED, continued.clone());
            Ok(())
        }
        Then::Restart => begin_anew(work, append, false),
        Then::Block { error } => {
            work.change(id, |row| {
                row.on(Event::Block, Some(error.message.clone()))?;
                row.owner = None;
                row.hold = Hold::None;
                Ok(())
            })?;
            work.outcome(id, None, Some(error.clone()));
            Ok(())
        }
    }
}

/// Drops what a run has recorded and what comes of it, and makes it ready under the numbers that follow.
fn begin_anew(work: &mut Work, append: &Append, continued: bool) -> Result<()> {
    let id = append.run;
    work.change(id, |row| {
        row.ready(Event::Release, append.now)?;
        row.journal_base = row.journal_next;
        row.journal_bytes = 0;
        row.claims = 0;
        row.host_traps = 0;
        row.continued = continued;
        row.queued_at = append.now;
        row.completions = false;
        Ok(())
    })?;
    work.reset_waits(id);
    work.clear_journal(id);
    work.clear_completions(id);
    Ok(())
}

fn end(work: &mut Work, append: &Append, end: End) -> Result<()> {
    let id = append.run;
    let (completions, waits) = work.change(id, |row| {
        row.on(Event::Finish(end), None)?;
        row.owner = None;
        row.hold = Hold::None;
        row.ended_at = Some(append.now);
        Ok((row.completions, row.waits))
    })?;
    if completions {
        work.clear_completions(id);
    }
    if waits {
        work.clear_waits(id);
    }
    work.ended(id);
    Ok(())
}

/// Entries that don't follow on are a repetition, after an unknown commit, of what is stored; or a mistake.
async fn already_stored(look: &mut impl Look, work: &Work, append: &Append) -> Result<()> {
    let id = append.run;
    let first = append.records.first().map_or(0, |record| record.seq);
    let mut stored = look.journal(id, first).await?;
    stored.extend(work.unwritten(id).filter(|record| record.seq >= first).cloned());
    if stored.starts_with(&append.records) {
        return Ok(());
    }
    Err(Error::Corrupt(format!(
        "run {id}: its owner appends entry {first} again, with another content than is stored"
    )))
}

/// The completions that stay after what the batch delivers, earliest first.
async fn completions_left(look: &mut impl Look, work: &Work, run: RunId) -> Result<Vec<Completion>> {
    let mut left = look.completions(run).await?;
    left.extend(work.completions_of(run).cloned());
    left.retain(|completion| {
        !work
            .delivered_of(run)
            .any(|operation| operation == completion.operation)
    });
    left.sort_by_key(|completion| (completion.at, completion.operation));
    Ok(left)
}

/// A completion's payload as stored.
pub(crate) fn completion_payload(outcome: &Outcome) -> Json {
    match outcome {
        Ok(json) => json.clone(),
        // A failure is texts and JSON: it always serialises.
        Err(failure) => Json::from_value(failure).unwrap_or_else(|_| Json::null()),
    }
}

/// A completion's outcome from what is stored of it.
pub(crate) fn completion_outcome(operation: Seq, failed: bool, payload: Json) -> Result<Outcome> {
    if !failed {
        return Ok(Ok(payload));
    }
    let failure = payload.read::<Failure>();
    failure
        .map(Err)
        .map_err(|error| Error::Corrupt(format!("a completion of operation {operation}: {error}")))
}

/// An entry's kind from its number on disk.
pub(crate) fn record_kind(seq: Seq, number: i64) -> Result<RecordKind> {
    RecordKind::from_number(number)
        .ok_or_else(|| Error::Corrupt(format!("journal entry {seq} has the unknown kind {number}")))
}

/// Whether an operation is open: started, neither delivered nor cancelled.
pub(crate) async fn is_open(look: &mut impl Look, run: RunId, operation: Seq) -> Result<bool> {
    let entries = look.journal(run, operation).await?;
    Ok(opens(&entries, operation))
}

/// Whether a journal, from the operation's entry on, leaves the operation open.
fn opens(entries: &[Record], operation: Seq) -> bool {
    let opened = entries.first().is_some_and(|first| {
        first.seq == operation && matches!(first.kind, RecordKind::Started | RecordKind::Deferred)
    });
    opened && !entries.iter().any(|record| closes(record) == Some(operation))
}
