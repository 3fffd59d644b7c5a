//! Random programs on real server processes while everything goes wrong: at the end each counter, body, event and run is
//! what walking the programs predicts. Loss and duplication both fail; a run that is stuck fails with its journal.
//!
//! `DORMOUSE_SEED` repeats the programs and the plan of what goes wrong; `DORMOUSE_TEST_LONG=1` is the long form, and
//! `DORMOUSE_STORM_SECONDS` sets the length of either.

mod interpreter;
mod support;

use interpreter::generate::Shape;
use interpreter::storm::Storm;
use support::nemesis::{Appetite, Trouble};
use support::{is_turn, long};

/// For how long the nemesis works, in milliseconds.
fn length_ms(short_seconds: u64, long_seconds: u64) -> u64 {
    let asked = std::env::var("DORMOUSE_STORM_SECONDS").ok();
    let seconds = asked.and_then(|seconds| seconds.parse().ok());
    1_000 * seconds.unwrap_or(if long() { long_seconds } else { short_seconds })
}

/// What the programs are like.
const SHAPE: Shape = Shape {
    counters: 64,
    longest_sleep: 2_000,
};

/// One node on SQLite: it is killed, stands still, and gets new versions.
fn one_node(park_idle: &'static str) -> Storm {
    let length_ms = length_ms(10, 120);
    Storm {
        nodes: 1,
        park_idle,
        programs: length_ms / 100,
        length_ms,
        appetite: Appetite {
            kill: Trouble::of((300, 1_500), (0, 300)),
            stop: Trouble::of((2_000, 5_000), (50, 1_500)),
            deploy: Trouble::at_once((1_000, 3_000)),
            ..Appetite::default()
        },
        shape: SHAPE,
    }
}

/// Three nodes on one Postgres: more than that happens to each, and to the server.
fn three_nodes(park_idle: &'static str) -> Storm {
    let length_ms = length_ms(25, 240);
    Storm {
        nodes: 3,
        park_idle,
        programs: length_ms / 150,
        length_ms,
        appetite: Appetite {
            kill: Trouble::of((3_000, 6_000), (0, 3_000)),
            stop: Trouble::of((4_000, 9_000), (50, 2_000)),
            long_stop: Trouble::of((9_000, 20_000), (11_000, 14_000)),
            cut: Trouble::of((6_000, 12_000), (500, 14_000)),
            lost_answer: Trouble::at_once((1_000, 3_000)),
            database: Trouble::of((5_000, if long() { 24_000 } else { 12_000 }), (0, 2_000)),
            deploy: Trouble::at_once((3_000, 6_000)),
        },
        shape: SHAPE,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_come_to_what_is_predicted_on_one_node_that_drops_instances() {
    if is_turn(false) {
        one_node("0").pass().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_come_to_what_is_predicted_on_one_node_that_parks_instances() {
    if is_turn(true) {
        one_node("5s").pass().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_come_to_what_is_predicted_on_three_nodes_that_drop_instances() {
    if is_turn(false) {
        three_nodes("0").pass().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_come_to_what_is_predicted_on_three_nodes_that_park_instances() {
    if is_turn(true) {
        three_nodes("5s").pass().await;
    }
}
