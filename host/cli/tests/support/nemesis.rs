//! What goes wrong, and when: a plan that a seed repeats, and who carries it out.
//!
//! The plan is pure. Each trouble begins and ends at its own times, so that troubles of different nodes overlap; one node
//! has one trouble at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormouse_testing_postgres::Cluster;

use super::Dice;
use super::fleet::{Client, Fleet};
use super::proxy::{Proxy, Way};

/// How often to see whether a node has ended by itself.
const TICK: Duration = Duration::from_millis(100);

/// From such a stop on, others may have taken a node's runs over: they do ten seconds after its last sign of life, which
/// it gives every two.
const LONG_STOP: Duration = Duration::from_secs(6);

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `kill -9` of a node.
    Kill(usize),
    /// It is started again.
    Start(usize),
    /// SIGSTOP to a node: all of it stands still, and its clock does not.
    Stop(usize),
    /// SIGCONT.
    Continue(usize),
    /// The network between a node and the database no longer works.
    Cut(usize, Way),
    /// It works again.
    Mend(usize),
    /// The answer to the next commit of a node is lost, with its connection.
    LoseAnswer(usize),
    /// The database is stopped as by a power cut.
    DatabaseDown,
    /// It is started again.
    DatabaseUp,
    /// The next version of the module becomes active.
    Deploy,
}

/// How often a trouble comes, and how long it lasts, in milliseconds from and to.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Between two beginnings.
    pub every: (u64, u64),
    /// From beginning to end, if it lasts.
    pub lasts: (u64, u64),
}

impl Trouble {
    /// One that lasts.
    pub fn of(every: (u64, u64), lasts: (u64, u64)) -> Option<Trouble> {
        Some(Trouble { every, lasts })
    }

    /// One that is over at once.
    pub fn at_once(every: (u64, u64)) -> Option<Trouble> {
        Trouble::of(every, (0, 0))
    }
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appetite {
    /// A node is killed, and started again.
    pub kill: Option<Trouble>,
    /// A node stands still, and goes on.
    pub stop: Option<Trouble>,
    /// The same for another length.
    pub long_stop: Option<Trouble>,
    /// A node is cut off from the database.
    pub cut: Option<Trouble>,
    /// The answer to a commit of a node is lost.
    pub lost_answer: Option<Trouble>,
    /// The database is stopped, and started again.
    pub database: Option<Trouble>,
    /// A version is deployed.
    pub deploy: Option<Trouble>,
}

impl Appetite {
    /// All that may go wrong, each with whether it is wanted, in the order of [`plan`]'s.
    fn wanted(&self) -> [bool; 7] {
        [
            self.kill.is_some(),
            self.stop.is_some(),
            self.long_stop.is_some(),
            self.cut.is_some(),
            self.lost_answer.is_some(),
            self.database.is_some(),
            self.deploy.is_some(),
        ]
    }
}

/// Whom a trouble befalls.
#[derive(Clone, Copy)]
enum Kind {
    Node(fn(usize, &mut Dice) -> Act, fn(usize) -> Act),
    NodeAtOnce(fn(usize) -> Act),
    Database,
    Module,
}

/// How often a plan is made that lacks something, before it is given up.
const PLANS_MAX: u32 = 10_000;

/// What is done when, in milliseconds from the beginning, in order. All that may go wrong does, and all that began also
/// ends.
///
/// # Panics
/// When the time is too short for that.
pub fn plan(dice: &mut Dice, appetite: &Appetite, nodes: usize, length_ms: u64) -> Vec<(u64, Act)> {
    for _ in 0..PLANS_MAX {
        let (acts, kinds) = any_plan(dice, appetite, nodes, length_ms);
        if kinds == appetite.wanted() {
            return acts;
        }
    }
    panic!("{length_ms} ms are too short for {appetite:?}")
}

/// A plan, and which kinds of trouble are in it.
fn any_plan(
    dice: &mut Dice,
    appetite: &Appetite,
    nodes: usize,
    length_ms: u64,
) -> (Vec<(u64, Act)>, [bool; 7]) {
    let stop = Kind::Node(|node, _| Act::Stop(node), Act::Continue);
    let cut = |node, dice: &mut Dice| Act::Cut(node, if dice.one_in(2) { Way::Silent } else { Way::Shut });
    let kinds = [
        (appetite.kill, Kind::Node(|node, _| Act::Kill(node), Act::Start)),
        (appetite.stop, stop),
        (appetite.long_stop, stop),
        (appetite.cut, Kind::Node(cut, Act::Mend)),
        (appetite.lost_answer, Kind::NodeAtOnce(Act::LoseAnswer)),
        (appetite.database, Kind::Database),
        (appetite.deploy, Kind::Module),
    ];
    // The beginnings of all troubles in the order of time, so that who comes first gets the node.
    let mut beginnings = Vec::new();
    let mut planned = [false; 7];
    for (number, (trouble, kind)) in kinds.into_iter().enumerate() {
        let Some(trouble) = trouble else { continue };
        let mut at = dice.within(trouble.every);
        while at < length_ms {
            beginnings.push((at, dice.within(trouble.lasts), kind, number));
            at += dice.within(trouble.every);
        }
    }
    beginnings.sort_by_key(|(at, ..)| *at);
    let mut acts = Vec::new();
    // Until when a node has its trouble, and the database.
    let mut free = vec![0; nodes];
    let mut database_free = 0;
    for (at, lasts, kind, number) in beginnings {
        // From a random node on, the first that is well.
        let from = dice.below(nodes as u64) as usize;
        let well = (0..nodes)
            .map(|step| (from + step) % nodes)
            .find(|node| free[*node] <= at);
        match (kind, well) {
            (Kind::Node(begin, end), Some(node)) => {
                acts.push((at, begin(node, dice)));
                acts.push((at + lasts, end(node)));
                free[node] = at + lasts + 1;
            }
            (Kind::NodeAtOnce(act), Some(node)) => acts.push((at, act(node))),
            (Kind::Node(..) | Kind::NodeAtOnce(_), None) => continue,
            (Kind::Database, _) if database_free > at => continue,
            (Kind::Database, _) => {
                acts.push((at, Act::DatabaseDown));
                acts.push((at + lasts, Act::DatabaseUp));
                database_free = at + lasts + 1;
            }
            (Kind::Module, _) => acts.push((at, Act::Deploy)),
        }
        planned[number] = true;
    }
    acts.sort_by_key(|(at, _)| *at);
    (acts, planned)
}

/// The database that the nodes share, and each node's way to it.
pub struct SharedDatabase {
    /// The server.
    pub cluster: Arc<Cluster>,
    /// Of each node.
    pub proxies: Vec<Proxy>,
}

impl SharedDatabase {
    /// A server of its own, with an empty database and a way to it for each node.
    pub async fn start(nodes: usize) -> SharedDatabase {
        let cluster = tokio::task::spawn_blocking(Cluster::start)
            .await
            .expect("it starts");
        let mut proxies = Vec::new();
        for _ in 0..nodes {
            proxies.push(Proxy::to(cluster.port()).await);
        }
        cluster.psql("postgres", "CREATE DATABASE dormouse");
        SharedDatabase {
            cluster: Arc::new(cluster),
            proxies,
        }
    }

    /// What each node is started with.
    pub fn arguments(&self) -> Vec<Vec<String>> {
        let direct = self.cluster.url("dormouse");
        let url = |proxy: &Proxy| proxy.url(&direct);
        let arguments = |proxy| vec!["--database-url".to_owned(), url(proxy)];
        self.proxies.iter().map(arguments).collect()
    }

    /// Stops the server as by a power cut.
    pub async fn down(&self) {
        let cluster = Arc::clone(&self.cluster);
        let stopped =
            tokio::task::spawn_blocking(move || cluster.stop(dormouse_testing_postgres::Stop::Immediate));
        stopped.await.expect("it stops");
    }

    /// A standby that has all that the server says is committed.
    pub async fn standby(&self) -> Cluster {
        let cluster = Arc::clone(&self.cluster);
        let started = tokio::task::spawn_blocking(move || cluster.standby());
        started.await.expect("it starts")
    }

    /// Makes the standby the server, and leads each way to it.
    pub async fn promote(&self, standby: Cluster) -> Cluster {
        let promoted = tokio::task::spawn_blocking(move || {
            standby.promote();
            standby
        });
        let promoted = promoted.await.expect("it is promoted");
        for proxy in &self.proxies {
            proxy.lead_to(promoted.port());
        }
        promoted
    }

    /// Starts it again.
    pub async fn up(&self) {
        let cluster = Arc::clone(&self.cluster);
        let started = tokio::task::spawn_blocking(move || cluster.resume());
        started.await.expect("it starts");
    }
}

/// Who carries a plan out.
pub struct Nemesis {
    /// The nodes.
    pub fleet: Fleet,
    database: Option<SharedDatabase>,
    client: Client,
    module: &'static str,
    versions: Vec<Vec<u8>>,
    down: Vec<bool>,
    /// Since when a node stands still.
    stopped: Vec<Option<Instant>>,
    deploys: Vec<tokio::task::JoinHandle<String>>,
    woken: Vec<Instant>,
    done: Vec<Act>,
}

impl Nemesis {
    /// Of these nodes; `versions` are deployed in turn as the module. The first is taken as deployed.
    pub fn new(
        fleet: Fleet,
        database: Option<SharedDatabase>,
        module: &'static str,
        versions: Vec<Vec<u8>>,
    ) -> Nemesis {
        Nemesis {
            client: fleet.client(),
            down: vec![false; fleet.nodes.len()],
            stopped: vec![None; fleet.nodes.len()],
            fleet,
            database,
            module,
            versions,
            deploys: Vec::new(),
            woken: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Does what the plan says, when it says. Afterwards nothing is wrong any more.
    pub async fn work(&mut self, plan: &[(u64, Act)]) {
        let began = tokio::time::Instant::now();
        for (at, act) in plan {
            let due = began + Duration::from_millis(*at);
            while tokio::time::Instant::now() < due {
                self.revive();
                tokio::time::sleep_until(due.min(tokio::time::Instant::now() + TICK)).await;
            }
            self.act(*act).await;
            self.done.push(*act);
        }
        for mut deploy in std::mem::take(&mut self.deploys) {
            // A node that was away for too long ends when it finds that out, which may be after the last act: it is started
            // again meanwhile, or there may be none left that could take the version.
            let deployed = loop {
                self.revive();
                if let Ok(deployed) = tokio::time::timeout(TICK, &mut deploy).await {
                    break deployed;
                }
            };
            if let Err(error) = deployed {
                panic!("{error}\n{}\n{}", self.summary(), self.fleet.log_tails(60));
            }
        }
    }

    /// Starts again what has ended by itself; to be called from time to time.
    pub fn revive(&mut self) {
        let down = &self.down;
        self.fleet.revive(|node| down[node]);
    }

    /// When nodes went on that had been stopped for so long that others may have their runs.
    pub fn woken(&self) -> &[Instant] {
        &self.woken
    }

    /// # Panics
    /// When something has not gone wrong that should have, or fewer answers were lost than `answers`.
    pub fn has_worked(&self, appetite: &Appetite, answers: u32) {
        let done = |of: fn(&Act) -> bool| self.done.iter().any(of);
        let happened = [
            done(|act| matches!(act, Act::Kill(_))),
            done(|act| matches!(act, Act::Continue(_))),
            !self.woken.is_empty(),
            done(|act| matches!(act, Act::Mend(_))),
            self.answers_lost() >= answers,
            done(|act| matches!(act, Act::DatabaseUp)),
            done(|act| matches!(act, Act::Deploy)),
        ];
        let mut missing = appetite.wanted().into_iter().zip(happened);
        assert!(
            missing.all(|(wanted, happened)| happened || !wanted),
            "not all has gone wrong that should have: {}",
            self.summary()
        );
    }

    /// How often each kind of act was carried out, for people.
    pub fn summary(&self) -> String {
        let count = |of: fn(&Act) -> bool| self.done.iter().filter(|act| of(act)).count();
        format!(
            "{} kills, {} stops ({} long), {} cuts, {} answers to commits lost, {} restarts of the database, {} deploys, \
             nodes gave up {} times",
            count(|act| matches!(act, Act::Kill(_))),
            count(|act| matches!(act, Act::Stop(_))),
            self.woken.len(),
            count(|act| matches!(act, Act::Cut(..))),
            self.answers_lost(),
            count(|act| matches!(act, Act::DatabaseUp)),
            count(|act| matches!(act, Act::Deploy)),
            self.fleet.gave_up(),
        )
    }

    /// How many commits were made whose answer was lost.
    pub fn answers_lost(&self) -> u32 {
        let proxies = self.database.iter().flat_map(|database| &database.proxies);
        proxies.map(Proxy::answers_lost).sum()
    }

    fn database(&self) -> &SharedDatabase {
        self.database.as_ref().expect("there is a database to harm")
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Kill(node) => {
                self.down[node] = true;
                self.fleet.nodes[node].kill();
            }
            Act::Start(node) => {
                self.down[node] = false;
                self.revive();
            }
            Act::Stop(node) => {
                self.signal(node, "STOP");
                self.stopped[node] = Some(Instant::now());
            }
            Act::Continue(node) => {
                let since = self.stopped[node].take();
                self.signal(node, "CONT");
                if self.fleet.nodes.len() > 1 && since.is_some_and(|since| since.elapsed() > LONG_STOP) {
                    self.woken.push(Instant::now());
                }
            }
            Act::Cut(node, way) => self.database().proxies[node].set(way),
            Act::Mend(node) => self.database().proxies[node].set(Way::Open),
            Act::LoseAnswer(node) => self.database().proxies[node].lose_answer(),
            Act::DatabaseDown => self.database().down().await,
            Act::DatabaseUp => self.database().up().await,
            Act::Deploy => {
                let version = self.versions[(self.deploys.len() + 1) % self.versions.len()].clone();
                let (client, module) = (self.client.clone(), self.module);
                // The plan goes on meanwhile: the nodes may all be down.
                let deploy = tokio::spawn(async move { client.deploy(module, &version).await });
                self.deploys.push(deploy);
            }
        }
    }

    /// To a process that may have ended by itself.
    fn signal(&mut self, node: usize, signal: &str) {
        self.revive();
        if self.fleet.nodes[node].has_process() {
            self.fleet.nodes[node].signal(signal);
        }
    }
}
