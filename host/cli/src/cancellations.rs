//! `dormouse cancellations`: create, list, delete: ending many runs with one command.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::{Format, Table, ago, text};
use crate::terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum Cancellations {
    /// End all runs of a function that were created before now; prints the cancellation's id
    #[command(after_help = "Examples:\n  dormouse cancellations create shop/order\n  \
                            dormouse cancellations create shop/order --started-before 2026-01-31T00:00:00Z \\\n    \
                            --if 'event.data.customer == \"42\"'")]
    Create(Create),
    /// List the newest cancellations and how far they have got
    List,
    /// Stop one: what it has not ended yet goes on
    Delete {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The function
    #[arg(value_name = "MODULE/FUNCTION")]
    function: String,

    /// Only runs that were created at this time or later
    #[arg(long, value_name = "TIME")]
    started_after: Option<String>,

    /// Only runs that were created before this time
    #[arg(long, value_name = "TIME")]
    started_before: Option<String>,

    /// Only runs of events for which this CEL expression holds
    #[arg(long = "if", value_name = "EXPRESSION")]
    condition: Option<String>,
}

impl Cancellations {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        match self {
            Cancellations::Create(create) => create.run(&client, global.output).await,
            Cancellations::List => list(&client, global.output).await,
            Cancellations::Delete { id } => {
                client
                    .request(Method::DELETE, &["v1", "cancellations", &id])
                    .answer()
                    .await?;
                terminal::say(format!("deleted cancellation {id}"));
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        let mut wanted = json!({ "function": self.function });
        for (member, value) in [
            ("started_after", self.started_after),
            ("started_before", self.started_before),
            ("if", self.condition),
        ] {
            if let Some(value) = value {
                wanted[member] = Value::from(value);
            }
        }
        let request = client.request(Method::POST, &["v1", "cancellations"]);
        let data = request.json(&wanted).data().await?;
        format.write(&data, || text(&data, "id"))
    }
}

async fn list(client: &Client, format: Format) -> Outcome {
    let data = client.get(&["v1", "cancellations"]).await?;
    format.write(&data, || {
        let mut table = Table::new(&["cancellation", "function", "if", "created", "done", "cancelled"]);
        for cancellation in data.as_array().into_iter().flatten() {
            table.row([
                text(cancellation, "id"),
                text(cancellation, "function_id"),
                text(cancellation, "if"),
                ago(cancellation, "created_at"),
                ago(cancellation, "done_at"),
                text(cancellation, "cancelled"),
            ]);
        }
        table.text("no cancellations")
    })
}
