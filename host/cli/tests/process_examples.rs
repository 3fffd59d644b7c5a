//! The examples as components on a server, as `scripts/build-guests` makes them.

mod support;

use std::path::Path;

use serde_json::json;
use support::server::Server;

fn example(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/target/wasm32-wasip2/release")
        .join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "the example {} cannot be read ({error}): run `scripts/build-guests`",
            path.display()
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn hello_world_sleeps_and_greets() {
    let server = Server::start("", &[]).await;
    server.deploy("hello-world", example("hello_world")).await;
    let event = server.event("demo/hello", "ada", &json!({ "name": "Ada" })).await;
    let runs = server
        .get(&format!("/v1/events/{event}/runs"))
        .await
        .expect("listed");
    let run = server.ended(runs[0]["run_id"].as_str().expect("an id")).await;
    assert_eq!(run["output"], json!({ "message": "Hello Ada!" }), "{run:#}");
    assert_eq!(run["steps"][0]["name"], "wait-a-moment", "{run:#}");
    assert_eq!(run["steps"].as_array().map(Vec::len), Some(1), "{run:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn create_workflow_writes_one_row_into_the_granted_database() {
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/create-workflow/migrations");
    let config = format!(
        "[modules.create-workflow]\ndatabases.app = {{ url = \"sqlite:app.db\", migrations = \"{}\" }}\n",
        migrations.display()
    );
    let server = Server::start(&config, &[]).await;
    server.deploy("create-workflow", example("create_workflow")).await;
    let event = server
        .event(
            "test/hello.world",
            "zzuny",
            &json!({ "email": "zzuny@zzuny.com" }),
        )
        .await;
    let runs = server
        .get(&format!("/v1/events/{event}/runs"))
        .await
        .expect("listed");
    let run = server.ended(runs[0]["run_id"].as_str().expect("an id")).await;
    assert_eq!(
        run["output"],
        json!({ "message": "Hello zzuny@zzuny.com!" }),
        "{run:#}"
    );
    let names: Vec<&str> = run["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .filter_map(|step| step["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "fetch video",
            "transcribe video",
            "summarise with AI",
            "create-workflow"
        ]
    );
    let database =
        rusqlite::Connection::open(server.dir().join("app.db")).expect("the application's database");
    let rows: Vec<String> = database
        .prepare("select name from workflow")
        .expect("its table")
        .query_map([], |row| row.get(0))
        .expect("rows")
        .collect::<Result<_, _>>()
        .expect("names");
    assert_eq!(rows, ["workflow-from-dormouse"]);
}
