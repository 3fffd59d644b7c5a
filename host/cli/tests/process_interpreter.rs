//! Random programs on real server processes while everything goes wrong: at the end each counter, body, event and run is
//! what walking the programs predicts. Loss and duplication both fail; a run that is stuck fails with its journal.
//!
//! `DORMOUSE_SEED` repeats the programs and the plan of what goes wrong; `DORMOUSE_TEST_LONG=1` is the long form, and
//! `DORMOUSE_STORM_SECONDS` sets the length of either.

mod interpreter;
mod support;

use interpreter::generate::Shape;
use interpreter::storm::Storm;
use support::long;
use support::nemesis::{Appetite, Trouble};

/// For how long the nemesis works, in milliseconds.
fn length_ms(short_seconds: u64, long_seconds: u64) -> u64 {
    let asked = std::env::var("DORMOUSE_STORM_SECONDS").ok();
    let seconds = asked.and_then(|seconds| seconds.parse().ok());
    1_000 * seconds.unwrap_or(if long() { long_seconds } else { short_seconds })
}

/// One node on SQLite: it is killed, stands still, and gets new versions.
fn one_node(park_idle: &str) -> Storm {
    let length_ms = length_ms(10, 300);
    Storm {
        nodes: vec![vec!["--park-idle".to_owned(), park_idle.to_owned()]],
        programs: length_ms / 100,
        length_ms,
        appetite: Appetite {
            kill: Some(Trouble {
                every: (300, 1_500),
                lasts: (0, 300),
            }),
            stop: Some(Trouble {
                every: (2_000, 5_000),
                lasts: (50, 1_500),
            }),
            deploy: Some(Trouble {
                every: (1_000, 3_000),
                lasts: (0, 0),
            }),
        },
        shape: Shape {
            counters: 64,
            longest_sleep: 2_000,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_come_to_what_is_predicted_on_one_node_that_drops_instances() {
    one_node("0").pass().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_come_to_what_is_predicted_on_one_node_that_parks_instances() {
    one_node("5s").pass().await;
}
