//! Which functions an event starts.
//!
//! A trigger names an event, or ends in a wildcard segment (`shop/*`, `shop/order.*`). Absent on purpose: conditions,
//! cron and flow control, which stand between a match and a run.

use serde::{Deserialize, Serialize};

/// What starts a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The event's name, or a pattern that ends in `/*` or `.*`.
    pub event: String,
}

impl Trigger {
    /// Whether an event of this name starts the function.
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
