//! `dormouse functions`: list, pause, resume.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use crate::cli::Global;
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::{Table, short_digest, text};
use crate::terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum Functions {
    /// List the functions of all active versions
    List,
    /// Hold a function's new runs; those in flight go on
    #[command(after_help = "Example:\n  dormouse functions pause shop/order")]
    Pause(Name),
    /// Let a function's held runs begin
    Resume(Name),
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The function
    #[arg(value_name = "MODULE/FUNCTION")]
    function: String,
}

impl Functions {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        match self {
            Functions::List => list(&client, global).await,
            Functions::Pause(name) => turn(&client, &name.function, "pause").await,
            Functions::Resume(name) => turn(&client, &name.function, "resume").await,
        }
    }
}

/// Pauses or resumes a function.
async fn turn(client: &Client, name: &str, verb: &str) -> Outcome {
    let Some((module, function)) = name.split_once('/') else {
        return Err(Failure::new(
            Exit::Usage,
            format!("\"{name}\" does not name a function: give MODULE/FUNCTION"),
        ));
    };
    let path = ["v1", "functions", module, function, verb];
    let data = client.request(Method::POST, &path).data().await?;
    let already = if data["changed"] == true { "" } else { " already" };
    terminal::say(format!("{name} is{already} {verb}d"));
    Ok(())
}

async fn list(client: &Client, global: &Global) -> Outcome {
    let data = client.get(&["v1", "functions"]).await?;
    global.output.write(&data, || {
        let mut table = Table::new(&["function", "triggers", "retries", "paused", "version"]);
        for function in data.as_array().into_iter().flatten() {
            let id = text(function, "function_id");
            let version = text(function, "version");
            let triggers = triggers(&function["triggers"]);
            table.row([
                id,
                triggers,
                text(function, "retries"),
                if function["paused"] == true { "yes" } else { "" }.to_owned(),
                short_digest(&version).to_owned(),
            ]);
        }
        table.text("no functions; upload a module with `dormouse deploy`")
    })
}

/// `user/signed.up, shop/* if event.data.n > 1, cron 0 9 * * *`.
fn triggers(triggers: &Value) -> String {
    let each = triggers.as_array().into_iter().flatten().map(trigger);
    each.collect::<Vec<_>>().join(", ")
}

/// One of these; nothing where there is none.
pub(crate) fn trigger(trigger: &Value) -> String {
    match trigger {
        Value::Null => String::new(),
        Value::String(event) => event.clone(),
        trigger => match (trigger["event"].as_str(), trigger["cron"].as_str()) {
            (Some(event), _) => match trigger["if"].as_str() {
                Some(condition) => format!("{event} if {condition}"),
                None => event.to_owned(),
            },
            (None, Some(cron)) => format!("cron {cron}"),
            (None, None) => trigger.to_string(),
        },
    }
}
