//! Concurrency limits, at random.

use dormouse_core::flow::Need;
use dormouse_core::flow::concurrency::Scope;
use dormouse_core::run::Phase;
use dormouse_core::{Digest, RunId, Timestamp};

use super::super::fixture::{json, version};
use super::{Pair, ends};
use crate::read::RunFilter;
use crate::registry::NewVersion;

/// What versions say of concurrency: the two that runs are made of nothing, others more, less or that there is no limit.
pub(super) fn numbered(module: &str, number: u64, activate: bool, now: Timestamp) -> NewVersion {
    let concurrency = match number {
        2 => r#"[{"limit":3,"key":"event.a"}]"#,
        3 => "[]",
        4 => r#"[{"limit":1,"key":"event.a"},{"limit":1,"key":"'b'","scope":"account"}]"#,
        _ => "",
    };
    let functions: Vec<String> = (0..3)
        .map(|id| format!(r#"{{"id":"f{id}","concurrency":{concurrency}}}"#))
        .collect();
    let new = version(module, Digest::of(&number.to_le_bytes()), activate, now);
    let mut new = ends::listening(number, new);
    if !concurrency.is_empty() {
        let functions = format!(r#""functions":[{},"#, functions.join(","));
        new.manifest = json(&new.manifest.as_str().replacen(r#""functions":["#, &functions, 1));
    }
    new
}

impl Pair {
    /// What a run needs while it executes.
    pub(super) fn needs(&mut self) -> Vec<Need> {
        let mut needs = Vec::new();
        if self.random.one_in(3) {
            needs.push(Need {
                scope: Scope::Function,
                source: Some("event.a".to_owned()),
                name: format!("event.a = {}", self.random.below(2)),
                limit: 1 + self.random.below(2) as u32,
            });
        }
        if self.random.one_in(4) {
            needs.push(Need {
                scope: Scope::Account,
                source: Some("'b'".to_owned()),
                name: format!("\"{}\"", self.random.below(2)),
                limit: 2 + self.random.below(2) as u32,
            });
        }
        needs
    }

    /// Runs that wait for a slot, as far as the model knows.
    pub(super) async fn in_lines(&self) -> Vec<RunId> {
        let limited = RunFilter {
            phase: Some(Phase::Limited),
            limit: 500,
            ..RunFilter::default()
        };
        let runs = self.model.runs(limited).await.expect("lists");
        let waits = runs.iter().filter(|run| run.wake_at.is_none());
        waits.map(|run| run.id).collect()
    }
}
