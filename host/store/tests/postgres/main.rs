//! The Postgres store on real servers: it conforms, behaves as the model, and keeps its word when connections, servers
//! and nodes end.

mod conformance;
mod contention;
mod failover;
mod faults;
mod gathering;
mod limits;
mod load;
mod many;
mod opening;
mod proxy;
mod recovery;
mod slots;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dormouse_core::journal::{Entry, Event, Record};
use dormouse_core::{Digest, EventId, Json, RunId, Seq, Timestamp};
use dormouse_store::Store;
use dormouse_store::execute::{Append, Then};
use dormouse_store::ingest::{Ingest, NewEvent, NewRun};
use dormouse_store::postgres::{Options, PostgresStore};
use dormouse_store::registry::NewVersion;
use dormouse_store::schedule::{Claim, Incarnation, NewNode};

/// What a test waits for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The database's name in a URL.
fn database_of(url: &str) -> &str {
    url.rsplit('/')
        .next()
        .and_then(|rest| rest.split('?').next())
        .expect("a name")
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + millis)
}

fn node(number: u8) -> NewNode {
    NewNode {
        incarnation: Incarnation([number; 16]),
        name: format!("host-{number}:1"),
        release: "0.1.0".to_owned(),
        url: format!("http://host-{number}:8288"),
    }
}

async fn open(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(Options::new(url)).await.expect("opens"))
}

/// A store as one node of it, with the module `shop`.
struct Member {
    store: Arc<PostgresStore>,
    node: Incarnation,
    digest: Digest,
    generation: i64,
}

impl Member {
    async fn join(url: &str, number: u8) -> Member {
        Member::join_on(open(url).await, number).await
    }

    async fn join_on(store: Arc<PostgresStore>, number: u8) -> Member {
        store.join(node(number), at(0)).await.expect("joins");
        let digest = Digest::of(b"shop");
        let version = NewVersion {
            module: "shop".to_owned(),
            digest,
            manifest: Json::trusted("{}"),
            size: 1,
            uploaded_by: "a test".to_owned(),
            message: None,
            activate: true,
            policy: None,
            now: at(0),
        };
        let stored = store.put_version(version).await.expect("stores");
        Member {
            store,
            node: node(number).incarnation,
            digest,
            generation: stored.generation,
        }
    }

    /// An event with one run, born leased or ready.
    fn ingest(&self, leased: bool, dedupe: Option<&str>) -> Ingest {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        let event = EventId::from_parts(at(0), random);
        Ingest {
            events: vec![NewEvent {
                id: event,
                name: "shop/ordered".to_owned(),
                external_id: dedupe.map(str::to_owned),
                ts: at(0),
                received_at: at(0),
                payload: Json::trusted("{}"),
            }],
            runs: vec![NewRun {
                id: RunId::from_parts(at(0), random),
                function: "shop/order".parse().expect("a name"),
                version: self.digest,
                config_revision: 1,
                event_id: event,
                dedupe: dedupe.map(str::to_owned),
                admission: Default::default(),
                seed: [7; 32],
                start_at: at(0),
                lease: leased.then_some(self.node),
                rerun_of: None,
                parent: None,
                depth: 0,
                held: false,
                copy: None,
                ends: Default::default(),
            }],
            generation: self.generation,
            now: at(0),
        }
    }

    async fn create(&self, leased: bool) -> RunId {
        let ingest = self.ingest(leased, None);
        let run = ingest.runs[0].id;
        self.store.ingest(ingest).await.expect("ingests");
        run
    }

    fn append(&self, run: RunId, epoch: i64, records: Vec<Record>, then: Then) -> Append {
        Append {
            run,
            owner: self.node,
            epoch,
            records,
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            swap: None,
            parent: None,
            logs: Vec::new(),
            then,
            now: at(1),
        }
    }

    fn claim(&self, limit: u32) -> Claim {
        Claim {
            node: self.node,
            limit,
            versions: None,
            now: at(2),
        }
    }
}

fn step(seq: Seq, output: &str) -> Record {
    let event = Event::Step {
        name: format!("step {seq}"),
        occurrence: 0,
        attempt: 1,
        started_at: at(0),
        outcome: Ok(Json::trusted(output)),
    };
    Entry {
        seq,
        at: at(1),
        event,
    }
    .encode()
}
