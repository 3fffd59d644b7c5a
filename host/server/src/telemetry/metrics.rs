//! Metrics: every number by name, what it means and its unit; rendered as Prometheus text on our own `/metrics`.
//!
//! Absent on purpose: a listener or a push of its own.

use std::sync::OnceLock;
use std::time::Duration;

use dormouse_core::Timestamp;
use dormouse_core::run::Phase;
use dormouse_store::read::Counts;
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// The process's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Seconds, from a tenth of a millisecond to a minute: commits, replays, steps and waits all fall in there.
const SECONDS: [f64; 19] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    20.0, 30.0, 60.0,
];

/// Rows in one commit.
const ROWS: [f64; 12] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0,
];

/// Samples wait in memory until they are put into buckets; nobody may ever ask for them.
const UPKEEP: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// Every metric: name, kind, unit, meaning.
const ALL: [(&str, Kind, Unit, &str); 22] = [
    (
        "dormouse_runs_total",
        Kind::Counter,
        Unit::Count,
        "Runs that reached a status, by status.",
    ),
    (
        "dormouse_runs_dropped_total",
        Kind::Counter,
        Unit::Count,
        "Events that flow control kept from starting a run, by decision.",
    ),
    (
        "dormouse_runs_blocked",
        Kind::Gauge,
        Unit::Count,
        "Runs that cannot go on until a person does something.",
    ),
    (
        "dormouse_queue_depth",
        Kind::Gauge,
        Unit::Count,
        "Runs that are ready for a node to claim them.",
    ),
    (
        "dormouse_queue_oldest_age_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "For how long the oldest ready run has waited.",
    ),
    (
        "dormouse_schedule_to_start_seconds",
        Kind::Histogram(&SECONDS),
        Unit::Seconds,
        "From when a run was due to begin to its first leg.",
    ),
    (
        "dormouse_step_seconds",
        Kind::Histogram(&SECONDS),
        Unit::Seconds,
        "How long one attempt of a step body took.",
    ),
    (
        "dormouse_retries_total",
        Kind::Counter,
        Unit::Count,
        "Failed attempts of step bodies that are followed by another.",
    ),
    (
        "dormouse_replay_seconds",
        Kind::Histogram(&SECONDS),
        Unit::Seconds,
        "How long a resumed run took to be where it had been: its journal fed back to it.",
    ),
    (
        "dormouse_leg_cpu_seconds",
        Kind::Histogram(&SECONDS),
        Unit::Seconds,
        "Processor time that one leg took, its instance included.",
    ),
    (
        "dormouse_commit_seconds",
        Kind::Histogram(&SECONDS),
        Unit::Seconds,
        "How long a commit of the store took.",
    ),
    (
        "dormouse_commit_rows",
        Kind::Histogram(&ROWS),
        Unit::Count,
        "How many rows a commit of the store wrote.",
    ),
    (
        "dormouse_transactions_repeated_total",
        Kind::Counter,
        Unit::Count,
        "Transactions that Postgres asked to repeat: serialization failures and deadlocks.",
    ),
    (
        "dormouse_commits_unknown_total",
        Kind::Counter,
        Unit::Count,
        "Commits whose answer was lost with the connection and had to be looked up.",
    ),
    (
        "dormouse_timer_lag_seconds",
        Kind::Histogram(&SECONDS),
        Unit::Seconds,
        "How long after it was due a run went on from a sleep, a back-off or a timeout.",
    ),
    (
        "dormouse_ticks_total",
        Kind::Counter,
        Unit::Count,
        "Ticks of crons, by outcome: started or skipped.",
    ),
    (
        "dormouse_tick_lag_seconds",
        Kind::Histogram(&SECONDS),
        Unit::Seconds,
        "How long after it was due a tick of a cron was started.",
    ),
    (
        "dormouse_instances_live",
        Kind::Gauge,
        Unit::Count,
        "Wasm instances in memory, parked ones included.",
    ),
    (
        "dormouse_instances_parked",
        Kind::Gauge,
        Unit::Count,
        "Wasm instances in memory whose run waits.",
    ),
    (
        "dormouse_lease_takeovers_total",
        Kind::Counter,
        Unit::Count,
        "Runs taken over from nodes that were dead.",
    ),
    (
        "dormouse_divergences_total",
        Kind::Counter,
        Unit::Count,
        "Replays in which the code did not ask for what the journal has.",
    ),
    (
        "dormouse_swaps_total",
        Kind::Counter,
        Unit::Count,
        "Runs that went over to another version of their module (moved), began again on it (restarted), or could not (stayed), by outcome.",
    ),
];

static INSTALLED: OnceLock<Metrics> = OnceLock::new();

impl Metrics {
    /// The process's metrics, set up at the first call.
    ///
    /// A recorder that something else installed stays; what is rendered here is then empty, and a log line says so.
    pub fn install() -> Metrics {
        INSTALLED.get_or_init(Metrics::new).clone()
    }

    /// All metrics as Prometheus text.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Puts the numbers that only the store knows into their gauges. Call it just before rendering.
    pub fn observe(counts: &Counts, now: Timestamp) {
        let of = |phase: Phase| counts.live[phase as usize] as f64;
        let age = counts
            .oldest_ready
            .map_or(Duration::ZERO, |oldest| now.since(oldest));
        metrics::gauge!("dormouse_runs_blocked").set(of(Phase::Blocked));
        metrics::gauge!("dormouse_queue_depth").set(of(Phase::Queued));
        metrics::gauge!("dormouse_queue_oldest_age_seconds").set(age.as_secs_f64());
    }

    fn new() -> Metrics {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed in this process; /metrics will be empty");
            return Metrics(handle);
        }
        describe();
        let upkeep = handle.clone();
        let spawned = std::thread::Builder::new()
            .name("metrics-upkeep".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(UPKEEP);
                    upkeep.run_upkeep();
                }
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for the metrics' upkeep: read /metrics often, or memory grows");
        }
        Metrics(handle)
    }
}

fn builder() -> PrometheusBuilder {
    ALL.iter()
        .try_fold(
            PrometheusBuilder::new(),
            |builder, (name, kind, _, _)| match kind {
                Kind::Histogram(buckets) => {
                    builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
                }
                Kind::Counter | Kind::Gauge => Ok(builder),
            },
        )
        // The one error is an empty list of buckets, and none of ours is.
        .unwrap_or_default()
}

fn describe() {
    for (name, kind, unit, meaning) in ALL {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, meaning),
            Kind::Gauge => metrics::describe_gauge!(name, unit, meaning),
            Kind::Histogram(_) => metrics::describe_histogram!(name, unit, meaning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_under_its_name_with_its_meaning() {
        let metrics = Metrics::install();
        for (name, kind, _, _) in ALL {
            match kind {
                Kind::Counter => metrics::counter!(name).increment(1),
                Kind::Gauge => metrics::gauge!(name).set(1.0),
                Kind::Histogram(_) => metrics::histogram!(name).record(0.003),
            }
        }
        let text = metrics.render();
        for (name, kind, _, meaning) in ALL {
            assert!(
                text.contains(&format!("# HELP {name} {meaning}")),
                "{name}\n{text}"
            );
            if let Kind::Histogram(buckets) = kind {
                let first = format!("{name}_bucket{{le=\"{}\"}}", buckets[0]);
                assert!(text.contains(&first), "{first}\n{text}");
            }
        }
    }

    #[test]
    fn what_the_store_counts_is_put_into_gauges() {
        let metrics = Metrics::install();
        let mut counts = Counts {
            oldest_ready: Some(Timestamp::from_millis(1_000)),
            ..Counts::default()
        };
        counts.live[Phase::Blocked as usize] = 7;
        Metrics::observe(&counts, Timestamp::from_millis(3_500));
        let text = metrics.render();
        assert!(text.contains("dormouse_queue_oldest_age_seconds 2.5"), "{text}");
    }
}
