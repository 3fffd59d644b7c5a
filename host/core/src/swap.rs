//! What becomes of runs in flight when another version of their module becomes active.
//!
//! The activation says it for all of them at once, with a [`Policy`]; each run comes to it when it next does something
//! ([`course`]). What became of it then is kept with the run, oldest first: a [`Swap`] for each version that it went over to,
//! and for each that it could not go over to. Absent on purpose: replaying, which finds out whether it can.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::journal::Seq;
use crate::run::RunError;
use crate::time::Timestamp;

/// What becomes of runs in flight. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Policy {
    /// They finish on the version they have.
    #[default]
    Pin = 0,
    /// They go over to the active version with the next thing they do, where it asks for all that they have recorded.
    Migrate = 1,
    /// They begin again on the active version.
    Restart = 2,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 3] = [Policy::Pin, Policy::Migrate, Policy::Restart];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Pin => "pin",
            Policy::Migrate => "migrate",
            Policy::Restart => "restart",
        }
    }

    /// From the word.
    pub fn parse(text: &str) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| policy.as_str() == text)
    }

    /// From the number on disk.
    pub fn from_number(number: i64) -> Option<Policy> {
        Policy::ALL.into_iter().find(|policy| *policy as i64 == number)
    }
}

/// What a run's module says of its runs in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// The active version.
    pub version: Digest,
    /// What becomes of runs of others.
    pub policy: Policy,
    /// Whether it has the run's function.
    pub has_function: bool,
}

/// Where a run goes when it next does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// On, on the version it has.
    Stay,
    /// Over to this version, if that asks for all that the run has recorded.
    Move(Digest),
    /// Back to the beginning, on this version.
    Restart(Digest),
    /// On, on the version it has, because this one, which it should go over to, does not have its function.
    FunctionGone(Digest),
}

/// Where a run goes whose version is `own`. What a person has asked for this run alone counts before what its module says of all.
/// `refused` says whether it could not go over to a version before: that is not tried again.
pub fn course(
    own: Digest,
    asked: Option<Digest>,
    active: Option<Active>,
    refused: impl FnOnce(Digest) -> bool,
) -> Course {
    if let Some(asked) = asked {
        return match asked == own || refused(asked) {
            true => Course::Stay,
            false => Course::Move(asked),
        };
    }
    match active {
        Some(active) if active.policy != Policy::Pin && active.version != own => {
            match (refused(active.version), active.has_function, active.policy) {
                (true, ..) => Course::Stay,
                (false, false, _) => Course::FunctionGone(active.version),
                (false, true, Policy::Restart) => Course::Restart(active.version),
                (false, true, Policy::Pin | Policy::Migrate) => Course::Move(active.version),
            }
        }
        _ => Course::Stay,
    }
}

/// The error of a run that stays on its version because another does not have its function.
pub fn function_gone(function: &str, to: Digest) -> RunError {
    RunError::new(
        "function-gone",
        format!("version {} has no function \"{function}\"", to.short()),
    )
}

/// A run went over to another version, or could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The number that the run's next entry had then: the first that the new version wrote, if it went over.
    pub seq: Seq,
    /// The version it had before.
    pub from: Digest,
    /// The other.
    pub to: Digest,
    /// When.
    pub at: Timestamp,
    /// Why it could not; none: it went over.
    pub stayed: Option<RunError>,
    /// It began again, and what it had recorded before is gone.
    pub restarted: bool,
}

/// Why a run could not go over to a version, if that is so: with the journal that begins with the entry `base`.
pub fn refusal(swaps: &[Swap], base: Seq, to: Digest) -> Option<&RunError> {
    let last = swaps
        .iter()
        .rev()
        .find(|swap| swap.seq >= base && swap.to == to)?;
    last.stayed.as_ref()
}

/// The version that wrote an entry of a run whose version now is `own`.
pub fn writer(swaps: &[Swap], own: Digest, seq: Seq) -> Digest {
    let moves = || swaps.iter().filter(|swap| swap.stayed.is_none());
    let before = moves().rfind(|swap| swap.seq <= seq);
    match (before, moves().next()) {
        (Some(swap), _) => swap.to,
        (None, Some(first)) => first.from,
        (None, None) => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn version(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    fn swap(seq: Seq, from: u8, to: u8, stayed: bool) -> Swap {
        Swap {
            seq,
            from: version(from),
            to: version(to),
            at: Timestamp::from_millis(seq.into()),
            stayed: stayed.then(|| RunError::new("diverged", "it does")),
            restarted: false,
        }
    }

    #[test]
    fn words_and_numbers_are_those_of_policies() {
        for policy in Policy::ALL {
            assert_eq!(Policy::parse(policy.as_str()), Some(policy));
            assert_eq!(Policy::from_number(policy as i64), Some(policy));
        }
        assert_eq!((Policy::parse("move"), Policy::from_number(3)), (None, None));
        assert_eq!(Policy::default(), Policy::Pin);
    }

    proptest! {
        /// A run leaves its version only where it was asked to, or under `migrate` or `restart`, only for another version, which is the active one and has its function, and never
        /// to one that it could not go over to.
        #[test]
        fn a_run_goes_only_where_it_should(
            own in 0u8..3, to in 0u8..3, asked in 0u8..6, policy in 0i64..3, has_function: bool, refused: bool, none: bool,
        ) {
            let policy = Policy::from_number(policy).expect("a policy");
            let active = (!none).then_some(Active { version: version(to), policy, has_function });
            let asked = (asked < 3).then_some(asked);
            let course = course(version(own), asked.map(version), active, |_| refused);
            if let Some(asked) = asked {
                let moves = asked != own && !refused;
                prop_assert_eq!(course, if moves { Course::Move(version(asked)) } else { Course::Stay });
                return Ok(());
            }
            let should = !none && policy != Policy::Pin && own != to && !refused;
            let expected = match (should, has_function) {
                (false, _) => Course::Stay,
                (true, false) => Course::FunctionGone(version(to)),
                (true, true) if policy == Policy::Restart => Course::Restart(version(to)),
                (true, true) => Course::Move(version(to)),
            };
            prop_assert_eq!(course, expected);
        }

        /// However often a run goes over, each entry is said to be of the version that the run had when it was written.
        #[test]
        fn every_entry_is_of_the_version_that_wrote_it(steps in prop::collection::vec((0u8..4, 1u32..4, any::<bool>()), 0..12)) {
            let (mut own, mut seq) = (0u8, 0u32);
            let (mut swaps, mut wrote) = (Vec::new(), Vec::new());
            for (to, entries, stays) in steps {
                swaps.push(swap(seq, own, to, stays));
                own = if stays { own } else { to };
                wrote.extend((0..entries).map(|_| own));
                seq += entries;
            }
            for (seq, by) in wrote.iter().enumerate() {
                prop_assert_eq!(writer(&swaps, version(own), seq as Seq), version(*by), "entry {}", seq);
            }
        }
    }

    #[test]
    fn the_last_word_on_a_version_counts() {
        let swaps = [swap(1, 0, 1, true), swap(2, 0, 2, false), swap(3, 2, 1, false)];
        assert_eq!(
            refusal(&swaps[..1], 0, version(1)).map(|error| &*error.code),
            Some("diverged")
        );
        assert_eq!(refusal(&swaps[..1], 2, version(1)), None, "it has begun anew");
        assert_eq!(refusal(&swaps, 0, version(1)), None);
        assert_eq!(refusal(&swaps, 0, version(2)), None);
        assert_eq!(refusal(&swaps, 0, version(3)), None);
    }
}
