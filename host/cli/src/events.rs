//! `dormouse events`: send, list, and ask what became of one.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::Global;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, Table, ago, text};

/// The key in the path when none is given: a server without keys takes any.
const EVENT_KEY_DEFAULT: &str = "dormouse-cli";

#[derive(Debug, Subcommand)]
pub(crate) enum Events {
    /// Send an event; prints its id once it is durably stored
    #[command(
        after_help = "Examples:\n  dormouse events send user/signed.up --data '{\"email\":\"ada@example.com\"}'\n  \
                            dormouse events send import/started --data @import.json --id import-42"
    )]
    Send(Send),
    /// List the newest events
    List(List),
    /// Say why an event started what it started, and why nothing else
    Triggers(Triggers),
}

#[derive(Debug, Args)]
pub(crate) struct Triggers {
    /// The event's id, as it was answered when it was sent
    event: String,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// Its name
    name: String,

    /// Its data: a JSON object, @FILE, or @- for stdin
    #[arg(short, long, value_name = "JSON|@FILE")]
    data: Option<String>,

    /// Its id: an event with the same id starts a function at most once in 24 hours
    #[arg(long)]
    id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only events of this name
    #[arg(long)]
    name: Option<String>,

    /// How many at most
    #[arg(long)]
    limit: Option<u32>,

    /// Go on after this one: the last id of the page before
    #[arg(long, value_name = "ID")]
    cursor: Option<String>,
}

impl Events {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        match self {
            Events::Send(send) => send.run(&client, global.output).await,
            Events::List(list) => list.run(&client, global.output).await,
            Events::Triggers(triggers) => triggers.run(&client, global.output).await,
        }
    }
}

impl Send {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        let mut event =
            json!({"name": self.name, "data": read_data(self.data.as_deref())?.unwrap_or(json!({}))});
        if let Some(id) = self.id {
            event["id"] = id.into();
        }
        let key = client.key().unwrap_or(EVENT_KEY_DEFAULT);
        let answer = client
            .request(Method::POST, &["e", key])
            .json(&event)
            .answer()
            .await?;
        format.write(&answer, || {
            let ids = answer["ids"].as_array().into_iter().flatten();
            ids.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
        })
    }
}

impl List {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        let request = client.request(Method::GET, &["v1", "events"]);
        let request = request
            .query("name", self.name)
            .query("limit", self.limit)
            .query("cursor", self.cursor);
        let data = request.data().await?;
        format.write(&data, || {
            let mut table = Table::new(&["event", "name", "received", "data"]);
            for event in data.as_array().into_iter().flatten() {
                let payload = excerpt(&event["data"].to_string());
                table.row([
                    text(event, "internal_id"),
                    text(event, "name"),
                    ago(event, "received_at"),
                    payload,
                ]);
            }
            table.text("no events")
        })
    }
}

impl Triggers {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        let request = client.request(Method::GET, &["v1", "events", &self.event, "triggers"]);
        let data = request.data().await?;
        format.write(&data, || {
            let mut table = Table::new(&["function", "trigger", "outcome", "why"]);
            for trigger in data.as_array().into_iter().flatten() {
                table.row([
                    text(trigger, "function_id"),
                    crate::functions::trigger(&trigger["trigger"]),
                    text(trigger, "outcome"),
                    text(trigger, "detail"),
                ]);
            }
            table.text("no function is deployed")
        })
    }
}

/// Reads `--data`: JSON, a file or stdin.
pub(crate) fn read_data(given: Option<&str>) -> Outcome<Option<Value>> {
    let Some(given) = given else { return Ok(None) };
    let (place, json) = match given.strip_prefix('@') {
        None => ("--data".to_owned(), given.to_owned()),
        Some("-") => {
            let json = std::io::read_to_string(std::io::stdin());
            (
                "stdin".to_owned(),
                json.map_err(|error| Failure::usage(format!("cannot read stdin: {error}")))?,
            )
        }
        Some(path) => {
            let json = std::fs::read_to_string(path);
            (
                path.to_owned(),
                json.map_err(|error| Failure::file("read", path.as_ref(), &error))?,
            )
        }
    };
    let value = serde_json::from_str(&json).map_err(|error| {
        Failure::usage(format!("the data is not JSON: {error}"))
            .at(place)
            .help("quote it whole: --data '{\"a\":1}'")
    })?;
    Ok(Some(value))
}

fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
