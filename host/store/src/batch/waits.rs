//! What runs wait for that others bring: which waits are stored, and which events end them. The same on every database.
//!
//! An event finds its waits by index: for each path that waits for its name have, the key of its own field there. Only
//! conditions are asked one by one. A name that nobody has ever waited for costs a look at its paths.

use std::collections::{HashMap, HashSet};

use dormouse_core::ending::cancelled_by;
use dormouse_core::operation::SendSignal;
use dormouse_core::run::Event;
use dormouse_core::wait::{EventWait, SignalWait, holds, key, signal_replaced, signal_taken};
use dormouse_core::{EventId, Failure, Json, RunId, Seq, Timestamp, limit};
use serde_json::Value;

use super::ending::Cancelled;
use super::execute::Look;
use super::ingest::Small;
use super::runs::{RunRow, Work};
use crate::error::Result;
use crate::execute::{Append, Completion};
use crate::ingest::NewEvent;
use crate::wait::{ChildWait, WaitOn};

/// The kinds of waits. The numbers are on disk.
pub(crate) mod kind {
    /// For an event.
    pub(crate) const EVENT: i64 = 1;
    /// For a signal.
    pub(crate) const SIGNAL: i64 = 2;
    /// For another run's end.
    pub(crate) const CHILD: i64 = 3;
    /// None: an event cancels the run.
    pub(crate) const CANCELS: i64 = 4;
    /// None: the run may be over at a time.
    pub(crate) const DEADLINE: i64 = 5;
}

/// How a wait for a run's end names it.
pub(crate) fn child_name(child: RunId) -> String {
    child
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What becomes of the run when the wait is given up.
pub(crate) fn child_path(on: &ChildWait) -> &'static str {
    if on.cancels { "cancel" } else { "abandon" }
}

/// What waits for events are looked up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Probe {
    /// The event's name.
    pub(crate) name: String,
    /// The path of the field they match by, or empty.
    pub(crate) path: String,
    /// What stands for the field's value, or empty.
    pub(crate) key: String,
}

/// A wait for an event, as it is found.
pub(crate) struct Found {
    /// [`kind::EVENT`], or [`kind::CANCELS`] when the event cancels the run.
    pub(crate) kind: i64,
    pub(crate) probe: Probe,
    pub(crate) run: RunId,
    pub(crate) operation: Seq,
    pub(crate) condition: Option<String>,
    /// The event that started the run, if there is a condition that may ask for it.
    pub(crate) started_by: Option<Json>,
    /// Later events don't cancel the run.
    pub(crate) until: Option<Timestamp>,
}

/// What new events do to runs.
#[derive(Default)]
pub(crate) struct Ending {
    /// Waits that they end.
    pub(crate) completions: Vec<(RunId, Completion)>,
    /// Runs that they cancel, each once.
    pub(crate) cancels: Vec<Cancelled>,
}

impl Ending {
    /// Whether they do nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.completions.is_empty() && self.cancels.is_empty()
    }

    /// The runs.
    pub(crate) fn runs(&self) -> Vec<RunId> {
        let woken = self.completions.iter().map(|(run, _)| *run);
        woken.chain(self.cancelled()).collect()
    }

    /// Those that are cancelled.
    pub(crate) fn cancelled(&self) -> impl Iterator<Item = RunId> {
        self.cancels.iter().map(|cancelled| cancelled.run)
    }
}

/// Takes the waits that come with an append's entries. One that finds its event looking back, or its signal taken, is
/// completed instead.
pub(crate) async fn register(look: &mut impl Look, work: &mut Work, append: &Append) -> Result<()> {
    for wait in &append.waits {
        let outcome = match &wait.on {
            WaitOn::Event(on) => look_back(look, append.run, on).await?.map(Ok),
            WaitOn::Signal(on) => take_signal(look, work, append.run, on, append.now)
                .await?
                .map(Err),
            WaitOn::Child(_) => None,
            WaitOn::Nothing(failure) => Some(Err(failure.clone())),
        };
        match outcome {
            Some(outcome) => {
                let completion = Completion {
                    operation: wait.operation,
                    at: append.now,
                    outcome,
                };
                work.complete(append.run, completion);
            }
            None => work.wait(append.run, wait.clone()),
        }
    }
    Ok(())
}

/// Makes a run the one that waits for a signal, or says why it cannot be.
async fn take_signal(
    look: &mut impl Look,
    work: &mut Work,
    run: RunId,
    on: &SignalWait,
    now: Timestamp,
) -> Result<Option<Failure>> {
    let Some((holder, operation)) = holder(look, work, &on.signal).await? else {
        return Ok(None);
    };
    if !on.replace {
        return Ok(Some(signal_taken(&on.signal, holder)));
    }
    look.load(work, holder).await?;
    let completion = Completion {
        operation,
        at: now,
        outcome: Err(signal_replaced(&on.signal, run)),
    };
    let woken = complete(work, vec![(holder, completion)])?;
    work.woke |= woken;
    Ok(None)
}

/// Who waits for a signal, after what the batch has done so far.
async fn holder(look: &mut impl Look, work: &Work, signal: &str) -> Result<Option<(RunId, Seq)>> {
    let new = work
        .new_waits()
        .iter()
        .find(|(_, wait)| matches!(&wait.on, WaitOn::Signal(on) if on.signal == signal));
    if let Some((run, wait)) = new {
        return Ok(Some((*run, wait.operation)));
    }
    let stored = look.signal_holder(signal).await?;
    Ok(stored.filter(|(run, operation)| !work.is_over(*run, *operation)))
}

/// Hands the signals that come with an append's entries to whom they are for, and tells the entries who that was.
pub(crate) async fn send(look: &mut impl Look, work: &mut Work, append: &Append) -> Result<()> {
    for sent in &append.signals {
        let mut run = None;
        if let Some((waiting, operation)) = holder(look, work, &sent.signal).await? {
            look.load(work, waiting).await?;
            // Once more: where several nodes write, the run may have given up before its row was locked.
            if holder(look, work, &sent.signal).await? == Some((waiting, operation)) {
                let completion = Completion {
                    operation,
                    at: append.now,
                    outcome: Ok(sent.data.clone()),
                };
                let woken = complete(work, vec![(waiting, completion)])?;
                work.woke |= woken;
                run = Some(waiting);
            }
        }
        if let Some(operation) = sent.operation {
            let completion = Completion {
                operation,
                at: append.now,
                outcome: Ok(SendSignal::result(run)),
            };
            work.complete(append.run, completion);
        }
    }
    Ok(())
}

/// Hands a signal to the run that waits for it. True: that run was made ready.
pub(crate) async fn signal(
    look: &mut impl Look,
    work: &mut Work,
    signal: &str,
    data: &Json,
    now: Timestamp,
) -> Result<(Option<RunId>, bool)> {
    let Some((run, _)) = look.signal_holder(signal).await? else {
        return Ok((None, false));
    };
    look.load(work, run).await?;
    // Once more: where several nodes write, the run may have given up before its row was locked.
    let Some((_, operation)) = look.signal_holder(signal).await?.filter(|(now, _)| *now == run) else {
        return Ok((None, false));
    };
    let completion = Completion {
        operation,
        at: now,
        outcome: Ok(data.clone()),
    };
    Ok((Some(run), complete(work, vec![(run, completion)])?))
}

/// The latest event that ends a wait, of those that it looks back to.
async fn look_back(look: &mut impl Look, run: RunId, on: &EventWait) -> Result<Option<Json>> {
    let Some(from) = on.lookback_from else {
        return Ok(None);
    };
    let received = look.received(&on.event, from, limit::LOOKBACK_EVENTS_MAX).await?;
    if received.is_empty() {
        return Ok(None);
    }
    let started_by = look.started_by(run).await?;
    let started_by = started_by.as_ref().map(read).unwrap_or_default();
    Ok(received
        .into_iter()
        .find(|event| on.ends_by(&read(event), &started_by)))
}

/// What is stored was JSON when it came.
fn read(json: &Json) -> Value {
    json.read().unwrap_or_default()
}

/// The names and paths of the waits that a batch is going to store, of those that are not known yet: each once, in order.
pub(crate) fn new_paths(small: &impl Small, work: &Work) -> Vec<(String, String)> {
    let mut paths: Vec<(String, String)> = work
        .new_waits()
        .iter()
        .filter_map(|(_, wait)| match &wait.on {
            WaitOn::Event(on) => Some((on.event.clone(), on.path.clone())),
            WaitOn::Signal(_) | WaitOn::Child(_) | WaitOn::Nothing(_) => None,
        })
        .filter(|(name, path)| !small.wait_paths(name).contains(path))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Events that may end waits.
pub(crate) struct Arrivals<'i>(Vec<Arrival<'i>>);

struct Arrival<'i> {
    /// Where it stands among the batch's events.
    place: usize,
    event: &'i NewEvent,
    payload: Value,
    probes: Vec<Probe>,
}

impl<'i> Arrivals<'i> {
    /// Of some events, in order, those that a wait can be looked up by.
    pub(crate) fn of(small: &impl Small, events: impl Iterator<Item = &'i NewEvent>) -> Arrivals<'i> {
        let mut arrivals = Vec::new();
        for (place, event) in events.enumerate() {
            let paths = small.wait_paths(&event.name);
            if paths.is_empty() {
                continue;
            }
            let payload = read(&event.payload);
            let probe = |path: &String| {
                let key = match path.is_empty() {
                    true => Some(String::new()),
                    false => key(&payload, path),
                };
                Some(Probe {
                    name: event.name.clone(),
                    path: path.clone(),
                    key: key?,
                })
            };
            let probes: Vec<Probe> = paths.iter().filter_map(probe).collect();
            if !probes.is_empty() {
                arrivals.push(Arrival {
                    place,
                    event,
                    payload,
                    probes,
                });
            }
        }
        Arrivals(arrivals)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> Vec<EventId> {
        self.0.iter().map(|arrival| arrival.event.id).collect()
    }

    /// Keeps those that are news. Of two with one id, the second is none either.
    pub(crate) fn keep_news(&mut self, mut stored: HashSet<EventId>) {
        self.0.retain(|arrival| stored.insert(arrival.event.id));
    }

    /// What to look up, each once, in order.
    pub(crate) fn probes(&self) -> Vec<&Probe> {
        let mut probes: Vec<&Probe> = self.0.iter().flat_map(|arrival| &arrival.probes).collect();
        probes.sort_unstable();
        probes.dedup();
        probes
    }

    /// Which of the waits that were found they end, and which runs. A wait is ended once, by the first. A run that was `born`
    /// in the batch is cancelled only by what stands behind its own event.
    /// One that is `over` is neither woken nor cancelled.
    pub(crate) fn ends(
        &self,
        found: &[Found],
        born: &HashMap<RunId, usize>,
        over: &HashSet<RunId>,
    ) -> Ending {
        let mut waits: HashMap<&Probe, Vec<(&Found, Value)>> = HashMap::new();
        for wait in found {
            let started_by = wait.started_by.as_ref().map(read).unwrap_or_default();
            waits.entry(&wait.probe).or_default().push((wait, started_by));
        }
        let mut ended: HashSet<(RunId, Seq)> = HashSet::new();
        let mut ending = Ending::default();
        let mut cancelled: HashSet<RunId> = HashSet::new();
        for arrival in &self.0 {
            let asked = arrival.probes.iter().filter_map(|probe| waits.get(probe));
            for (wait, started_by) in asked.flatten() {
                let at = arrival.event.received_at;
                let over = ended.contains(&(wait.run, wait.operation))
                    || cancelled.contains(&wait.run)
                    || over.contains(&wait.run);
                let late = wait.until.is_some_and(|until| at > until);
                let fits = |condition: &str| holds(condition, &arrival.payload, started_by);
                if over || late || !wait.condition.as_deref().is_none_or(fits) {
                    continue;
                }
                if wait.kind == kind::CANCELS {
                    if born.get(&wait.run).is_none_or(|place| arrival.place > *place) {
                        cancelled.insert(wait.run);
                        ending.cancels.push(Cancelled {
                            run: wait.run,
                            event: Some(arrival.event.id),
                            reason: cancelled_by(&arrival.event.name, arrival.event.id),
                            at,
                        });
                    }
                    continue;
                }
                ended.insert((wait.run, wait.operation));
                let completion = Completion {
                    operation: wait.operation,
                    at,
                    outcome: Ok(arrival.event.payload.clone()),
                };
                ending.completions.push((wait.run, completion));
            }
        }
        // What a run waited for is nothing to it once it has ended.
        ending.completions.retain(|(run, _)| !cancelled.contains(run));
        ending
    }
}

/// Completes waits of runs that are loaded. They are over with that, and runs that wait are made ready. True: some run was.
pub(crate) fn complete(work: &mut Work, completions: Vec<(RunId, Completion)>) -> Result<bool> {
    let mut woken = false;
    for (run, completion) in completions {
        let at = completion.at;
        work.end_wait(run, completion.operation);
        work.complete(run, completion);
        if work.get(run).is_some_and(RunRow::may_be_woken) {
            work.change(run, |row| row.ready(Event::Wake, at))?;
            woken = true;
        }
    }
    Ok(woken)
}
