//! What goes wrong, and when: a plan that a seed repeats, and who carries it out.
//!
//! The plan is pure. Each trouble begins and ends at its own times, so that troubles of different nodes overlap; one node
//! has one trouble at a time.

use std::time::{Duration, Instant};

use super::Dice;
use super::fleet::{Client, Fleet};

/// How often to see whether a node has ended by itself.
const TICK: Duration = Duration::from_millis(100);

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
    /// The next version of the module becomes active.
    Deploy,
}

/// How often a trouble comes, and how long it lasts, in milliseconds from and to.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Between two beginnings.
    pub every: (u64, u64),
    /// From beginning to end.
    pub lasts: (u64, u64),
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appetite {
    /// A node is killed, and started again.
    pub kill: Option<Trouble>,
    /// A node stands still, and goes on.
    pub stop: Option<Trouble>,
    /// A version is deployed; it does not last.
    pub deploy: Option<Trouble>,
}

/// What begins a node's trouble, and what ends it.
type BeginAndEnd = [fn(usize) -> Act; 2];

/// What is done when, in milliseconds from the beginning, in order. All that began also ends.
pub fn plan(dice: &mut Dice, appetite: &Appetite, nodes: usize, length_ms: u64) -> Vec<(u64, Act)> {
    let mut acts = Vec::new();
    // Until when a node has its trouble.
    let mut free = vec![0; nodes];
    // The beginnings of all troubles in the order of time, so that who comes first gets the node.
    let mut beginnings = Vec::new();
    let kinds: [(Option<Trouble>, Option<BeginAndEnd>); 3] = [
        (appetite.kill, Some([Act::Kill, Act::Start])),
        (appetite.stop, Some([Act::Stop, Act::Continue])),
        (appetite.deploy, None),
    ];
    for (trouble, of_node) in kinds {
        let Some(trouble) = trouble else { continue };
        let mut at = dice.within(trouble.every);
        while at < length_ms {
            beginnings.push((at, dice.within(trouble.lasts), of_node));
            at += dice.within(trouble.every);
        }
    }
    beginnings.sort_by_key(|(at, ..)| *at);
    for (at, lasts, of_node) in beginnings {
        let Some([begin, end]) = of_node else {
            acts.push((at, Act::Deploy));
            continue;
        };
        // From a random node on, the first that is well.
        let from = dice.below(nodes as u64) as usize;
        let well = (0..nodes)
            .map(|step| (from + step) % nodes)
            .find(|node| free[*node] <= at);
        if let Some(node) = well {
            acts.push((at, begin(node)));
            acts.push((at + lasts, end(node)));
            free[node] = at + lasts + 1;
        }
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

/// Who carries a plan out.
pub struct Nemesis {
    /// The nodes.
    pub fleet: Fleet,
    client: Client,
    module: &'static str,
    versions: Vec<Vec<u8>>,
    down: Vec<bool>,
    deploys: Vec<tokio::task::JoinHandle<String>>,
    woken: Vec<Instant>,
    done: Vec<Act>,
}

impl Nemesis {
    /// Of these nodes; `versions` are deployed in turn as the module. The first is taken as deployed.
    pub fn new(fleet: Fleet, module: &'static str, versions: Vec<Vec<u8>>) -> Nemesis {
        Nemesis {
            client: fleet.client(),
            down: vec![false; fleet.nodes.len()],
            fleet,
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
        self.revive();
        for deploy in self.deploys.drain(..) {
            deploy.await.expect("the version is deployed");
        }
    }

    /// Starts again what has ended by itself; to be called from time to time.
    pub fn revive(&mut self) {
        let down = &self.down;
        self.fleet.revive(|node| down[node]);
    }

    /// When nodes that had been stopped went on.
    pub fn woken(&self) -> &[Instant] {
        &self.woken
    }

    /// How often each kind of act was carried out, for people.
    pub fn summary(&self) -> String {
        let count = |of: fn(&Act) -> bool| self.done.iter().filter(|act| of(act)).count();
        format!(
            "{} kills, {} stops, {} deploys, {} nodes gave up",
            count(|act| matches!(act, Act::Kill(_))),
            count(|act| matches!(act, Act::Stop(_))),
            count(|act| matches!(act, Act::Deploy)),
            self.fleet.gave_up(),
        )
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
            Act::Stop(node) => self.signal(node, "STOP"),
            Act::Continue(node) => {
                self.signal(node, "CONT");
                self.woken.push(Instant::now());
            }
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
