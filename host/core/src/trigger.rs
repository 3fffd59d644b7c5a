//! Which functions an event starts, and which the clock.
//!
//! A trigger names an event, or ends in a wildcard segment (`shop/*`, `shop/order.*`), and may have a condition on it. Or it
//! is a cron expression. Absent on purpose: when crons tick ([`crate::cron`]), and flow control, which stands between a
//! match and a run.

use serde::{Deserialize, Serialize};

use crate::condition::{Condition, Scope};
use crate::cron::{CatchUp, Overlap};
use crate::system;

/// What starts a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Said")]
pub enum Trigger {
    /// Events.
    Event(OnEvent),
    /// The clock.
    Cron(OnCron),
}

/// Events that start a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnEvent {
    /// The event's name, or a pattern that ends in `/*` or `.*`.
    pub event: String,
    /// A CEL expression over `event`: only events for which it holds start the function.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// The times at which a function starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnCron {
    /// The expression, with its time zone before it: `TZ=Europe/Paris 0 9 * * *`. Without one, UTC.
    pub cron: String,
    /// By how many milliseconds a tick is put off at most, so that not all functions start at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<u64>,
    /// What becomes of a tick while the run of the tick before has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// Which ticks are done afterwards that were missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
}

/// A trigger as a manifest has it: of one kind or the other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    event: Option<String>,
    #[serde(rename = "if")]
    condition: Option<String>,
    cron: Option<String>,
    jitter_ms: Option<u64>,
    overlap: Option<Overlap>,
    catch_up: Option<CatchUp>,
}

impl TryFrom<Said> for Trigger {
    type Error = String;

    fn try_from(said: Said) -> Result<Trigger, String> {
        let of_crons = said.jitter_ms.is_some() || said.overlap.is_some() || said.catch_up.is_some();
        match (said.event, said.cron) {
            (Some(event), None) if !of_crons => Ok(Trigger::Event(OnEvent {
                event,
                condition: said.condition,
            })),
            (Some(event), None) => Err(format!(
                "trigger \"{event}\": jitter_ms, overlap and catch_up are for triggers with a cron"
            )),
            (None, Some(cron)) if said.condition.is_none() => Ok(Trigger::Cron(OnCron {
                cron,
                jitter_ms: said.jitter_ms,
                overlap: said.overlap,
                catch_up: said.catch_up,
            })),
            (None, Some(cron)) => Err(format!(
                "cron \"{cron}\": an \"if\" is for triggers with an event"
            )),
            (Some(_), Some(_)) => {
                Err("a trigger has an event or a cron, not both: write two of them".to_owned())
            }
            (None, None) => Err("a trigger has an event or a cron".to_owned()),
        }
    }
}

impl Trigger {
    /// Checks it.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Trigger::Event(trigger) => trigger.check(),
            Trigger::Cron(trigger) => trigger.check().map(drop),
        }
    }

    /// Whether two triggers of a function are the same one, in words; none if they are not. Of crons it is the expression
    /// alone that tells them apart.
    pub fn same(&self, other: &Trigger) -> Option<String> {
        match (self, other) {
            (Trigger::Event(this), Trigger::Event(other)) if this == other => {
                Some(format!("trigger \"{}\" stands there twice", this.event))
            }
            (Trigger::Cron(this), Trigger::Cron(other)) if this.cron == other.cron => {
                Some(format!("cron \"{}\" stands there twice", this.cron))
            }
            _ => None,
        }
    }
}

impl OnEvent {
    /// The condition, read.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn compile(&self) -> Result<Option<Condition>, String> {
        let compile = |source: &String| Condition::compile(source, Scope::Trigger);
        self.condition
            .as_ref()
            .map(compile)
            .transpose()
            .map_err(|error| format!("trigger \"{}\": {error}", self.event))
    }

    /// Whether an event of this name starts the function, if the condition holds. The host's own events are matched by the
    /// names that Inngest has for them, too.
    pub fn matches(&self, name: &str) -> bool {
        self.fits(name) || system::inngest_name(name).is_some_and(|name| self.fits(&name))
    }

    fn fits(&self, name: &str) -> bool {
        match self.event.strip_suffix('*') {
            Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
            None => self.event == name,
        }
    }

    /// Checks the pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let stem = match self.event.strip_suffix('*') {
            Some(stem) if stem.ends_with(['/', '.']) && stem.len() > 1 => stem,
            Some(_) => {
                return Err(format!(
                    "trigger \"{}\": a wildcard stands alone after a / or a .",
                    self.event
                ));
            }
            None => &self.event,
        };
        if stem.contains('*') {
            return Err(format!(
                "trigger \"{}\": only the last segment may be a wildcard",
                self.event
            ));
        }
        self.compile()?;
        // The host's own events may start functions, so the reserved names are allowed here.
        match crate::event::check_name(&self.event) {
            Ok(()) | Err(crate::event::Invalid::NameReserved(_)) => Ok(()),
            Err(error) => Err(format!("trigger \"{}\": {error}", self.event)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(event: &str) -> OnEvent {
        OnEvent {
            event: event.to_owned(),
            condition: None,
        }
    }

    #[test]
    fn a_condition_is_part_of_a_trigger_and_checked_with_it() {
        let read = |text: &str| match serde_json::from_str(text).expect("a trigger") {
            Trigger::Event(trigger) => trigger,
            Trigger::Cron(trigger) => panic!("{trigger:?}"),
        };
        let trigger = read(r#"{"event":"a/*","if":"event.data.n > 1"}"#);
        assert_eq!(trigger.check(), Ok(()));
        let condition = trigger.compile().expect("valid").expect("there");
        for (n, expected) in [(1, false), (2, true)] {
            assert_eq!(
                condition.holds(&serde_json::json!({"data": {"n": n}}), None),
                expected
            );
        }
        for bad in [
            r#"{"event":"a","if":"x =="}"#,
            r#"{"event":"a","if":"async.data.n == 1"}"#,
        ] {
            let refused = read(bad).check().expect_err(bad);
            assert!(refused.contains("trigger \"a\""), "{refused}");
        }
        assert_eq!(read(r#"{"event":"a"}"#).compile(), Ok(None));
    }

    #[test]
    fn a_trigger_is_of_one_kind_and_is_written_as_it_was_read() {
        for text in [
            r#"{"event":"a","if":"event.data.n > 1"}"#,
            r#"{"cron":"TZ=Europe/Paris 0 9 * * *","jitter_ms":30000,"overlap":"queue","catch_up":"all"}"#,
            r#"{"cron":"@daily"}"#,
        ] {
            let trigger: Trigger = serde_json::from_str(text).expect(text);
            assert_eq!(trigger.check(), Ok(()), "{text}");
            assert_eq!(serde_json::to_string(&trigger).expect("JSON"), text);
        }
        for (text, word) in [
            ("{}", "an event or a cron"),
            (r#"{"event":"a","cron":"@daily"}"#, "not both"),
            (r#"{"event":"a","jitter_ms":5000}"#, "with a cron"),
            (r#"{"cron":"@daily","if":"true"}"#, "with an event"),
            (r#"{"cron":"@daily","overlap":"wait"}"#, "unknown variant `wait`"),
            (r#"{"cron":"@daily","zone":"UTC"}"#, "unknown field `zone`"),
        ] {
            let refused = serde_json::from_str::<Trigger>(text).expect_err(text).to_string();
            assert!(refused.contains(word), "{text}: {refused}");
        }
    }

    #[test]
    fn matches_names_and_trailing_wildcards() {
        for (pattern, name, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/*", "a/b", true),
            ("a/*", "a/b/c", true),
            ("a/*", "a/", false),
            ("a/b.*", "a/b.c", true),
            ("a/b.*", "a/bc", false),
        ] {
            assert_eq!(trigger(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn refuses_patterns_that_make_no_sense() {
        for pattern in ["", "*", "/*", "a*", "a/*/b", "*/a", "a/*b"] {
            assert!(trigger(pattern).check().is_err(), "{pattern}");
        }
        for pattern in ["a", "a/*", "a.*", "dormouse/function.*"] {
            assert_eq!(trigger(pattern).check(), Ok(()), "{pattern}");
        }
    }
}
