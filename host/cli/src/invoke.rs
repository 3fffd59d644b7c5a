//! `dormouse invoke`: starts a run of one function, and may wait for its end.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::cli::Global;
use crate::client::Client;
use crate::events::read_data;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, text};
use crate::{terminal, units, watch};

/// Start a run of one function; prints the run's id, or its output with --wait
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  dormouse invoke hello/hello --data '{\"name\":\"Ada\"}' --wait\n  \
                        dormouse invoke hello/hello --data @input.json --wait --timeout 5m -o json"
)]
pub(crate) struct Invoke {
    /// The function
    #[arg(value_name = "MODULE/FUNCTION")]
    function: String,

    /// Its data: JSON, @FILE, or @- for stdin
    #[arg(short, long, value_name = "JSON|@FILE")]
    data: Option<String>,

    /// Wait until the run has ended; the exit code is 1 unless it completed
    #[arg(short, long)]
    wait: bool,

    /// For how long to wait; the run goes on after that
    #[arg(long, value_parser = units::duration, default_value = "60s", value_name = "DURATION", requires = "wait")]
    timeout: Duration,
}

impl Invoke {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let Some((module, function)) = self.function.split_once('/') else {
            return Err(Failure::usage(format!("\"{}\" is not a function", self.function))
                .help("name it as MODULE/FUNCTION; see them with `dormouse functions list`"));
        };
        let data = read_data(self.data.as_deref())?.unwrap_or(json!({}));
        let client = Client::new(global, None)?;
        let started = client
            .request(Method::POST, &["invoke", module, function])
            .json(&data)
            .data()
            .await?;
        let run = text(&started, "run_id");
        if !self.wait {
            return global.output.write(&started, || run);
        }
        terminal::say(format!("run {run}"));
        let (data, ended) = watch::wait(&client, &run, self.timeout).await?;
        match global.output {
            Format::Jsonl => crate::output::write(&data.to_string())?,
            format => return watch::conclude(&data, &ended, format),
        }
        ended.check()
    }
}
