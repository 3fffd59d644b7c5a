//! Functions of which one run is there at a time: who holds a key, who makes room, and who was not let in. The same on every
//! database.
//!
//! Among the limits stands the last run of each key. Whether that lives is read from its own row, in the commit that would
//! create the next one, so that no end of a run has to write anything here.

use std::collections::{BTreeSet, HashSet};

use dormouse_core::flow::singleton::{self, Mode, Turn};
use dormouse_core::flow::{Gate, Standing};
use dormouse_core::{Failure, RunId, Timestamp};

use super::children;
use super::ending::Cancelled;
use super::execute::Look;
use super::ingest::{Additions, Known, Small};
use super::limits::{LimitKey, Limits};
use super::runs::Work;
use crate::error::Result;
use crate::ingest::{Created, Ingest, NewRun};

/// A run that was invoked and is not created.
pub(crate) struct Refused {
    parent: RunId,
    child: RunId,
    failure: Failure,
    at: Timestamp,
}

/// What follows for other runs from which ones a commit creates.
#[derive(Default)]
pub(crate) struct Consequences {
    /// Runs that make room for others.
    pub(crate) displaced: Vec<Cancelled>,
    /// Steps that wait for runs which are not created.
    pub(crate) refused: Vec<Refused>,
}

impl Consequences {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.displaced.is_empty() && self.refused.is_empty()
    }

    /// The runs that make room.
    pub(crate) fn displaced(&self) -> HashSet<RunId> {
        self.displaced.iter().map(|one| one.run).collect()
    }
}

/// Whether a limit is about one run at a time.
pub(crate) fn is_singleton(key: &LimitKey) -> bool {
    key.1 == Gate::Singleton
}

/// The last runs of some keys, in order. They may have ended, or not be there.
pub(crate) fn holders(limits: &Limits, keys: &[LimitKey]) -> Vec<RunId> {
    let holders: BTreeSet<RunId> = keys
        .iter()
        .filter(|key| is_singleton(key))
        .filter_map(|key| Some(limits.get(key)?.run))
        .collect();
    holders.into_iter().collect()
}

/// Of these, those that some requests would have make room.
pub(crate) fn displaceable(small: &impl Small, requests: &[&Ingest], limits: &Limits) -> Result<Vec<RunId>> {
    let mut keys = Vec::new();
    for run in requests.iter().flat_map(|request| &request.runs) {
        if let Some(singleton) = run
            .admission
            .singleton
            .as_ref()
            .filter(|one| one.mode == Mode::Cancel)
        {
            keys.push((
                small.function_id(&run.function)?,
                Gate::Singleton,
                singleton.key.clone(),
            ));
        }
    }
    Ok(holders(limits, &keys))
}

/// A run that opens a window is the one of its key from then on.
pub(crate) fn open(
    run: &NewRun,
    function_id: i64,
    now: Timestamp,
    known: &mut Known,
    additions: &mut Additions<'_>,
) {
    let Some(singleton) = &run.admission.singleton else {
        return;
    };
    let key: LimitKey = (function_id, Gate::Singleton, singleton.key.clone());
    let holder = known.limits.get(&key).map(|standing| standing.run);
    let living = holder.filter(|run| known.living.contains(run));
    if let Turn::Displaces(other) = singleton.decide(living, run.parent) {
        displace(other, singleton.reason(run.id), now, known, additions);
    }
    let standing = Standing {
        used_until: Standing::WHILE_IT_LIVES,
        run: run.id,
    };
    known.limits.insert(key.clone(), standing);
    additions.limits.insert(key, standing);
    known.living.insert(run.id);
}

/// A run makes room for another.
pub(crate) fn displace(
    run: RunId,
    reason: String,
    now: Timestamp,
    known: &mut Known,
    additions: &mut Additions<'_>,
) {
    known.living.remove(&run);
    // If it still waits for events, it gets no more.
    if let Some(collected) = known.windows.get_mut(&run) {
        collected.queued_at = None;
    }
    // It may be created in this commit: then nobody begins it.
    for creation in additions
        .runs
        .iter_mut()
        .filter(|creation| creation.run.id == run)
    {
        creation.leased = false;
    }
    additions.consequences.displaced.push(Cancelled {
        run,
        event: None,
        reason,
        at: now,
    });
}

/// A run is not created since another lives: a step may wait for it.
pub(crate) fn refuse(run: &NewRun, detail: &str, now: Timestamp, additions: &mut Additions<'_>) {
    if let Some(parent) = run.parent {
        additions.consequences.refused.push(Refused {
            parent,
            child: run.id,
            failure: singleton::skipped(detail),
            at: now,
        });
    }
}

/// Whoever was created only to make room in the same commit is not leased.
pub(crate) fn release(
    requests: &[&Ingest],
    answers: &mut [Result<Vec<Created>>],
    consequences: &Consequences,
) {
    if consequences.displaced.is_empty() {
        return;
    }
    let displaced = consequences.displaced();
    for (request, answer) in requests.iter().zip(answers) {
        let Ok(created) = answer else { continue };
        let runs = request.runs.iter().zip(created);
        for (_, created) in runs.filter(|(run, _)| displaced.contains(&run.id)) {
            if let Created::New { leased } = created {
                *leased = false;
            }
        }
    }
}

/// Tells the steps that wait for runs which were not created.
pub(crate) async fn tell(look: &mut impl Look, work: &mut Work, refused: Vec<Refused>) -> Result<()> {
    for one in refused {
        children::tell(look, work, (one.parent, one.child), Err(one.failure), one.at).await?;
    }
    Ok(())
}
