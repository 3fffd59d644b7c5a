//! The process that is killed: it works on a store and says on stdout what was acknowledged, one line each.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dormouse_core::journal::{Entry, Event, Record};
use dormouse_core::{Digest, EventId, Json, RunId, Seq, Timestamp};
use dormouse_store::execute::{Append, Appended, Then};
use dormouse_store::ingest::{Created, Ingest, NewEvent, NewRun};
use dormouse_store::registry::NewVersion;
use dormouse_store::schedule::{Incarnation, NewNode};
use dormouse_store::sqlite::{Options, SqliteStore};
use dormouse_store::{Error, Store};

/// The component every child uploads.
pub(crate) const COMPONENT: &[u8] = b"\0asm, as far as a store cares";
/// Producers at a time: enough to share commits.
const PRODUCERS: usize = 8;

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis() as i64)
}

/// An entry whose content follows from its place, so that it can be checked.
pub(crate) fn entry(run: RunId, seq: Seq) -> Record {
    let at = run.time();
    // Every ninth is a large one, which is kept elsewhere.
    let length = if seq % 9 == 8 { 70_000 } else { 100 };
    let output = Json::trusted(format!("\"{run} {seq} {}\"", "x".repeat(length)));
    let name = format!("step {seq}");
    Entry {
        seq,
        at,
        event: Event::Step {
            name,
            occurrence: 0,
            attempt: 1,
            started_at: at,
            outcome: Ok(output),
        },
    }
    .encode()
}

pub(crate) fn options(dir: PathBuf) -> Options {
    // A checkpoint every few commits, so that kills meet them too.
    Options {
        checkpoint_pages: 100,
        ..Options::new(dir)
    }
}

pub(crate) struct Worker {
    pub(crate) store: Arc<SqliteStore>,
    node: Incarnation,
    generation: i64,
    next: AtomicU64,
}

impl Worker {
    /// Opens the store and joins it.
    pub(crate) async fn open(dir: PathBuf) -> Result<Worker, Error> {
        let store = Arc::new(SqliteStore::open(options(dir)).await?);
        let mut incarnation = [0; 16];
        incarnation[..4].copy_from_slice(&std::process::id().to_be_bytes());
        incarnation[8..].copy_from_slice(&now().as_millis_u64().to_be_bytes());
        let node = Incarnation(incarnation);
        store
            .join(
                NewNode {
                    incarnation: node,
                    name: "child".to_owned(),
                    release: "0".to_owned(),
                    url: String::new(),
                },
                now(),
            )
            .await?;
        while store.take_over(1000, now()).await? > 0 {}
        let digest = Digest::of(COMPONENT);
        store.put_component(digest, COMPONENT).await?;
        let stored = store
            .put_version(NewVersion {
                module: "shop".to_owned(),
                digest,
                manifest: Json::trusted("{}"),
                size: COMPONENT.len() as u64,
                uploaded_by: "child".to_owned(),
                message: None,
                activate: true,
                policy: None,
                now: now(),
            })
            .await?;
        Ok(Worker {
            store,
            node,
            generation: stored.generation,
            next: AtomicU64::new(0),
        })
    }

    fn id(&self) -> [u8; 10] {
        let mut random = [0; 10];
        random[..2].copy_from_slice(&self.node.0[2..4]);
        random[2..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        random
    }

    /// An event and its run, leased to this process.
    pub(crate) async fn begin(&self) -> Result<RunId, Error> {
        let now = now();
        let event = EventId::from_parts(now, self.id());
        let run = RunId::from_parts(now, self.id());
        let ingest = Ingest {
            events: vec![NewEvent {
                id: event,
                name: "shop/ordered".to_owned(),
                external_id: None,
                ts: now,
                received_at: now,
                payload: Json::trusted(format!("{{\"id\":\"{event}\"}}")),
            }],
            runs: vec![NewRun {
                id: run,
                function: "shop/order".parse().expect("a name"),
                version: Digest::of(COMPONENT),
                config_revision: 1,
                event_id: event,
                dedupe: None,
                admission: Default::default(),
                seed: [1; 32],
                start_at: now,
                lease: Some(self.node),
                rerun_of: None,
                parent: None,
                depth: 0,
                held: false,
                copy: None,
                ends: Default::default(),
            }],
            generation: self.generation,
            now,
        };
        let created = self.store.ingest(ingest).await?;
        assert_eq!(created, [Created::New { leased: true }]);
        Ok(run)
    }

    pub(crate) async fn append(&self, run: RunId, records: Vec<Record>, then: Then) -> Result<(), Error> {
        let append = Append {
            run,
            owner: self.node,
            epoch: 1,
            records,
            logs: vec![],
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            swap: None,
            parent: None,
            then,
            now: now(),
        };
        assert_eq!(self.store.append(append).await?, Appended::Done);
        Ok(())
    }

    /// One run from its event to its end. Says what is durable, as soon as it is.
    async fn one(&self, producer: u32) -> Result<(), Error> {
        let run = self.begin().await?;
        say(&format!("run {run}"));
        let steps = 1 + producer * 3 % 11;
        for seq in 0..steps {
            self.append(run, vec![entry(run, seq)], Then::Continue).await?;
            say(&format!("entry {run} {seq}"));
        }
        let output = Json::trusted(format!("\"{run}\""));
        self.append(run, vec![entry(run, steps)], Then::Complete { output })
            .await?;
        say(&format!("completed {run}"));
        Ok(())
    }
}

/// One line in one write, so that a kill cannot tear it apart from its meaning.
pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Whoever listened is gone: nothing is left to do but end.
    if stdout
        .write_all(format!("@{line}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(1);
    }
}

/// Works until it is killed, or `rounds` times per producer.
pub(crate) async fn work(dir: PathBuf, rounds: Option<u32>) -> Result<(), Error> {
    let worker = Arc::new(Worker::open(dir).await?);
    say("open");
    let mut producers = Vec::new();
    for producer in 0..PRODUCERS {
        let worker = Arc::clone(&worker);
        producers.push(tokio::spawn(async move {
            let mut round = 0;
            while rounds.is_none_or(|rounds| round < rounds) {
                worker.one(producer as u32 + round).await?;
                round += 1;
            }
            Ok::<(), Error>(())
        }));
    }
    for producer in producers {
        producer.await.expect("no panic")?;
    }
    worker.store.close().await;
    Ok(())
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Full(_) => "full",
        Error::Fatal(_) => "fatal",
        Error::Unavailable(_) => "unavailable",
        _ => "other",
    }
}

/// Goes through the faults that `control` switches on, and says how the store answers.
pub(crate) async fn faults(dir: PathBuf, control: PathBuf) -> Result<(), Error> {
    let fault = |what: &str| std::fs::write(&control, what).expect("writes the control file");
    let mend = || std::fs::remove_file(&control).expect("removes the control file");
    fault("readonly");
    let opened = Worker::open(dir.clone()).await;
    say(&format!(
        "readonly {}",
        opened.as_ref().err().map_or("opened", kind)
    ));
    mend();
    drop(opened);
    let worker = Worker::open(dir).await?;
    let run = worker.begin().await?;
    worker.append(run, vec![entry(run, 0)], Then::Continue).await?;
    say(&format!("entry {run} 0"));
    fault("full");
    let full = worker.append(run, vec![entry(run, 1)], Then::Continue).await;
    say(&format!(
        "full-append {}",
        full.as_ref().err().map_or("done", kind)
    ));
    let full = worker.begin().await;
    say(&format!(
        "full-ingest {}",
        full.as_ref().err().map_or("done", kind)
    ));
    let full = worker.store.probe(now()).await;
    say(&format!(
        "full-probe {}",
        full.as_ref().err().map_or("done", kind)
    ));
    let component = b"another component";
    let full = worker.store.put_component(Digest::of(component), component).await;
    say(&format!(
        "full-component {}",
        full.as_ref().err().map_or("done", kind)
    ));
    say(&format!(
        "full-read {}",
        worker.store.journal(run, 0).await?.len()
    ));
    mend();
    worker.store.probe(now()).await?;
    worker.append(run, vec![entry(run, 1)], Then::Continue).await?;
    say(&format!("entry {run} 1"));
    fault("eio");
    let broken = worker.append(run, vec![entry(run, 2)], Then::Continue).await;
    say(&format!(
        "eio-append {}",
        broken.as_ref().err().map_or("done", kind)
    ));
    mend();
    let after = worker.store.probe(now()).await;
    say(&format!(
        "eio-after {}",
        after.as_ref().err().map_or("done", kind)
    ));
    Ok(())
}
