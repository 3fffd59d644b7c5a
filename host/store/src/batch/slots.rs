//! Slots of concurrency limits: which ready runs a claim leases, which wait in a line, and who in a line may go. The same on
//! every database.
//!
//! Slots are taken by claims alone. A run that a claim finds ready and that has no slot waits in the line of what it lacks, out of
//! the ready queue, so that nobody looks at it again before it can go. Whoever ends a lease leaves a note that slots were
//! freed; the next claim looks into the lines of what was freed and nowhere else. [`Work`] derives from each change of a run's
//! state what becomes of its slots, so that no operation can forget them.
//!
//! Absent on purpose: SQL and locks, which are a [`Desk`]'s.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;

use dormouse_core::flow::concurrency::{Scope, declared};
use dormouse_core::flow::{Concurrency, Need, Taken};
use dormouse_core::run::Event;
use dormouse_core::{Digest, RunId, Timestamp};

use super::ingest::Creation;
use super::runs::Work;
use crate::error::{Error, Result};
use crate::schedule::{Claim, crash_loop};

/// What names slots: a function's number, or [`ACCOUNT`], and their name.
pub(crate) type Pool = (i64, String);

/// What stands for all functions: no function has this number.
pub(crate) const ACCOUNT: i64 = 0;

/// So many runs of a line are looked at in one commit.
pub(crate) const LOOK: usize = 64;
/// So many notes of freed slots are looked at in one commit.
pub(crate) const NOTES: usize = 256;

/// A row of `slots`.
#[derive(Clone, Debug)]
pub(crate) struct Needed {
    pub(crate) number: i64,
    pub(crate) function_id: i64,
    pub(crate) need: Need,
}

impl Needed {
    /// From its cells.
    pub(crate) fn stored(
        (number, function_id, scope): (i64, i64, i64),
        name: String,
        source: Option<String>,
        limit: u32,
    ) -> Needed {
        let scope = match scope {
            ACCOUNT => Scope::Account,
            _ => Scope::Function,
        };
        Needed {
            number,
            function_id,
            need: Need {
                scope,
                source,
                name,
                limit,
            },
        }
    }

    pub(crate) fn scope(&self) -> i64 {
        match self.need.scope {
            Scope::Function => self.function_id,
            Scope::Account => ACCOUNT,
        }
    }

    pub(crate) fn pool(&self) -> Pool {
        (self.scope(), self.need.name.clone())
    }
}

/// The rows of `slots` that new runs come with.
pub(crate) fn needed(creations: &[Creation<'_>]) -> Vec<(RunId, Needed)> {
    let of = |creation: &Creation<'_>| {
        let (run, function_id) = (creation.run.id, creation.function_id);
        let needs = creation.run.admission.concurrency.clone();
        (0..).zip(needs).map(move |(number, need)| {
            let needed = Needed {
                number,
                function_id,
                need,
            };
            (run, needed)
        })
    };
    creations.iter().flat_map(of).collect()
}

/// What active versions say of functions, by their numbers. None: the active version has no such function.
pub(crate) type Declared = HashMap<i64, Option<Vec<Concurrency>>>;

/// An answer, or what went wrong with the database.
pub(crate) type Looked<T, F> = std::result::Result<T, F>;

/// A claim's transaction, for what has to be looked up and locked.
pub(crate) trait Desk: Send {
    /// What may go wrong.
    type Fault: From<Error> + Send;

    /// What slots were freed of, each once, of at most [`NOTES`] notes.
    fn freed(&mut self) -> impl Future<Output = Looked<Vec<Pool>, Self::Fault>> + Send;

    /// Locks those of some pools that nobody else has locked, until the transaction ends.
    fn lock(&mut self, pools: &[Pool]) -> impl Future<Output = Looked<Vec<Pool>, Self::Fault>> + Send;

    /// The first [`LOOK`] runs of each function that wait in the lines of some pools.
    #[allow(clippy::type_complexity)]
    fn lines(
        &mut self,
        pools: &[Pool],
    ) -> impl Future<Output = Looked<Vec<(Pool, Timestamp, RunId)>, Self::Fault>> + Send;

    /// What runs need, by number.
    fn needs(
        &mut self,
        runs: &[RunId],
    ) -> impl Future<Output = Looked<HashMap<RunId, Vec<Needed>>, Self::Fault>> + Send;

    /// How many slots are taken.
    fn taken(&mut self, pools: &[Pool]) -> impl Future<Output = Looked<Taken<Pool>, Self::Fault>> + Send;

    /// Reads those of some runs into the batch that nobody else has locked, and locks them.
    fn load(
        &mut self,
        work: &mut Work,
        runs: Vec<RunId>,
    ) -> impl Future<Output = Looked<(), Self::Fault>> + Send;

    /// What active versions say of functions.
    fn declared(
        &mut self,
        functions: &BTreeSet<i64>,
    ) -> impl Future<Output = Looked<Declared, Self::Fault>> + Send;

    /// The digests of versions.
    fn digests(
        &mut self,
        versions: &[i64],
    ) -> impl Future<Output = Looked<HashMap<i64, Digest>, Self::Fault>> + Send;

    /// Deletes the notes that were read of what was freed.
    fn clear(&mut self, pools: &[Pool]) -> impl Future<Output = Looked<(), Self::Fault>> + Send;
}

/// What a claim came to.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Runs that are leased, in order.
    pub(crate) claimed: Vec<RunId>,
    /// Runs that were blocked instead.
    pub(crate) blocked: Vec<RunId>,
    /// How many were put into lines.
    pub(crate) waiting: u32,
    /// Something was left to whoever had it locked, or for another look.
    pub(crate) again: bool,
    /// Versions of runs that could go and were not asked for.
    pub(crate) lacking: BTreeSet<Digest>,
}

impl Outcome {
    /// Leases a run, or blocks it. True: it is leased.
    fn lease(&mut self, work: &mut Work, run: RunId, claim: &Claim) -> Result<bool> {
        let leased = work.change(run, |row| row.claim(claim.node, claim.now))?;
        if leased {
            self.claimed.push(run);
        } else {
            work.outcome(run, None, Some(crash_loop()));
            self.blocked.push(run);
        }
        Ok(leased)
    }

    fn is_full(&self, claim: &Claim) -> bool {
        self.claimed.len() >= claim.limit as usize
    }
}

/// Claims ready runs that are loaded, in order; before them those that wait in lines, if there are `notes` of freed slots.
pub(crate) async fn claim<D: Desk>(
    desk: &mut D,
    work: &mut Work,
    ready: &[RunId],
    claim: &Claim,
    notes: bool,
) -> Looked<Outcome, D::Fault> {
    let needs_slots = |id: &&RunId| work.get(**id).is_some_and(|row| row.needs_slots);
    let limited: Vec<RunId> = ready.iter().filter(needs_slots).copied().collect();
    let freed = if notes { desk.freed().await? } else { Vec::new() };
    let mut outcome = Outcome::default();
    if freed.is_empty() && limited.is_empty() {
        for run in ready {
            outcome.lease(work, *run, claim)?;
        }
        return Ok(outcome);
    }
    let mut counter = Counter::open(desk, work, &limited, freed, claim).await?;
    counter.serve_lines(work, claim, &mut outcome)?;
    for run in ready {
        if outcome.is_full(claim) {
            break;
        }
        if counter.needs.contains_key(run) {
            counter.serve(work, *run, claim, &mut outcome)?;
        } else {
            outcome.lease(work, *run, claim)?;
        }
    }
    let looked_at: Vec<Pool> = counter.freed.difference(&counter.kept).cloned().collect();
    desk.clear(&looked_at).await?;
    Ok(outcome)
}

/// Everything a claim has to know, at one moment.
struct Counter {
    needs: HashMap<RunId, Vec<Needed>>,
    locked: HashSet<Pool>,
    /// What was freed and is locked.
    freed: BTreeSet<Pool>,
    /// Those of them that must be looked at again.
    kept: BTreeSet<Pool>,
    /// Who waits in their lines, in order.
    lines: Vec<(Timestamp, RunId, Pool)>,
    taken: Taken<Pool>,
    declared: Declared,
    /// By the numbers of versions; empty where all are asked for.
    digests: HashMap<i64, Digest>,
    again: bool,
}

impl Counter {
    async fn open<D: Desk>(
        desk: &mut D,
        work: &mut Work,
        limited: &[RunId],
        freed: Vec<Pool>,
        claim: &Claim,
    ) -> Looked<Counter, D::Fault> {
        let mut needs = desk.needs(limited).await?;
        let pools = |needs: &HashMap<RunId, Vec<Needed>>| -> BTreeSet<Pool> {
            needs.values().flatten().map(Needed::pool).collect()
        };
        let mut asked = pools(&needs);
        asked.extend(freed.iter().cloned());
        let mut locked: HashSet<Pool> = desk.lock(&sorted(&asked)).await?.into_iter().collect();
        let again = freed.iter().any(|pool| !locked.contains(pool));
        let freed: BTreeSet<Pool> = freed.into_iter().filter(|pool| locked.contains(pool)).collect();
        // Read after they were locked: nobody joins or leaves what is read here but by giving something up.
        let found = desk.lines(&sorted(&freed)).await?;
        let mut lines: Vec<(Timestamp, RunId, Pool)> = found
            .into_iter()
            .map(|(pool, since, run)| (since, run, pool))
            .collect();
        lines.sort_unstable();
        let mut waiting: Vec<RunId> = lines.iter().map(|(_, run, _)| *run).collect();
        waiting.sort_unstable();
        waiting.dedup();
        needs.extend(desk.needs(&waiting).await?);
        let more: BTreeSet<Pool> = pools(&needs).difference(&asked).cloned().collect();
        locked.extend(desk.lock(&sorted(&more)).await?);
        let count: BTreeSet<Pool> = locked.iter().cloned().collect();
        let taken = desk.taken(&sorted(&count)).await?;
        desk.load(work, waiting.clone()).await?;
        let functions = needs
            .values()
            .flatten()
            .map(|needed| needed.function_id)
            .collect();
        let declared = desk.declared(&functions).await?;
        let versions = waiting.iter().filter_map(|run| Some(work.get(*run)?.version_id));
        let digests = match &claim.versions {
            Some(_) => desk.digests(&versions.collect::<Vec<_>>()).await?,
            None => HashMap::new(),
        };
        Ok(Counter {
            needs,
            locked,
            freed,
            kept: BTreeSet::new(),
            lines,
            taken,
            declared,
            digests,
            again,
        })
    }

    fn limit(&self, needed: &Needed) -> Option<u32> {
        let active = self.declared.get(&needed.function_id).and_then(Option::as_deref);
        needed.need.limit(active)
    }

    /// What a run needs, each with its limit; none while somebody else has any of it locked.
    fn asks(&self, run: RunId) -> Option<Vec<(Pool, Option<u32>)>> {
        let needs = self.needs.get(&run)?;
        let asked = needs.iter().map(|needed| (needed.pool(), self.limit(needed)));
        let asked: Vec<(Pool, Option<u32>)> = asked.collect();
        asked
            .iter()
            .all(|(pool, _)| self.locked.contains(pool))
            .then_some(asked)
    }

    /// Lets those go that wait in the lines of what was freed.
    fn serve_lines(&mut self, work: &mut Work, claim: &Claim, outcome: &mut Outcome) -> Result<()> {
        let mut looked: BTreeMap<(Pool, i64), usize> = BTreeMap::new();
        for (since, run, pool) in std::mem::take(&mut self.lines) {
            let needs = self.needs.get(&run).map(Vec::as_slice).unwrap_or_default();
            let Some(needed) = needs.iter().find(|needed| needed.pool() == pool) else {
                continue;
            };
            let (limit, function_id) = (self.limit(needed), needed.function_id);
            let looked = looked.entry((pool.clone(), function_id)).or_default();
            *looked += 1;
            let last = *looked == LOOK;
            if !self.taken.has_room(&pool, limit) {
                continue;
            }
            // Behind the last one that was looked at there may be more.
            let keep = self.serve_waiting(work, run, (&pool, since), claim, outcome)?;
            if keep || (last && self.taken.has_room(&pool, limit)) {
                outcome.again |= last;
                self.kept.insert(pool);
            }
        }
        outcome.again |= self.again;
        Ok(())
    }

    /// Lets one go that there is room for in the line where it waits. True: that has to be looked at again.
    fn serve_waiting(
        &mut self,
        work: &mut Work,
        run: RunId,
        (pool, since): (&Pool, Timestamp),
        claim: &Claim,
        outcome: &mut Outcome,
    ) -> Result<bool> {
        if outcome.is_full(claim) {
            return Ok(true);
        }
        let Some(row) = work.get(run) else {
            // Somebody cancels or pauses it, or may let go of it again.
            outcome.again = true;
            return Ok(true);
        };
        if !row.waits_for_slot() {
            return Ok(false);
        }
        if let (Some(versions), Some(digest)) = (&claim.versions, self.digests.get(&row.version_id))
            && !versions.contains(digest)
        {
            outcome.lacking.insert(*digest);
            return Ok(true);
        }
        let Some(asked) = self.asks(run) else {
            outcome.again = true;
            return Ok(true);
        };
        match self.taken.take(&asked) {
            Ok(()) => {
                if !outcome.lease(work, run, claim)? {
                    self.taken.give_back(&asked);
                }
            }
            Err(full) if asked[full].0 != *pool => {
                self.wait(work, run, full, since)?;
            }
            Err(_) => {}
        }
        Ok(false)
    }

    /// Leases a ready run that needs slots, or puts it into a line.
    fn serve(&mut self, work: &mut Work, run: RunId, claim: &Claim, outcome: &mut Outcome) -> Result<()> {
        let Some(asked) = self.asks(run) else {
            outcome.again = true;
            return Ok(());
        };
        match self.taken.take(&asked) {
            Ok(()) => {
                if !outcome.lease(work, run, claim)? {
                    self.taken.give_back(&asked);
                }
            }
            Err(full) => {
                let since = work.get(run).and_then(|row| row.due).unwrap_or(claim.now);
                self.wait(work, run, full, since)?;
                outcome.waiting += 1;
            }
        }
        Ok(())
    }

    /// Puts a run into the line of one of its needs.
    fn wait(&self, work: &mut Work, run: RunId, place: usize, since: Timestamp) -> Result<()> {
        let Some(needed) = self.needs.get(&run).and_then(|needs| needs.get(place)) else {
            return Err(Error::Corrupt(format!(
                "run {run} waits for a slot that it does not need"
            )));
        };
        let reason = needed
            .need
            .reason(self.limit(needed).unwrap_or(needed.need.limit));
        work.change(run, |row| {
            if row.waits_for_slot() {
                row.reason = Some(reason);
                return Ok(());
            }
            row.on(Event::Limit, Some(reason))
        })?;
        work.wait_for_slot(run, needed.number, since);
        Ok(())
    }
}

fn sorted(pools: &BTreeSet<Pool>) -> Vec<Pool> {
    pools.iter().cloned().collect()
}

/// So many versions' limits are remembered.
const MANIFESTS_MAX: usize = 256;

/// What versions say of concurrency, by their numbers. What a version says never changes.
#[derive(Debug, Default)]
pub(crate) struct Manifests(HashMap<i64, HashMap<String, Vec<Concurrency>>>);

impl Manifests {
    /// Whether a version's is known.
    pub(crate) fn has(&self, version: i64) -> bool {
        self.0.contains_key(&version)
    }

    /// What a version says of a function. None: it has none of that name, or is not known.
    pub(crate) fn of(&self, version: i64, function: &str) -> Option<Vec<Concurrency>> {
        self.0.get(&version)?.get(function).cloned()
    }

    /// Learns a version's.
    pub(crate) fn read(&mut self, version: i64, manifest: &str) {
        if self.0.len() >= MANIFESTS_MAX {
            self.0.clear();
        }
        self.0.insert(version, declared(manifest));
    }
}
