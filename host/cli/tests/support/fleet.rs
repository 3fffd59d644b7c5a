//! Several nodes, and a client that asks whichever answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::Server;
use super::until;

/// A node that does not answer within this time is passed over: it may be stopped.
const PATIENCE: Duration = Duration::from_secs(4);
/// Compiling takes longer than answering.
const PATIENCE_DEPLOYING: Duration = Duration::from_secs(30);

/// Asks one node after the other, as a client behind a load balancer does. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    urls: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    http: reqwest::Client,
}

impl Client {
    /// Of these nodes.
    pub fn of(nodes: &[Server]) -> Client {
        Client::of_urls(nodes.iter().map(|node| node.url("")))
    }

    /// Of the nodes at these URLs.
    pub fn of_urls(urls: impl IntoIterator<Item = String>) -> Client {
        Client {
            urls: Arc::new(urls.into_iter().collect()),
            next: Arc::default(),
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .expect("an HTTP client"),
        }
    }

    /// A request to the node whose turn it is: status and JSON. None when it has no answer, or none but "later".
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Option<(u16, Value)> {
        self.ask_within(PATIENCE, method, path, body).await
    }

    async fn ask_within(
        &self,
        patience: Duration,
        method: &str,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Option<(u16, Value)> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.urls.len();
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.urls[turn]));
        let answer = request.timeout(patience).body(body).send().await.ok()?;
        let status = answer.status().as_u16();
        if status == 503 {
            return None;
        }
        Some((status, answer.json().await.ok()?))
    }

    /// `GET` of a path under `/v1`: the `data` of the answer and where the next page begins, once a node has it.
    pub async fn get(&self, path: &str) -> (Value, Option<String>) {
        until(&format!("{path} is answered"), || async {
            let (status, mut body) = self.ask("GET", path, "").await?;
            assert_eq!(status, 200, "{path}: {body}");
            let cursor = body["metadata"]["cursor"].as_str().map(str::to_owned);
            Some((body["data"].take(), cursor))
        })
        .await
    }

    /// The `data` of the answer to `GET` of a path under `/v1`, when any node has one: each is asked once.
    pub async fn try_get(&self, path: &str) -> Option<Value> {
        for _ in 0..self.urls.len() {
            if let Some((200, mut body)) = self.ask("GET", path, "").await {
                return Some(body["data"].take());
            }
        }
        None
    }

    /// A run's journal, an entry in a line, or that nobody can be asked for it: for people.
    pub async fn journal(&self, run: &str) -> String {
        let Some(journal) = self.try_get(&format!("/v1/runs/{run}/journal")).await else {
            return format!("\n--- no node answers with the journal of run {run} ---");
        };
        let mut told = format!("\n--- the journal of run {run} ---");
        for entry in journal.as_array().into_iter().flatten() {
            told.push_str(&format!("\n{entry}"));
        }
        told
    }

    /// Sends an event until it is acknowledged, as a client does that repeats the same id. Its ULID.
    pub async fn event(&self, name: &str, id: &str, data: &Value) -> String {
        let body = json!({ "name": name, "id": id, "data": data }).to_string();
        until(&format!("the event {id} is acknowledged"), || async {
            let (status, answer) = self.ask("POST", "/e/key", body.clone()).await?;
            assert_eq!(status, 200, "event {id}: {answer}");
            Some(answer["ids"][0].as_str().expect("an id").to_owned())
        })
        .await
    }

    /// Deploys a component: until a node has taken it. Its digest.
    pub async fn deploy(&self, module: &str, component: &[u8]) -> String {
        until(&format!("{module} is deployed"), || async {
            let (status, body) = self.upload(&format!("/v1/modules/{module}"), component).await?;
            assert!(matches!(status, 200 | 201), "deploying {module}: {status} {body}");
            Some(body["data"]["version"].as_str().expect("a version").to_owned())
        })
        .await
    }

    /// Uploads a component to a path with a query: status and JSON, when the node whose turn it is has an answer.
    pub async fn upload(&self, path: &str, component: &[u8]) -> Option<(u16, Value)> {
        self.ask_within(PATIENCE_DEPLOYING, "PUT", path, component.to_vec())
            .await
    }

    /// The runs of a module, newest first; `filter` is more of the query.
    pub async fn runs(&self, module: &str, filter: &str) -> Vec<Value> {
        self.pages(&format!("/v1/runs?module={module}{filter}")).await
    }

    /// All pages of a list; the path has a query.
    pub async fn pages(&self, path: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut from = String::new();
        loop {
            let (page, cursor) = self.get(&format!("{path}&limit=100{from}")).await;
            all.extend(page.as_array().expect("a list").iter().cloned());
            match cursor {
                Some(cursor) => from = format!("&cursor={cursor}"),
                None => return all,
            }
        }
    }
}

/// Nodes that may come to any harm; each has a directory and a port of its own.
pub struct Fleet {
    /// The nodes.
    pub nodes: Vec<Server>,
    /// Whether a node may end by itself, with code 5: when it has lost its database or its leases to others. It is then
    /// started again, as a service manager does.
    may_give_up: bool,
    /// How often one did.
    gave_up: usize,
}

impl Fleet {
    /// Nodes that are not started yet. All have the same configuration; `arguments` are each node's own.
    pub fn prepare(config: &str, arguments: &[Vec<String>]) -> Fleet {
        let node = |arguments: &Vec<String>| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Server::prepare(config, &arguments)
        };
        Fleet {
            may_give_up: arguments.len() > 1,
            nodes: arguments.iter().map(node).collect(),
            gave_up: 0,
        }
    }

    /// Starts all of them and waits until each answers.
    pub async fn boot(&mut self) {
        for node in &mut self.nodes {
            node.boot().await;
        }
    }

    /// Who asks them.
    pub fn client(&self) -> Client {
        Client::of(&self.nodes)
    }

    /// Starts again what ended by itself, as a service manager does. `down` says which nodes are meant to be down.
    ///
    /// # Panics
    /// When a node has ended that should not, with its log.
    pub fn revive(&mut self, down: impl Fn(usize) -> bool) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if let Some(code) = node.ended_by_itself() {
                assert!(
                    self.may_give_up && code == 5,
                    "node {number} ended with {code}:\n{}",
                    node.log_tail(40)
                );
                self.gave_up += 1;
            }
            if !node.has_process() && !down(number) {
                node.spawn();
            }
        }
    }

    /// How often a node has ended by itself.
    pub fn gave_up(&self) -> usize {
        self.gave_up
    }

    /// The end of each node's log.
    pub fn log_tails(&self, lines: usize) -> String {
        let tails = self.nodes.iter().enumerate().map(|(number, node)| {
            format!(
                "--- the log of node {number}, newest first ---\n{}\n",
                node.log_tail(lines)
            )
        });
        tails.collect()
    }
}
