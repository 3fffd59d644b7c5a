//! A new version under runs in flight: they finish on the version they started with, or go over to the new one, as is said
//! with the deploy; also when the server is killed in between. New runs use the new one.

mod support;

use serde_json::{Value, json};
use support::guest;
use support::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_on_its_version_and_new_runs_use_the_new_one() {
    for park_idle in ["0", "5s"] {
        let mut server = Server::start("", &["--park-idle", park_idle]).await;
        let one = server.deploy("swap", guest("swap_v1")).await;
        let long = server.invoke("swap/swap", &json!({ "ms": 1_500 })).await;
        server.in_phase(&long, "sleeping").await;

        let two = server.deploy("swap", guest("swap_v2")).await;
        assert_ne!(one, two);
        server.kill();
        server.boot().await;

        let new = server.invoke("swap/swap", &json!({ "ms": 1 })).await;
        let (new, old) = (server.ended(&new).await, server.ended(&long).await);
        assert_eq!(
            (new["version"].as_str(), new["output"].as_str()),
            (Some(&*two), Some("Hello from two"))
        );
        assert_eq!(
            (old["version"].as_str(), old["output"].as_str()),
            (Some(&*one), Some("Hello from one"))
        );
        assert_eq!(old["steps"].as_array().map(Vec::len), Some(2), "{old:#}");
        assert_eq!(new["steps"].as_array().map(Vec::len), Some(3), "{new:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deploying_the_same_component_again_changes_nothing_and_old_versions_can_be_activated_again() {
    let server = Server::start("", &[]).await;
    let (status, _) = server.send("PUT", "/v1/modules/swap", guest("swap_v1")).await;
    assert_eq!(status, 201);
    let (status, body) = server.send("PUT", "/v1/modules/swap", guest("swap_v1")).await;
    assert_eq!(status, 200, "{body}");
    let one = body["data"]["version"].as_str().expect("a version").to_owned();
    let two = server.deploy("swap", guest("swap_v2")).await;

    let (status, body) = server
        .send("DELETE", &format!("/v1/modules/swap/versions/{two}"), "")
        .await;
    assert_eq!(
        (status, body["code"].as_str()),
        (409, Some("version-active")),
        "{body}"
    );
    let activate = json!({ "version": one, "policy": "pin" }).to_string();
    let (status, body) = server.send("POST", "/v1/modules/swap/activate", activate).await;
    assert_eq!(status, 200, "{body}");
    let run = server.invoke("swap/swap", &json!({ "ms": 1 })).await;
    assert_eq!(server.ended(&run).await["output"], "Hello from one");
    let (status, body) = server
        .send("DELETE", &format!("/v1/modules/swap/versions/{two}"), "")
        .await;
    assert!(matches!(status, 200 | 204), "{status} {body}");
    let versions = server.get("/v1/modules/swap/versions").await.expect("versions");
    assert_eq!(versions.as_array().map(Vec::len), Some(1), "{versions:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_over_or_stay_though_the_server_is_killed_in_between() {
    for park_idle in ["0", "5s"] {
        let mut server = Server::start("", &["--park-idle", park_idle]).await;
        let one = server.deploy("swap", guest("swap_v1")).await;
        let mut runs = Vec::new();
        // The third version does not like odd pauses.
        for ms in [3_600_000, 3_600_001] {
            let run = server.invoke("swap/swap", &json!({ "ms": ms })).await;
            server.in_phase(&run, "sleeping").await;
            runs.push(run);
        }
        let (status, body) = server
            .send("PUT", "/v1/modules/swap?policy=migrate", guest("swap_v3"))
            .await;
        assert_eq!(
            (status, body["data"]["policy"].as_str()),
            (201, Some("migrate")),
            "{body}"
        );
        let three = body["data"]["version"].as_str().expect("a version").to_owned();
        for run in &runs {
            let run = server.get(&format!("/v1/runs/{run}")).await.expect("the run");
            assert_eq!(
                run["migration"],
                json!({ "to": three, "state": "due" }),
                "{run:#}"
            );
            assert_eq!((&run["version"], &run["swaps"]), (&json!(one), &Value::Null));
        }
        server.kill();
        server.boot().await;
        for run in &runs {
            let (status, body) = server.send("POST", &format!("/v1/runs/{run}/wake"), "").await;
            assert_eq!(status, 200, "{body}");
        }
        let (over, stays) = (server.ended(&runs[0]).await, server.ended(&runs[1]).await);
        for (run, version, outcome) in [(&over, &three, "moved"), (&stays, &one, "stayed")] {
            assert_eq!(run["version"], *version, "{run:#}");
            // What was recorded is what counts.
            assert_eq!(run["output"], "Hello from one", "{run:#}");
            let swap = &run["swaps"][0];
            let told = json!({ "seq": 2, "from": one, "to": three, "outcome": outcome });
            for member in ["seq", "from", "to", "outcome"] {
                assert_eq!(swap[member], told[member], "{run:#}");
            }
            assert_eq!(
                (&run["migration"], &run["swaps"][1]),
                (&Value::Null, &Value::Null)
            );
        }
        assert_eq!(stays["swaps"][0]["error"]["code"], "guest-panic", "{stays:#}");
        let journal = server
            .get(&format!("/v1/runs/{}/journal", runs[0]))
            .await
            .expect("a journal");
        let by: Vec<&Value> = journal
            .as_array()
            .expect("a list")
            .iter()
            .map(|entry| &entry["version"])
            .collect();
        assert_eq!(by[..3], [&json!(one), &json!(one), &json!(three)]);

        let told = |run: &str| {
            let output = server
                .command(&["runs", "get", run])
                .output()
                .expect("the command runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(told(&runs[0]).contains(", with entry 2"), "{}", told(&runs[0]));
        assert!(told(&runs[1]).contains("are odd"), "{}", told(&runs[1]));
        let versions = server.get("/v1/modules/swap/versions").await.expect("versions");
        let policies: Vec<&Value> = versions
            .as_array()
            .expect("a list")
            .iter()
            .map(|version| &version["policy"])
            .collect();
        assert_eq!(policies, [&json!("migrate"), &Value::Null]);
        let page = reqwest::get(server.url(&format!("/runs/{}", runs[1])))
            .await
            .expect("the page");
        let page = page.text().await.expect("a text");
        assert!(page.contains("stayed: ") && page.contains("are odd"), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_is_not_is_refused() {
    let server = Server::start("", &[]).await;
    let one = server.deploy("swap", guest("swap_v1")).await;
    for policy in ["move", "", "Migrate"] {
        let expected = (400, "invalid-query");
        let path = format!("/v1/modules/swap?policy={policy}");
        let (status, body) = server.send("PUT", &path, guest("swap_v2")).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (expected.0, Some(expected.1)),
            "{body}"
        );
        let activate = json!({ "version": one, "policy": policy }).to_string();
        let (status, body) = server.send("POST", "/v1/modules/swap/activate", activate).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (expected.0, Some(expected.1)),
            "{body}"
        );
    }
    let versions = server.get("/v1/modules/swap/versions").await.expect("versions");
    assert_eq!(
        versions.as_array().map(Vec::len),
        Some(1),
        "nothing was left behind"
    );
}
