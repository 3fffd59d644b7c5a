//! What a new version would do to a run in flight: decided by replaying the run's journal on it, with effects off.
//!
//! A [`Probe`] answers a guest from a journal and from nothing else, up to the first call that is not recorded; what that
//! call is, is where it stands. A [`Verdict`] compares where the new version stands with where the run's own does. A
//! [`Report`] counts and groups verdicts. [`changes`] compares what two versions say of themselves.
//!
//! Absent on purpose: instances, and reading runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::RunId;
use crate::journal::{Event, OperationKind, Seq};
use crate::json::Json;
use crate::manifest::{Function, Manifest};
use crate::name::FunctionName;
use crate::replay::{Awaited, Begun, Divergence, Replay};
use crate::run::RunError;

/// How many runs of a group are named.
pub const EXAMPLES_MAX: usize = 5;
/// How many groups a report has at most; what is beyond is counted all the same.
pub const GROUPS_MAX: usize = 200;

/// What a guest asks for after the last recorded entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// A body.
    Run {
        /// The step.
        name: String,
        /// Which use of the name, from 0.
        occurrence: u32,
    },
    /// An entry that it makes by itself: an operation started or given up.
    Entry(Event),
    /// The result of one of some operations, none of which has one.
    Await(Vec<Seq>),
    /// The end.
    End {
        /// With a failure.
        failed: bool,
    },
}

/// Where a version stands when it has been given all that is recorded, or as much of it as it asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Stand {
    /// All matched; this comes next.
    Next(Next),
    /// Code and journal disagree.
    Diverged(Divergence),
    /// The guest was ended: a trap or a limit.
    Trapped(RunError),
}

/// Answers a guest from a journal, until it asks for something else. `None` from a call: it stands now
/// ([`Probe::stand`]) and must not be asked again.
pub struct Probe {
    replay: Replay,
    stand: Option<Stand>,
}

impl Probe {
    /// A probe at the start of a journal.
    pub fn new(replay: Replay) -> Probe {
        Probe { replay, stand: None }
    }

    /// The machine underneath, for what it knows.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }

    /// Where it stands. None: the guest has not got there.
    pub fn stand(&self) -> Option<&Stand> {
        self.stand.as_ref()
    }

    /// Where it stood, in the end.
    pub fn into_stand(self) -> Option<Stand> {
        self.stand
    }

    /// The guest begins a body. Never answers [`Begun::Execute`].
    pub fn begin(&mut self, name: &str) -> Option<Begun> {
        match self.replay.begin(name) {
            Ok(Begun::Execute(attempt)) => self.stop(Stand::Next(Next::Run {
                name: attempt.name,
                occurrence: attempt.occurrence,
            })),
            Ok(begun) => Some(begun),
            Err(divergence) => self.stop(Stand::Diverged(divergence)),
        }
    }

    /// The guest starts an operation.
    pub fn start(&mut self, kind: OperationKind, name: &str, input: &Json) -> Option<Seq> {
        let now = self.replay.now();
        match self.replay.start(kind, name, input, now, || None) {
            Ok(started) if !started.new => Some(started.operation),
            Ok(_) => self.stop_at_entry(),
            Err(divergence) => self.stop(Stand::Diverged(divergence)),
        }
    }

    /// The guest waits for one of some operations.
    pub fn await_any(&mut self, operations: &[Seq]) -> Option<u32> {
        match self.replay.await_any(operations) {
            Ok(Awaited::Ready(index)) => Some(index),
            Ok(Awaited::Pending) => self.stop(Stand::Next(Next::Await(operations.to_vec()))),
            Err(divergence) => self.stop(Stand::Diverged(divergence)),
        }
    }

    /// The guest gives an operation up.
    pub fn cancel(&mut self, operation: Seq) -> Option<()> {
        let (now, next) = (self.replay.now(), self.replay.next_seq());
        match self.replay.cancel(operation, now) {
            Ok(()) if self.replay.next_seq() == next => Some(()),
            Ok(()) => self.stop_at_entry(),
            Err(divergence) => self.stop(Stand::Diverged(divergence)),
        }
    }

    /// The guest returns.
    pub fn finish(&mut self, failed: bool) {
        let stand = match self.replay.finish(failed) {
            Ok(()) => Stand::Next(Next::End { failed }),
            Err(divergence) => Stand::Diverged(divergence),
        };
        self.stand.get_or_insert(stand);
    }

    /// The guest was ended.
    pub fn trapped(&mut self, code: &str, message: &str) {
        self.stand
            .get_or_insert(Stand::Trapped(RunError::new(code, message)));
    }

    fn stop<T>(&mut self, stand: Stand) -> Option<T> {
        self.stand.get_or_insert(stand);
        None
    }

    /// The entry that was just made is what comes next.
    fn stop_at_entry<T>(&mut self) -> Option<T> {
        let entry = self.replay.entries().last().map(|entry| entry.event.clone())?;
        self.stop(Stand::Next(Next::Entry(entry)))
    }
}

/// What a new version does to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// All that is recorded matched, and what comes next is what the run's own version asks for.
    Unchanged,
    /// All that is recorded matched; what comes next is something else, or is not known of the run's own version.
    Compatible,
    /// Code and journal disagree.
    Diverges {
        /// Where, and about what.
        divergence: Divergence,
    },
    /// The new version was ended before it had asked for all that is recorded.
    Fails {
        /// Why, such as `guest-panic` or `cpu-limit`.
        error: RunError,
    },
    /// The new version does not have the function.
    FunctionGone,
}

impl Verdict {
    /// From where the new version stands, and the run's own, if that is known.
    pub fn of(own: Option<&Stand>, new: Stand) -> Verdict {
        match new {
            Stand::Diverged(divergence) => Verdict::Diverges { divergence },
            Stand::Trapped(error) => Verdict::Fails { error },
            new @ Stand::Next(_) if own == Some(&new) => Verdict::Unchanged,
            Stand::Next(_) => Verdict::Compatible,
        }
    }

    /// Whether the run could go on with the new version.
    pub fn goes_on(&self) -> bool {
        matches!(self, Verdict::Unchanged | Verdict::Compatible)
    }

    /// What makes two verdicts the same to a reader: the kind, the entry, the trap's code. Not the texts, which hold what
    /// differs from run to run.
    fn kind(&self) -> (u8, Seq, &str) {
        match self {
            Verdict::FunctionGone => (0, 0, ""),
            Verdict::Diverges { divergence } => (1, divergence.seq, ""),
            Verdict::Fails { error } => (2, 0, &error.code),
            Verdict::Compatible => (3, 0, ""),
            Verdict::Unchanged => (4, 0, ""),
        }
    }
}

/// Runs of one function on one version that have the same verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The function.
    pub function_id: String,
    /// The version the runs are pinned to.
    pub version: Digest,
    /// What the new version does to them; the texts are those of the first example.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Where in the guest's own code the first example was ended, innermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<String>,
    /// How many runs.
    pub runs: u64,
    /// Some of them, at most [`EXAMPLES_MAX`].
    pub examples: Vec<RunId>,
}

/// How many runs have which verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// See [`Verdict::Unchanged`].
    pub unchanged: u64,
    /// See [`Verdict::Compatible`].
    pub compatible: u64,
    /// See [`Verdict::Diverges`].
    pub diverges: u64,
    /// See [`Verdict::Fails`].
    pub fails: u64,
    /// See [`Verdict::FunctionGone`].
    pub function_gone: u64,
}

type Key = (u8, String, Digest, Seq, String);

/// Verdicts, counted and grouped.
#[derive(Debug, Clone, Default)]
pub struct Report {
    tally: Tally,
    groups: BTreeMap<Key, Group>,
}

impl Report {
    /// Adds a run's verdict; `frames` says where in the guest's own code it was ended.
    pub fn add(
        &mut self,
        run: RunId,
        function: &FunctionName,
        version: Digest,
        verdict: Verdict,
        frames: Vec<String>,
    ) {
        let count = match &verdict {
            Verdict::Unchanged => &mut self.tally.unchanged,
            Verdict::Compatible => &mut self.tally.compatible,
            Verdict::Diverges { .. } => &mut self.tally.diverges,
            Verdict::Fails { .. } => &mut self.tally.fails,
            Verdict::FunctionGone => &mut self.tally.function_gone,
        };
        *count += 1;
        let (kind, seq, code) = verdict.kind();
        let key = (kind, function.to_string(), version, seq, code.to_owned());
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            return;
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            function_id: function.to_string(),
            version,
            verdict,
            frames,
            runs: 0,
            examples: Vec::new(),
        });
        group.runs += 1;
        if group.examples.len() < EXAMPLES_MAX {
            group.examples.push(run);
        }
    }

    /// How many runs have which verdict.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The groups: first what a person must look at.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }
}

impl Tally {
    /// All runs.
    pub fn checked(&self) -> u64 {
        self.unchanged + self.compatible + self.stay()
    }

    /// Runs that could not go on with the new version.
    pub fn stay(&self) -> u64 {
        self.diverges + self.fails + self.function_gone
    }
}

/// A difference between what two versions say of themselves.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// The new version has a function more.
    FunctionAdded {
        /// Its id.
        function: String,
    },
    /// The new version has lost a function: its triggers stop.
    FunctionRemoved {
        /// Its id.
        function: String,
    },
    /// A function is defined otherwise.
    FunctionChanged {
        /// Its id.
        function: String,
        /// The member of its definition, such as `triggers` or `retries`.
        member: String,
        /// What it was; null where it was not said.
        before: serde_json::Value,
        /// What it is; null where it is not said.
        after: serde_json::Value,
    },
}

/// What is different in the new manifest, by function.
pub fn changes(before: &Manifest, after: &Manifest) -> Vec<Change> {
    let mut changes = Vec::new();
    for old in &before.functions {
        let function = old.id.clone();
        match after.function(&old.id) {
            None => changes.push(Change::FunctionRemoved { function }),
            Some(new) => changes.extend(changed_members(old, new)),
        }
    }
    let added = after
        .functions
        .iter()
        .filter(|new| before.function(&new.id).is_none());
    changes.extend(added.map(|new| Change::FunctionAdded {
        function: new.id.clone(),
    }));
    changes
}

fn changed_members(old: &Function, new: &Function) -> Vec<Change> {
    let members = |function: &Function| match serde_json::to_value(function) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let (old_members, mut new_members) = (members(old), members(new));
    let mut pairs = Vec::new();
    for (member, before) in old_members {
        let after = new_members.remove(&member).unwrap_or_default();
        pairs.push((member, before, after));
    }
    pairs.extend(
        new_members
            .into_iter()
            .map(|(member, after)| (member, serde_json::Value::Null, after)),
    );
    pairs.retain(|(_, before, after)| before != after);
    pairs
        .into_iter()
        .map(|(member, before, after)| Change::FunctionChanged {
            function: old.id.clone(),
            member,
            before,
            after,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn run(number: u8) -> RunId {
        RunId::from_parts(Timestamp::from_millis(7), [number; 10])
    }

    fn diverges(seq: Seq, code: &str) -> Verdict {
        Verdict::Diverges {
            divergence: Divergence {
                seq,
                journal: "sleep \"a\"".to_owned(),
                code: code.to_owned(),
            },
        }
    }

    #[test]
    fn verdicts_are_grouped_by_place_and_counted_beyond_what_is_named() {
        let name = FunctionName::new("shop", "charge").expect("a name");
        let version = Digest::of(b"1");
        let mut report = Report::default();
        for number in 0..7 {
            let verdict = diverges(4, &format!("run \"of run {number}\""));
            report.add(
                run(number),
                &name,
                version,
                verdict,
                vec![format!("frame {number}")],
            );
        }
        report.add(run(7), &name, version, diverges(5, "the end"), Vec::new());
        report.add(run(8), &name, version, Verdict::Unchanged, Vec::new());
        report.add(run(9), &name, Digest::of(b"2"), Verdict::Compatible, Vec::new());
        report.add(run(10), &name, version, Verdict::FunctionGone, Vec::new());
        let groups: Vec<_> = report.groups().collect();
        let told: Vec<_> = groups
            .iter()
            .map(|group| (group.verdict.kind().0, group.runs))
            .collect();
        assert_eq!(told, [(0, 1), (1, 7), (1, 1), (3, 1), (4, 1)]);
        // The texts and the frames are those of the first run, which is named first.
        assert_eq!(groups[1].verdict, diverges(4, "run \"of run 0\""));
        assert_eq!(groups[1].frames, ["frame 0"]);
        assert_eq!(groups[1].examples, (0..5).map(run).collect::<Vec<_>>());
        let tally = report.tally();
        assert_eq!((tally.checked(), tally.stay()), (11, 9));

        // Runs of groups that are too many to be told are counted.
        for seq in 0..GROUPS_MAX as Seq + 10 {
            report.add(run(11), &name, version, diverges(seq, "the end"), Vec::new());
        }
        assert_eq!(report.groups().count(), GROUPS_MAX);
        assert_eq!(report.tally().diverges, 8 + GROUPS_MAX as u64 + 10);
    }

    #[test]
    fn what_two_versions_say_of_themselves_is_compared() {
        let manifest = |functions: serde_json::Value| {
            let text = serde_json::json!({ "schema": 1, "functions": functions }).to_string();
            Manifest::parse(&text).expect("valid")
        };
        let before = manifest(serde_json::json!([
            { "id": "charge", "retries": 3, "triggers": [{ "event": "shop/paid" }] },
            { "id": "gone" },
            { "id": "same", "timeout_ms": 5 },
        ]));
        let after = manifest(serde_json::json!([
            { "id": "same", "timeout_ms": 5 },
            { "id": "charge", "timeout_ms": 100, "triggers": [{ "event": "shop/paid" }] },
            { "id": "new" },
        ]));
        let charge =
            |member: &str, before: serde_json::Value, after: serde_json::Value| Change::FunctionChanged {
                function: "charge".to_owned(),
                member: member.to_owned(),
                before,
                after,
            };
        assert_eq!(
            changes(&before, &after),
            [
                charge("retries", 3.into(), serde_json::Value::Null),
                charge("timeout_ms", serde_json::Value::Null, 100.into()),
                Change::FunctionRemoved {
                    function: "gone".to_owned()
                },
                Change::FunctionAdded {
                    function: "new".to_owned()
                },
            ]
        );
        assert_eq!(changes(&before, &before), []);
    }
}
