//! Query strings and path segments: what is not known or does not fit is refused by name, never ignored.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use dormouse_core::run::{Phase, Status};
use dormouse_core::swap::Policy;
use dormouse_core::{Digest, EventId, FunctionName, RunId, Timestamp, name};
use http::request::Parts;

use super::envelope::Failed;
use crate::problem::Problem;

/// How many a page has when the request does not say.
const PAGE: u32 = 20;
/// How many a page has at most.
const PAGE_MAX: u32 = 100;

/// A request's query string.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, Failed> {
        match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Params(pairs)),
            Err(error) => Err(Failed(invalid(format!("the query cannot be read: {error}")))),
        }
    }
}

impl Params {
    /// Refuses parameters that the route does not have.
    ///
    /// # Errors
    /// `invalid-query`, naming the parameter and those there are.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) if known.is_empty() => Err(invalid(format!(
                "there is no parameter \"{name}\": this route takes none"
            ))),
            Some((name, _)) => Err(invalid(format!(
                "there is no parameter \"{name}\": there is {}",
                known.join(", ")
            ))),
        }
    }

    /// All parameters, in order.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The last value of a parameter; an empty one is none.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let value = self
            .0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// A parameter, read.
    ///
    /// # Errors
    /// `invalid-query`, naming the parameter and what is wrong.
    pub(crate) fn read<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        match self.get(name).map(str::parse) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(error)) => Err(invalid(format!("{name}: {error}"))),
        }
    }

    /// A point in time, RFC 3339.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        // A plus that was not escaped arrives as a space.
        let Some(text) = self.get(name).map(|text| text.replace(' ', "+")) else {
            return Ok(None);
        };
        Timestamp::parse(&text)
            .map(Some)
            .map_err(|error| invalid(format!("{name}: {error}")))
    }

    /// How many a page has.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        self.limit_within(PAGE, PAGE_MAX)
    }

    /// How many a page has, where the bounds are others.
    pub(crate) fn limit_within(&self, default: u32, max: u32) -> Result<u32, Problem> {
        match self.read::<u32>("limit")? {
            None => Ok(default),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(limit) => Err(invalid(format!("limit: {limit} is not 1 to {max}"))),
        }
    }

    /// The statuses to list: several values, or several in one with commas between.
    pub(crate) fn statuses(&self) -> Result<Vec<Status>, Problem> {
        let values = self
            .0
            .iter()
            .filter(|(name, _)| name == "status")
            .flat_map(|(_, value)| value.split(','));
        values
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(|word| {
                let words = || Status::ALL.map(Status::as_str).join(", ");
                Status::parse(word)
                    .ok_or_else(|| invalid(format!("status: \"{word}\" is none of {}", words())))
            })
            .collect()
    }

    /// The phase to list.
    pub(crate) fn phase(&self) -> Result<Option<Phase>, Problem> {
        let Some(word) = self.get("phase") else {
            return Ok(None);
        };
        let words = || Phase::ALL.map(Phase::as_str).join(", ");
        let phase =
            Phase::parse(word).ok_or_else(|| invalid(format!("phase: \"{word}\" is none of {}", words())))?;
        Ok(Some(phase))
    }

    /// The module and the function to list: `module`, `function=module/function`, or both apart.
    pub(crate) fn function(&self) -> Result<(Option<String>, Option<String>), Problem> {
        let module = self.get("module");
        let (module, function) = match self.get("function").map(|text| (text, text.split_once('/'))) {
            None => (module, None),
            Some((_, Some((of, function)))) if module.is_none_or(|module| module == of) => {
                (Some(of), Some(function))
            }
            Some((text, Some(_))) => {
                return Err(invalid(format!(
                    "function: \"{text}\" is not of the module that is asked for"
                )));
            }
            Some((text, None)) if module.is_some() => (module, Some(text)),
            Some((text, None)) => {
                return Err(invalid(format!(
                    "function: \"{text}\" is of which module? Write module/function"
                )));
            }
        };
        for text in [module, function].into_iter().flatten() {
            name::check(text).map_err(|error| invalid(error.to_string()))?;
        }
        Ok((module.map(str::to_owned), function.map(str::to_owned)))
    }

    /// For how long to wait: `30s`, `500ms`, `1m` or a number of seconds.
    pub(crate) fn wait(&self) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.get("wait") else {
            return Ok(None);
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit: u64 = match &text[digits..] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            _ => 0,
        };
        match text[..digits].parse::<u64>() {
            Ok(number) if unit > 0 => Ok(Some(Duration::from_millis(number.saturating_mul(unit)))),
            _ => Err(invalid(format!(
                "wait: \"{text}\" is not a duration such as 30s or 500ms"
            ))),
        }
    }
}

/// 400: the query.
pub(crate) fn invalid(message: String) -> Problem {
    Problem::new(400, "invalid-query", message)
}

/// A run's id from a path.
///
/// # Errors
/// `invalid-id`.
pub(crate) fn run_id(text: &str) -> Result<RunId, Problem> {
    text.parse()
        .map_err(|error| Problem::new(400, "invalid-id", format!("run id: {error}")))
}

/// An event's id from a path.
///
/// # Errors
/// `invalid-id`.
pub(crate) fn event_id(text: &str) -> Result<EventId, Problem> {
    text.parse()
        .map_err(|error| Problem::new(400, "invalid-id", format!("event id: {error}")))
}

/// A version's digest from a path or a body.
///
/// # Errors
/// `invalid-id`.
pub(crate) fn digest(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|error| Problem::new(400, "invalid-id", format!("version: {error}")))
}

/// A module's name from a path.
///
/// # Errors
/// `invalid-name`.
pub(crate) fn module(text: &str) -> Result<&str, Problem> {
    name::check(text).map_err(|error| Problem::new(400, "invalid-name", format!("module name: {error}")))?;
    Ok(text)
}

/// A function's name from a path's two segments.
///
/// # Errors
/// `invalid-name`.
pub(crate) fn function(module: &str, function: &str) -> Result<FunctionName, Problem> {
    FunctionName::new(module, function).map_err(|error| Problem::new(400, "invalid-name", error.to_string()))
}

/// What becomes of runs in flight, if that is said.
pub(super) fn policy(text: Option<&str>) -> Result<Option<Policy>, Problem> {
    let read = |text: &str| {
        let policy = Policy::parse(text);
        policy.ok_or_else(|| invalid(format!("policy: \"{text}\" is none of pin, migrate, restart")))
    };
    text.map(read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn unknown_parameters_are_refused_by_name() {
        let problem = params(&[("stats", "x")])
            .only(&["status", "limit"])
            .expect_err("unknown");
        assert!(
            problem.message.contains("\"stats\"") && problem.message.contains("status, limit"),
            "{problem}"
        );
        assert!(params(&[("limit", "1")]).only(&["limit"]).is_ok());
    }

    #[test]
    fn statuses_come_apart_or_with_commas() {
        let statuses = params(&[("status", "Running,failed"), ("status", "Completed")])
            .statuses()
            .expect("known");
        assert_eq!(statuses, [Status::Running, Status::Failed, Status::Completed]);
        assert!(params(&[("status", "Done")]).statuses().is_err());
    }

    #[test]
    fn a_function_needs_its_module_one_way_or_the_other() {
        let both = Ok((Some("a".to_owned()), Some("b".to_owned())));
        assert_eq!(params(&[("function", "a/b")]).function(), both);
        assert_eq!(params(&[("function", "b"), ("module", "a")]).function(), both);
        assert_eq!(params(&[("function", "a/b"), ("module", "a")]).function(), both);
        assert_eq!(
            params(&[("module", "a")]).function(),
            Ok((Some("a".to_owned()), None))
        );
        for bad in [
            &[("function", "b")][..],
            &[("function", "a/b"), ("module", "c")],
            &[("module", "A")],
        ] {
            assert!(params(bad).function().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn waits_and_limits_are_bounded_words() {
        for (text, millis) in [("30s", 30_000), ("500ms", 500), ("2", 2_000), ("1m", 60_000)] {
            assert_eq!(
                params(&[("wait", text)]).wait(),
                Ok(Some(Duration::from_millis(millis))),
                "{text}"
            );
        }
        for text in ["s", "-1s", "1h", "soon", "1.5s", "٣s"] {
            assert!(params(&[("wait", text)]).wait().is_err(), "{text}");
        }
        assert_eq!(params(&[]).limit(), Ok(20));
        for text in ["0", "101", "-1", "x"] {
            assert!(params(&[("limit", text)]).limit().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unescaped_plus_in_a_time_is_understood() {
        let time = params(&[("received_after", "2026-11-22T19:00:00 01:00")]).time("received_after");
        assert_eq!(
            time,
            Ok(Some(Timestamp::parse("2026-11-22T18:00:00Z").expect("a time")))
        );
    }
}
