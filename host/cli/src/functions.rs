//! `dormouse functions`: list.

use clap::Subcommand;
use serde_json::Value;

use crate::cli::Global;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Table, short_digest, text};

#[derive(Debug, Subcommand)]
pub(crate) enum Functions {
    /// List the functions of all active versions
    List,
}

impl Functions {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        let Functions::List = self;
        let data = client.get(&["v1", "functions"]).await?;
        global.output.write(&data, || {
            let mut table = Table::new(&["function", "triggers", "retries", "version"]);
            for function in data.as_array().into_iter().flatten() {
                let id = text(function, "function_id");
                let version = text(function, "version");
                let triggers = triggers(&function["triggers"]);
                table.row([
                    id,
                    triggers,
                    text(function, "retries"),
                    short_digest(&version).to_owned(),
                ]);
            }
            table.text("no functions; upload a module with `dormouse deploy`")
        })
    }
}

/// `user/signed.up, shop/* if event.data.n > 1, cron 0 9 * * *`.
fn triggers(triggers: &Value) -> String {
    let each = triggers
        .as_array()
        .into_iter()
        .flatten()
        .map(|trigger| match trigger {
            Value::String(event) => event.clone(),
            trigger => match (trigger["event"].as_str(), trigger["cron"].as_str()) {
                (Some(event), _) => match trigger["if"].as_str() {
                    Some(condition) => format!("{event} if {condition}"),
                    None => event.to_owned(),
                },
                (None, Some(cron)) => format!("cron {cron}"),
                (None, None) => trigger.to_string(),
            },
        });
    each.collect::<Vec<_>>().join(", ")
}
