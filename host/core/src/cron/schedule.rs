//! What a trigger says beside its expression, and when a tick is due.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::expression::Cron;
use crate::limit;
use crate::name::FunctionName;
use crate::time::Timestamp;
use crate::trigger::OnCron;

/// What becomes of a tick while the run of the tick before has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It is left out.
    #[default]
    Skip,
    /// It begins when that run has ended.
    Queue,
    /// It begins all the same.
    Allow,
}

/// Which ticks are done afterwards that came due while no server was there or the function was paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// None that is older than [`limit::CRON_GRACE`].
    None,
    /// The latest of them.
    #[default]
    Last,
    /// Each of them, oldest first, of the latest [`limit::CRON_CATCH_UP_MAX`].
    All,
}

/// A cron trigger of a function, ready to be asked.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    jitter_ms: u64,
    /// What its ticks are put off by follows from this and the tick.
    salt: [u8; 32],
    pub(super) overlap: Overlap,
    pub(super) catch_up: CatchUp,
}

impl Schedule {
    /// Reads a function's trigger.
    ///
    /// # Errors
    /// A sentence that says what makes no sense and why.
    pub fn compile(function: &FunctionName, trigger: &OnCron) -> Result<Schedule, String> {
        let cron = trigger.check()?;
        let mut salt = Sha256::new();
        for part in [function.module(), function.function(), &trigger.cron] {
            salt.update((part.len() as u64).to_be_bytes());
            salt.update(part);
        }
        Ok(Schedule {
            cron,
            jitter_ms: trigger.jitter_ms.unwrap_or(0),
            salt: salt.finalize().into(),
            overlap: trigger.overlap.unwrap_or_default(),
            catch_up: trigger.catch_up.unwrap_or_default(),
        })
    }

    /// The name of its time zone.
    pub fn zone(&self) -> &str {
        self.cron.zone()
    }

    /// What it does about ticks that overlap.
    pub fn overlap(&self) -> Overlap {
        self.overlap
    }

    /// What it does about ticks that were missed.
    pub fn catch_up(&self) -> CatchUp {
        self.catch_up
    }

    /// By how much its ticks are put off at most.
    pub fn jitter(&self) -> Duration {
        Duration::from_millis(self.jitter_ms)
    }

    /// The first tick after a time; [`Timestamp::MAX`] when there is none.
    pub fn next(&self, after: Timestamp) -> Timestamp {
        self.cron.next(after).unwrap_or(Timestamp::MAX)
    }

    /// When a tick is to begin: with a jitter up to that later, each tick by another time, which is always the same for
    /// one. Never as late as the tick after it, so that ticks begin in order.
    pub fn due(&self, tick: Timestamp) -> Timestamp {
        if self.jitter_ms == 0 {
            return tick;
        }
        let apart = self.next(tick).since(tick).as_millis();
        let most = self
            .jitter_ms
            .min(u64::try_from(apart).unwrap_or(u64::MAX).saturating_sub(1));
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(tick.as_millis().to_be_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.finalize()[..8]);
        tick.after(Duration::from_millis(u64::from_be_bytes(bytes) % (most + 1)))
    }
}

impl OnCron {
    /// Checks the trigger. Answers with its expression, read.
    ///
    /// # Errors
    /// A sentence that says what makes no sense and why.
    pub fn check(&self) -> Result<Cron, String> {
        let cron = Cron::parse(&self.cron)?;
        let refuse = |reason: &str| Err(format!("cron \"{}\": {reason}", self.cron));
        if let Some(jitter_ms) = self.jitter_ms
            && !(limit::CRON_JITTER_MS_MIN..=limit::CRON_JITTER_MS_MAX).contains(&jitter_ms)
        {
            return refuse(&format!(
                "jitter_ms must be {} to {}",
                limit::CRON_JITTER_MS_MIN,
                limit::CRON_JITTER_MS_MAX
            ));
        }
        if self.catch_up == Some(CatchUp::All) && self.overlap.unwrap_or_default() == Overlap::Skip {
            return refuse(
                "catch_up \"all\" starts missed ticks one upon the other, of which overlap \"skip\" leaves all out but the \
                 first: use overlap \"queue\" or \"allow\" with it",
            );
        }
        Ok(cron)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(function: &str, cron: &str, jitter_ms: Option<u64>) -> Schedule {
        let trigger = OnCron {
            cron: cron.to_owned(),
            jitter_ms,
            overlap: None,
            catch_up: None,
        };
        Schedule::compile(&function.parse().expect("a name"), &trigger).expect("valid")
    }

    #[test]
    fn what_makes_no_sense_beside_an_expression_is_refused() {
        let read = |text: &str| serde_json::from_str::<OnCron>(text).expect("a trigger");
        for (text, word) in [
            (r#"{"cron":"* * * * *","jitter_ms":999}"#, "jitter_ms must be"),
            (r#"{"cron":"* * * * *","jitter_ms":300001}"#, "jitter_ms must be"),
            (r#"{"cron":"* * * * *","catch_up":"all"}"#, "use overlap"),
            (
                r#"{"cron":"* * * * *","catch_up":"all","overlap":"skip"}"#,
                "use overlap",
            ),
        ] {
            let refused = read(text).check().expect_err(text);
            assert!(
                refused.starts_with("cron \"* * * * *\"") && refused.contains(word),
                "{text}: {refused}"
            );
        }
        for text in [
            r#"{"cron":"* * * * *","catch_up":"all","overlap":"queue"}"#,
            r#"{"cron":"* * * * *","catch_up":"none","overlap":"queue","jitter_ms":1000}"#,
        ] {
            assert!(read(text).check().is_ok(), "{text}");
        }
    }

    #[test]
    fn functions_of_one_expression_are_spread_and_each_keeps_its_place() {
        let at = Timestamp::parse("2026-11-25T09:00:00Z").expect("a time");
        let due = |function: &str| schedule(function, "0 9 * * *", Some(60_000)).due(at);
        let all: Vec<Timestamp> = (0..50).map(|number| due(&format!("shop/f{number}"))).collect();
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert!(distinct.len() > 40, "{distinct:?}");
        assert_eq!(due("shop/f1"), due("shop/f1"));
        assert_eq!(schedule("shop/f1", "0 9 * * *", None).due(at), at);
    }

    proptest! {
        #[test]
        fn a_tick_is_due_within_its_jitter_and_before_the_next(
            start in 1_700_000_000_000_i64..1_900_000_000_000,
            jitter_ms in 1_000_u64..=300_000,
            cron in prop_oneof![Just("* * * * *"), Just("*/5 * * * *"), Just("TZ=Europe/Paris 0,1 * * * *")],
        ) {
            let schedule = schedule("a/b", cron, Some(jitter_ms));
            let mut tick = schedule.next(Timestamp::from_millis(start));
            for _ in 0..20 {
                let (due, next) = (schedule.due(tick), schedule.next(tick));
                prop_assert!(tick <= due && due <= tick.after(Duration::from_millis(jitter_ms)));
                prop_assert!(due < next);
                tick = next;
            }
        }
    }
}
