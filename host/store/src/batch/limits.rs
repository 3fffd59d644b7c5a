//! What limits remember, and why events start no run of their own. The same on every database.

use std::collections::{BTreeMap, HashMap};

use dormouse_core::flow::{Admission, Decision, Gate, Standing};
use dormouse_core::{EventId, RunId, Timestamp};

use super::ingest::Small;
use crate::error::{Error, Result};
use crate::ingest::{Ingest, NewRun};
use crate::read::Decided;

/// A function's limit and the value of its key. Whoever locks rows locks them in this order.
pub(crate) type LimitKey = (i64, Gate, String);

/// What limits remember, as read for the requests of a batch and as changed by them.
#[derive(Default)]
pub(crate) struct Limits(HashMap<LimitKey, Standing>);

impl Limits {
    pub(crate) fn insert(&mut self, key: LimitKey, standing: Standing) {
        self.0.insert(key, standing);
    }

    /// Takes in what is known of others.
    pub(crate) fn extend(&mut self, others: &Limits) {
        let others = others.0.iter().map(|(key, standing)| (key.clone(), *standing));
        self.0.extend(others);
    }

    pub(crate) fn standing(&self, function_id: i64, gate: Gate, admission: &Admission) -> Option<Standing> {
        let (_, key) = admission.gates().find(|(of, _)| *of == gate)?;
        self.0.get(&(function_id, gate, key.to_owned())).copied()
    }

    /// What a limit remembers, if anything.
    pub(crate) fn get(&self, key: &LimitKey) -> Option<Standing> {
        self.0.get(key).copied()
    }

    /// A run passes: its limits remember that.
    pub(crate) fn admit(
        &mut self,
        function_id: i64,
        run: &NewRun,
        used_until: Vec<(Gate, i64)>,
        changed: &mut BTreeMap<LimitKey, Standing>,
    ) {
        for (gate, used_until) in used_until {
            let standing = Standing {
                used_until,
                run: run.id,
            };
            for (_, key) in run.admission.gates().filter(|(of, _)| *of == gate) {
                let key = (function_id, gate, key.to_owned());
                self.0.insert(key.clone(), standing);
                changed.insert(key, standing);
            }
        }
    }
}

/// The limits that requests ask, each once, in order.
pub(crate) fn limit_keys(small: &impl Small, requests: &[&Ingest]) -> Result<Vec<LimitKey>> {
    let mut keys = Vec::new();
    for run in requests.iter().flat_map(|request| &request.runs) {
        for (gate, key) in run.admission.gates() {
            keys.push((small.function_id(&run.function)?, gate, key.to_owned()));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

/// A limit from its number on disk.
pub(crate) fn gate(number: i64) -> Result<Gate> {
    Gate::from_number(number).ok_or_else(|| Error::Corrupt(format!("{number} is not a limit")))
}

/// A decision, when it was made, the run that is there instead, and the words for it.
pub(crate) type Reason = (Decision, Timestamp, Option<RunId>, String);

/// Why events start no run of their own: the first reason for each function.
#[derive(Default)]
pub(crate) struct Decisions(BTreeMap<(EventId, i64), Reason>);

impl Decisions {
    pub(crate) fn add(&mut self, event: EventId, function_id: i64, reason: Reason) {
        self.0.entry((event, function_id)).or_insert(reason);
    }

    /// In order of their keys.
    pub(crate) fn rows(&self) -> Vec<(&(EventId, i64), &Reason)> {
        self.0.iter().collect()
    }
}

/// A decision from its cells.
pub(crate) fn decided(
    module: &str,
    function: &str,
    number: i64,
    at: Timestamp,
    run: Option<RunId>,
    detail: String,
) -> Result<Decided> {
    Ok(Decided {
        function: super::runs::function_name(module, function)?,
        decision: Decision::from_number(number)
            .ok_or_else(|| Error::Corrupt(format!("{number} is not a decision")))?,
        at,
        run,
        detail,
    })
}
