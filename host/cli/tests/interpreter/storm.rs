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
use crate::support::{Dice, guest, long};

/// The module and the components that are its versions.
const MODULE: &str = "interpreter";
const VERSIONS: [&str; 2] = ["interpreter", "interpreter-v2"];
/// After the last trouble runs may take this long, and that long without any of them coming to an end.
const PATIENCE: Duration = Duration::from_secs(300);
const STANDSTILL: Duration = Duration::from_secs(60);
/// How many commits have to be left unanswered in the long form; in the short one, one.
const ANSWERS_LOST_LONG: u32 = 5;
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
        nemesis.has_worked(&self.appetite, if long() { ANSWERS_LOST_LONG } else { 1 });
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
        told.push_str(&format!("\n--- run {id} ---\n{run:#}"));
        told.push_str(&client.journal(id).await);
    }
    told
}

mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::support::nemesis::{Act, Trouble};

    /// Everything goes wrong, for three nodes.
    fn everything() -> Appetite {
        Appetite {
            kill: Trouble::of((300, 6_000), (0, 3_000)),
            stop: Trouble::of((400, 9_000), (50, 2_000)),
            long_stop: Trouble::of((9_000, 20_000), (11_000, 14_000)),
            cut: Trouble::of((600, 12_000), (500, 14_000)),
            lost_answer: Trouble::at_once((1_000, 3_000)),
            database: Trouble::of((5_000, 40_000), (0, 2_000)),
            deploy: Trouble::at_once((3_000, 6_000)),
        }
    }

    #[test]
    fn a_plan_has_every_trouble_and_each_that_begins_ends_before_the_next_of_its_node() {
        for seed in 0..200 {
            let acts = plan(&mut Dice::of(seed), &everything(), 3, 25_000);
            assert_eq!(acts, plan(&mut Dice::of(seed), &everything(), 3, 25_000));
            assert!(acts.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{acts:?}");
            let mut troubles: [Option<Act>; 3] = [None; 3];
            let (mut down, mut seen) = (false, [false; 7]);
            for (_, act) in &acts {
                let (kind, node) = match act {
                    Act::Kill(node) => (0, Some(*node)),
                    Act::Stop(node) => (1, Some(*node)),
                    Act::Cut(node, _) => (2, Some(*node)),
                    Act::LoseAnswer(_) => (3, None),
                    Act::DatabaseDown => {
                        assert!(!down, "it is down already: {acts:?}");
                        down = true;
                        (4, None)
                    }
                    Act::DatabaseUp => {
                        assert!(down, "it is up already: {acts:?}");
                        down = false;
                        (5, None)
                    }
                    Act::Deploy => (6, None),
                    Act::Start(node) | Act::Continue(node) | Act::Mend(node) => {
                        let begun = troubles[*node].take();
                        let fits = matches!(
                            (begun, act),
                            (Some(Act::Kill(_)), Act::Start(_))
                                | (Some(Act::Stop(_)), Act::Continue(_))
                                | (Some(Act::Cut(..)), Act::Mend(_))
                        );
                        assert!(fits, "{act:?} ends {begun:?}: {acts:?}");
                        continue;
                    }
                };
                seen[kind] = true;
                if let Some(node) = node {
                    let before = troubles[node].replace(*act);
                    assert_eq!(before, None, "node {node} has its trouble already: {acts:?}");
                }
            }
            assert_eq!(seen, [true; 7], "seed {seed}: {acts:?}");
            assert_eq!((troubles, down), ([None; 3], false), "not all ends: {acts:?}");
        }
    }

    #[test]
    #[should_panic(expected = "too short")]
    fn a_plan_that_has_no_time_for_every_trouble_is_refused() {
        plan(&mut Dice::of(1), &everything(), 3, 8_000);
    }

    /// Answers whatever it is asked with this.
    async fn answering(data: Value) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let body = json!({ "data": data }).to_string();
                let _ = stream.read(&mut [0; 4096]).await;
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn runs_that_are_stuck_are_told_with_their_journals_the_blocked_ones_first() {
        // Loopback has no TLS; the client wants a provider nevertheless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let run = |id: &str, phase: &str| json!({ "run_id": id, "phase": phase });
        let open = [
            run("A", "sleeping"),
            run("B", "sleeping"),
            run("C", "sleeping"),
            run("D", "blocked"),
        ];
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let nobody = format!("http://{}", gone.local_addr().expect("an address"));
        drop(gone);
        let answers = answering(json!([{ "seq": 0, "kind": "sleep" }])).await;
        let told = stuck(&Client::of_urls([nobody.clone(), answers]), &open).await;
        assert!(told.starts_with("4 runs are stuck\n--- run D ---"), "{told}");
        assert_eq!(
            told.matches("{\"seq\":0,\"kind\":\"sleep\"}").count(),
            3,
            "{told}"
        );
        assert!(!told.contains("--- run C ---"), "no more than three: {told}");
        // When no node answers any more it says so, instead of why it could not ask.
        let told = stuck(&Client::of_urls([nobody]), &open).await;
        assert!(
            told.contains("no node answers with the journal of run D"),
            "{told}"
        );
    }
}
