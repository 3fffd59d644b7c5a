//! `dormouse schedules`: list.

use clap::Subcommand;
use serde_json::Value;

use crate::cli::Global;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Table, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Schedules {
    /// List the crons of the functions of all active versions: their next ticks, and what became of the last
    List,
}

impl Schedules {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        let Schedules::List = self;
        let data = client.get(&["v1", "schedules"]).await?;
        global.output.write(&data, || {
            let mut table = Table::new(&[
                "function",
                "cron",
                "next",
                "last tick",
                "last run",
                "last skipped",
            ]);
            for schedule in data.as_array().into_iter().flatten() {
                table.row([
                    text(schedule, "function_id"),
                    text(schedule, "cron"),
                    next(schedule),
                    text(&schedule["last"], "scheduled_at"),
                    text(&schedule["last"], "run_id"),
                    skipped(&schedule["last_skipped"]),
                ]);
            }
            table.text("no schedules; a function has one with on(cron = \"0 9 * * *\")")
        })
    }
}

/// When it begins next, or why it does not.
fn next(schedule: &Value) -> String {
    if schedule["paused"] == true {
        return "paused".to_owned();
    }
    match schedule["waits_for"].as_str() {
        Some(run) => format!("when run {run} has ended"),
        None => text(schedule, "next_at"),
    }
}

/// `2026-11-25T09:00:00.000Z: the run of the tick before had not ended`.
fn skipped(skipped: &Value) -> String {
    match skipped {
        Value::Null => String::new(),
        skipped => format!("{}: {}", text(skipped, "scheduled_at"), text(skipped, "reason")),
    }
}
