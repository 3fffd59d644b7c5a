//! A server with some runs in its store, and a client that writes what it is told to.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::journal::{Entry, Event, OperationKind};
use dormouse_core::run::{RunError, Wait};
use dormouse_core::{Digest, EventId, Failure, FunctionName, Json, RunId, Timestamp, event};
use dormouse_server::{Options, Server, Tuning};
use dormouse_store::Store;
use dormouse_store::execute::{Append, LogLine, Then};
use dormouse_store::ingest::{Created, Ingest, NewEvent, NewRun};
use dormouse_store::registry::NewVersion;
use dormouse_store::schedule::{Incarnation, NewNode};
use dormouse_store::sqlite::{Options as SqliteOptions, SqliteStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What stands in for the component that the runs in the store are pinned to: it cannot be loaded.
const SHOP: &[u8] = b"shop";

/// A server that runs until it is dropped.
pub(crate) struct TestServer {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) store: Arc<dyn Store>,
    /// Runs that stood in the store before the server started.
    pub(crate) runs: Runs,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

/// One run of each kind, written by a node that then left.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) completed: RunId,
    pub(crate) failed: RunId,
    /// Until 2100.
    pub(crate) sleeping: RunId,
    /// Backs off until 2100, after one failed attempt.
    pub(crate) backing_off: RunId,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl TestServer {
    pub(crate) async fn start() -> TestServer {
        let dir = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(SqliteOptions::new(dir.path()))
            .await
            .expect("a store");
        let store: Arc<dyn Store> = Arc::new(store);
        let runs = fill(&*store).await;
        let mut options = Options::new(dir.path());
        options.listen = vec![([127, 0, 0, 1], 0).into()];
        let tuning = Tuning {
            store: Some(Arc::clone(&store)),
            ..Tuning::default()
        };
        let server = Server::start(options, tuning).await.expect("the server starts");
        let address = server.addresses()[0];
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        TestServer {
            address,
            store,
            runs,
            stop,
            _dir: dir,
        }
    }

    /// Makes the version of the module `shop` that is kept the active one, as another node would.
    pub(crate) async fn activate_shop(&self) {
        let at = Timestamp::from_millis(1_790_000_000_000);
        let changed = self.store.activate("shop", Digest::of(SHOP), None, at).await;
        changed.expect("activated");
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("the server listens")
    }

    /// Sends a request of bytes as they are, and reads the whole answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // A server that answers early may not read the rest.
        let _ = stream.write_all(request).await;
        read(&mut stream).await
    }

    /// Sends a request.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            self.address
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
        .await
    }

    /// How many events there are, for what must not have stored any.
    pub(crate) async fn events(&self) -> usize {
        let filter = dormouse_store::read::EventFilter {
            limit: 10_000,
            ..Default::default()
        };
        self.store.events(filter).await.expect("events").len()
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a problem, in whichever shape.
    #[track_caller]
    pub(crate) fn problem(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["status"], self.status, "{self:?}");
        assert!(
            json["error"].as_str().is_some_and(|error| !error.is_empty()),
            "{self:?}"
        );
        (self.status, json["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Reads an answer up to the connection's end.
pub(crate) async fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        let mut chunk = [0; 16 << 10];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..count]);
        }
    })
    .await
    .expect("an answer in time");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Fills a store as a node that then leaves.
async fn fill(store: &dyn Store) -> Runs {
    let node = Incarnation([7; 16]);
    let now = Timestamp::from_millis(1_790_000_000_000);
    let late = Timestamp::parse("2099-12-31T00:00:00Z").expect("a time");
    store
        .join(
            NewNode {
                incarnation: node,
                name: "former".to_owned(),
                release: "test".to_owned(),
                url: String::new(),
            },
            now,
        )
        .await
        .expect("joined");
    // A version that is kept but not active: what is uploaded in tests stands alone.
    let shop = Digest::of(SHOP);
    store.put_component(shop, SHOP).await.expect("stored");
    let version = NewVersion {
        module: "shop".to_owned(),
        digest: shop,
        manifest: Json::trusted(
            r#"{"schema":1,"functions":[{"id":"charge"},
            {"id":"leap-day","triggers":[{"cron":"TZ=Europe/Paris 0 0 29 2 *","jitter_ms":30000,"overlap":"queue"}]}]}"#,
        ),
        size: SHOP.len() as u64,
        uploaded_by: "tests".to_owned(),
        message: None,
        activate: false,
        policy: None,
        now,
    };
    store.put_version(version).await.expect("stored");
    let writer = Writer { store, node, now };
    let step = |seq, name: &str, outcome| {
        let event = Event::Step {
            name: name.to_owned(),
            occurrence: 0,
            attempt: 1,
            started_at: now,
            outcome,
        };
        Entry {
            seq,
            at: now.after(Duration::from_millis(40)),
            event,
        }
    };

    let completed = writer.run(1).await;
    let output = Json::trusted(r#"{"message":"Hello <b>you</b>","n":123456789012345678901234567890}"#);
    let entries = vec![step(0, "charge-card", Ok(Json::trusted("7")))];
    writer.append(completed, entries, Then::Complete { output }).await;

    let failed = writer.run(2).await;
    let mut error = RunError::new("guest-panic", "index out of bounds");
    error.step = Some("charge-card".to_owned());
    error.frames = vec!["shop::charge (src/lib.rs:7)".to_owned()];
    let entries = vec![step(
        0,
        "charge-card",
        Err(Failure::terminal("guest-panic", "index out of bounds")),
    )];
    writer.append(failed, entries, Then::Fail { error }).await;

    let sleeping = writer.run(3).await;
    let event = Event::Started {
        kind: OperationKind::Sleep,
        name: "a-long-nap".to_owned(),
        occurrence: 0,
        input_hash: 1,
        input: Json::trusted(r#"{"duration_ms":1}"#),
        due_at: Some(late),
    };
    let entries = vec![
        step(0, "charge-card", Ok(Json::null())),
        Entry {
            seq: 1,
            at: now,
            event,
        },
    ];
    writer
        .append(
            sleeping,
            entries,
            suspend(Wait::Sleep, "sleep \"a-long-nap\"", late),
        )
        .await;

    let backing_off = writer.run(4).await;
    let event = Event::Deferred {
        name: "charge-card".to_owned(),
        occurrence: 0,
        attempt: 1,
        started_at: now,
        failure: Failure::new("card-declined", "try another card"),
        due_at: late,
    };
    let entries = vec![Entry {
        seq: 0,
        at: now.after(Duration::from_millis(5)),
        event,
    }];
    writer
        .append(
            backing_off,
            entries,
            suspend(Wait::BackOff, "step \"charge-card\" failed", late),
        )
        .await;

    store.leave(node, now).await.expect("left");
    Runs {
        completed,
        failed,
        sleeping,
        backing_off,
    }
}

fn suspend(wait: Wait, reason: &str, wake_at: Timestamp) -> Then {
    Then::Suspend {
        wait,
        reason: reason.to_owned(),
        wake_at: Some(wake_at),
        known: Vec::new(),
    }
}

struct Writer<'a> {
    store: &'a dyn Store,
    node: Incarnation,
    now: Timestamp,
}

impl Writer<'_> {
    /// A run, leased to the node.
    async fn run(&self, number: u8) -> RunId {
        let now = self.now;
        let (run, event_id) = (
            RunId::from_parts(now, [number; 10]),
            EventId::from_parts(now, [number; 10]),
        );
        let accepted = event::accept(
            r#"{"name":"shop/order.placed","data":{"id":12345678901234567890123}}"#,
            event_id,
            now,
        )
        .expect("an event");
        let ingest = Ingest {
            events: vec![NewEvent {
                id: event_id,
                name: accepted.name,
                external_id: None,
                ts: now,
                received_at: now,
                payload: accepted.payload,
            }],
            runs: vec![NewRun {
                id: run,
                function: FunctionName::new("shop", "charge").expect("a name"),
                version: Digest::of(SHOP),
                config_revision: 0,
                event_id,
                dedupe: None,
                admission: Default::default(),
                seed: [number; 32],
                start_at: now,
                lease: Some(self.node),
                rerun_of: None,
                parent: None,
                depth: 0,
                held: false,
                copy: None,
                ends: Default::default(),
            }],
            generation: self.store.registry().await.expect("a registry").generation,
            now,
        };
        let created = self.store.ingest(ingest).await.expect("stored");
        assert_eq!(created, [Created::New { leased: true }]);
        run
    }

    async fn append(&self, run: RunId, entries: Vec<Entry>, then: Then) {
        let line = LogLine {
            number: 0,
            at: self.now,
            level: "warn".to_owned(),
            step: Some("charge-card".to_owned()),
            message: "the card is <nearly> expired".to_owned(),
            fields: Some(Json::trusted(r#"{"days":3}"#)),
        };
        let append = Append {
            run,
            owner: self.node,
            epoch: 1,
            records: entries.iter().map(Entry::encode).collect(),
            logs: vec![line],
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            swap: None,
            parent: None,
            then,
            now: self.now,
        };
        let appended = self.store.append(append).await.expect("stored");
        assert_eq!(appended, dormouse_store::execute::Appended::Done);
    }
}
