//! How many runs of a key execute at once: what a definition may say of it, and who goes.
//!
//! A run that executes holds a *slot* of each of its limits: from the commit that leases it to a node until the one that
//! ends the lease. One that sleeps, waits or backs off holds none. A limit's slots are shared by all runs with the same
//! value of its key, of the function or, with the scope `account`, of all functions that have such a limit. Absent on
//! purpose: lines of runs that wait for a slot, and what holds across nodes; both are the store's.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::admission::shown;
use super::{bounded, expression, key_of};
use crate::condition::Condition;
use crate::limit;

/// So many at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// How many runs may execute at once: 1 to [`limit::CONCURRENCY_MAX`].
    pub limit: u32,
    /// A CEL expression over `event`: each value has slots of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whose runs share the slots.
    #[serde(default, skip_serializing_if = "Scope::is_function")]
    pub scope: Scope,
}

/// Whose runs share slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// The function's.
    #[default]
    #[serde(rename = "fn")]
    Function,
    /// Those of all functions, of whatever module, that have a limit of this scope with the same value of its key.
    #[serde(rename = "account")]
    Account,
}

impl Scope {
    fn is_function(&self) -> bool {
        *self == Scope::Function
    }
}

/// A function's limits, ready to be asked about events.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Limits(Vec<(Concurrency, Option<Condition>)>);

impl Limits {
    /// Reads a definition.
    ///
    /// # Errors
    /// A sentence that says what makes no sense and why.
    pub(super) fn compile(list: &[Concurrency]) -> Result<Limits, String> {
        if list.len() > limit::CONCURRENCY_LIMITS_MAX {
            return Err(format!(
                "concurrency: {} limits, at most {} are possible",
                list.len(),
                limit::CONCURRENCY_LIMITS_MAX
            ));
        }
        let mut compiled = Vec::with_capacity(list.len());
        for (index, one) in list.iter().enumerate() {
            if !(1..=limit::CONCURRENCY_MAX).contains(&one.limit) {
                return Err(format!(
                    "concurrency: limit must be 1 to {} (to let no run begin, pause the function)",
                    limit::CONCURRENCY_MAX
                ));
            }
            if one.scope == Scope::Account && one.key.is_none() {
                return Err(
                    "concurrency: the scope account needs a key, which names what the functions share, such as \
                     key = \"'openai'\""
                        .to_owned(),
                );
            }
            if list[..index].iter().any(|other| one.is_same(other)) {
                return Err(
                    "concurrency: two limits with the same scope and key: only the lower one would count"
                        .to_owned(),
                );
            }
            let key = one.key.as_ref().map(|key| expression("concurrency.key", key));
            compiled.push((one.clone(), key.transpose()?));
        }
        Ok(Limits(compiled))
    }

    /// What a run for an event needs before it may execute.
    pub(super) fn needs(&self, event: &Value) -> Vec<Need> {
        let need = |(one, key): &(Concurrency, Option<Condition>)| {
            let value = key.as_ref().map(|key| key_of(key.value(event)));
            Need {
                scope: one.scope,
                source: one.key.clone(),
                name: match (&one.key, value, one.scope) {
                    // Two keys of a function have slots of their own even where they have the same value.
                    (Some(source), Some(value), Scope::Function) => bounded(format!("{source} = {value}")),
                    (_, value, _) => value.unwrap_or_default(),
                },
                limit: one.limit,
            }
        };
        self.0.iter().map(need).collect()
    }
}

impl Concurrency {
    /// Whether it is about the same slots.
    fn is_same(&self, other: &Concurrency) -> bool {
        (self.scope, &self.key) == (other.scope, &other.key)
    }
}

/// A slot that a run needs while it executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Whose runs share it.
    pub scope: Scope,
    /// The key's expression.
    pub source: Option<String>,
    /// What names the slots, within the function or, of the scope `account`, by itself: the key with its value as JSON, or
    /// the value alone. Empty when there is no key.
    pub name: String,
    /// How many there are, as the run's own version says.
    pub limit: u32,
}

impl Need {
    /// How many slots there are. `active` is what the function's active version says; None: that has no such function. None:
    /// any number.
    ///
    /// A version that has a limit of the same scope and key says how many. One without any limit has lifted it. One that has
    /// others leaves it as it was when the run was created: what a key stands for is not known to be free.
    pub fn limit(&self, active: Option<&[Concurrency]>) -> Option<u32> {
        match active {
            None => Some(self.limit),
            Some([]) => None,
            Some(list) => {
                let same = list
                    .iter()
                    .find(|one| (one.scope, &one.key) == (self.scope, &self.source));
                Some(same.map_or(self.limit, |one| one.limit))
            }
        }
    }

    /// Why a run that finds so many slots taken does not move, for a person.
    pub fn reason(&self, limit: u32) -> String {
        let of = match (self.scope, self.source.is_some()) {
            (_, false) => String::new(),
            (Scope::Function, true) => format!(" for {}", shown(&self.name)),
            (Scope::Account, true) => format!(" for {}, which functions share,", shown(&self.name)),
        };
        format!("waits for a slot: the concurrency limit of {limit}{of} is used up")
    }
}

/// How many slots are taken of what.
#[derive(Clone, Debug, Default)]
pub struct Taken<P>(HashMap<P, u32>);

impl<P: Clone + Eq + std::hash::Hash> Taken<P> {
    /// Slots that are taken.
    pub fn insert(&mut self, of: P, taken: u32) {
        self.0.insert(of, taken);
    }

    /// Whether there is room for one more. Without a limit there is.
    pub fn has_room(&self, of: &P, limit: Option<u32>) -> bool {
        limit.is_none_or(|limit| self.0.get(of).copied().unwrap_or(0) < limit)
    }

    /// A run that needs slots of these, each with its limit: it takes one of each, or none and learns the place of the first of
    /// which all are taken. So nobody holds a slot that it cannot use, and two runs never wait for each other.
    pub fn take(&mut self, needs: &[(P, Option<u32>)]) -> Result<(), usize> {
        if let Some(full) = needs.iter().position(|(of, limit)| !self.has_room(of, *limit)) {
            return Err(full);
        }
        for (of, _) in needs {
            *self.0.entry(of.clone()).or_insert(0) += 1;
        }
        Ok(())
    }

    /// A run that has taken them does not need them after all.
    pub fn give_back(&mut self, needs: &[(P, Option<u32>)]) {
        for (of, _) in needs {
            if let Some(taken) = self.0.get_mut(of) {
                *taken = taken.saturating_sub(1);
            }
        }
    }
}

/// What the functions of a manifest say of concurrency: read leniently, for the store, which keeps manifests of all releases.
pub fn declared(manifest: &str) -> HashMap<String, Vec<Concurrency>> {
    #[derive(Deserialize)]
    struct Function {
        id: String,
        #[serde(default)]
        concurrency: Vec<Concurrency>,
    }
    #[derive(Deserialize)]
    struct Manifest {
        functions: Vec<Function>,
    }
    let manifest = serde_json::from_str::<Manifest>(manifest);
    let functions = manifest.map(|manifest| manifest.functions).unwrap_or_default();
    functions
        .into_iter()
        .map(|function| (function.id, function.concurrency))
        .collect()
}

#[cfg(test)]
mod tests;
