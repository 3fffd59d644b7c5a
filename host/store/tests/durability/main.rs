//! Processes that are killed and disks that fail: what the store acknowledged is there afterwards.
//!
//! `DORMOUSE_KILLS` is the number of kills of each kind (default 12, in the long form 200), `DORMOUSE_SEED` repeats a run's timing.

mod child;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dormouse_core::run::Status;
use dormouse_core::{Digest, RunId, Seq};
use dormouse_store::Store as _;
use dormouse_store::conformance::differential::seed;
use dormouse_store::sqlite::SqliteStore;
use dormouse_testing_disk::{Shadow, Shim};

/// What a child is told to do.
const ROLE: &str = "DORMOUSE_CHILD_ROLE";
const DIR: &str = "DORMOUSE_CHILD_DIR";
const FAULT: &str = "SHIM_FAULT";
/// The signal that `kill -9` sends.
const KILL: i32 = 9;

/// This test's executable again, as a child.
fn child(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this executable"));
    command
        .args(["--exact", "the_workload_works", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdout(Stdio::piped());
    command
}

fn shimmed(command: &mut Command, root: &Path, shadow: Option<&Shadow>, fault: Option<&Path>) {
    let shim = Shim { root, shadow, fault };
    shim.stand_before(command);
}

/// The children's entry. Without a role it checks that their workload is what the other tests take it for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workload_works() {
    let dir = |name: &str| PathBuf::from(std::env::var_os(name).expect("set by the parent"));
    match std::env::var(ROLE).as_deref() {
        Ok("work") => child::work(dir(DIR), None).await.expect("works"),
        Ok("faults") => child::faults(dir(DIR), dir(FAULT)).await.expect("works"),
        Ok(other) => panic!("{other} is no role"),
        Err(_) => {
            let data = tempfile::tempdir().expect("a directory");
            child::work(data.path().to_owned(), Some(2)).await.expect("works");
            let store = SqliteStore::open(child::options(data.path().to_owned()))
                .await
                .expect("opens");
            let filter = dormouse_store::read::RunFilter {
                limit: 100,
                ..Default::default()
            };
            let runs = store.runs(filter).await.expect("lists");
            assert_eq!(runs.len(), 16);
            assert!(runs.iter().all(|run| run.state.status == Status::Completed));
            store.close().await;
        }
    }
}

/// Kills the child when it is dropped, whatever happens in between.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything children said was durable.
#[derive(Default)]
struct Acknowledged {
    runs: HashMap<RunId, Promise>,
    /// Whether a child got as far as having uploaded its component.
    opened: bool,
    lines: usize,
}

#[derive(Default)]
struct Promise {
    entries: Seq,
    completed: bool,
}

impl Acknowledged {
    fn hear(&mut self, line: &str) {
        let Some((_, line)) = line.split_once('@') else {
            return;
        };
        let words: Vec<&str> = line.split(' ').collect();
        let id = |text: &str| text.parse::<RunId>().expect("an id");
        match words.as_slice() {
            ["run", run] => drop(self.runs.entry(id(run)).or_default()),
            ["entry", run, seq] => {
                let promise = self.runs.entry(id(run)).or_default();
                promise.entries = promise.entries.max(seq.parse::<Seq>().expect("a number") + 1);
            }
            ["completed", run] => {
                let promise = self.runs.entry(id(run)).or_default();
                promise.completed = true;
            }
            ["open"] => self.opened = true,
            _ => return,
        }
        self.lines += 1;
    }

    /// Reads from the store every single thing that was promised.
    async fn check(&self, dir: &Path, what: &str) {
        let store = SqliteStore::open(child::options(dir.to_owned()))
            .await
            .unwrap_or_else(|error| panic!("{what}: the store does not open: {error}"));
        for (id, promise) in &self.runs {
            let run = store.run(*id).await.expect("reads");
            let run = run.unwrap_or_else(|| panic!("{what}: run {id} was acknowledged and is lost"));
            assert!(
                store.event(run.event_id).await.expect("reads").is_some(),
                "{what}: {id} has lost its event"
            );
            let journal = store.journal(*id, 0).await.expect("reads");
            assert!(
                journal.len() as u32 >= promise.entries,
                "{what}: {id} has lost entries"
            );
            assert_eq!(
                journal.len() as u32,
                run.journal_next,
                "{what}: {id} counts other entries than it has"
            );
            for (seq, record) in journal.iter().enumerate() {
                assert_eq!(
                    *record,
                    child::entry(*id, seq as Seq),
                    "{what}: an entry is not what was written"
                );
            }
            assert!(
                !promise.completed || run.state.status == Status::Completed,
                "{what}: {id} has lost its end"
            );
        }
        let component = store
            .component(Digest::of(child::COMPONENT))
            .await
            .expect("reads");
        assert!(
            !self.opened || component.as_deref() == Some(child::COMPONENT),
            "{what}: the component is lost"
        );
        store.close().await;
        check_integrity(&dir.join("dormouse.db"), what).await;
    }
}

async fn check_integrity(path: &Path, what: &str) {
    use sqlx::{ConnectOptions as _, Connection as _};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut conn = options.connect().await.expect("opens");
    let answer: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut conn)
        .await
        .expect("answers");
    assert_eq!(answer, "ok", "{what}");
    conn.close().await.expect("closes");
}

fn kills() -> u32 {
    let long = std::env::var("DORMOUSE_TEST_LONG").is_ok_and(|value| value == "1");
    std::env::var("DORMOUSE_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(if long { 200 } else { 12 })
}

/// Kills a child after a while and hears all it had said. The while begins when it has opened the store or, to meet
/// the opening too, when it is started.
fn kill_at_work(mut command: Command, at_start: bool, after: Duration, acknowledged: &mut Acknowledged) {
    let mut victim = Victim(command.spawn().expect("starts"));
    let stdout = victim.0.stdout.take().expect("piped");
    let (sender, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        // A line that the kill cut off was not said.
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        while stdout.read_line(&mut line).is_ok_and(|length| length > 0) && line.ends_with('\n') {
            let _ = sender.send(line.trim_end().to_owned());
            line.clear();
        }
    });
    if !at_start {
        let mut opened = false;
        while !opened {
            let line = lines
                .recv_timeout(Duration::from_secs(60))
                .expect("the child opens the store");
            acknowledged.hear(&line);
            opened = line.ends_with("@open");
        }
    }
    let end = Instant::now() + after;
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        acknowledged.hear(&line);
    }
    victim.0.kill().expect("kills");
    let status = victim.0.wait().expect("ends");
    assert_eq!(
        status.signal(),
        Some(KILL),
        "the child was to be killed at work, but ended by itself: {status}"
    );
    reader.join().expect("reads");
    lines.try_iter().for_each(|line| acknowledged.hear(&line));
}

/// A different moment each time, repeatable by the seed.
fn moment(seed: u64, round: u32, most: u64) -> Duration {
    let mixed = (seed + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(u64::from(round) * 0xbf58_476d_1ce4_e5b9);
    Duration::from_millis((mixed >> 33) % most)
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let data = tempfile::tempdir().expect("a directory");
    let seed = seed(1);
    let mut acknowledged = Acknowledged::default();
    for round in 0..kills() {
        let command = child("work", data.path());
        kill_at_work(
            command,
            round % 4 == 0,
            moment(seed, round, 400),
            &mut acknowledged,
        );
        acknowledged
            .check(data.path(), &format!("seed {seed}, kill {round}"))
            .await;
    }
    println!(
        "{} kills, {} acknowledgements, 0 lost",
        kills(),
        acknowledged.lines
    );
    assert!(acknowledged.lines > 100, "the children did next to nothing");
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_loss() {
    let place = tempfile::tempdir().expect("a directory");
    // The kernel names files by their real path, and so does the shim.
    let place = place.path().canonicalize().expect("is there");
    let seed = seed(2);
    let mut acknowledged = Acknowledged::default();
    let mut data = place.join("data-0");
    std::fs::create_dir(&data).expect("makes a directory");
    for round in 0..kills() {
        let shadow = Shadow::of(&data, &place.join("shadow"));
        let mut command = child("work", &data);
        shimmed(&mut command, &data, Some(&shadow), None);
        kill_at_work(
            command,
            round % 4 == 0,
            moment(seed, round, 400),
            &mut acknowledged,
        );
        // Only what was synced is left, and the next round goes on with that.
        let left = place.join(format!("data-{}", round + 1));
        shadow.restore(&data, &left);
        std::fs::remove_dir_all(&data).expect("removes");
        data = left;
        acknowledged
            .check(&data, &format!("seed {seed}, power loss {round}"))
            .await;
    }
    println!(
        "{} power losses, {} acknowledgements, 0 lost",
        kills(),
        acknowledged.lines
    );
    assert!(acknowledged.lines > 100, "the children did next to nothing");
}

/// The power-loss test must be able to fail: with a disk that does not do what fsync says, acknowledged writes are
/// lost, and the check says so.
#[tokio::test]
async fn a_disk_that_lies_is_found_out() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path().canonicalize().expect("is there");
    let (data, left, fault) = (place.join("data"), place.join("left"), place.join("fault"));
    std::fs::create_dir(&data).expect("makes a directory");
    let shadow = Shadow::of(&data, &place.join("shadow"));
    std::fs::write(&fault, "lie").expect("writes");
    let mut command = child("work", &data);
    shimmed(&mut command, &data, Some(&shadow), Some(&fault));
    let mut acknowledged = Acknowledged::default();
    kill_at_work(command, false, Duration::from_millis(300), &mut acknowledged);
    shadow.restore(&data, &left);
    let runtime = tokio::runtime::Handle::current();
    let check = tokio::task::spawn_blocking(move || {
        runtime.block_on(acknowledged.check(&left, "a disk that lies"));
    });
    let failure = check.await.expect_err("the check must fail").into_panic();
    let message = failure
        .downcast_ref::<String>()
        .map(String::as_str)
        .unwrap_or_default();
    assert!(message.contains("lost"), "{message}");
}

#[test]
fn a_full_disk_is_survived_and_a_failing_one_is_final() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path().canonicalize().expect("is there");
    let data = place.join("data");
    std::fs::create_dir(&data).expect("makes a directory");
    let mut command = child("faults", &data);
    shimmed(&mut command, &data, None, Some(&place.join("fault")));
    let output = command.output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let said: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once('@'))
        .map(|(_, said)| said)
        .collect();
    let answers: Vec<&str> = said
        .iter()
        .copied()
        .filter(|said| !said.starts_with("entry"))
        .collect();
    assert_eq!(
        answers,
        [
            "readonly unavailable",
            "full-append full",
            "full-ingest full",
            "full-probe full",
            "full-component full",
            "full-read 1",
            "eio-append fatal",
            "eio-after fatal",
        ]
    );
    assert_eq!(
        said.len(),
        answers.len() + 2,
        "what was written before and after the full disk was acknowledged"
    );
}
