//! Which functions an event starts.
//!
//! A trigger names an event, or ends in a wildcard segment (`shop/*`, `shop/order.*`), and may have a condition on it.
//! Absent on purpose: cron and flow control, which stand between a match and a run.

use serde::{Deserialize, Serialize};

use crate::condition::{Condition, Scope};

/// What starts a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The event's name, or a pattern that ends in `/*` or `.*`.
    pub event: String,
    /// A CEL expression over `event`: only events for which it holds start the function.
    #[serde(rename = "if", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

impl Trigger {
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

    /// Whether an event of this name starts the function, if the condition holds.
    pub fn matches(&self, name: &str) -> bool {
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

    fn trigger(event: &str) -> Trigger {
        Trigger {
            event: event.to_owned(),
            condition: None,
        }
    }

    #[test]
    fn a_condition_is_part_of_a_trigger_and_checked_with_it() {
        let read = |text: &str| serde_json::from_str::<Trigger>(text).expect("a trigger");
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
