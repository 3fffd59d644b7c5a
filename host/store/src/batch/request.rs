//! What may be asked of the writer, and what it answers.

use dormouse_core::swap::Policy;
use dormouse_core::{Digest, FunctionName, Json, RunId, Seq, Timestamp};

use crate::cancellation::{Cancellation, CancellationId, Examined, NewCancellation};
use crate::command::{Commanded, Orphans};
use crate::cron::{NewSchedules, Tick, Ticked};
use crate::ends::{Expired, Tell, Told};
use crate::execute::{Append, Appended};
use crate::ingest::{Created, Ingest};
use crate::registry::{Changed, NewVersion, Stored};
use crate::schedule::{Claim, ClaimedBatch, FireTimers, Fired, Incarnation, NewNode, Standing};
use crate::swap::{Asked, ToRestart};

/// A write.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all requests are appends: each would be boxed for the few that are not"
)]
pub(crate) enum Request {
    Append(Append),
    Ingest(Ingest),
    Tick(Tick),
    Tell(Tell),
    /// Whether slots are known to be freed, too.
    Claim(Claim, bool),
    FireTimers(FireTimers),
    Join(NewNode, Timestamp),
    Heartbeat(Incarnation, Timestamp),
    Leave(Incarnation),
    Drain(Incarnation),
    TakeOver(u32, Timestamp),
    Cancel(RunId, Timestamp),
    CancelOrphans(u32, Timestamp),
    Expire(u32, Timestamp),
    Wake(RunId, Option<Seq>, Timestamp),
    Unblock(String, Timestamp),
    RetryUnreadable(String, u32, Timestamp),
    AskVersion(RunId, Option<Asked>, Timestamp),
    WakeToRestart(ToRestart),
    Pause(RunId),
    Resume(RunId, Timestamp),
    PauseFunction(FunctionName, Timestamp),
    ResumeFunction(FunctionName),
    ReleaseHeld(u32, Timestamp),
    PutCancellation(NewCancellation),
    DeleteCancellation(CancellationId),
    CancelExamined(Examined),
    Signal(String, Json, Timestamp),
    PutSchedules(NewSchedules),
    PutVersion(NewVersion),
    Activate(String, Digest, Option<Policy>, Timestamp),
    DeleteVersion(String, Digest),
    PutConfig(Json, Timestamp),
    Probe(Timestamp),
    Prune(Timestamp, u32),
}

impl Request {
    /// About how many rows it touches: what a commit is bounded by.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Request::Append(append) => {
                1 + append.records.len()
                    + append.logs.len()
                    + append.waits.len()
                    + append.signals.len()
                    + usize::from(append.swap.is_some())
                    + append.ingest.as_ref().map_or(0, ingested)
            }
            Request::Ingest(ingest) => 1 + ingested(ingest),
            Request::Tick(tick) => 2 + tick.start.as_ref().map_or(0, |start| ingested(&start.ingest)),
            Request::Tell(tell) => 2 + ingested(&tell.ingest),
            Request::PutSchedules(new) => 1 + new.schedules.len(),
            Request::Claim(claim, _) => 1 + claim.limit as usize,
            Request::FireTimers(fire) => 1 + fire.limit as usize,
            Request::TakeOver(limit, _)
            | Request::Prune(_, limit)
            | Request::CancelOrphans(limit, _)
            | Request::Expire(limit, _)
            | Request::RetryUnreadable(_, limit, _)
            | Request::ReleaseHeld(limit, _) => 1 + *limit as usize,
            Request::WakeToRestart(restart) => 1 + restart.limit as usize,
            Request::CancelExamined(examined) => 1 + examined.runs.len(),
            _ => 1,
        }
    }

    /// Whether it is decided in memory together with others of its kind.
    pub(crate) fn is_grouped(&self) -> bool {
        matches!(
            self,
            Request::Append(_) | Request::Ingest(_) | Request::Tick(_) | Request::Tell(_)
        )
    }
}

fn ingested(ingest: &Ingest) -> usize {
    ingest.events.len() + ingest.runs.len()
}

/// The writer's answer to the request of the same name.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Standing(Standing),
    Appended(Appended),
    Created(Vec<Created>),
    Ticked(Ticked),
    Told(Told),
    Claimed(ClaimedBatch),
    Fired(Fired),
    Count(u64),
    Commanded(Commanded),
    Orphans(Orphans),
    Expired(Expired),
    Signalled(Option<RunId>),
    Cancellation(Cancellation),
    Cancelled(Vec<RunId>),
    Stored(Stored),
    Changed(Changed),
    Revision(i64),
}
