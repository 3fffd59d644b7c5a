//! Small programs, and a guest that runs them against a [`Replay`] as the SDK's executor would: every call in program
//! order, one blocking point, losers of a race dropped. The world around them is a function of a seed and of the place
//! in the journal, so that the same journal is always continued in the same way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dormouse_core::journal::{Event, OperationKind, soonest_due};
use dormouse_core::preflight::{Probe, Stand};
use dormouse_core::replay::{Attempt, Awaited, Begun, Divergence, Replay};
use dormouse_core::{Entry, Failure, Json, Outcome, Seq, Timestamp};

/// One thing that a program does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    /// A body. With `?`, a failure ends the branch.
    Body { name: String, question_mark: bool },
    /// An operation of the host, awaited. With `?`, a failure ends the branch.
    Operation {
        kind: OperationKind,
        name: String,
        input: u32,
        question_mark: bool,
    },
    /// All branches, overlapping.
    Join(Vec<Vec<Act>>),
    /// The first branch that ends; the others are dropped.
    Select(Vec<Vec<Act>>),
}

/// The most tries of a body.
const ATTEMPTS: u32 = 3;
pub(crate) const START: Timestamp = Timestamp::from_millis(1_000_000);

/// What the world does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    /// The number of the journal's first entry.
    pub(crate) base: Seq,
}

impl World {
    fn draw(&self, what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, what).hash(&mut hasher);
        hasher.finish()
    }

    /// The host's clock when the entry `seq` is appended. It jumps, also backwards.
    fn clock(&self, seq: Seq) -> Timestamp {
        START.after(Duration::from_millis(
            u64::from(seq) * 50 + self.draw((seq, "clock")) % 1_000,
        ))
    }

    fn body(&self, name: &str, occurrence: u32, attempt: u32) -> Outcome {
        let drawn = self.draw((name, occurrence, attempt));
        if drawn.is_multiple_of(3) {
            Err(Failure::new("no-luck", format!("attempt {attempt} of {name}")))
        } else {
            Ok(Json::from_value(&drawn).expect("a number"))
        }
    }

    fn operation(&self, operation: Seq) -> Outcome {
        let drawn = self.draw((operation, "operation"));
        if drawn.is_multiple_of(4) {
            Err(Failure::terminal("refused", "by the host"))
        } else {
            Ok(Json::from_value(&drawn).expect("a number"))
        }
    }

    /// Which of the awaited operations has its outcome first.
    fn first(&self, seq: Seq, operations: &[Seq]) -> Seq {
        *operations
            .iter()
            .min_by_key(|operation| self.draw((seq, *operation, "first")))
            .expect("something is awaited")
    }
}

/// How a program came to its end, or did not.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) entries: Vec<Entry>,
    /// What the guest has seen in the last leg: answers and times.
    pub(crate) seen: Vec<String>,
    pub(crate) end: End,
    /// How many bodies were executed, over all legs.
    pub(crate) executed: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Returned,
    Diverged(Divergence),
    /// The last entry is a failed attempt: this leg is over.
    Deferred,
    /// A probe stands: it answers no call any more.
    Stood,
}

/// Drives a program to its end, leg by leg, from what is recorded.
pub(crate) fn drive(program: &[Act], world: World, recorded: &[Entry]) -> Run {
    let mut owners = BTreeMap::new();
    let mut entries = recorded.to_vec();
    let mut executed = 0;
    loop {
        let run = leg(program, world, entries, &mut owners);
        executed += run.executed;
        if run.end != End::Deferred {
            return Run { executed, ..run };
        }
        entries = run.entries;
    }
}

/// Where a program stands when it is given all that is recorded, or as much of it as it asks for.
pub(crate) fn probe(program: &[Act], world: World, recorded: &[Entry]) -> Stand {
    let replay = Replay::new(recorded.to_vec(), world.base, START).expect("numbered without a gap");
    let guest = Guest::new(world, Machine::Probe(Probe::new(replay)), &mut Owners::default());
    let guest = guest.drive(program);
    assert_eq!(guest.executed.get(), 0, "a probe executes nothing");
    match guest.machine.into_inner() {
        Machine::Probe(probe) => {
            assert_eq!(probe.replay().entries()[..recorded.len()], *recorded);
            probe.into_stand().expect("it stands")
        }
        Machine::Live(_) => unreachable!("it was made with a probe"),
    }
}

/// What answers a guest.
enum Machine {
    Live(Replay),
    Probe(Probe),
}

impl Machine {
    fn replay(&self) -> &Replay {
        match self {
            Machine::Live(replay) => replay,
            Machine::Probe(probe) => probe.replay(),
        }
    }

    /// For what a host records.
    fn recording(&mut self) -> &mut Replay {
        match self {
            Machine::Live(replay) => replay,
            Machine::Probe(_) => unreachable!("a probe records nothing"),
        }
    }

    fn begin(&mut self, name: &str) -> Result<Begun, End> {
        match self {
            Machine::Live(replay) => replay.begin(name).map_err(End::Diverged),
            Machine::Probe(probe) => probe.begin(name).ok_or(End::Stood),
        }
    }

    /// Also whether it is new.
    fn start(
        &mut self,
        kind: OperationKind,
        name: &str,
        input: &Json,
        at: Timestamp,
        due_at: impl FnOnce() -> Option<Timestamp>,
    ) -> Result<(Seq, bool), End> {
        match self {
            Machine::Live(replay) => replay
                .start(kind, name, input, at, due_at)
                .map(|started| (started.operation, started.new))
                .map_err(End::Diverged),
            Machine::Probe(probe) => probe
                .start(kind, name, input)
                .map(|operation| (operation, false))
                .ok_or(End::Stood),
        }
    }

    fn await_any(&mut self, operations: &[Seq]) -> Result<Awaited, End> {
        match self {
            Machine::Live(replay) => replay.await_any(operations).map_err(End::Diverged),
            Machine::Probe(probe) => probe.await_any(operations).map(Awaited::Ready).ok_or(End::Stood),
        }
    }

    fn cancel(&mut self, operation: Seq, at: Timestamp) -> Result<(), End> {
        match self {
            Machine::Live(replay) => replay.cancel(operation, at).map_err(End::Diverged),
            Machine::Probe(probe) => probe.cancel(operation).ok_or(End::Stood),
        }
    }

    fn finish(&mut self, failed: bool) -> End {
        match self {
            Machine::Live(replay) => replay
                .finish(failed)
                .map_or_else(End::Diverged, |()| End::Returned),
            Machine::Probe(probe) => {
                probe.finish(failed);
                End::Stood
            }
        }
    }
}

/// Which act of the program a use of a name belongs to.
type Owners = BTreeMap<(String, u32), String>;

struct Guest {
    world: World,
    machine: RefCell<Machine>,
    /// What the tasks wait for, in the order they were polled.
    waiting: RefCell<Vec<Seq>>,
    end: RefCell<Option<End>>,
    seen: RefCell<Vec<String>>,
    owners: RefCell<Owners>,
    executed: Cell<usize>,
    now: Cell<Timestamp>,
}

fn leg(program: &[Act], world: World, entries: Vec<Entry>, owners: &mut Owners) -> Run {
    let replay = Replay::new(entries, world.base, START).expect("numbered without a gap");
    let guest = Guest::new(world, Machine::Live(replay), owners).drive(program);
    *owners = guest.owners.into_inner();
    Run {
        entries: guest.machine.into_inner().replay().entries().to_vec(),
        seen: guest.seen.into_inner(),
        end: guest.end.into_inner().expect("ended"),
        executed: guest.executed.get(),
    }
}

impl Guest {
    fn new(world: World, machine: Machine, owners: &mut Owners) -> Rc<Guest> {
        Rc::new(Guest {
            world,
            machine: RefCell::new(machine),
            waiting: RefCell::default(),
            end: RefCell::default(),
            seen: RefCell::default(),
            owners: RefCell::new(std::mem::take(owners)),
            executed: Cell::new(0),
            now: Cell::new(START),
        })
    }

    /// Polls a program until there is an end.
    fn drive(self: Rc<Self>, program: &[Act]) -> Guest {
        let mut task = branch(Rc::clone(&self), program.to_vec(), String::new());
        let mut context = Context::from_waker(Waker::noop());
        while self.end.borrow().is_none() {
            self.waiting.borrow_mut().clear();
            let polled = task.as_mut().poll(&mut context);
            if self.end.borrow().is_some() {
                break;
            }
            match polled {
                Poll::Ready(outcome) => {
                    let end = self.machine.borrow_mut().finish(outcome.is_err());
                    self.stop(end);
                }
                Poll::Pending => self.wait(),
            }
        }
        drop(task);
        Rc::into_inner(self).expect("the tasks are gone")
    }

    fn stop(&self, end: End) {
        self.end.borrow_mut().get_or_insert(end);
    }

    fn stopped(&self) -> bool {
        self.end.borrow().is_some()
    }

    fn see(&self, what: String) {
        let now = self.machine.borrow().replay().now();
        assert!(now >= self.now.replace(now), "now decreased");
        self.seen.borrow_mut().push(format!("{now} {what}"));
        self.check_bookkeeping();
    }

    /// The time for the next entry.
    fn clock(&self) -> Timestamp {
        self.world.clock(self.machine.borrow().replay().next_seq())
    }

    /// The one place where a guest blocks.
    fn wait(&self) {
        let operations = self.waiting.borrow().clone();
        loop {
            let awaited = self.machine.borrow_mut().await_any(&operations);
            match awaited {
                Ok(Awaited::Ready(index)) => {
                    return self.see(format!("ready {}", operations[index as usize]));
                }
                Ok(Awaited::Pending) => {
                    let at = self.clock();
                    let mut machine = self.machine.borrow_mut();
                    let replay = machine.recording();
                    let operation = self.world.first(replay.next_seq(), &operations);
                    let due = replay
                        .open()
                        .find(|open| open.operation == operation)
                        .expect("open")
                        .due_at;
                    let outcome = if due.is_some() {
                        Ok(Json::null())
                    } else {
                        self.world.operation(operation)
                    };
                    replay.deliver(operation, outcome, due.map_or(at, |due| due.max(at)));
                }
                Err(end) => return self.stop(end),
            }
        }
    }

    /// Executes a body. None when it failed and will be tried again: then the leg is over.
    fn execute(&self, attempt: &Attempt, place: &str) -> Option<Outcome> {
        let mut machine = self.machine.borrow_mut();
        let replay = machine.recording();
        assert!(
            !replay.is_replaying(),
            "nothing is executed before the end of the journal"
        );
        assert_eq!(
            (attempt.position, replay.attempt()),
            (replay.next_seq(), Some(attempt))
        );
        let failed = |entry: &&Entry| {
            matches!(&entry.event, Event::Deferred { name, occurrence, .. }
                if *name == attempt.name && *occurrence == attempt.occurrence)
        };
        let failures = replay.entries().iter().filter(failed).count();
        assert_eq!(
            attempt.number as usize,
            failures + 1,
            "attempts are counted over legs"
        );
        let use_of_name = (attempt.name.clone(), attempt.occurrence);
        let owner = self
            .owners
            .borrow_mut()
            .entry(use_of_name)
            .or_insert_with(|| place.to_owned())
            .clone();
        assert_eq!(
            owner, place,
            "a use of a name belongs to one place in the program"
        );
        self.executed.set(self.executed.get() + 1);

        let at = self.world.clock(replay.next_seq());
        match self.world.body(&attempt.name, attempt.occurrence, attempt.number) {
            Err(failure) if attempt.number < ATTEMPTS => {
                replay.defer(failure, at, at.after(Duration::from_secs(1)), at);
                self.stop(End::Deferred);
                None
            }
            outcome => {
                replay.complete(outcome.clone(), at, at);
                assert_eq!(replay.attempt(), None);
                Some(outcome)
            }
        }
    }

    /// What the machine says of operations must be what a naive reading of the journal says.
    fn check_bookkeeping(&self) {
        let machine = self.machine.borrow();
        let replay = machine.replay();
        // What a probe has made of a call by itself, nobody is told.
        if replay.is_replaying() || self.stopped() {
            return;
        }
        let mut open = BTreeMap::new();
        let mut delivered = BTreeMap::new();
        for entry in replay.entries() {
            match &entry.event {
                Event::Started {
                    kind, name, due_at, ..
                } => {
                    open.insert(entry.seq, (Some(*kind), name.clone(), *due_at));
                }
                Event::Deferred { name, due_at, .. } => {
                    open.insert(entry.seq, (None, name.clone(), Some(*due_at)));
                }
                Event::Delivered { operation, outcome } => {
                    assert!(open.remove(operation).is_some(), "only what is open is delivered");
                    delivered.insert(*operation, outcome.clone());
                }
                Event::Cancelled { operation } => {
                    assert!(open.remove(operation).is_some(), "only what is open is cancelled");
                }
                Event::Step { .. } | Event::Tried { .. } => {}
            }
        }
        let told: BTreeMap<_, _> = replay
            .open()
            .map(|open| (open.operation, (open.kind, open.name.to_owned(), open.due_at)))
            .collect();
        assert_eq!(told, open);
        assert_eq!(replay.open_count(), open.len());
        for seq in self.world.base..replay.next_seq() {
            assert_eq!(replay.is_open(seq), open.contains_key(&seq));
            assert_eq!(replay.outcome(seq), delivered.get(&seq));
        }
        let soonest = told
            .iter()
            .filter_map(|(operation, (_, _, due_at))| Some((due_at.as_ref()?, *operation)))
            .min()
            .map(|(_, operation)| operation);
        assert_eq!(soonest_due(replay.entries()), soonest);
        assert!(
            replay.entries().is_sorted_by_key(|entry| entry.at),
            "entries are in the order of time"
        );
    }
}

type Task = Pin<Box<dyn Future<Output = Outcome>>>;

fn branch(guest: Rc<Guest>, acts: Vec<Act>, place: String) -> Task {
    Box::pin(async move {
        for (index, act) in acts.into_iter().enumerate() {
            let place = format!("{place}/{index}");
            let (outcome, question_mark) = match act {
                Act::Body { name, question_mark } => (body(&guest, &name, &place).await, question_mark),
                Act::Operation {
                    kind,
                    name,
                    input,
                    question_mark,
                } => (operation(&guest, kind, &name, input).await, question_mark),
                Act::Join(branches) => (Overlap::new(&guest, branches, &place, false).await, false),
                Act::Select(branches) => (Overlap::new(&guest, branches, &place, true).await, false),
            };
            guest.see(format!("{place} {outcome:?}"));
            if question_mark {
                outcome?;
            }
        }
        Ok(Json::null())
    })
}

/// A leg that has ended answers no call any more.
async fn never<T>() -> T {
    std::future::pending().await
}

async fn body(guest: &Rc<Guest>, name: &str, place: &str) -> Outcome {
    loop {
        if guest.stopped() {
            return never().await;
        }
        let begun = guest.machine.borrow_mut().begin(name);
        match begun {
            Ok(Begun::Recorded(outcome)) => return outcome,
            Ok(Begun::Deferred(operation)) => {
                guest.see(format!("{place} deferred {operation}"));
                let waited = Handle {
                    guest: Rc::clone(guest),
                    operation,
                    done: false,
                }
                .await;
                assert_eq!(waited, Ok(Json::null()));
            }
            Ok(Begun::Execute(attempt)) => match guest.execute(&attempt, place) {
                Some(outcome) => return outcome,
                None => return never().await,
            },
            Err(end) => {
                guest.stop(end);
                return never().await;
            }
        }
    }
}

async fn operation(guest: &Rc<Guest>, kind: OperationKind, name: &str, input: u32) -> Outcome {
    if guest.stopped() {
        return never().await;
    }
    let at = guest.clock();
    let due_at = || match kind {
        OperationKind::Sleep | OperationKind::SleepUntil => {
            Some(at.after(Duration::from_millis(u64::from(input))))
        }
        // A wait may have a timeout, and end by itself.
        OperationKind::WaitForEvent | OperationKind::WaitForSignal if input > 0 => {
            Some(at.after(Duration::from_millis(u64::from(input))))
        }
        _ => None,
    };
    let json = Json::from_value(&input).expect("a number");
    let was_replaying = guest.machine.borrow().replay().is_replaying();
    let started = guest.machine.borrow_mut().start(kind, name, &json, at, due_at);
    match started {
        Ok((operation, new)) => {
            assert_eq!(new, !was_replaying);
            guest.see(format!("started {operation}"));
            Handle {
                guest: Rc::clone(guest),
                operation,
                done: false,
            }
            .await
        }
        Err(end) => {
            guest.stop(end);
            never().await
        }
    }
}

/// An operation that is awaited; given up when it is dropped before its delivery.
struct Handle {
    guest: Rc<Guest>,
    operation: Seq,
    done: bool,
}

impl Future for Handle {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Outcome> {
        if self.guest.stopped() {
            return Poll::Pending;
        }
        let outcome = self
            .guest
            .machine
            .borrow()
            .replay()
            .outcome(self.operation)
            .cloned();
        match outcome {
            Some(outcome) => {
                self.done = true;
                Poll::Ready(outcome)
            }
            None => {
                self.guest.waiting.borrow_mut().push(self.operation);
                Poll::Pending
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The end of a leg is no giving up.
        if self.done || self.guest.stopped() {
            return;
        }
        // It may have been polled earlier in this round.
        self.guest
            .waiting
            .borrow_mut()
            .retain(|operation| *operation != self.operation);
        let at = self.guest.clock();
        let cancelled = self.guest.machine.borrow_mut().cancel(self.operation, at);
        if let Err(end) = cancelled {
            self.guest.stop(end);
        }
    }
}

/// Several branches at once.
struct Overlap {
    branches: Vec<Option<Task>>,
    first_only: bool,
}

impl Overlap {
    fn new(guest: &Rc<Guest>, branches: Vec<Vec<Act>>, place: &str, first_only: bool) -> Overlap {
        let tasks = branches
            .into_iter()
            .enumerate()
            .map(|(index, acts)| Some(branch(Rc::clone(guest), acts, format!("{place}.{index}"))));
        Overlap {
            branches: tasks.collect(),
            first_only,
        }
    }
}

impl Future for Overlap {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let first_only = self.first_only;
        let mut open = 0;
        for index in 0..self.branches.len() {
            let Some(task) = &mut self.branches[index] else {
                continue;
            };
            match task.as_mut().poll(context) {
                Poll::Pending => open += 1,
                Poll::Ready(_) => {
                    self.branches[index] = None;
                    if first_only {
                        // Losers go in the order they were written.
                        self.branches.iter_mut().for_each(|branch| drop(branch.take()));
                        return Poll::Ready(Ok(Json::null()));
                    }
                }
            }
        }
        if open == 0 {
            Poll::Ready(Ok(Json::null()))
        } else {
            Poll::Pending
        }
    }
}
