//! Measures a real `dormouse start` process, and beside it what the machine can do: each row of the budget.
//!
//! | room | what it owns |
//! |---|---|
//! | [`server`] | the process: start, stop, what it takes of processor and memory |
//! | [`client`] | one keep-alive connection |
//! | [`drive`] | many clients, closed or at a rate |
//! | [`database`] | Postgres: what its statistics say, what it takes of the processor |
//! | [`report`] | numbers, as JSON lines and as a table |
//! | [`work`] | one file per kind of work |
//!
//! Absent on purpose: assertions. A slow machine is not a failure; a run that fails, or that never ends, is.
#![forbid(unsafe_code)]

mod client;
mod database;
mod drive;
mod report;
mod server;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;

use dormouse_testing_postgres::Cluster;
use report::Report;

/// Measure a server beside its machine
///
/// JSON lines on stdout, one per number; what happens on stderr. Nothing else should run on the machine meanwhile.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    /// The binary to measure; the `dormouse` beside this one when not given
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// Where the guests' components are
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/target/wasm32-wasip2/release"))]
    guests: PathBuf,
    /// Where the servers' data go: on a disk, not in memory; beside this binary when not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long each timed round takes, in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// How many rounds; medians of them are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many runs sleep at once
    #[arg(long, default_value_t = 100_000, value_name = "RUNS")]
    sleeping: u64,
    /// How many finished runs are stored before the comparison with an empty store
    #[arg(long, default_value_t = 100_000, value_name = "RUNS")]
    finished: u64,
    /// Begin each measurement on a copy of a store that holds so many finished runs
    #[arg(long, value_name = "RUNS", conflicts_with_all = ["postgres", "database_url"])]
    on_finished: Option<u64>,
    /// For how long runs come and go on Postgres while its tables are watched, in seconds; ten minutes say something
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    churn: u64,
    /// How many runs come in a second of that
    #[arg(long, default_value_t = 200, value_name = "RUNS")]
    churn_rate: u32,
    /// Keep an old snapshot open meanwhile, as a long backup does: no dead row can be removed
    #[arg(long)]
    pin_xmin: bool,
    /// Measure on this Postgres instead of SQLite: each work in a database of its own, created beside this one
    #[arg(long, value_name = "URL", conflicts_with = "postgres")]
    database_url: Option<String>,
    /// Measure on a throw-away Postgres of this machine instead of SQLite
    #[arg(long)]
    postgres: bool,
    /// How many nodes share the database
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Only these; all when not given
    #[arg(long, value_delimiter = ',', value_name = "WORK")]
    only: Vec<String>,
    /// The table as well, at the end
    #[arg(long)]
    markdown: bool,
    /// The names of what can be measured
    #[arg(long)]
    list: bool,
}

/// What every kind of work needs to know.
struct Bench {
    server: PathBuf,
    guests: PathBuf,
    dir: PathBuf,
    seconds: f64,
    rounds: usize,
    sleeping: u64,
    finished: u64,
    /// The data directory that each server begins with a copy of.
    template: Option<PathBuf>,
    churn: Duration,
    churn_rate: u32,
    pin_xmin: bool,
    database_url: Option<String>,
    postgres: Option<Cluster>,
    nodes: usize,
    report: Report,
}

impl Bench {
    /// The bytes of a guest.
    fn guest(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.guests.join(format!("{name}.wasm"));
        std::fs::read(&path)
            .with_context(|| format!("the guest {}: run scripts/build-guests", path.display()))
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match measure(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the stack that a returned error would bring along.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: Arguments) -> Result<()> {
    if arguments.list {
        work::NAMES.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|name| !work::NAMES.contains(&name.as_str()))
    {
        anyhow::bail!("\"{unknown}\" is none of {}", work::NAMES.join(", "));
    }
    anyhow::ensure!(
        arguments.nodes <= 1 || arguments.postgres || arguments.database_url.is_some(),
        "several nodes need a database that they share: --postgres or --database-url"
    );
    let beside = std::env::current_exe()?
        .parent()
        .context("a directory of this binary")?
        .to_path_buf();
    let server = arguments.server.unwrap_or_else(|| beside.join("dormouse"));
    anyhow::ensure!(
        server.is_file(),
        "{} is not there: cargo build --release -p dormouse-cli",
        server.display()
    );
    let place = tempfile::Builder::new()
        .prefix("load-")
        .tempdir_in(arguments.dir.unwrap_or(beside))?;
    let mut bench = Bench {
        server,
        guests: arguments.guests,
        dir: place.path().to_path_buf(),
        seconds: arguments.seconds,
        rounds: arguments.rounds.max(1),
        sleeping: arguments.sleeping,
        finished: arguments.finished,
        template: None,
        churn: Duration::from_secs(arguments.churn),
        churn_rate: arguments.churn_rate.max(1),
        pin_xmin: arguments.pin_xmin,
        nodes: arguments.nodes.max(1),
        postgres: arguments.postgres.then(Cluster::start),
        database_url: arguments.database_url,
        report: Report::default(),
    };
    if let Some(runs) = arguments.on_finished {
        bench.template = Some(work::stored_template(&bench, runs).await?);
    }
    let mut failed = Vec::new();
    for name in work::NAMES {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        eprintln!("# {name}");
        // One that cannot be measured does not take the others with it.
        if let Err(error) = work::run(name, &mut bench).await {
            eprintln!("error: {name}: {error:#}");
            failed.push(name);
        }
    }
    if arguments.markdown {
        println!("\n{}", bench.report.markdown());
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}
