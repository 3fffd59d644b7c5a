//! What must hold of replay for any program and any world.

mod program;

use dormouse_core::Entry;
use dormouse_core::journal::{Event, OperationKind};
use dormouse_core::preflight::{Next, Stand, Verdict};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use program::{Act, End, Run, World, drive, probe};

fn name() -> impl Strategy<Value = String> {
    // Few, so that they meet.
    select(vec!["a", "b", "größe 😀"]).prop_map(str::to_owned)
}

fn kind() -> impl Strategy<Value = OperationKind> {
    select(vec![
        OperationKind::Sleep,
        OperationKind::SleepUntil,
        OperationKind::Sql,
        OperationKind::Invoke,
        OperationKind::SendEvents,
        OperationKind::WaitForEvent,
        OperationKind::WaitForSignal,
    ])
}

fn single() -> impl Strategy<Value = Act> {
    prop_oneof![
        (name(), any::<bool>()).prop_map(|(name, question_mark)| Act::Body { name, question_mark }),
        (kind(), name(), 0u32..3, any::<bool>()).prop_map(|(kind, name, input, question_mark)| {
            Act::Operation {
                kind,
                name,
                input,
                question_mark,
            }
        }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    single().prop_recursive(2, 16, 4, |act| {
        let branches = prop::collection::vec(prop::collection::vec(act, 0..4), 1..4);
        prop_oneof![
            branches.clone().prop_map(Act::Join),
            branches.prop_map(Act::Select)
        ]
    })
}

fn program() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 0..6)
}

fn world() -> impl Strategy<Value = World> {
    (any::<u64>(), select(vec![0, 1, 1_000])).prop_map(|(seed, base)| World { seed, base })
}

/// How a program is changed.
#[derive(Clone, Copy, Debug)]
enum Change {
    Rename,
    Input,
    Kind,
    Insert,
    Remove,
    Swap,
}

fn change() -> impl Strategy<Value = Change> {
    select(vec![
        Change::Rename,
        Change::Input,
        Change::Kind,
        Change::Insert,
        Change::Remove,
        Change::Swap,
    ])
}

/// The lists of acts in a program: its own and those of all branches.
fn lists<'a>(acts: &'a mut Vec<Act>, visit: &mut dyn FnMut(&mut Vec<Act>)) {
    for act in acts.iter_mut() {
        if let Act::Join(branches) | Act::Select(branches) = act {
            branches.iter_mut().for_each(|branch| lists(branch, visit));
        }
    }
    visit(acts);
}

/// The program with one change at the `nth` of its acts.
fn changed(program: &[Act], change: Change, nth: Index, new: &Act) -> Vec<Act> {
    let mut program = program.to_vec();
    let mut total = 0;
    lists(&mut program, &mut |acts| total += acts.len());
    if total == 0 {
        return vec![new.clone()];
    }
    let mut left = Some(nth.index(total));
    lists(&mut program, &mut |acts| {
        let Some(place) = left else { return };
        if place >= acts.len() {
            left = Some(place - acts.len());
            return;
        }
        left = None;
        match change {
            Change::Insert => acts.insert(place, new.clone()),
            Change::Remove => drop(acts.remove(place)),
            Change::Swap => {
                let next = (place + 1) % acts.len();
                acts.swap(place, next);
            }
            Change::Rename | Change::Input | Change::Kind => alter(&mut acts[place], change),
        }
    });
    program
}

fn alter(act: &mut Act, change: Change) {
    match (change, act) {
        (Change::Rename, Act::Body { name, .. } | Act::Operation { name, .. }) => name.push('2'),
        (Change::Input, Act::Operation { input, .. }) => *input += 1,
        (Change::Kind, Act::Operation { kind, .. }) => {
            *kind = if *kind == OperationKind::Sleep {
                OperationKind::Fetch
            } else {
                OperationKind::Sleep
            };
        }
        (Change::Kind | Change::Input, act @ Act::Body { .. }) => {
            let Act::Body { name, question_mark } = act.clone() else {
                return;
            };
            *act = Act::Operation {
                kind: OperationKind::Sleep,
                name,
                input: 1,
                question_mark,
            };
        }
        (_, Act::Join(branches) | Act::Select(branches)) => branches.reverse(),
        _ => {}
    }
}

/// The two sides of the sentence that a divergence is.
fn asked(fresh: &Run, at: usize) -> String {
    match fresh.entries.get(at).map(|entry| &entry.event) {
        Some(Event::Step { name, .. } | Event::Deferred { name, .. }) => format!("run \"{name}\""),
        Some(Event::Started { kind, name, .. }) => format!("{} \"{name}\"", kind.as_str()),
        Some(Event::Delivered { .. }) => "the result of one of the entries".to_owned(),
        Some(Event::Cancelled { operation }) => format!("the cancellation of entry {operation}"),
        Some(Event::Tried { .. }) => unreachable!("no guest asks for a try"),
        None => "the end, with ".to_owned(),
    }
}

/// How many cases are tried; the long form of the tests tries more.
fn cases(short: u32) -> u32 {
    let long = std::env::var("DORMOUSE_TEST_LONG").is_ok_and(|value| value == "1");
    if long { 50 * short } else { short }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1_500), failure_persistence: None, ..ProptestConfig::default() })]

    /// Wherever a run is cut off, it goes on as it would have.
    #[test]
    fn any_prefix_is_continued_in_the_same_way(program in program(), world in world()) {
        let whole = drive(&program, world, &[]);
        prop_assert_eq!(&whole.end, &End::Returned);
        for length in 0..=whole.entries.len() {
            let again = drive(&program, world, &whole.entries[..length]);
            prop_assert_eq!(&again.end, &End::Returned);
            prop_assert_eq!(&again.entries, &whole.entries, "from {} entries on", length);
            prop_assert_eq!(&again.seen, &whole.seen, "from {} entries on", length);
        }
        let replayed = drive(&program, world, &whole.entries);
        prop_assert_eq!(replayed.executed, 0, "what is recorded is not executed");
    }

    /// The same through the encoding.
    #[test]
    fn a_journal_that_was_written_down_is_continued_in_the_same_way(
        program in program(), world in world(), cut in any::<Index>(),
    ) {
        let whole = drive(&program, world, &[]);
        let length = cut.index(whole.entries.len() + 1);
        let read: Result<Vec<Entry>, _> =
            whole.entries[..length].iter().map(|entry| Entry::decode(entry.encode())).collect();
        let again = drive(&program, world, &read.expect("readable"));
        prop_assert_eq!(again.entries, whole.entries);
        prop_assert_eq!(again.seen, whole.seen);
    }

    /// Changed code is caught at the first entry that it would not have made, before it has done anything.
    #[test]
    fn a_changed_program_diverges_at_the_first_entry_that_differs(
        program in program(), world in world(), change in change(), nth in any::<Index>(), new in single(),
    ) {
        let old = drive(&program, world, &[]);
        let changed = changed(&program, change, nth, &new);
        let fresh = drive(&changed, world, &[]);
        let differs = old.entries.iter().zip(&fresh.entries).position(|(old, new)| old != new);
        let first = differs.unwrap_or(old.entries.len().min(fresh.entries.len()));
        let replayed = drive(&changed, world, &old.entries);
        if first == old.entries.len() {
            prop_assert_eq!(replayed.end, End::Returned);
            prop_assert_eq!(replayed.entries, fresh.entries);
            return Ok(());
        }
        let End::Diverged(divergence) = &replayed.end else {
            return Err(TestCaseError::fail(format!("entry {first} differs, and nothing was said: {replayed:?}")));
        };
        prop_assert_eq!(divergence.seq, world.base + first as u32);
        prop_assert_eq!(&divergence.journal, &old.entries[first].describe());
        prop_assert!(divergence.code.contains(&asked(&fresh, first)), "{} should ask for {}", divergence, asked(&fresh, first));
        let sentence = format!("entry {}: the journal has {}, ", divergence.seq, divergence.journal);
        let told = divergence.to_string();
        prop_assert!(told.starts_with(&sentence) && told.ends_with(&divergence.code), "{}", told);
        prop_assert_eq!(&replayed.entries, &old.entries, "nothing is appended");
        prop_assert_eq!(replayed.executed, 0, "nothing is executed");

        // Cut off right before the difference, the changed code goes on as if it had always been there.
        let moved = drive(&changed, world, &old.entries[..first]);
        prop_assert_eq!(moved.end, End::Returned);
        prop_assert_eq!(moved.entries, fresh.entries);
    }

    /// On the run's own code, a probe stands where the run goes on; nothing is executed, and nothing recorded.
    #[test]
    fn a_probe_of_the_same_program_stands_at_what_comes_next(program in program(), world in world()) {
        let whole = drive(&program, world, &[]);
        for length in 0..=whole.entries.len() {
            let stand = probe(&program, world, &whole.entries[..length]);
            let Stand::Next(next) = &stand else {
                return Err(TestCaseError::fail(format!("after {length} entries: {stand:?}")));
            };
            prop_assert!(comes(next, whole.entries.get(length)), "after {} entries: {:?}", length, next);
            prop_assert_eq!(Verdict::of(Some(&stand), stand.clone()), Verdict::Unchanged);
            prop_assert_eq!(Verdict::of(None, stand), Verdict::Compatible);
        }
    }

    /// On changed code, a preflight says beforehand what happens: a run that it says diverges does at that entry, and one that
    /// it says goes on does; and if it says that nothing is other so far, the next entry is the same.
    #[test]
    fn a_verdict_is_what_happens_then(
        program in program(), world in world(), change in change(), nth in any::<Index>(), new in single(), cut in any::<Index>(),
    ) {
        let old = drive(&program, world, &[]);
        let changed = changed(&program, change, nth, &new);
        let length = cut.index(old.entries.len() + 1);
        let recorded = &old.entries[..length];
        let own = probe(&program, world, recorded);
        let verdict = Verdict::of(Some(&own), probe(&changed, world, recorded));
        let then = drive(&changed, world, recorded);
        match &verdict {
            Verdict::Diverges { divergence } => prop_assert_eq!(&then.end, &End::Diverged(divergence.clone())),
            Verdict::Unchanged | Verdict::Compatible => {
                prop_assert_eq!(&then.end, &End::Returned);
                prop_assert_eq!(&then.entries[..length], recorded);
                if verdict == Verdict::Unchanged {
                    let Stand::Next(next) = &own else { unreachable!("it goes on") };
                    prop_assert!(comes(next, then.entries.get(length)));
                }
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
    }
}

/// Whether a run that asks for this gets this entry, or its end.
fn comes(next: &Next, entry: Option<&Entry>) -> bool {
    match (next, entry.map(|entry| &entry.event)) {
        (Next::End { .. }, None) => true,
        (
            Next::Run { name, occurrence },
            Some(
                Event::Step {
                    name: n,
                    occurrence: o,
                    ..
                }
                | Event::Deferred {
                    name: n,
                    occurrence: o,
                    ..
                },
            ),
        ) => name == n && occurrence == o,
        (Next::Await(operations), Some(Event::Delivered { operation, .. })) => operations.contains(operation),
        (
            Next::Entry(Event::Started {
                kind,
                name,
                input_hash,
                ..
            }),
            Some(Event::Started {
                kind: k,
                name: n,
                input_hash: h,
                ..
            }),
        ) => (kind, name, input_hash) == (k, n, h),
        (Next::Entry(Event::Cancelled { operation }), Some(Event::Cancelled { operation: o })) => {
            operation == o
        }
        _ => false,
    }
}

/// The properties say little unless the programs do all that programs can.
#[test]
fn the_programs_reach_every_kind_of_entry_and_of_divergence() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut entries = [0usize; 5];
    let (mut retried_in_parallel, mut diverged, mut same) = (0, 0, 0);
    for _ in 0..2_000 {
        let drawn = (program(), world(), change(), any::<Index>(), single());
        let (program, world, change, nth, new) = drawn.new_tree(&mut runner).expect("a value").current();
        let run = drive(&program, world, &[]);
        let mut open = std::collections::BTreeSet::new();
        for entry in &run.entries {
            entries[entry.encode().kind as usize - 1] += 1;
            match &entry.event {
                Event::Deferred { .. } => {
                    retried_in_parallel += usize::from(!open.is_empty());
                    open.insert(entry.seq);
                }
                Event::Started { .. } => {
                    open.insert(entry.seq);
                }
                Event::Delivered { operation, .. } | Event::Cancelled { operation } => {
                    open.remove(operation);
                }
                Event::Step { .. } | Event::Tried { .. } => {}
            }
        }
        match drive(&changed(&program, change, nth, &new), world, &run.entries).end {
            End::Diverged(_) => diverged += 1,
            _ => same += 1,
        }
    }
    assert!(entries.iter().all(|count| *count > 200), "{entries:?}");
    assert!(retried_in_parallel > 100, "{retried_in_parallel}");
    assert!(diverged > 500 && same > 50, "{diverged} {same}");
}
