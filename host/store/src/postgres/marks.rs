//! Where the queues begin, as far as this node knows.
//!
//! A row that was deleted stays in Postgres' index until nothing that is older than the deletion runs any more: with a
//! backup running for an hour, whoever reads a queue from its beginning steps over an hour's dead rows each time. So a
//! read begins a little before the earliest row that was last seen, and now and then at the very beginning, for rows
//! that came in late.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dormouse_core::{RunId, Timestamp};

/// Rows may become visible this much later than their time says.
const SLACK: Duration = Duration::from_secs(5);
/// A read begins at the very beginning this often.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The beginning of one queue.
#[derive(Debug)]
pub(super) struct Mark {
    low: AtomicI64,
    swept: Mutex<Option<Instant>>,
}

impl Mark {
    const fn new() -> Mark {
        Mark {
            low: AtomicI64::new(i64::MIN),
            swept: Mutex::new(None),
        }
    }

    /// From where to read.
    pub(super) fn low(&self) -> i64 {
        self.low.load(Ordering::Acquire)
    }

    /// From where to read, which is the very beginning when it is time for that.
    pub(super) fn low_or_sweep(&self) -> i64 {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            *swept = Some(Instant::now());
            self.low.store(i64::MIN, Ordering::Release);
        }
        self.low()
    }

    /// The earliest row that was seen, or the time at which none was: there is nothing long before it.
    ///
    /// `low` is where that read began: if a row was put before it meanwhile, the mark stays.
    pub(super) fn seen(&self, low: i64, at: Timestamp) {
        let next = at.before(SLACK).as_millis();
        let _ = self
            .low
            .compare_exchange(low, next, Ordering::AcqRel, Ordering::Acquire);
    }

    fn lower(&self, rows: &[(Timestamp, RunId)]) {
        if let Some(least) = rows.iter().map(|(at, _)| at.as_millis()).min() {
            self.low.fetch_min(least, Ordering::AcqRel);
        }
    }
}

/// The beginnings of both queues.
#[derive(Debug)]
pub(super) struct Marks {
    /// Of `ready`.
    pub(super) ready: Mark,
    /// Of `timers`.
    pub(super) timers: Mark,
}

impl Marks {
    pub(super) const fn new() -> Marks {
        Marks {
            ready: Mark::new(),
            timers: Mark::new(),
        }
    }

    /// This node puts rows there: it must find them, however early they are.
    pub(super) fn lower(&self, ready: &[(Timestamp, RunId)], timers: &[(Timestamp, RunId)]) {
        self.ready.lower(ready);
        self.timers.lower(timers);
    }
}

#[cfg(test)]
mod tests {
    use dormouse_testing_postgres::{Cluster, Held};

    use super::super::schedule::FIRST_READY;
    use super::super::{Options, PostgresStore};
    use super::*;
    use crate::contract::Store as _;
    use crate::schedule::{Claim, Incarnation, NewNode};

    #[test]
    fn a_mark_moves_up_with_what_is_seen_and_down_with_what_is_put_there() {
        let mark = Mark::new();
        assert_eq!(mark.low_or_sweep(), i64::MIN);
        mark.seen(0, Timestamp::from_millis(90_000));
        assert_eq!(mark.low(), i64::MIN, "it moved meanwhile");
        mark.seen(i64::MIN, Timestamp::from_millis(60_000));
        assert_eq!(mark.low(), 55_000);
        assert_eq!(mark.low_or_sweep(), 55_000, "it was swept a moment ago");
        let run = RunId::from_bytes([1; 16]);
        mark.lower(&[(Timestamp::from_millis(70_000), run)]);
        assert_eq!(mark.low(), 55_000);
        mark.lower(&[
            (Timestamp::from_millis(70_000), run),
            (Timestamp::from_millis(9), run),
        ]);
        assert_eq!(mark.low(), 9);
    }

    /// How many pages a look at the ready queue reads that begins at `low`.
    fn pages(database: &str, node: Incarnation, low: i64) -> u64 {
        let statement = FIRST_READY
            .replace("$1", &format!("'{node}'"))
            .replace("$2", &format!("'{low}'::int8"));
        let plan = Cluster::shared().psql(
            database,
            &format!("EXPLAIN (ANALYZE, BUFFERS, COSTS off) {statement}"),
        );
        // The first line that tells of pages is that of the whole statement.
        let line = plan.lines().find(|line| line.contains("Buffers:"));
        let line = line.unwrap_or_else(|| panic!("no pages: {plan}"));
        let counts = line.split_whitespace().filter_map(|word| word.split_once('='));
        counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum()
    }

    /// Beside a forgotten transaction, the dead rows of a queue stay; a look at it must not step over them each time.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_claim_does_not_step_over_dead_rows_that_cannot_be_removed() {
        let url = Cluster::shared().database();
        let database = url.rsplit('/').next().and_then(|rest| rest.split('?').next());
        let database = database.expect("a name");
        let store = PostgresStore::open(Options::new(&url)).await.expect("opens");
        let node = NewNode {
            incarnation: Incarnation([1; 16]),
            name: "host:1".to_owned(),
            release: "0.1.0".to_owned(),
            url: String::new(),
        };
        let now = Timestamp::from_millis(1_790_000_000_000);
        let node = store
            .join(node, now)
            .await
            .map(|_| Incarnation([1; 16]))
            .expect("joins");
        let held = Held::at(&url, "SELECT 1");
        let rows = "INSERT INTO ready SELECT 0, 1789999000000 + number, gen_random_uuid() \
             FROM generate_series(1, 20000) AS number";
        Cluster::shared().psql(database, rows);
        Cluster::shared().psql(database, "DELETE FROM ready");
        let claim = Claim {
            node,
            limit: 9,
            versions: None,
            now,
        };
        // The first claim of a node begins at the very beginning, and learns that nothing is there.
        store.claim(claim).await.expect("claims");
        let low = store.marks.ready.low();
        assert!(low > i64::MIN, "nothing was learnt");
        let (marked, unmarked) = (pages(database, node, low), pages(database, node, i64::MIN));
        println!("a look at the queue reads {marked} pages, {unmarked} from its beginning");
        assert!(
            marked * 20 <= unmarked,
            "{marked} pages with the mark, {unmarked} without"
        );
        drop(held);
        store.close().await;
    }
}
