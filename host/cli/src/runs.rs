//! `dormouse runs`: list, get (and watch), journal, logs, cancel, wake, pause, resume, migrate, pin, follow, rerun.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;

use crate::cli::Global;
use crate::client::Client;
use crate::events::read_data;
use crate::failure::Outcome;
use crate::output::{Format, Table, ago, short_digest, text};
use crate::run::Run;
use crate::units::show_duration;
use crate::{modules, terminal, watch};

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// List the newest runs
    #[command(
        after_help = "Examples:\n  dormouse runs list --status failed\n  dormouse runs list --phase blocked -o jsonl"
    )]
    List(List),
    /// Show a run and its steps
    #[command(
        after_help = "Examples:\n  dormouse runs get 01JD7Z… --watch\n  dormouse runs get 01JD7Z… -o json"
    )]
    Get(Get),
    /// Show a run's journal
    Journal(Id),
    /// Show a run's log
    Logs(Id),
    /// End a run now
    Cancel(Id),
    /// Let a sleeping run go on now
    Wake(Id),
    /// Hold a run, when what it does now is recorded
    Pause(Id),
    /// Let a paused run go on
    Resume(Id),
    /// Have a run go over to another version with the next thing it does, and stay there
    Migrate(Migrate),
    /// Have a run stay on the version it has, whatever is deployed
    Pin(Id),
    /// Have a run go by what deploys say again
    Follow(Id),
    /// Do a run once more, on the active version; prints the new run's id
    #[command(after_help = "Examples:\n  dormouse runs rerun 01JD7Z…\n  \
                            dormouse runs rerun 01JD7Z… --from-step charge-card\n  \
                            dormouse runs rerun 01JD7Z… --data '{\"order\":7}'")]
    Rerun(Rerun),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Scheduled, Running, Completed, Failed, Cancelled or Skipped
    #[arg(long)]
    status: Option<String>,

    /// queued, executing, sleeping, waiting, backing-off, limited, paused or blocked
    #[arg(long)]
    phase: Option<String>,

    /// Only runs of this module
    #[arg(long)]
    module: Option<String>,

    /// Only runs of this function
    #[arg(long, value_name = "MODULE/FUNCTION")]
    function: Option<String>,

    /// Only the runs that this event started
    #[arg(long, value_name = "EVENT", conflicts_with_all = ["status", "phase", "module", "function", "limit", "cursor"])]
    event: Option<String>,

    /// How many at most
    #[arg(long)]
    limit: Option<u32>,

    /// Go on after this one: the last run of the page before
    #[arg(long, value_name = "RUN")]
    cursor: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The run's id
    run: String,

    /// Show it live until it ends; then its output is on stdout, and the exit code is 1 unless it completed
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The run's id
    run: String,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The run's id
    run: String,

    /// The version: its digest, or as much of its beginning as no other version shares; the active one when not given
    #[arg(long)]
    version: Option<String>,
}

impl Migrate {
    async fn run(self, client: &Client) -> Outcome {
        let version = match self.version {
            None => None,
            Some(version) => {
                let run = client.get(&["v1", "runs", &self.run]).await?;
                let function = text(&run, "function_id");
                let module = function.split('/').next().unwrap_or_default();
                Some(modules::resolve(client, module, &version).await?)
            }
        };
        client
            .request(Method::POST, &["v1", "runs", &self.run, "migrate"])
            .json(&serde_json::json!({ "version": version }))
            .answer()
            .await?;
        terminal::say(format!("run {} goes over with the next thing it does", self.run));
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Rerun {
    /// The earlier run's id
    run: String,

    /// Take over what is recorded before this step: its name, or the number of its entry
    #[arg(long, value_name = "STEP")]
    from_step: Option<String>,

    /// Another data for its event: JSON, @FILE, or @- for stdin
    #[arg(short, long, value_name = "JSON|@FILE")]
    data: Option<String>,
}

impl Rerun {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        let mut wanted = serde_json::Map::new();
        if let Some(step) = self.from_step {
            // A step may be called by a number, too; then its entry's number names it.
            let step = step.parse::<u32>().map_or(Value::from(step), Value::from);
            wanted.insert("from_step".to_owned(), step);
        }
        if let Some(data) = read_data(self.data.as_deref())? {
            wanted.insert("input".to_owned(), data);
        }
        let data = client
            .request(Method::POST, &["v1", "runs", &self.run, "rerun"])
            .json(&Value::Object(wanted))
            .data()
            .await?;
        format.write(&data, || text(&data, "run_id"))
    }
}

impl Runs {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let client = Client::new(global, None)?;
        let format = global.output;
        match self {
            Runs::List(list) => list.run(&client, format).await,
            Runs::Get(get) => get.run(&client, format).await,
            Runs::Journal(id) => journal(&client, &id.run, format).await,
            Runs::Logs(id) => logs(&client, &id.run, format).await,
            Runs::Cancel(id) => {
                client
                    .request(Method::DELETE, &["v1", "runs", &id.run])
                    .answer()
                    .await?;
                terminal::say(format!("cancelled run {}", id.run));
                Ok(())
            }
            Runs::Wake(id) => {
                client
                    .request(Method::POST, &["v1", "runs", &id.run, "wake"])
                    .answer()
                    .await?;
                terminal::say(format!("woke run {}", id.run));
                Ok(())
            }
            Runs::Pause(id) => {
                let path = ["v1", "runs", &id.run, "pause"];
                let data = client.request(Method::POST, &path).data().await?;
                match data["phase"].as_str() {
                    Some("paused") => terminal::say(format!("paused run {}", id.run)),
                    _ => terminal::say(format!(
                        "run {} is paused when what it does now is recorded",
                        id.run
                    )),
                }
                Ok(())
            }
            Runs::Migrate(migrate) => migrate.run(&client).await,
            Runs::Pin(id) => {
                let path = ["v1", "runs", &id.run, "pin"];
                client.request(Method::POST, &path).answer().await?;
                terminal::say(format!("run {} stays on its version", id.run));
                Ok(())
            }
            Runs::Follow(id) => {
                let path = ["v1", "runs", &id.run, "follow"];
                client.request(Method::POST, &path).answer().await?;
                terminal::say(format!("run {} goes by what deploys say", id.run));
                Ok(())
            }
            Runs::Rerun(rerun) => rerun.run(&client, format).await,
            Runs::Resume(id) => {
                client
                    .request(Method::POST, &["v1", "runs", &id.run, "resume"])
                    .answer()
                    .await?;
                terminal::say(format!("resumed run {}", id.run));
                Ok(())
            }
        }
    }
}

impl List {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        let data = match &self.event {
            Some(event) => client.get(&["v1", "events", event, "runs"]).await?,
            None => {
                let request = client.request(Method::GET, &["v1", "runs"]);
                let request = request.query("status", self.status).query("phase", self.phase);
                let request = request
                    .query("module", self.module)
                    .query("function", self.function);
                request
                    .query("limit", self.limit)
                    .query("cursor", self.cursor)
                    .data()
                    .await?
            }
        };
        let runs: Vec<Run> = data
            .as_array()
            .into_iter()
            .flatten()
            .map(Run::parse)
            .collect::<Outcome<_>>()?;
        format.write(&data, || {
            let now = Timestamp::now();
            let mut table = Table::new(&["run", "function", "status", "queued", "duration", "reason"]);
            for (run, data) in runs.iter().zip(data.as_array().into_iter().flatten()) {
                let took = run.duration(now).map(show_duration).unwrap_or_default();
                let why = run
                    .error
                    .as_ref()
                    .map(|error| error.message.clone())
                    .or_else(|| run.reason.clone());
                let first = why
                    .as_deref()
                    .unwrap_or_default()
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                let cells = [
                    run.run_id.clone(),
                    run.function_id.clone(),
                    run.state(),
                    ago(data, "queued_at"),
                    took,
                    first,
                ];
                table.row(cells);
            }
            table.text("no runs")
        })
    }
}

impl Get {
    async fn run(self, client: &Client, format: Format) -> Outcome {
        if self.watch {
            let (data, run) = watch::watch(client, &self.run, format).await?;
            return watch::conclude(&data, &run, format);
        }
        let data = client.get(&["v1", "runs", &self.run]).await?;
        let run = Run::parse(&data)?;
        format.write(&data, || describe(&run, &data))
    }
}

/// The whole run for people.
fn describe(run: &Run, data: &Value) -> String {
    let now = Timestamp::now();
    let mut lines = Vec::new();
    let mut line = |word: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("{word:<9} {text}"));
        }
    };
    line("run", &run.run_id);
    line("function", &run.function_id);
    line("version", short_digest(&run.version));
    line("status", &run.state());
    line("asked for", short_digest(&text(data, "asked_version")));
    line("goes to", &migration(data));
    line("reason", run.reason.as_deref().unwrap_or_default());
    line("event", run.event_id.as_deref().unwrap_or_default());
    line("rerun of", &text(data, "original_run_id"));
    line("handles", &text(data, "failed_run_id"));
    line("handler", &text(data, "on_failure_run_id"));
    line("queued", &text(data, "queued_at"));
    line("started", &text(data, "run_started_at"));
    line("ended", &text(data, "ended_at"));
    if let Some(took) = run.duration(now) {
        line("duration", &show_duration(took));
    }
    if run.status == "Completed" {
        line("output", &run.output.to_string());
    }
    if let Some(error) = &run.error {
        let code = error
            .code
            .as_deref()
            .map(|code| format!(" ({code})"))
            .unwrap_or_default();
        let step = error
            .step
            .as_deref()
            .map(|step| format!(" in step \"{step}\""))
            .unwrap_or_default();
        line("error", &format!("{}{code}{step}", error.message));
        for frame in &error.frames {
            let frame = frame.as_str().map_or_else(|| frame.to_string(), str::to_owned);
            line("", &frame);
        }
    }
    let swaps = data["swaps"].as_array().into_iter().flatten();
    lines.extend(swaps.map(swap));
    if !run.steps.is_empty() {
        lines.push("steps".to_owned());
        let width = run
            .steps
            .iter()
            .map(|step| step.name.chars().count())
            .max()
            .unwrap_or(0)
            .min(48);
        for step in &run.steps {
            lines.push(step.line(now, width));
            let failed = step
                .attempts
                .iter()
                .enumerate()
                .filter(|(_, attempt)| !attempt.error.is_null());
            for (index, attempt) in failed {
                let message = attempt.error["message"].as_str().map(str::to_owned);
                let message = message.unwrap_or_else(|| attempt.error.to_string());
                lines.push(format!("      try {}: {message}", index + 1));
            }
        }
    }
    let text = lines.join("\n");
    if console::colors_enabled() {
        text
    } else {
        console::strip_ansi_codes(&text).into_owned()
    }
}

/// What becomes of the run because another version of its module is active.
fn migration(data: &Value) -> String {
    let migration = &data["migration"];
    let to = text(migration, "to");
    match migration["state"].as_str() {
        Some("due") => format!("{} with the next thing it does", short_digest(&to)),
        Some("restarts") => format!("{}, where it begins again", short_digest(&to)),
        Some(_) => format!(
            "nowhere: it stays where it is and not at {}, because {}",
            short_digest(&to),
            text(&migration["error"], "message")
        ),
        None => String::new(),
    }
}

/// A version that the run went over to, or could not.
fn swap(swap: &Value) -> String {
    let to = text(swap, "to");
    let to = short_digest(&to);
    match swap["outcome"].as_str() {
        Some("stayed") => format!("stayed    not at {to}: {}", text(&swap["error"], "message")),
        outcome => {
            let from = text(swap, "from");
            let outcome = outcome.unwrap_or_default();
            let from = short_digest(&from);
            format!("{outcome:<9} from {from} to {to}, with entry {}", swap["seq"])
        }
    }
}

/// What a journal's table tells of an entry beside its columns. The hash is for programs.
const WHAT: [&str; 8] = [
    "operation",
    "occurrence",
    "attempt",
    "due_at",
    "input",
    "output",
    "error",
    "version",
];

async fn journal(client: &Client, run: &str, format: Format) -> Outcome {
    let data = client.get(&["v1", "runs", run, "journal"]).await?;
    format.write(&data, || {
        let mut table = Table::new(&["seq", "at", "entry", "kind", "name", "what"]);
        for entry in data.as_array().into_iter().flatten() {
            let rest: Vec<String> = WHAT
                .iter()
                .filter(|member| !entry[**member].is_null())
                .map(|member| format!("{member}={}", entry[*member]))
                .collect();
            let columns = ["seq", "at", "entry", "kind", "name"].map(|member| text(entry, member));
            table.row(columns.into_iter().chain([rest.join(" ")]));
        }
        table.text("the journal is empty")
    })
}

async fn logs(client: &Client, run: &str, format: Format) -> Outcome {
    let data = client.get(&["v1", "runs", run, "logs"]).await?;
    format.write(&data, || {
        let lines = data.as_array().into_iter().flatten().map(|line| {
            let step = line["step"]
                .as_str()
                .map(|step| format!(" [{step}]"))
                .unwrap_or_default();
            let fields = line["fields"].as_object().into_iter().flatten();
            let fields: String = fields.map(|(name, value)| format!(" {name}={value}")).collect();
            format!(
                "{} {:<5}{step} {}{fields}",
                text(line, "at"),
                text(line, "level"),
                text(line, "message")
            )
        });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            terminal::say("the run wrote no log lines");
        }
        lines.join("\n")
    })
}
