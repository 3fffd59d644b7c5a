//! What the store can do beside what the machine can do, measured in the same run.
//!
//! Prints one JSON object per line: `{"bench","metric","value","unit"}`. `DORMOUSE_BENCH_SECONDS` is the length of
//! each timed part (default 3), `DORMOUSE_BENCH_ONLY` the beginning of the names to measure (default all). With
//! `DORMOUSE_BENCH_DATABASE_URL=postgres://…`, the store is the one on that database, whose contents are deleted. Nothing
//! is asserted: a slow machine is not a failure.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dormouse_core::journal::{Entry, Event, OperationKind, Record};
use dormouse_core::run::Wait;
use dormouse_core::{Digest, EventId, Json, RunId, Seq, Timestamp};
use dormouse_store::execute::{Append, Appended, Then};
use dormouse_store::ingest::{Ingest, NewEvent, NewRun};
use dormouse_store::registry::NewVersion;
use dormouse_store::schedule::{Claim, FireTimers, Incarnation, NewNode};
use dormouse_store::sqlite::{Options, SqliteStore};
use dormouse_store::{PostgresStore, Store, postgres};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

const NODE: Incarnation = Incarnation([1; 16]);

fn report(bench: &str, metric: &str, value: f64, unit: &str) {
    let value = (value * 1000.0).round() / 1000.0;
    println!(
        "{}",
        serde_json::json!({ "bench": bench, "metric": metric, "value": value, "unit": unit })
    );
}

fn length() -> Duration {
    let seconds = std::env::var("DORMOUSE_BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(3.0);
    Duration::from_secs_f64(seconds)
}

/// CPU time of this process in microseconds, as the scheduler counts it over all threads.
fn cpu_micros() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanos = tasks.flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1000.0
}

/// Microseconds, sorted on demand.
#[derive(Default)]
struct Latencies(Vec<f64>);

impl Latencies {
    fn report(mut self, bench: &str) {
        if self.0.is_empty() {
            return;
        }
        self.0.sort_unstable_by(f64::total_cmp);
        for (metric, share) in [("p50", 0.5), ("p99", 0.99)] {
            let index = ((self.0.len() - 1) as f64 * share) as usize;
            report(bench, metric, self.0[index] / 1000.0, "ms");
        }
    }
}

/// How often the disk says that 4 KiB are durable.
fn fdatasync(dir: &Path) {
    let mut file = std::fs::File::create(dir.join("fdatasync")).expect("creates");
    let page = [7; 4096];
    let mut latencies = Latencies::default();
    let began = Instant::now();
    while began.elapsed() < length() {
        let one = Instant::now();
        file.write_all(&page)
            .and_then(|()| file.sync_data())
            .expect("writes");
        latencies.0.push(one.elapsed().as_secs_f64() * 1e6);
    }
    report(
        "ceiling/fdatasync",
        "rate",
        latencies.0.len() as f64 / began.elapsed().as_secs_f64(),
        "1/s",
    );
    latencies.report("ceiling/fdatasync");
}

/// Rows of three tables in batches, by one connection that does nothing else: what group commit can come near.
async fn raw_insert(dir: &Path, batch: usize) {
    let path = dir.join(format!("raw-{batch}.db"));
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "4000")
        .disable_statement_logging();
    let mut conn = options.connect().await.expect("opens");
    let tables = ["event", "run", "entry"];
    for table in tables {
        let text = format!(
            "CREATE TABLE {table} (id BLOB, seq INTEGER, body TEXT, PRIMARY KEY (id, seq)) STRICT, WITHOUT ROWID"
        );
        sqlx::query(sqlx::AssertSqlSafe(text))
            .execute(&mut conn)
            .await
            .expect("creates");
    }
    let values = vec!["(?,?,?)"; batch].join(",");
    let texts: Vec<Arc<str>> = tables
        .iter()
        .map(|table| format!("INSERT INTO {table} VALUES {values}").into())
        .collect();
    let body = "x".repeat(200);
    let (mut rows, mut number) = (0_u64, 0_u64);
    let cpu = cpu_micros();
    let began = Instant::now();
    while began.elapsed() < length() {
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut conn)
            .await
            .expect("begins");
        for text in &texts {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(Arc::clone(text)));
            for _ in 0..batch {
                number += 1;
                query = query
                    .bind(number.to_be_bytes().repeat(2))
                    .bind(0_i64)
                    .bind(body.clone());
            }
            query.execute(&mut conn).await.expect("inserts");
            rows += batch as u64;
        }
        sqlx::query("COMMIT").execute(&mut conn).await.expect("commits");
    }
    let name = format!("ceiling/mixed-insert/{batch}");
    report(
        &name,
        "rate",
        rows as f64 / began.elapsed().as_secs_f64(),
        "rows/s",
    );
    report(&name, "cpu", (cpu_micros() - cpu) / rows as f64, "us/row");
    conn.close().await.expect("closes");
}

fn database_url() -> Option<String> {
    std::env::var("DORMOUSE_BENCH_DATABASE_URL").ok()
}

/// Deletes what is in a database.
async fn empty(url: &str) {
    let mut conn = sqlx::PgConnection::connect(url).await.expect("connects");
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .execute(&mut conn)
        .await
        .expect("may drop the schema");
    conn.close().await.expect("closes");
}

/// One trip to the server on a connection of sqlx' own, beside which the store's trips are to be seen.
async fn trip(url: &str) {
    let mut conn = sqlx::PgConnection::connect(url).await.expect("connects");
    let cpu = cpu_micros();
    let began = Instant::now();
    let mut latencies = Latencies::default();
    while began.elapsed() < length() {
        let one = Instant::now();
        sqlx::query("SELECT 1").execute(&mut conn).await.expect("answers");
        latencies.0.push(one.elapsed().as_secs_f64() * 1e6);
    }
    let trips = latencies.0.len() as f64;
    report("ceiling/trip", "cpu", (cpu_micros() - cpu) / trips, "us/trip");
    latencies.report("ceiling/trip");
    conn.close().await.expect("closes");
}

/// A store with one module, and ids for its runs.
struct Bench {
    store: Arc<dyn Store>,
    digest: Digest,
    generation: i64,
    ids: AtomicU64,
    clock: Instant,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new(place: &Path) -> Arc<Bench> {
        let dir = tempfile::tempdir_in(place).expect("a directory");
        let store: Arc<dyn Store> = match database_url() {
            None => Arc::new(SqliteStore::open(Options::new(dir.path())).await.expect("opens")),
            Some(url) => {
                empty(&url).await;
                let options = postgres::Options {
                    // Nobody says that the bench lives.
                    lease: Duration::from_secs(24 * 3600),
                    ..postgres::Options::new(url)
                };
                Arc::new(PostgresStore::open(options).await.expect("opens"))
            }
        };
        let clock = Instant::now();
        let digest = Digest::of(b"bench");
        let mut bench = Bench {
            store,
            digest,
            generation: 0,
            ids: AtomicU64::new(0),
            clock,
            _dir: dir,
        };
        let node = NewNode {
            incarnation: NODE,
            name: "bench".to_owned(),
            release: "0".to_owned(),
            url: String::new(),
        };
        bench.store.join(node, bench.now()).await.expect("joins");
        let version = NewVersion {
            module: "bench".to_owned(),
            digest,
            manifest: Json::trusted("{}"),
            size: 1,
            uploaded_by: "bench".to_owned(),
            message: None,
            activate: true,
            policy: None,
            now: bench.now(),
        };
        bench.generation = bench.store.put_version(version).await.expect("stores").generation;
        Arc::new(bench)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_790_000_000_000 + self.clock.elapsed().as_millis() as i64)
    }

    fn id(&self) -> [u8; 10] {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.ids.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        random
    }

    /// `events` events with one run each.
    fn ingest(&self, events: usize, lease: Option<Incarnation>) -> Ingest {
        let now = self.now();
        let mut ingest = Ingest {
            events: Vec::new(),
            runs: Vec::new(),
            generation: self.generation,
            now,
        };
        for _ in 0..events {
            let event = EventId::from_parts(now, self.id());
            let run = RunId::from_parts(now, self.id());
            let data = "x".repeat(100);
            ingest.events.push(NewEvent {
                id: event,
                name: "bench/begun".to_owned(),
                external_id: None,
                ts: now,
                received_at: now,
                payload: Json::trusted(format!(
                    "{{\"id\":\"{event}\",\"name\":\"bench/begun\",\"data\":\"{data}\"}}"
                )),
            });
            ingest.runs.push(NewRun {
                id: run,
                function: "bench/function".parse().expect("a name"),
                version: self.digest,
                config_revision: 1,
                event_id: event,
                dedupe: None,
                admission: Default::default(),
                seed: [1; 32],
                start_at: now,
                lease,
                rerun_of: None,
                parent: None,
                depth: 0,
                held: false,
                copy: None,
                ends: Default::default(),
            });
        }
        ingest
    }

    async fn begin(&self) -> RunId {
        let ingest = self.ingest(1, Some(NODE));
        let run = ingest.runs[0].id;
        self.store.ingest(ingest).await.expect("ingests");
        run
    }

    fn step(&self, seq: Seq) -> Record {
        let at = self.now();
        let outcome = Ok(Json::trusted(format!("\"{}\"", "x".repeat(100))));
        let event = Event::Step {
            name: format!("step {seq}"),
            occurrence: 0,
            attempt: 1,
            started_at: at,
            outcome,
        };
        Entry { seq, at, event }.encode()
    }

    async fn append(&self, run: RunId, epoch: i64, records: Vec<Record>, then: Then) {
        let append = Append {
            run,
            owner: NODE,
            epoch,
            records,
            logs: Vec::new(),
            ingest: None,
            waits: Vec::new(),
            signals: Vec::new(),
            swap: None,
            parent: None,
            then,
            now: self.now(),
        };
        assert_eq!(self.store.append(append).await.expect("appends"), Appended::Done);
    }
}

/// Producers that each do one thing after the other, for a while. Reports rate, latencies and CPU.
async fn closed_loop<F, R>(
    name: &str,
    unit: &str,
    bench: &Arc<Bench>,
    producers: usize,
    per_call: u64,
    work: F,
) where
    F: Fn(Arc<Bench>, usize) -> R + Send + Sync + Clone + 'static,
    R: Future<Output = ()> + Send,
{
    let cpu = cpu_micros();
    let began = Instant::now();
    let end = began + length();
    let mut tasks = Vec::new();
    for producer in 0..producers {
        let (bench, work) = (Arc::clone(bench), work.clone());
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let one = Instant::now();
                work(Arc::clone(&bench), producer).await;
                latencies.push(one.elapsed().as_secs_f64() * 1e6);
            }
            latencies
        }));
    }
    let mut latencies = Latencies::default();
    for task in tasks {
        latencies.0.extend(task.await.expect("no panic"));
    }
    let done = latencies.0.len() as f64 * per_call as f64;
    report(
        name,
        "rate",
        done / began.elapsed().as_secs_f64(),
        &format!("{unit}/s"),
    );
    report(name, "cpu", (cpu_micros() - cpu) / done, &format!("us/{unit}"));
    latencies.report(name);
}

/// One entry after the other on long-lived runs.
async fn appends(place: &Path, producers: usize) {
    let bench = Bench::new(place).await;
    let mut runs = Vec::new();
    for _ in 0..producers {
        runs.push((bench.begin().await, AtomicU64::new(0)));
    }
    let runs = Arc::new(runs);
    closed_loop(
        &format!("store/append/{producers}"),
        "entry",
        &bench,
        producers,
        1,
        move |bench, producer| {
            let runs = Arc::clone(&runs);
            async move {
                let (run, next) = &runs[producer];
                let record = bench.step(next.fetch_add(1, Ordering::Relaxed) as Seq);
                bench.append(*run, 1, vec![record], Then::Continue).await;
            }
        },
    )
    .await;
    bench.store.close().await;
}

/// A run with one step: event and run in one commit, step and end in another.
async fn trivial_runs(place: &Path, producers: usize) {
    let bench = Bench::new(place).await;
    closed_loop(
        &format!("store/run-of-one-step/{producers}"),
        "run",
        &bench,
        producers,
        1,
        |bench, _| async move {
            let run = bench.begin().await;
            let then = Then::Complete {
                output: Json::trusted("1"),
            };
            let record = bench.step(0);
            bench.append(run, 1, vec![record], then).await;
        },
    )
    .await;
    bench.store.close().await;
}

async fn ingests(place: &Path, producers: usize) {
    let bench = Bench::new(place).await;
    let name = format!("store/ingest-of-100/{producers}");
    closed_loop(&name, "event", &bench, producers, 100, |bench, _| async move {
        let ingest = bench.ingest(100, None);
        bench.store.ingest(ingest).await.expect("ingests");
    })
    .await;
    bench.store.close().await;
}

/// Runs that are ready are claimed in batches.
async fn claims(place: &Path) {
    const RUNS: usize = 20_000;
    let bench = Bench::new(place).await;
    for _ in 0..RUNS / 1000 {
        bench
            .store
            .ingest(bench.ingest(1000, None))
            .await
            .expect("ingests");
    }
    let cpu = cpu_micros();
    let began = Instant::now();
    let mut claimed = 0;
    while claimed < RUNS {
        let batch = bench
            .store
            .claim(Claim {
                node: NODE,
                limit: 100,
                versions: None,
                now: bench.now(),
            })
            .await
            .expect("claims");
        claimed += batch.claimed.len();
    }
    report(
        "store/claim-of-100",
        "rate",
        RUNS as f64 / began.elapsed().as_secs_f64(),
        "run/s",
    );
    report(
        "store/claim-of-100",
        "cpu",
        (cpu_micros() - cpu) / RUNS as f64,
        "us/run",
    );
    bench.store.close().await;
}

/// What a node asks once a second about the runs it drives or follows.
async fn glances(place: &Path) {
    let bench = Bench::new(place).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let ingest = bench.ingest(1000, None);
        ids.extend(ingest.runs.iter().map(|run| run.id));
        bench.store.ingest(ingest).await.expect("ingests");
    }
    for asked in [1, 100, 1000] {
        let picked: Vec<RunId> = ids
            .iter()
            .step_by(ids.len() / asked)
            .copied()
            .take(asked)
            .collect();
        let picked: Arc<[RunId]> = picked.into();
        let name = format!("store/glance-of-{asked}");
        closed_loop(&name, "run", &bench, 1, asked as u64, move |bench, _| {
            let picked = Arc::clone(&picked);
            async move {
                let seen = bench.store.glance(&picked).await.expect("reads");
                assert_eq!(seen.len(), picked.len());
            }
        })
        .await;
    }
    bench.store.close().await;
}

/// Ten thousand sleeping runs wake at once, a thousand per commit.
async fn wakes(place: &Path) {
    const RUNS: usize = 10_000;
    let bench = Bench::new(place).await;
    let due = bench.now();
    for _ in 0..RUNS / 1000 {
        let ingest = bench.ingest(1000, Some(NODE));
        let ids: Vec<RunId> = ingest.runs.iter().map(|run| run.id).collect();
        bench.store.ingest(ingest).await.expect("ingests");
        let mut tasks = Vec::new();
        for run in ids {
            let bench = Arc::clone(&bench);
            tasks.push(tokio::spawn(async move {
                let at = bench.now();
                let event = Event::Started {
                    kind: OperationKind::Sleep,
                    name: "sleep".to_owned(),
                    occurrence: 0,
                    input_hash: 1,
                    input: Json::trusted("1000"),
                    due_at: Some(due),
                };
                let record = Entry { seq: 0, at, event }.encode();
                let reason = "sleeps".to_owned();
                let then = Then::Suspend {
                    wait: Wait::Sleep,
                    reason,
                    wake_at: Some(due),
                    known: vec![],
                };
                bench.append(run, 1, vec![record], then).await;
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    }
    let cpu = cpu_micros();
    let began = Instant::now();
    let mut latencies = Latencies::default();
    for _ in 0..RUNS / 1000 {
        let one = Instant::now();
        let fire = FireTimers {
            node: NODE,
            now: bench.now(),
            limit: 1000,
            claim_limit: 1000,
            versions: None,
        };
        assert_eq!(
            bench.store.fire_timers(fire).await.expect("fires").claimed.len(),
            1000
        );
        latencies.0.push(one.elapsed().as_secs_f64() * 1e6);
    }
    report(
        "store/fire-of-1000",
        "rate",
        RUNS as f64 / began.elapsed().as_secs_f64(),
        "run/s",
    );
    report(
        "store/fire-of-1000",
        "cpu",
        (cpu_micros() - cpu) / RUNS as f64,
        "us/run",
    );
    latencies.report("store/fire-of-1000");
    let one = Instant::now();
    for _ in 0..200 {
        bench
            .store
            .fire_timers(FireTimers {
                node: NODE,
                now: due,
                limit: 100,
                claim_limit: 100,
                versions: None,
            })
            .await
            .expect("fires");
    }
    report(
        "store/fire-nothing-due",
        "time",
        one.elapsed().as_secs_f64() * 1e6 / 200.0,
        "us",
    );
    bench.store.close().await;
}

/// Opening a fresh data directory, and one that is there.
async fn opening(place: &Path) {
    let dir = tempfile::tempdir_in(place).expect("a directory");
    for metric in ["fresh", "again"] {
        let began = Instant::now();
        let store = SqliteStore::open(Options::new(dir.path())).await.expect("opens");
        report("store/open", metric, began.elapsed().as_secs_f64() * 1e3, "ms");
        store.close().await;
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // On the disk of the target directory: the system's temporary directory may be memory.
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let place = place.path();
    let only = std::env::var("DORMOUSE_BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| name.starts_with(&only);
    if wanted("ceiling") {
        fdatasync(place);
        for batch in [1, 64, 256] {
            raw_insert(place, batch).await;
        }
    }
    if let Some(url) = database_url().filter(|_| wanted("ceiling")) {
        trip(&url).await;
    }
    if wanted("store/open") && database_url().is_none() {
        opening(place).await;
    }
    for producers in [1, 64, 256] {
        if wanted(&format!("store/append/{producers}")) {
            appends(place, producers).await;
        }
    }
    for producers in [1, 64, 256] {
        if wanted(&format!("store/run-of-one-step/{producers}")) {
            trivial_runs(place, producers).await;
        }
    }
    for producers in [1, 8] {
        if wanted(&format!("store/ingest-of-100/{producers}")) {
            ingests(place, producers).await;
        }
    }
    if wanted("store/claim") {
        claims(place).await;
    }
    if wanted("store/glance") {
        glances(place).await;
    }
    if wanted("store/fire") {
        wakes(place).await;
    }
    if wanted("ceiling") {
        // Again, so that it says whether the machine was the same at the end.
        fdatasync(place);
    }
}
