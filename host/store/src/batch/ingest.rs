//! What becomes of events and runs that are handed in together. The same on every database.

use std::collections::{BTreeMap, HashMap, HashSet};

use dormouse_core::flow::{Asking, Decision, Gate, Held, Standing, Verdict};
use dormouse_core::limit::EVENT_DEDUPE;
use dormouse_core::run::{Phase, State, Status};
use dormouse_core::{Digest, EventId, FunctionName, RunId, Seq, Timestamp};

use super::limits::{Decisions, LimitKey, Limits};
use super::runs::Hold;
use super::singletons::{self, Consequences};
use super::windows::{Gatherings, Windows, gather, sizes};
use crate::error::{Error, Result};
use crate::ingest::{Created, Ingest, NewEvent, NewRun};
use crate::schedule::Incarnation;

/// A function and the key of the sender's event.
pub(crate) type DedupeKey<'i> = (i64, &'i str);

/// A run that will be created.
pub(crate) struct Creation<'i> {
    pub(crate) run: &'i NewRun,
    pub(crate) function_id: i64,
    pub(crate) version_id: i64,
    pub(crate) leased: bool,
    /// Its throttle or its window holds it back.
    pub(crate) held: Option<Held>,
    /// Its function is paused.
    pub(crate) paused: bool,
    /// The event it starts with: of several that put it off, the last.
    pub(crate) event_id: EventId,
    pub(crate) config_revision: i64,
    pub(crate) now: Timestamp,
}

impl Creation<'_> {
    /// Who holds it.
    pub(crate) fn hold(&self) -> Hold {
        if self.paused { Hold::Function } else { Hold::None }
    }

    pub(crate) fn birth(&self) -> Birth {
        Birth::of(self)
    }

    /// When it begins, or tries to.
    pub(crate) fn begins(&self) -> Timestamp {
        let begins = self.held.as_ref().map_or(self.run.start_at, |held| held.until);
        begins.max(self.now)
    }
}

/// Everything the requests of one batch add.
#[derive(Default)]
pub(crate) struct Additions<'i> {
    /// Events, in order of their ids, and whether they have runs.
    pub(crate) events: Vec<(&'i NewEvent, bool)>,
    /// Runs, in order of their ids.
    pub(crate) runs: Vec<Creation<'i>>,
    /// What will be known for dedupe.
    pub(crate) dedupe: HashMap<DedupeKey<'i>, (RunId, Timestamp)>,
    /// Events stored before that now have a run.
    pub(crate) referred: Vec<EventId>,
    /// What limits have to remember.
    pub(crate) limits: BTreeMap<LimitKey, Standing>,
    /// Why events start no run of their own.
    pub(crate) decisions: Decisions,
    /// Events that start runs together.
    pub(crate) gatherings: Gatherings,
    /// What follows for other runs.
    pub(crate) consequences: Consequences,
}

/// What the small tables say.
pub(crate) trait Small {
    /// The registry's generation.
    fn generation(&self) -> i64;
    /// Whether a node lives.
    fn lives(&self, node: Incarnation) -> bool;
    /// The number of a version that is not deleted.
    fn version_id(&self, module: &str, digest: Digest) -> Option<i64>;
    /// A function's number; all functions of the requests have one by now.
    fn function_id(&self, name: &FunctionName) -> Result<i64>;
    /// The paths that waits for events of a name have ever had, if that was asked for.
    fn wait_paths(&self, name: &str) -> &[String];
}

/// What the large tables say, read for these requests.
#[derive(Default)]
pub(crate) struct Known {
    /// Runs by function and key, and since when.
    pub(crate) dedupe: HashMap<(i64, String), (RunId, Timestamp)>,
    /// Events that runs name without bringing them.
    pub(crate) events: HashSet<EventId>,
    /// Runs that others are to be copied from: the numbers of their first and their next entry.
    pub(crate) sources: HashMap<RunId, (Seq, Seq)>,
    /// What limits remember.
    pub(crate) limits: Limits,
    /// Of the runs that singletons remember, those that have not ended.
    pub(crate) living: HashSet<RunId>,
    /// The runs of the windows among them.
    pub(crate) windows: Windows,
    /// How large the events of the request are that is decided, if that matters.
    pub(crate) sizes: HashMap<EventId, u64>,
}

/// The runs that others are to be copied from, in order.
pub(crate) fn sources(requests: &[&Ingest]) -> Vec<RunId> {
    let copies = requests.iter().flat_map(|request| &request.runs);
    let mut named: Vec<RunId> = copies.filter_map(|run| Some(run.copy?.run)).collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// The dedupe keys that requests name, each once, in order.
pub(crate) fn dedupe_keys<'i>(small: &impl Small, requests: &[&'i Ingest]) -> Result<Vec<DedupeKey<'i>>> {
    let mut keys = Vec::new();
    for run in requests.iter().flat_map(|request| &request.runs) {
        if let Some(key) = &run.dedupe {
            keys.push((small.function_id(&run.function)?, key.as_str()));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// The events that runs name without bringing them.
pub(crate) fn foreign_events(requests: &[&Ingest]) -> Vec<EventId> {
    let mut named = Vec::new();
    for request in requests {
        let own = own_events(request);
        named.extend(
            request
                .runs
                .iter()
                .map(|run| run.event_id)
                .filter(|id| !own.contains(id)),
        );
    }
    named.sort_unstable();
    named.dedup();
    named
}

fn own_events(request: &Ingest) -> HashSet<EventId> {
    request.events.iter().map(|event| event.id).collect()
}

/// Decides about several requests at once. An answer that is an error adds nothing.
pub(crate) fn decide<'i>(
    small: &impl Small,
    known: &mut Known,
    requests: &[&'i Ingest],
) -> Result<(Vec<Result<Vec<Created>>>, Additions<'i>)> {
    let mut additions = Additions::default();
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let own = own_events(request);
        answers.push(match check(small, request, &own, known) {
            Ok(()) => Ok(add(small, request, &own, known, &mut additions)?),
            Err(error) => Err(error),
        });
    }
    singletons::release(requests, &mut answers, &additions.consequences);
    // In order of the key, so that rows that land side by side are written side by side. Of two with one id, the first
    // stays the first.
    additions.events.sort_by_key(|(event, _)| event.id);
    additions.runs.sort_unstable_by_key(|creation| creation.run.id);
    Ok((answers, additions))
}

/// The events of the requests that were not refused, in order.
pub(crate) fn accepted<'i>(
    requests: &[&'i Ingest],
    answers: &[Result<Vec<Created>>],
) -> impl Iterator<Item = &'i NewEvent> {
    let accepted = requests.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
    accepted.flat_map(|(request, _)| &request.events)
}

/// What would make an ingest fail that comes with an append. Its runs name its own events alone.
pub(crate) fn check_carried(small: &impl Small, ingest: &Ingest) -> Result<()> {
    check(small, ingest, &own_events(ingest), &Known::default())
}

/// What would make a request fail, before anything of it is written.
fn check(small: &impl Small, request: &Ingest, own: &HashSet<EventId>, known: &Known) -> Result<()> {
    if request.generation != small.generation() {
        return Err(Error::StaleRegistry);
    }
    for run in &request.runs {
        if small.version_id(run.function.module(), run.version).is_none() {
            return Err(Error::Corrupt(format!(
                "run {} of {} names a version that is not stored",
                run.id, run.function
            )));
        }
        if !own.contains(&run.event_id) && !known.events.contains(&run.event_id) {
            return Err(Error::Corrupt(format!(
                "run {} names event {}, which is not stored",
                run.id, run.event_id
            )));
        }
        if let Some(copy) = &run.copy {
            let has = |(base, next): &(Seq, Seq)| *base == copy.base && *next >= copy.before;
            if !known.sources.get(&copy.run).is_some_and(has) {
                return Err(Error::SourceGone);
            }
        }
    }
    Ok(())
}

fn add<'i>(
    small: &impl Small,
    request: &'i Ingest,
    own: &HashSet<EventId>,
    known: &mut Known,
    additions: &mut Additions<'i>,
) -> Result<Vec<Created>> {
    let now = request.now;
    known.sizes = sizes(request);
    let mut with_runs: HashSet<EventId> = HashSet::new();
    let mut created = Vec::with_capacity(request.runs.len());
    for run in &request.runs {
        let function_id = small.function_id(&run.function)?;
        if let Some(key) = &run.dedupe {
            let found = known.dedupe.get(&(function_id, key.clone())).copied();
            if let Some((earlier, at)) = found.filter(|(_, at)| at.after(EVENT_DEDUPE) > now) {
                let detail = format!("the event's id started run {earlier} at {at}");
                additions.decisions.add(
                    run.event_id,
                    function_id,
                    (Decision::Duplicate, now, Some(earlier), detail),
                );
                created.push(Created::Duplicate(earlier));
                continue;
            }
        }
        let (gathered, held) = match &run.admission.gathering {
            Some(gathering) => {
                let (gathered, held) = gather(small, request, run, gathering, known, additions)?;
                if held.is_none() {
                    remember(run, function_id, gathered, now, known, additions);
                    match own.contains(&run.event_id) {
                        true => drop(with_runs.insert(run.event_id)),
                        false => additions.referred.push(run.event_id),
                    }
                    created.push(gathered);
                    continue;
                }
                singletons::open(run, function_id, now, known, additions);
                (Some(gathered), held)
            }
            None => match admit(run, (function_id, own), now, known, additions) {
                Ok(held) => (None, held),
                Err(dropped) => {
                    created.push(dropped);
                    continue;
                }
            },
        };
        let Some(version_id) = small.version_id(run.function.module(), run.version) else {
            return Err(Error::Corrupt(format!(
                "run {} names a version that is not stored",
                run.id
            )));
        };
        let leased = !run.held
            && held.is_none()
            && run.admission.concurrency.is_empty()
            && run.copy.is_none()
            && run.start_at <= now
            && run.lease.is_some_and(|node| small.lives(node));
        if own.contains(&run.event_id) {
            with_runs.insert(run.event_id);
        } else {
            additions.referred.push(run.event_id);
        }
        additions.runs.push(Creation {
            run,
            function_id,
            version_id,
            leased,
            held: held.clone(),
            paused: run.held,
            event_id: run.event_id,
            config_revision: run.config_revision,
            now,
        });
        let became = match (gathered, held) {
            (Some(gathered), _) => gathered,
            (None, Some(held)) if !run.held => Created::Held { until: held.until },
            _ => Created::New { leased },
        };
        let same_event = gathered.is_none() && !own.contains(&run.event_id);
        if let Some(of) = run.rerun_of.filter(|_| same_event) {
            additions.gatherings.copies.push((run.id, of));
        }
        remember(run, function_id, became, now, known, additions);
        created.push(became);
    }
    additions.events.extend(
        request
            .events
            .iter()
            .map(|event| (event, with_runs.contains(&event.id))),
    );
    Ok(created)
}

/// Whether a run passes its limits, and until when it is held back if it does.
fn admit(
    run: &NewRun,
    (function_id, own): (i64, &HashSet<EventId>),
    now: Timestamp,
    known: &mut Known,
    additions: &mut Additions<'_>,
) -> std::result::Result<Option<Held>, Created> {
    let asking = Asking {
        run: run.id,
        invoked_by: run.parent,
        start_at: run.start_at,
        paused: run.held,
        now,
    };
    let verdict = run.admission.decide(asking, |gate| {
        let standing = known.limits.standing(function_id, gate, &run.admission)?;
        (gate != Gate::Singleton || known.living.contains(&standing.run)).then_some(standing)
    });
    match verdict {
        Verdict::Admitted {
            used_until,
            held,
            displaces,
        } => {
            known
                .limits
                .admit(function_id, run, used_until, &mut additions.limits);
            if let Some((other, reason)) = displaces {
                singletons::displace(other, reason, now, known, additions);
            }
            if run.admission.singleton.is_some() {
                known.living.insert(run.id);
            }
            Ok(held)
        }
        Verdict::Dropped {
            decision,
            run: earlier,
            until,
            detail,
        } => {
            singletons::refuse(run, &detail, now, additions);
            // The event of a rerun has started a run before: whoever asks for another is told, and nobody else.
            if run.rerun_of.is_none() || own.contains(&run.event_id) {
                let reason = (decision, now, earlier, detail);
                additions.decisions.add(run.event_id, function_id, reason);
            }
            Err(Created::Dropped {
                decision,
                run: earlier,
                until,
            })
        }
    }
}

/// The sender's event is known from now on.
fn remember<'i>(
    run: &'i NewRun,
    function_id: i64,
    became: Created,
    now: Timestamp,
    known: &mut Known,
    additions: &mut Additions<'i>,
) {
    let Some(key) = &run.dedupe else { return };
    let of = match became {
        Created::Gathered { run, .. } => run,
        _ => run.id,
    };
    known.dedupe.insert((function_id, key.clone()), (of, now));
    additions.dedupe.insert((function_id, key), (of, now));
}

/// The runs that begin with what others recorded.
pub(crate) fn copies<'c, 'i>(
    creations: &'c [Creation<'i>],
) -> impl Iterator<Item = (RunId, crate::ingest::Copied)> + use<'c, 'i> {
    creations
        .iter()
        .filter_map(|creation| Some((creation.run.id, creation.run.copy?)))
}

/// How a run comes into the world.
pub(crate) struct Birth {
    /// Its state.
    pub(crate) state: State,
    /// Its place in the ready queue or among the timers.
    pub(crate) due: Option<Timestamp>,
    /// Why it is in that phase.
    pub(crate) reason: Option<String>,
}

impl Birth {
    /// Held by its function's pause, held back by its throttle or its window, leased, delayed or ready.
    fn of(creation: &Creation<'_>) -> Birth {
        let Creation { run, now, .. } = creation;
        if creation.paused {
            return Birth {
                state: State::live(Status::Scheduled, Phase::Paused),
                due: None,
                reason: Some(super::pausing::held(&run.function)),
            };
        }
        if let Some(held) = &creation.held {
            return Birth {
                state: State::live(Status::Scheduled, Phase::Limited),
                due: Some(held.until),
                reason: Some(held.reason.clone()),
            };
        }
        if creation.leased {
            let state = State::live(Status::Running, Phase::Executing);
            return Birth {
                state,
                due: None,
                reason: None,
            };
        }
        if run.start_at > *now {
            // It is no part of the queue yet, so it must not look as if it were.
            return Birth {
                state: State::live(Status::Scheduled, Phase::Sleeping),
                due: Some(run.start_at),
                reason: Some(super::pausing::delayed(run.start_at)),
            };
        }
        Birth {
            state: State::NEW,
            due: Some(place_in_queue(*now, run.admission.priority)),
            reason: None,
        }
    }
}

/// A run's priority moves its place among those that wait to begin.
pub(crate) fn place_in_queue(now: Timestamp, priority: i64) -> Timestamp {
    Timestamp::from_millis(now.as_millis() - priority * 1_000)
}

/// A row of `ready` or `timers`: since when, or when due, and the run.
type Placed = (Timestamp, RunId);

/// Rows of `ready` and of `timers` that new runs come with.
pub(crate) fn places(creations: &[Creation<'_>]) -> (Vec<Placed>, Vec<Placed>) {
    let mut ready = Vec::new();
    let mut timers = Vec::new();
    for creation in creations {
        let birth = creation.birth();
        match birth.due {
            Some(due) if birth.state == State::NEW => ready.push((due, creation.run.id)),
            Some(due) => timers.push((due, creation.run.id)),
            None => {}
        }
    }
    (ready, timers)
}
