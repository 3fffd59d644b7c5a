//! Conditions: CEL expressions over events, as triggers and waits have them.
//!
//! The package `cel` parses; what it gives is translated into a tree of what is supported here and nothing else, so that
//! a part which would be ignored or would mean something else is refused, with its place, when the expression is first
//! seen. Evaluating is done here too, on the events' JSON as it is and within a budget: an expression costs a bounded
//! amount, whatever it and the event are.
//!
//! Absent on purpose: times and durations, regular expressions, bytes, functions that read a clock.

mod equality;
mod evaluate;
mod translate;

use serde_json::Value;

use crate::limit;
pub use equality::Equality;
use translate::Node;

/// What an expression may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A trigger: `event`, the one that may start the function.
    Trigger,
    /// A wait: `event`, the one that started the run, and `async`, the one that may end the wait.
    Wait,
}

/// An expression that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    root: Node,
}

/// Why an expression is refused: a sentence with the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Condition {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is too long, nested too deeply, not CEL, or uses what is not supported here.
    pub fn compile(source: &str, scope: Scope) -> Result<Condition, Invalid> {
        if source.trim().is_empty() {
            return Err(Invalid("the condition is empty".to_owned()));
        }
        if source.len() > limit::CONDITION_BYTES_MAX {
            return Err(Invalid(format!(
                "the condition has {} bytes, more than the limit of {}",
                source.len(),
                limit::CONDITION_BYTES_MAX
            )));
        }
        translate::check_nesting(source)?;
        let parsed = cel::parser::Parser::new()
            .max_recursion_depth(4 * limit::CONDITION_NESTING_MAX)
            .error_recovery_limit(1)
            .parse(source);
        let parsed = parsed.map_err(|errors| match errors.errors.first() {
            Some(error) => Invalid(format!(
                "the condition is not CEL at line {}, column {}: {}",
                error.pos.0, error.pos.1, error.msg
            )),
            None => Invalid("the condition is not CEL".to_owned()),
        })?;
        Ok(Condition {
            root: translate::translate(source, scope, &parsed)?,
        })
    }

    /// Whether it holds: it is `true`. Anything else, an error such as a member that is not there included, is no.
    ///
    /// `other` is `async`, where the scope has it.
    pub fn holds(&self, event: &Value, other: Option<&Value>) -> bool {
        evaluate::holds(&self.root, event, other)
    }

    /// The equality of two fields without which it does not hold, if it is written as one.
    pub fn equality(&self) -> Option<Equality> {
        equality::of(&self.root)
    }

    /// What it comes to, for expressions that stand for a value rather than a decision. None: an error, such as a member
    /// that is not there.
    pub fn value(&self, event: &Value) -> Option<Value> {
        evaluate::value(&self.root, event)
    }
}

#[cfg(test)]
mod tests;
