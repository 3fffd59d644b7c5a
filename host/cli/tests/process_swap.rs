//! A new version under runs in flight: they finish on the version they started with, also when the server is killed
//! in between; new runs use the new one.

mod support;

use serde_json::json;
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
