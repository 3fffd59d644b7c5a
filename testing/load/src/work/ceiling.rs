//! What the machine can do: the disk alone, and SQLite with nothing around it.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rusqlite::{Connection, params_from_iter};

use crate::Bench;
use crate::report::Samples;

/// Rows in one commit: as many as producers, and one for each table.
const BATCHES: [usize; 3] = [3, 64, 256];

/// How often the processor does the same work.
const PIECES: usize = 500;

/// The three tables stand for events, runs and entries.
const TABLES: [&str; 3] = ["event", "run", "entry"];

/// Measures all of it.
pub(crate) fn machine(bench: &mut Bench) -> Result<()> {
    let time = Duration::from_secs_f64(bench.seconds / 2.0);
    bench.report.row("a processor: the same work again and again", "");
    let times: Samples = (0..PIECES).map(|_| piece()).collect();
    bench.report.number("fastest", times.quantile(0.0), "ms");
    bench.report.number("p50", times.median(), "ms");
    bench.report.number("p99", times.quantile(0.99), "ms");
    bench.report.row("the disk: 4 KiB appended and made durable", "");
    let (mut rates, mut waits) = (Samples::default(), Samples::default());
    for _ in 0..bench.rounds {
        let times = fdatasync(&bench.dir, time)?;
        rates.0.push(times.0.len() as f64 / time.as_secs_f64());
        waits.0.extend(times.0);
    }
    bench.report.rounds("rate", &rates, "/s");
    bench.report.number("p50", waits.median(), "ms");
    bench.report.number("p99", waits.quantile(0.99), "ms");
    for batch in BATCHES {
        bench.report.row(
            &format!("SQLite alone: {batch} rows into three tables per commit"),
            "",
        );
        let mut rates = Samples::default();
        for round in 0..bench.rounds {
            rates.0.push(inserts(
                &bench.dir.join(format!("raw-{batch}-{round}.db")),
                batch,
                time,
            )?);
        }
        bench.report.rounds("rate", &rates, "rows/s");
    }
    Ok(())
}

/// How long a piece of work took that needs nothing but a processor and a cache, in milliseconds: what others on the
/// machine take away shows in it, and in every number of processor time.
fn piece() -> f64 {
    let began = Instant::now();
    let mut table: Vec<u64> = (0..32_768).collect();
    let mut number = 1_u64;
    for _ in 0..1_000_000 {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let place = (number >> 33) as usize % table.len();
        table[place] ^= number;
    }
    std::hint::black_box(table);
    began.elapsed().as_secs_f64() * 1e3
}

/// How long each write took to be durable, in milliseconds.
pub(crate) fn fdatasync(dir: &Path, time: Duration) -> Result<Samples> {
    let path = dir.join("fdatasync");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Samples::default();
    let began = Instant::now();
    while began.elapsed() < time {
        let one = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.0.push(one.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

/// Rows per second, `batch` in a commit, with the pragmas and the kind of rows that the store has, and nothing else.
pub(crate) fn inserts(path: &Path, batch: usize, time: Duration) -> Result<f64> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    for table in TABLES {
        let text = format!(
            "CREATE TABLE {table} (id BLOB, seq INTEGER, body TEXT, PRIMARY KEY (id, seq)) STRICT, WITHOUT ROWID"
        );
        connection.execute(&text, [])?;
    }
    // Ids that grow, as ours do.
    let texts: Vec<(usize, String)> = TABLES
        .iter()
        .enumerate()
        .map(|(index, table)| {
            let rows = (batch + index) / TABLES.len();
            let values = vec!["(?, 0, ?)"; rows].join(",");
            (
                rows,
                format!("INSERT INTO {table} (id, seq, body) VALUES {values}"),
            )
        })
        .collect();
    let body = "x".repeat(200);
    let (mut rows, mut number) = (0_u64, 0_u128);
    let began = Instant::now();
    while began.elapsed() < time {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for (count, text) in &texts {
            let arguments = (0..*count).flat_map(|_| {
                number += 1;
                let id = rusqlite::types::Value::Blob(number.to_be_bytes().to_vec());
                [id, rusqlite::types::Value::Text(body.clone())]
            });
            transaction
                .prepare_cached(text)?
                .execute(params_from_iter(arguments))?;
            rows += *count as u64;
        }
        transaction.commit()?;
    }
    let rate = rows as f64 / began.elapsed().as_secs_f64();
    drop(connection);
    std::fs::remove_file(path)?;
    Ok(rate)
}
