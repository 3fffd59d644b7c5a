//! A server's life: second start, port in use, bad configuration, drain, cancel, wake, a run that crashes its server; and
//! what it logs and counts of that. Its disk is a test of its own.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::server::Server;
use support::witness::Witness;
use support::{DEADLINE, guest, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_directory_or_port_ends_with_5_and_says_what_to_do() {
    let server = Server::start("", &[]).await;
    let other = Server::prepare("", &[]);
    let output = other
        .command(&["start", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.data_dir())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(
        said.contains(&server.pid().to_string()),
        "the process that has it is named: {said}"
    );

    let port = server.url("").rsplit(':').next().expect("a port").to_owned();
    let output = other
        .command(&["start", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(other.data_dir())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("--listen"), "it says what to do: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_ends_with_2_and_leaves_nothing() {
    for (config, word) in [
        ("nonsense = 1", "nonsense"),
        ("[modules.A]", "\"A\""),
        ("[modules", "server.toml"),
    ] {
        let server = Server::prepare(config, &[]);
        let output = server
            .start_command()
            .stdout(Stdio::piped())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(word), "{word}: {said}");
        assert!(!server.data_dir().join("dormouse.db").exists());
    }
    let server = Server::prepare("", &[]);
    let output = server
        .command(&["start", "--listen", "0.0.0.0:0"])
        .output()
        .expect("it runs");
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_reread_on_sighup_counts_for_new_runs_and_an_invalid_one_does_not() {
    let server = Server::start("", &[]).await;
    server.deploy("bench", guest("bench")).await;
    std::fs::write(server.dir().join("server.toml"), "[modules").expect("written");
    server.signal("HUP");
    until("the invalid configuration is logged", || async {
        server.log().contains("the old one stays in force").then_some(())
    })
    .await;
    let run = server.invoke("bench/one", &json!({})).await;
    assert_eq!(server.ended(&run).await["status"], "Completed");
    std::fs::write(
        server.dir().join("server.toml"),
        "[modules.bench.limits]\nmemory_bytes = 65536",
    )
    .expect("written");
    server.signal("HUP");
    until("the new configuration is in force", || async {
        server.log().contains("read anew").then_some(())
    })
    .await;
    let run = server.invoke("bench/one", &json!({})).await;
    let run = server.ended(&run).await;
    assert_eq!(run["status"], "Failed", "64 KiB are not enough for it: {run:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_a_sleeping_run_goes_on_after_the_next_start() {
    let mut server = Server::start("", &[]).await;
    server.deploy("bench", guest("bench")).await;
    let run = server.invoke("bench/sleeper", &json!({ "ms": 700 })).await;
    server.in_phase(&run, "sleeping").await;
    assert!(server.data_dir().join("server.json").exists());
    assert_eq!(server.terminate(), Some(0), "{}", server.log());
    assert!(!server.data_dir().join("server.json").exists());
    server.boot().await;
    let run = server.ended(&run).await;
    assert_eq!(
        (run["status"].as_str(), run["output"].as_u64()),
        (Some("Completed"), Some(700))
    );
}

/// A server whose bodies tell a witness, and a run whose body the witness keeps open.
async fn with_an_open_body(arguments: &[&str]) -> (Witness, Server, String) {
    let witness = Witness::start().await;
    let host = witness.host();
    let config = format!("[modules.kill]\nhttp = [\"{host}\"]\nconfig = {{ sink = \"http://{host}/\" }}\n");
    let server = Server::start(&config, arguments).await;
    server.deploy("kill", guest("kill")).await;
    witness.hold(true);
    let run = server.invoke("kill/kill", &json!({ "steps": 1 })).await;
    witness.reaches(1).await;
    (witness, server, run)
}

/// The body's step has completed, and this often its body was heard of.
async fn completed_after(server: &Server, run: &str, witness: &Witness, bodies: usize) {
    let run = server.ended(run).await;
    assert_eq!(run["status"], "Completed", "{run:#}");
    assert_eq!(witness.count(), bodies, "{:?}", witness.lines());
    assert_eq!(run["output"]["tokens"][0], run["steps"][0]["output"], "{run:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_bodies_end_and_says_meanwhile_that_it_is_not_ready() {
    let (witness, mut server, run) = with_an_open_body(&[]).await;
    server.signal("TERM");
    until("it says that it drains", || async {
        let (status, body) = server.send("GET", "/ready", "").await;
        (status == 503 && body["code"] == "node-stopping").then_some(())
    })
    .await;
    assert!(server.ended_by_itself().is_none(), "the body is open");
    witness.hold(false);
    let code = ended(&mut server).await;
    assert_eq!(code, 0, "{}", server.log());
    server.boot().await;
    completed_after(&server, &run, &witness, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_does_not_wait_for_is_done_again_after_the_next_start() {
    let (witness, mut server, run) = with_an_open_body(&["--drain-timeout", "300ms"]).await;
    server.signal("TERM");
    assert_eq!(ended(&mut server).await, 0, "{}", server.log());
    assert!(server.log().contains("at the drain timeout"), "{}", server.log());
    witness.hold(false);
    server.boot().await;
    completed_after(&server, &run, &witness, 2).await;
}

async fn ended(server: &mut Server) -> i32 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(code) = server.ended_by_itself() {
            return code;
        }
        assert!(Instant::now() < deadline, "it never ended: {}", server.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A machine finds the lines of a run, of a module, of a version and of a step.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines_of_a_run_say_which_run_module_version_and_step() {
    let mut server = Server::prepare("", &["--log-format", "json"]);
    let mut command = server.start_command();
    command.env("DORMOUSE_LOG", "info,dormouse_server=debug");
    server.boot_by(command).await;
    let version = server.deploy("hostile", guest("hostile")).await;
    let run = server.invoke("hostile/panic-inside", &json!({})).await;
    let ended = server.ended(&run).await;
    assert_eq!(ended["status"], "Failed", "{ended:#}");
    for (message, step) in [
        ("an attempt has failed", json!("panic")),
        ("run stopped", Value::Null),
    ] {
        let line = until("it is logged", || async {
            let lines = server.log();
            let mut lines = lines
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["message"] == message)
        })
        .await;
        let span = &line["span"];
        assert_eq!(span["run_id"], *run, "{line:#}");
        assert_eq!(span["module"], "hostile", "{line:#}");
        assert_eq!(span["function"], "hostile/panic-inside", "{line:#}");
        assert_eq!(span["version"], *version, "{line:#}");
        assert_eq!(
            (&line["step"], &line["code"]),
            (&step, &json!("guest-panic")),
            "{line:#}"
        );
        let error = line["error"].as_str().expect("an error");
        assert!(error.contains("as asked, inside of a body"), "{line:#}");
    }
}

/// Why did nothing happen?
#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_an_event_is_told_for_each_trigger() {
    let server = Server::start("", &[]).await;
    let early = server
        .event("flow/rate", "early", &json!({ "user": "ann" }))
        .await;
    server.deploy("flow", guest("flow")).await;
    server.deploy("steps", guest("steps")).await;
    let told = |event: String| {
        let server = &server;
        async move {
            let path = format!("/v1/events/{event}/triggers");
            let triggers = server.get(&path).await.expect("they are listed");
            triggers.as_array().expect("a list").clone()
        }
    };
    let of = |triggers: &[Value], function: &str| -> Value {
        let mut found = triggers
            .iter()
            .filter(|trigger| trigger["function_id"] == function);
        let one = found
            .next()
            .unwrap_or_else(|| panic!("{function} is not among {triggers:?}"));
        assert!(found.next().is_none(), "{triggers:?}");
        one.clone()
    };
    assert_eq!(
        of(&told(early).await, "flow/rate-limited")["outcome"],
        "deployed-later"
    );
    let mut last = String::new();
    for (number, outcome) in ["started", "started", "rate-limited"].into_iter().enumerate() {
        last = server
            .event("flow/rate", &format!("event-{number}"), &json!({ "user": "ann" }))
            .await;
        let triggers = told(last.clone()).await;
        let limited = of(&triggers, "flow/rate-limited");
        assert_eq!(limited["outcome"], outcome, "{limited:#}");
        assert_eq!(limited["run_id"].is_string(), outcome == "started", "{limited:#}");
        let other = of(&triggers, "steps/echo");
        assert_eq!(
            (&other["outcome"], &other["run_id"]),
            (&json!("other-name"), &Value::Null)
        );
    }
    let again = server
        .event("flow/rate", "event-0", &json!({ "user": "bob" }))
        .await;
    assert_eq!(
        of(&told(again).await, "flow/rate-limited")["outcome"],
        "duplicate"
    );
    let poor = server.event("steps/paid", "poor", &json!({ "amount": 1 })).await;
    let conditions: Vec<Value> = told(poor)
        .await
        .into_iter()
        .filter(|trigger| trigger["function_id"] == "steps/large")
        .collect();
    assert!(!conditions.is_empty());
    assert!(
        conditions
            .iter()
            .any(|trigger| trigger["outcome"] == "condition-false"),
        "{conditions:#?}"
    );
    assert_eq!(
        server.get("/v1/events/01KAYZ3M7R8G6Q5V4W3X2Y1Z0A/triggers").await,
        Err(404)
    );
    let output = server
        .command(&["events", "triggers", &last])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("rate-limited") && said.contains("is used up"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_while_it_sleeps_and_while_its_body_loops() {
    let server = Server::start("", &[]).await;
    server.deploy("bench", guest("bench")).await;
    let run = server.invoke("bench/sleeper", &json!({ "ms": 3_600_000 })).await;
    server.in_phase(&run, "sleeping").await;
    let (status, body) = server.send("DELETE", &format!("/v1/runs/{run}"), "").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(server.ended(&run).await["status"], "Cancelled");
    let (status, body) = server.send("DELETE", &format!("/v1/runs/{run}"), "").await;
    assert_eq!(
        (status, body["code"].as_str()),
        (409, Some("already-ended")),
        "{body}"
    );

    server.deploy("hostile", guest("hostile")).await;
    let run = server.invoke("hostile/loop-long", &json!({})).await;
    server.in_phase(&run, "executing").await;
    let (status, body) = server.send("DELETE", &format!("/v1/runs/{run}"), "").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(server.ended(&run).await["status"], "Cancelled");
    until("the looping instance is gone", || async {
        (instances_live(&server).await? == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_run_is_woken() {
    for park_idle in ["0", "5s"] {
        let server = Server::start("", &["--park-idle", park_idle]).await;
        server.deploy("bench", guest("bench")).await;
        let run = server.invoke("bench/sleeper", &json!({ "ms": 3_600_000 })).await;
        server.in_phase(&run, "sleeping").await;
        let (status, body) = server.send("POST", &format!("/v1/runs/{run}/wake"), "").await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(server.ended(&run).await["status"], "Completed");
        let (status, body) = server.send("POST", &format!("/v1/runs/{run}/wake"), "").await;
        assert_eq!(
            (status, body["code"].as_str()),
            (409, Some("already-ended")),
            "{body}"
        );
    }
}

/// A body that never ends is cut by the kill, again and again: after five claims without an entry the run is blocked,
/// and its neighbours never noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_never_gets_further_is_blocked_and_a_wake_tries_it_again() {
    let mut server = Server::start("", &[]).await;
    server.deploy("hostile", guest("hostile")).await;
    server.deploy("bench", guest("bench")).await;
    let run = server.invoke("hostile/loop-long", &json!({})).await;
    // Five claims are allowed; what is read before the takeover is still of the former life.
    for life in 1..=5 {
        server.in_phase(&run, "executing").await;
        server.kill();
        server.boot().await;
        until("the run is taken over", || async {
            (server.log().matches("are taken over").count() == life).then_some(())
        })
        .await;
    }
    let blocked = server.in_phase(&run, "blocked").await;
    assert_eq!(blocked["error"]["code"], "crash-loop", "{blocked:#}");
    let neighbour = server.invoke("bench/one", &json!({})).await;
    assert_eq!(server.ended(&neighbour).await["status"], "Completed");
    let (status, body) = server.send("POST", &format!("/v1/runs/{run}/wake"), "").await;
    assert_eq!(status, 200, "{body}");
    server.in_phase(&run, "executing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_database_that_cannot_be_had_ends_with_5_and_a_bad_migration_with_2() {
    for (url, sql, code, words) in [
        ("sqlite:in-the-way/app.db", "SELECT 1", 5, "in-the-way"),
        ("postgres://nobody@127.0.0.1:1/app", "SELECT 1", 5, "127.0.0.1:1"),
        ("sqlite:app.db", "CREATE nonsense", 2, "0001_first.sql"),
    ] {
        let config =
            format!("[modules.bench]\ndatabases.app = {{ url = \"{url}\", migrations = \"migrations\" }}\n");
        let server = Server::prepare(&config, &[]);
        let migrations = server.dir().join("migrations");
        std::fs::create_dir(&migrations).expect("created");
        std::fs::write(migrations.join("0001_first.sql"), sql).expect("written");
        std::fs::write(server.dir().join("in-the-way"), "not a directory").expect("written");
        let output = server.start_command().output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{url}: {said}");
        assert!(said.contains("modules.bench.databases.app"), "{said}");
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_what_runs_did() {
    let server = Server::start("", &["--park-idle", "0"]).await;
    server.deploy("bench", guest("bench")).await;
    server.deploy("hostile", guest("hostile")).await;
    let sleeps = server.invoke("bench/sleeper", &json!({ "ms": 50 })).await;
    assert_eq!(server.ended(&sleeps).await["status"], "Completed");
    let fails = server.invoke("hostile/panic-inside", &json!({})).await;
    assert_eq!(server.ended(&fails).await["status"], "Failed");
    for (name, expected) in [
        ("dormouse_runs_total{status=\"Completed\"}", 1.0),
        ("dormouse_runs_total{status=\"Failed\"}", 1.0),
        ("dormouse_schedule_to_start_seconds_count", 2.0),
        // Two attempts of the one body there is, the second after a back-off.
        ("dormouse_step_seconds_count", 2.0),
        ("dormouse_retries_total", 1.0),
        ("dormouse_timer_lag_seconds_count", 2.0),
        ("dormouse_instances_live", 0.0),
        ("dormouse_queue_depth", 0.0),
        ("dormouse_runs_blocked", 0.0),
    ] {
        until(name, || async {
            (metric(&server, name).await? == expected).then_some(())
        })
        .await;
    }
    // How many commits and legs these take depends on how much they find to do at once.
    for (name, least) in [
        ("dormouse_commit_seconds_count", 6.0),
        ("dormouse_commit_rows_count", 6.0),
        ("dormouse_replay_seconds_count", 2.0),
        ("dormouse_leg_cpu_seconds_count", 4.0),
    ] {
        until(name, || async {
            (metric(&server, name).await? >= least).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_what_is_parked_and_what_diverges() {
    let parking = Server::start("", &["--park-idle", "60s"]).await;
    parking.deploy("bench", guest("bench")).await;
    let run = parking.invoke("bench/sleeper", &json!({ "ms": 1_000 })).await;
    for parked in [1.0, 0.0] {
        until("one is parked, then none", || async {
            (metric(&parking, "dormouse_instances_parked").await? == parked).then_some(())
        })
        .await;
    }
    assert_eq!(parking.ended(&run).await["status"], "Completed");

    let config = "[modules.determinism]\nhttp = [\"127.0.0.1\"]\n";
    let dropping = Server::start(config, &["--park-idle", "0"]).await;
    dropping.deploy("determinism", guest("determinism")).await;
    let run = dropping.invoke("determinism/impure", &json!({ "ms": 5 })).await;
    assert_eq!(dropping.settled(&run).await["error"]["code"], "diverged");
    for name in ["dormouse_divergences_total", "dormouse_runs_blocked"] {
        until(name, || async {
            (metric(&dropping, name).await? == 1.0).then_some(())
        })
        .await;
    }
}

async fn instances_live(server: &Server) -> Option<f64> {
    metric(server, "dormouse_instances_live").await
}

/// A metric by its name with its labels.
async fn metric(server: &Server, name: &str) -> Option<f64> {
    let text = reqwest::get(server.url("/metrics"))
        .await
        .ok()?
        .text()
        .await
        .ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?
        .trim()
        .parse()
        .ok()
}
