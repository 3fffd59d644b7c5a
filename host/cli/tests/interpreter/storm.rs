//! A storm: programs are sent to nodes while a nemesis works; then all must have come to what was predicted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::application::Application;
use super::generate::Shape;
use super::program::{EVENT, Task};
use super::verdict::Verdict;
use crate::support::fleet::{Client, Fleet};
use crate::support::nemesis::{Appetite, Nemesis, SharedDatabase, plan};
use crate::support::witness::Witness;
use crate::support::{Dice, guest};

/// The module and the components that are its versions.
const MODULE: &str = "interpreter";
const VERSIONS: [&str; 2] = ["interpreter", "interpreter-v2"];
/// After the last trouble runs may take this long, and that long without any of them coming to an end.
const PATIENCE: Duration = Duration::from_secs(300);
const STANDSTILL: Duration = Duration::from_secs(60);
/// How many of the runs that are stuck are told in full.
const STUCK_TOLD: usize = 3;

/// What a storm is like.
pub(crate) struct Storm {
    /// How many nodes there are: one on SQLite, or several on one Postgres.
    pub(crate) nodes: usize,
    /// For how long instances stay in memory: an option of the nodes.
    pub(crate) park_idle: &'static str,
    /// How many programs are sent.
    pub(crate) programs: u64,
    /// For how long the nemesis works, in milliseconds; programs are sent all the while.
    pub(crate) length_ms: u64,
    /// What goes wrong.
    pub(crate) appetite: Appetite,
    /// What the programs are like.
    pub(crate) shape: Shape,
}

impl Storm {
    /// Lets it pass over.
    ///
    /// # Panics
    /// When anything is not as predicted, or runs do not end.
    pub(crate) async fn pass(self) {
        let mut dice = Dice::new();
        let witness = Witness::start().await;
        let database = match self.nodes {
            1 => None,
            nodes => Some(SharedDatabase::start(nodes).await),
        };
        let application = Application::new(database.as_ref().map(|database| Arc::clone(&database.cluster)));
        let config = format!(
            "[modules.{MODULE}]\nhttp = [\"{host}\"]\nconfig = {{ sink = \"http://{host}/\" }}\ndatabases.app = {}\n",
            application.grant(),
            host = witness.host(),
        );
        let mut arguments = match &database {
            Some(database) => database.arguments(),
            None => vec![Vec::new()],
        };
        for arguments in &mut arguments {
            arguments.extend(["--park-idle".to_owned(), self.park_idle.to_owned()]);
        }
        let mut fleet = Fleet::prepare(&config, &arguments);
        fleet.boot().await;
        let client = fleet.client();
        let versions = VERSIONS.map(|name| guest(&name.replace('-', "_")));
        let mut builds = HashMap::new();
        // The last one is the first that runs start with.
        for (name, component) in VERSIONS.iter().zip(&versions).rev() {
            builds.insert(client.deploy(MODULE, component).await, *name);
        }
        let tasks: Vec<Task> = (0..self.programs).map(|_| self.shape.task(&mut dice)).collect();
        let acts = plan(&mut dice, &self.appetite, self.nodes, self.length_ms);
        let mut nemesis = Nemesis::new(fleet, database, MODULE, versions.to_vec());
        let pause = Duration::from_millis(self.length_ms / self.programs);
        tokio::join!(nemesis.work(&acts), send(&client, &tasks, pause));
        let calm = Instant::now();
        if let Err(stuck) = ended(&client, &mut nemesis).await {
            panic!("{stuck}\n{}\n{}", nemesis.summary(), nemesis.fleet.log_tails(60));
        }
        let settled = calm.elapsed();
        let verdict = Verdict {
            client: &client,
            module: MODULE,
            roots: &tasks,
            builds: &builds,
            woken: nemesis.woken(),
        };
        let summary = verdict.pass(&application, witness.timed_lines()).await;
        println!(
            "{summary}; {}; all had ended {:.1} s after the last trouble",
            nemesis.summary(),
            settled.as_secs_f64()
        );
    }
}

/// Sends the tasks, one after the other, until each is acknowledged.
async fn send(client: &Client, tasks: &[Task], pause: Duration) {
    let mut turns = tokio::time::interval(pause.max(Duration::from_millis(1)));
    for task in tasks {
        turns.tick().await;
        let data = serde_json::to_value(task).expect("JSON");
        client.event(EVENT, &format!("program-{}", task.tag), &data).await;
    }
}

/// Waits until all runs have ended.
///
/// # Errors
/// They do not: what is known of those.
async fn ended(client: &Client, nemesis: &mut Nemesis) -> Result<(), String> {
    let began = Instant::now();
    let mut progress = (Vec::new(), Instant::now());
    loop {
        nemesis.revive();
        let open = client.runs(MODULE, "&status=Scheduled,Running").await;
        if open.is_empty() {
            return Ok(());
        }
        let ids: Vec<Value> = open.iter().map(|run| run["run_id"].clone()).collect();
        if ids != progress.0 {
            progress = (ids, Instant::now());
        }
        let blocked = open.iter().any(|run| run["phase"] == "blocked");
        if blocked || progress.1.elapsed() > STANDSTILL || began.elapsed() > PATIENCE {
            return Err(stuck(client, &open).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What is known of runs that do not end.
async fn stuck(client: &Client, open: &[Value]) -> String {
    let mut told = format!("{} runs are stuck", open.len());
    // Those that are blocked first: they say why.
    let (blocked, others): (Vec<&Value>, Vec<&Value>) =
        open.iter().partition(|run| run["phase"] == "blocked");
    for run in blocked.into_iter().chain(others).take(STUCK_TOLD) {
        let id = run["run_id"].as_str().unwrap_or_default();
        let (journal, _) = client.get(&format!("/v1/runs/{id}/journal")).await;
        told.push_str(&format!("\n--- run {id} ---\n{run:#}\n--- its journal ---"));
        for entry in journal.as_array().into_iter().flatten() {
            told.push_str(&format!("\n{entry}"));
        }
    }
    told
}
