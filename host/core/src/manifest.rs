//! What a module says of its functions, and whether that makes sense.
//!
//! The manifest is JSON with a schema version. What this release does not know in it is refused by name: a function
//! whose limit is silently ignored is worse than one that is not deployed.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::ending::{self, CancelOn, Timeouts};
use crate::flow::{self, BatchOptions, Concurrency, DebounceOptions, RateOptions, SingletonOptions};
use crate::limit;
use crate::name;
use crate::retry::{Backoff, RetryPolicy};
use crate::system::{self, Kinds};
use crate::trigger::Trigger;

/// The schema this release reads and its SDK writes.
pub const SCHEMA: u32 = 1;

/// A module's description of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The SDK that made it, such as `dormouse-rust/0.1.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sdk: Option<String>,
    /// Its functions.
    pub functions: Vec<Function>,
}

/// One function's definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its id within the module.
    pub id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What starts it. None: only `invoke`.
    #[serde(default)]
    pub triggers: Vec<Trigger>,
    /// How often a step is tried again: 0 to 20, 4 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How the waits between tries grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Wall time of one try of a body in milliseconds, where the step does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// A CEL expression over `event`: no second run for the same value within 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// How many runs may start in what time; the events of those beyond start none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateOptions>,
    /// How many runs may start in what time; those beyond wait for their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<RateOptions>,
    /// A CEL expression over `event`: by how many seconds a run that waits to begin goes before others (or, negative,
    /// after them).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// How many runs may execute at once: at most two limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concurrency: Vec<Concurrency>,
    /// There is one run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub singleton: Option<SingletonOptions>,
    /// Events put a run off, which starts with the last of them when no more come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debounce: Option<DebounceOptions>,
    /// A run starts with many events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_events: Option<BatchOptions>,
    /// The function of the module that is started when a run of this one has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// Events that cancel its runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancel_on: Vec<CancelOn>,
    /// How long its runs may take to begin, and to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
}

impl Function {
    /// The policy for its steps.
    pub fn retry_policy(&self) -> RetryPolicy {
        let default = RetryPolicy::default();
        RetryPolicy {
            attempts: self.retries.map_or(default.attempts, |retries| retries + 1),
            backoff: self.backoff.unwrap_or(default.backoff),
        }
    }
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where.
    pub fn parse(text: &str) -> Result<Manifest, Invalid> {
        if text.len() > limit::MANIFEST_BYTES_MAX {
            return Err(Invalid(format!(
                "the manifest is {} bytes, more than the limit of {}",
                text.len(),
                limit::MANIFEST_BYTES_MAX
            )));
        }
        // A struct would also be read from an array.
        if !text.trim_start().starts_with('{') {
            return Err(Invalid("the manifest must be a JSON object".to_owned()));
        }
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let version: Version = serde_json::from_str(text)
            .map_err(|error| Invalid(format!("the manifest cannot be read: {error}")))?;
        if version.schema != SCHEMA {
            return Err(Invalid(format!(
                "the manifest has schema {}, this release reads {SCHEMA}: use an SDK of the same release",
                version.schema
            )));
        }
        let manifest: Manifest = serde_json::from_str(text).map_err(|error| {
            Invalid(format!(
                "the manifest has something that this release does not support: {error}"
            ))
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The events of ends of runs that some function of it is for.
    pub fn listens(&self) -> Kinds {
        let mut kinds = Kinds::NONE;
        for function in &self.functions {
            if function.on_failure.is_some() {
                kinds = kinds.and(Kinds::named(system::FAILED));
            }
            for cancels in &function.cancel_on {
                kinds = kinds.and(Kinds::named(&cancels.event));
            }
            for trigger in &function.triggers {
                if let Trigger::Event(trigger) = trigger {
                    kinds = kinds.and(Kinds::listened_by(trigger));
                }
            }
        }
        kinds
    }

    /// The definition of one function.
    pub fn function(&self, id: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.id == id)
    }

    fn check(&self) -> Result<(), Invalid> {
        if self.functions.is_empty() {
            return Err(Invalid("the module has no functions".to_owned()));
        }
        if self.functions.len() > limit::FUNCTIONS_MAX {
            return Err(Invalid(format!(
                "the module has {} functions, more than the limit of {}",
                self.functions.len(),
                limit::FUNCTIONS_MAX
            )));
        }
        let mut ids = HashSet::new();
        for function in &self.functions {
            name::check(&function.id).map_err(|error| Invalid(format!("function id {error}")))?;
            if !ids.insert(function.id.as_str()) {
                return Err(Invalid(format!("two functions have the id \"{}\"", function.id)));
            }
            function
                .check()
                .map_err(|reason| Invalid(format!("function \"{}\": {reason}", function.id)))?;
        }
        for function in &self.functions {
            self.check_handler(function)
                .map_err(|reason| Invalid(format!("function \"{}\": {reason}", function.id)))?;
        }
        Ok(())
    }
}

impl Manifest {
    /// Who handles failures must be there, and somebody else.
    fn check_handler(&self, function: &Function) -> Result<(), String> {
        let Some(handler) = &function.on_failure else {
            return Ok(());
        };
        if *handler == function.id {
            return Err("on_failure is the function itself: name another one".to_owned());
        }
        match self.function(handler) {
            Some(found) if found.singleton.is_some() => Err(format!(
                "on_failure is \"{handler}\", and that is a singleton: a failure that comes while it runs would not be \
                 handled to the end; let it start by the event {} instead",
                system::FAILED
            )),
            Some(_) => Ok(()),
            None => Err(format!(
                "on_failure is \"{handler}\", and the module has no such function"
            )),
        }
    }
}

impl Function {
    fn check(&self) -> Result<(), String> {
        if self.triggers.len() > limit::TRIGGERS_MAX {
            return Err(format!(
                "{} triggers, more than the limit of {}",
                self.triggers.len(),
                limit::TRIGGERS_MAX
            ));
        }
        for (index, trigger) in self.triggers.iter().enumerate() {
            trigger.check()?;
            if let Some(twice) = self.triggers[..index]
                .iter()
                .find_map(|other| trigger.same(other))
            {
                return Err(twice);
            }
        }
        if self.retries.is_some_and(|retries| retries >= limit::ATTEMPTS_MAX) {
            return Err(format!("retries must be 0 to {}", limit::ATTEMPTS_MAX - 1));
        }
        if self.timeout_ms == Some(0) {
            return Err("timeout_ms must be at least 1".to_owned());
        }
        if let Some(backoff) = self.backoff {
            backoff.check()?;
        }
        flow::Plan::compile(self)?;
        ending::Plan::compile(self)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_definition_with_its_defaults() {
        let manifest = Manifest::parse(
            r#"{"schema":1,"functions":[{"id":"a","triggers":[{"event":"x"}],"retries":5}]}"#,
        )
        .expect("valid");
        let function = manifest.function("a").expect("there");
        assert_eq!(function.retry_policy().attempts, 6);
        assert_eq!(
            Manifest::parse(r#"{"schema":1,"functions":[{"id":"a"}]}"#)
                .expect("valid")
                .functions[0]
                .retry_policy()
                .attempts,
            5
        );
    }

    #[test]
    fn a_module_listens_to_ends_by_its_triggers_and_handlers() {
        for (functions, kinds) in [
            (r#"{"id":"a","triggers":[{"event":"x"}]}"#, Kinds::NONE),
            (
                r#"{"id":"a","triggers":[{"event":"inngest/function.*"}]}"#,
                Kinds::ALL,
            ),
            (
                r#"{"id":"a","on_failure":"b"},{"id":"b"}"#,
                Kinds::named(system::FAILED),
            ),
        ] {
            let text = format!(r#"{{"schema":1,"functions":[{functions}]}}"#);
            assert_eq!(
                Manifest::parse(&text).expect("valid").listens(),
                kinds,
                "{functions}"
            );
        }
    }

    #[test]
    fn refuses_what_makes_no_sense_by_name() {
        for (text, word) in [
            (r#"{"schema":2,"functions":[]}"#, "schema 2"),
            (r#"{"schema":1,"functions":[]}"#, "no functions"),
            (r#"{"schema":1,"functions":[{"id":"A"}]}"#, "\"A\""),
            (
                r#"{"schema":1,"functions":[{"id":"a"},{"id":"a"}]}"#,
                "two functions",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","concurrency":[{"limit":0}]}]}"#,
                "concurrency: limit",
            ),
            (r#"{"schema":1,"functions":[{"id":"a","retries":21}]}"#, "retries"),
            (
                r#"{"schema":1,"functions":[{"id":"a","triggers":[{"event":"*"}]}]}"#,
                "wildcard",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","triggers":[{"event":"x"},{"event":"x"}]}]}"#,
                "twice",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","triggers":[{"event":"x","if":"event.data.n ="}]}]}"#,
                "column",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","triggers":[{"cron":"0 25 * * *"}]}]}"#,
                "cron \"0 25 * * *\"",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","triggers":[{"cron":"@daily"},{"cron":"@daily","jitter_ms":1000}]}]}"#,
                "cron \"@daily\" stands there twice",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","triggers":[{"cron":"@daily","catch_up":"all"}]}]}"#,
                "use overlap",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","on_failure":"b"}]}"#,
                "the module has no such function",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","on_failure":"a"}]}"#,
                "the function itself",
            ),
            (
                r#"{"schema":1,"functions":[{"id":"a","on_failure":"b"},{"id":"b","singleton":{"mode":"skip"}}]}"#,
                "is a singleton",
            ),
            ("nonsense", "must be a JSON object"),
            ("{", "cannot be read"),
        ] {
            let error = Manifest::parse(text).expect_err(text);
            assert!(error.0.contains(word), "{text}: {error}");
        }
    }
}
