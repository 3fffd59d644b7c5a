//! What checks start from: a node, a module with one active version, and short ways to make events, runs and entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dormouse_core::journal::{Entry, Event, OperationKind, Record};
use dormouse_core::run::Wait;
use dormouse_core::{Digest, EventId, FunctionName, Json, RunId, Seq, Timestamp};

use crate::contract::Store;
use crate::execute::{Append, Appended, Then};
use crate::ingest::{Created, Ingest, NewEvent, NewRun};
use crate::read::Run;
use crate::registry::NewVersion;
use crate::schedule::{Claim, ClaimedRun, FireTimers, Fired, Incarnation, NewNode};

/// The time at which all checks begin.
const BEGIN: i64 = 1_790_000_000_000;

/// Milliseconds after the beginning.
pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(BEGIN + millis)
}

pub(super) fn json(text: &str) -> Json {
    Json::trusted(text)
}

pub(super) fn function(name: &str) -> FunctionName {
    name.parse().expect("a function's name")
}

pub(super) fn node(number: u8) -> NewNode {
    NewNode {
        incarnation: Incarnation([number; 16]),
        name: format!("host-{number}:1"),
        release: "0.1.0".to_owned(),
        url: format!("http://host-{number}:8288"),
    }
}

pub(super) fn version(module: &str, digest: Digest, activate: bool, now: Timestamp) -> NewVersion {
    NewVersion {
        module: module.to_owned(),
        digest,
        manifest: json(r#"{"functions":[]}"#),
        size: 7,
        uploaded_by: "conformance".to_owned(),
        message: Some("for a check".to_owned()),
        activate,
        policy: None,
        now,
    }
}

/// A store with a node and the module `shop`.
pub(super) struct Fixture {
    pub(super) store: Arc<dyn Store>,
    pub(super) node: Incarnation,
    pub(super) digest: Digest,
    pub(super) generation: i64,
    next_id: AtomicU64,
}

impl Fixture {
    pub(super) async fn on(store: Arc<dyn Store>) -> Fixture {
        let node = node(1);
        store.join(node.clone(), at(0)).await.expect("joins");
        let digest = Digest::of(b"shop, first version");
        let stored = store
            .put_version(version("shop", digest, true, at(0)))
            .await
            .expect("stores a version");
        let next_id = AtomicU64::new(1);
        Fixture {
            store,
            node: node.incarnation,
            digest,
            generation: stored.generation,
            next_id,
        }
    }

    fn id(&self) -> (Timestamp, [u8; 10]) {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        (at(number as i64), random)
    }

    pub(super) fn event(&self, name: &str) -> NewEvent {
        let (time, random) = self.id();
        let id = EventId::from_parts(time, random);
        NewEvent {
            id,
            name: name.to_owned(),
            external_id: None,
            ts: at(0),
            received_at: time,
            payload: json(&format!(r#"{{"id":"{id}","name":"{name}","data":{{}}}}"#)),
        }
    }

    pub(super) fn run(&self, event: EventId, name: &str) -> NewRun {
        let (time, random) = self.id();
        NewRun {
            id: RunId::from_parts(time, random),
            function: function(name),
            version: self.digest,
            config_revision: 1,
            event_id: event,
            dedupe: None,
            admission: Default::default(),
            seed: [7; 32],
            start_at: at(0),
            lease: None,
            rerun_of: None,
            parent: None,
            depth: 0,
            held: false,
            copy: None,
            ends: Default::default(),
        }
    }

    pub(super) fn ingest(&self, events: Vec<NewEvent>, runs: Vec<NewRun>, now: Timestamp) -> Ingest {
        Ingest {
            events,
            runs,
            generation: self.generation,
            now,
        }
    }

    /// One event and one run of it, changed as the caller likes.
    pub(super) async fn create(&self, now: Timestamp, change: impl FnOnce(&mut NewRun)) -> (RunId, Created) {
        let event = self.event("shop/ordered");
        let mut run = self.run(event.id, "shop/order");
        run.start_at = now;
        change(&mut run);
        let id = run.id;
        let created = self
            .store
            .ingest(self.ingest(vec![event], vec![run], now))
            .await
            .expect("ingests");
        assert_eq!(created.len(), 1);
        (id, created[0])
    }

    /// A run that is ready.
    pub(super) async fn ready(&self, now: Timestamp) -> RunId {
        let (id, created) = self.create(now, |_| {}).await;
        assert_eq!(created, Created::New { leased: false });
        id
    }

    /// A run that was born leased to the node, under epoch 1.
    pub(super) async fn leased(&self, now: Timestamp) -> RunId {
        let (id, created) = self.create(now, |run| run.lease = Some(self.node)).await;
        assert_eq!(created, Created::New { leased: true });
        id
    }

    pub(super) async fn claim(&self, limit: u32, now: Timestamp) -> Vec<ClaimedRun> {
        let claim = Claim {
            node: self.node,
            limit,
            versions: None,
            now,
        };
        let batch = self.store.claim(claim).await.expect("claims");
        assert_eq!(batch.blocked, []);
        batch.claimed
    }

    pub(super) async fn fire(&self, now: Timestamp, limit: u32, claim_limit: u32) -> Fired {
        let fire = FireTimers {
            node: self.node,
            now,
            limit,
            claim_limit,
            versions: None,
        };
        self.store.fire_timers(fire).await.expect("fires timers")
    }

    pub(super) fn append_of(
        &self,
        run: RunId,
        epoch: i64,
        records: Vec<Record>,
        then: Then,
        now: Timestamp,
    ) -> Append {
        Append {
            run,
            owner: self.node,
            epoch,
            records,
            logs: Vec::new(),
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            swap: None,
            parent: None,
            then,
            now,
        }
    }

    pub(super) async fn append(&self, run: RunId, epoch: i64, records: Vec<Record>, then: Then) -> Appended {
        let append = self.append_of(run, epoch, records, then, at(500));
        self.store.append(append).await.expect("appends")
    }

    pub(super) async fn get(&self, run: RunId) -> Run {
        self.store
            .run(run)
            .await
            .expect("reads")
            .expect("the run is there")
    }
}

pub(super) fn suspend(wake_at: Option<Timestamp>) -> Then {
    Then::Suspend {
        wait: Wait::Sleep,
        reason: "sleeps".to_owned(),
        wake_at,
        known: Vec::new(),
    }
}

fn record(seq: Seq, event: Event) -> Record {
    Entry {
        seq,
        at: at(100 + i64::from(seq)),
        event,
    }
    .encode()
}

pub(super) fn step(seq: Seq, output: &str) -> Record {
    record(
        seq,
        Event::Step {
            name: format!("step {seq}"),
            occurrence: 0,
            attempt: 1,
            started_at: at(99),
            outcome: Ok(json(output)),
        },
    )
}

pub(super) fn sleep(seq: Seq) -> Record {
    record(
        seq,
        Event::Started {
            kind: OperationKind::Sleep,
            name: format!("sleep {seq}"),
            occurrence: 0,
            input_hash: 42,
            input: json("1000"),
            due_at: Some(at(1000)),
        },
    )
}

pub(super) fn delivered(seq: Seq, operation: Seq) -> Record {
    record(
        seq,
        Event::Delivered {
            operation,
            outcome: Ok(Json::null()),
        },
    )
}

pub(super) fn cancelled(seq: Seq, operation: Seq) -> Record {
    record(seq, Event::Cancelled { operation })
}
