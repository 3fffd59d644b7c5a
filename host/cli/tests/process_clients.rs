//! The published clients of Inngest, unmodified, against a server process: they are what the event API's contract means.
//!
//! They come from their registries at pinned versions (`testing/clients`) and are kept in the target directory.

#[path = "clients/door.rs"]
mod door;
mod support;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use door::{Door, Fault};
use dormouse_testing_packages as packages;
use serde_json::{Value, json};
use support::guest;
use support::server::Server;

const JAVASCRIPT: [&str; 3] = ["inngest-3.44.1", "inngest-3.54.2", "inngest-4.24.0"];

/// A client: the program and the arguments that send what standard input says.
struct Client {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<PathBuf>,
    /// What its events may have beside name, data, id and ts.
    more: Value,
}

impl Client {
    fn javascript(name: &'static str) -> Client {
        let package = packages::npm(&format!("testing/clients/{name}"), false);
        Client {
            name,
            program: packages::node(),
            arguments: vec![packages::repository().join("testing/clients/send.cjs"), package],
            more: json!({"v": "2", "user": {"id": "u1"}}),
        }
    }

    fn python() -> Client {
        Client {
            name: "inngest-python",
            program: packages::pip("testing/clients/inngest-python"),
            arguments: vec![packages::repository().join("testing/clients/send.py")],
            more: json!({}),
        }
    }

    /// Sends payloads with these variables and no others that mean anything to a client.
    async fn send(&self, variables: &[(&str, &str)], payloads: Value) -> Vec<Value> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(inherited())
            .envs(variables.iter().copied());
        let plan = json!({ "send": payloads }).to_string();
        let output = tokio::task::spawn_blocking(move || fed(command, &plan))
            .await
            .expect("it ran");
        self.results(&output)
    }

    fn results(&self, output: &Output) -> Vec<Value> {
        let said = String::from_utf8_lossy(&output.stdout);
        let answer: Option<Value> = said
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        match answer {
            Some(answer) if output.status.success() => {
                answer["results"].as_array().cloned().expect("results")
            }
            _ => panic!(
                "{} ended with {}: {said}{}",
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }
}

/// What a client's process has of this one's environment: nothing that means anything to the client.
fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME")
}

fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    child.wait_with_output().expect("it ended")
}

/// A server with functions for the events below, and a way to it.
async fn started() -> (Server, Door) {
    let server = Server::start("", &[]).await;
    server.deploy("steps", guest("steps")).await;
    let port = server
        .url("")
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let door = Door::to(port.expect("a port")).await;
    (server, door)
}

#[track_caller]
fn ids(result: &Value) -> Vec<String> {
    let ids = result["ids"]
        .as_array()
        .unwrap_or_else(|| panic!("it was refused: {result}"));
    ids.iter()
        .map(|id| id.as_str().expect("a ULID").to_owned())
        .collect()
}

/// The runs that an event started, all of them ended.
async fn runs(server: &Server, event: &str) -> Vec<Value> {
    let runs = server
        .get(&format!("/v1/events/{event}/runs"))
        .await
        .expect("runs");
    let mut ended = Vec::new();
    for run in runs.as_array().expect("a list") {
        ended.push(server.ended(run["run_id"].as_str().expect("an id")).await);
    }
    ended
}

async fn count_runs(server: &Server) -> usize {
    let runs = server.get("/v1/runs?limit=100").await.expect("runs");
    runs.as_array().expect("a list").len()
}

/// Everything that a client is asked to do against a healthy server.
async fn sends(client: &Client, server: &Server) {
    let url = server.url("");
    let key = [
        ("INNGEST_BASE_URL", url.as_str()),
        ("INNGEST_EVENT_KEY", "any-key"),
    ];
    let order = format!("order-of-{}", client.name);
    let mut later = json!({"name": "steps/echo", "data": {"n": 6}, "ts": 4_102_000_000_000_i64});
    for (field, value) in client.more.as_object().expect("an object") {
        later[field] = value.clone();
    }
    let results = client
        .send(
            &key,
            json!([
                {"name": "steps/echo", "data": {"n": 1, "text": "Füße ✓ \u{0}"}},
                [{"name": "steps/echo", "data": {"n": 2}}, {"name": "nobody/listens", "data": {}}, {"name": "steps/echo", "data": {"n": 3}}],
                {"name": "steps/echo", "id": order, "data": {"n": 4}},
                {"name": "steps/echo", "id": order, "data": {"n": 5}},
                later,
                {"name": "inngest/mine", "data": {}},
            ]),
        )
        .await;

    let one = ids(&results[0]);
    assert_eq!(one.len(), 1, "{results:?}");
    let begun = runs(server, &one[0]).await;
    assert_eq!(begun.len(), 1, "{begun:?}");
    assert_eq!(begun[0]["output"], json!({"n": 1, "text": "Füße ✓ \u{0}"}));

    let many = ids(&results[1]);
    assert_eq!(many.len(), 3, "{results:?}");
    for (id, expected) in many.iter().zip([json!([{"n": 2}]), json!([]), json!([{"n": 3}])]) {
        let outputs: Vec<Value> = runs(server, id)
            .await
            .iter()
            .map(|run| run["output"].clone())
            .collect();
        assert_eq!(json!(outputs), expected, "in the order they were sent");
    }

    // The same id again: stored and answered with an id of its own, and no second run.
    let (first, again) = (ids(&results[2]), ids(&results[3]));
    assert_ne!(first, again);
    assert_eq!(runs(server, &first[0]).await.len(), 1);
    assert_eq!(runs(server, &again[0]).await.len(), 0);
    let event = server
        .get(&format!("/v1/events/{}", again[0]))
        .await
        .expect("stored");
    assert_eq!((&event["id"], &event["data"]), (&json!(order), &json!({"n": 5})));

    let later = ids(&results[4]);
    let event = server
        .get(&format!("/v1/events/{}", later[0]))
        .await
        .expect("stored");
    assert_eq!(event["ts"], json!(4_102_000_000_000_i64));
    for field in ["v", "user"] {
        assert_eq!(event.get(field), client.more.get(field), "{event}");
    }
    let waiting = server
        .get(&format!("/v1/events/{}/runs", later[0]))
        .await
        .expect("runs");
    assert_eq!(waiting[0]["status"], "Scheduled", "{waiting}");

    let refused = results[5]["error"].as_str().unwrap_or_default();
    assert!(refused.contains("reserved for internal use"), "{refused}");
    let stored = server.get("/v1/events?name=inngest/mine").await.expect("events");
    assert_eq!(stored, json!([]), "what is refused is not stored");

    // Until there are keys, every key is as good as another, and so is the one that a client sends when it has none.
    let development = client
        .send(
            &[("INNGEST_DEV", &url)],
            json!([{"name": "steps/echo", "data": {"n": 8}}]),
        )
        .await;
    assert_eq!(runs(server, &ids(&development[0])[0]).await.len(), 1);
    let wrong = [
        ("INNGEST_BASE_URL", url.as_str()),
        ("INNGEST_EVENT_KEY", "the wrong one"),
    ];
    let wrong = client
        .send(&wrong, json!([{"name": "steps/echo", "data": {"n": 9}}]))
        .await;
    assert_eq!(runs(server, &ids(&wrong[0])[0]).await.len(), 1);
}

/// A client repeats what was not answered, and that starts nothing twice.
async fn repeats(client: &Client, server: &Server, door: &Door) {
    let url = door.url();
    let variables = [("INNGEST_BASE_URL", url.as_str()), ("INNGEST_EVENT_KEY", "key")];
    let mut before = count_runs(server).await;
    for faults in [
        &[Fault::Lost][..],
        &[Fault::Denied],
        &[Fault::Cut],
        &[Fault::Denied, Fault::Cut, Fault::Lost, Fault::Denied],
    ] {
        door.fail_next(faults);
        let results = client
            .send(
                &variables,
                json!([[{"name": "steps/echo", "data": {"n": 1}}, {"name": "steps/echo", "data": {"n": 2}}]]),
            )
            .await;
        assert!(
            results[0]["ids"].is_array(),
            "{}, {faults:?}: {results:?}",
            client.name
        );
        let sent = ids(&results[0]);
        assert_eq!(sent.len(), 2, "{faults:?}: {results:?}");
        let seeds = door.seeds();
        assert_eq!(seeds.len(), faults.len() + 1, "{faults:?}");
        assert!(
            seeds[0].contains(',') && seeds.iter().all(|seed| *seed == seeds[0]),
            "{seeds:?}"
        );
        for (id, n) in sent.iter().zip(1..) {
            let begun = runs(server, id).await;
            assert_eq!(begun.len(), 1, "{faults:?}: {begun:?}");
            assert_eq!(begun[0]["output"], json!({ "n": n }));
        }
        before += 2;
        assert_eq!(
            count_runs(server).await,
            before,
            "{faults:?}: no second run anywhere"
        );
    }

    // It gives up in the end, and its application is told.
    door.fail_next(&[Fault::Lost; 20]);
    let results = client
        .send(&variables, json!([{"name": "steps/echo", "data": {"n": 3}}]))
        .await;
    assert!(results[0]["error"].is_string(), "{results:?}");
    assert_eq!(count_runs(server).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_clients_send() {
    let (server, _) = started().await;
    for name in JAVASCRIPT {
        sends(&Client::javascript(name), &server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_clients_repeat_what_was_not_answered_and_nothing_runs_twice() {
    let (server, door) = started().await;
    for name in JAVASCRIPT {
        repeats(&Client::javascript(name), &server, &door).await;
    }
}

/// With keys, a client's event key is one of them, and nothing else will do.
#[tokio::test(flavor = "multi_thread")]
async fn clients_send_with_an_event_key() {
    let (server, _) = started().await;
    let make = |key: &str, arguments: &[&str]| {
        let mut command = server.command(arguments);
        let output = command.env("DORMOUSE_KEY", key).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let admin = make("", &["keys", "create", "--name", "ada", "--role", "admin"]);
    let web = make(&admin, &["keys", "create", "--name", "web", "--event"]);
    let url = server.url("");
    let clients = JAVASCRIPT
        .into_iter()
        .map(Client::javascript)
        .chain([Client::python()]);
    for client in clients {
        let send = async |key: &str| {
            let variables = [("INNGEST_BASE_URL", url.as_str()), ("INNGEST_EVENT_KEY", key)];
            let mut results = client
                .send(&variables, json!([{"name": "steps/echo", "data": {"n": 1}}]))
                .await;
            results.remove(0)
        };
        let sent = send(&web).await;
        assert_eq!(ids(&sent).len(), 1, "{}: {sent}", client.name);
        let refused = send("any-key").await;
        let error = refused["error"].as_str().unwrap_or_default();
        assert!(
            error.contains("the key is not known"),
            "{}: {refused}",
            client.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_sends() {
    let (server, _) = started().await;
    sends(&Client::python(), &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_repeats_what_was_not_answered_and_nothing_runs_twice() {
    let (server, door) = started().await;
    repeats(&Client::python(), &server, &door).await;
}

/// A server in a network of its own, on its usual port: whatever else this machine runs there, and a client that looks
/// elsewhere finds nothing. Killed when dropped.
struct Apart {
    process: Child,
    dir: tempfile::TempDir,
}

impl Apart {
    async fn start() -> Apart {
        let dir = tempfile::TempDir::new().expect("a directory");
        let log = std::fs::File::create(dir.path().join("log.txt")).expect("a log file");
        // Each of these becomes the next, so that the process's id is the server's.
        let process = Command::new("unshare")
            .args([
                "--net",
                "--map-root-user",
                "sh",
                "-c",
                "ip link set lo up && exec \"$@\"",
                "sh",
            ])
            .args([env!("CARGO_BIN_EXE_dormouse"), "start", "--data-dir"])
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log)
            .spawn()
            .expect("unshare, of util-linux");
        let mut apart = Apart { process, dir };
        let deadline = Instant::now() + support::DEADLINE;
        while apart.events().is_none() {
            let log = std::fs::read_to_string(apart.dir.path().join("log.txt")).unwrap_or_default();
            let ended = apart.process.try_wait().expect("our process");
            assert!(
                ended.is_none(),
                "the server ended with {ended:?} (ip is of iproute2): {log}"
            );
            assert!(Instant::now() < deadline, "the server never answered: {log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        apart
    }

    /// A command, in that network, with variables of its own only.
    fn within(&self, program: &Path, arguments: &[PathBuf]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--user", "--net", "--preserve-credentials", "--target"])
            .arg(self.process.id().to_string())
            .arg("--")
            .arg(program)
            .args(arguments)
            .env_clear()
            .envs(inherited());
        command
    }

    /// How many events there are; none when the server does not answer.
    fn events(&self) -> Option<usize> {
        let arguments = ["events", "list", "--limit", "100", "--output", "jsonl"].map(PathBuf::from);
        let output = self
            .within(Path::new(env!("CARGO_BIN_EXE_dormouse")), &arguments)
            .output()
            .expect("nsenter, of util-linux");
        let lines = String::from_utf8_lossy(&output.stdout).lines().count();
        output.status.success().then_some(lines)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_nothing_set_find_a_server_on_its_usual_port() {
    let apart = Apart::start().await;
    let nothing: &[(&str, &str)] = &[];
    let development = &[("INNGEST_DEV", "1")][..];
    let javascript = JAVASCRIPT.map(Client::javascript);
    let python = Client::python();
    let one = json!([{"name": "found/it", "data": {}}]);
    let plan = json!({ "send": one }).to_string();
    let asks = [
        (&javascript[0], nothing),
        (&javascript[0], development),
        (&javascript[1], nothing),
        (&javascript[1], development),
        (&javascript[2], development),
        (&python, development),
    ];
    for (sent, (client, variables)) in asks.into_iter().enumerate() {
        let mut command = apart.within(&client.program, &client.arguments);
        command.envs(variables.iter().copied());
        let results = client.results(&fed(command, &plan));
        assert_eq!(ids(&results[0]).len(), 1, "{} with {variables:?}", client.name);
        assert_eq!(
            apart.events(),
            Some(sent + 1),
            "{} with {variables:?}",
            client.name
        );
    }

    // The fourth major looks for no server unless it is told to, and says what it wants.
    let forgot = javascript[2].send(nothing, one).await;
    let error = forgot[0]["error"].as_str().unwrap_or_default().to_lowercase();
    assert!(error.contains("event key"), "{forgot:?}");
}
