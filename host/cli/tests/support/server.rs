//! A `dormouse start` process on a port and a directory of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::until;

/// How long a server keeps waiting instances where a test does not say: as `DORMOUSE_TEST_PARK` does (0 or 1), or else as by
/// default. The long form of the tests runs everything both ways.
fn parking() -> Vec<String> {
    let idle = match std::env::var("DORMOUSE_TEST_PARK").as_deref() {
        Ok("0") => "0",
        Ok("1") => "5s",
        _ => return Vec::new(),
    };
    vec!["--park-idle".to_owned(), idle.to_owned()]
}

/// The process, its directory and its address. Killed when dropped.
pub struct Server {
    process: Option<Child>,
    dir: TempDir,
    port: u16,
    extra: Vec<String>,
    http: reqwest::Client,
}

impl Server {
    /// A directory and an address, and no process yet. `config` is the text of the configuration file.
    pub fn prepare(config: &str, extra: &[&str]) -> Server {
        install_crypto();
        let dir = TempDir::new().expect("a temporary directory");
        std::fs::write(dir.path().join("server.toml"), config).expect("the configuration is written");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut extra: Vec<String> = extra.iter().map(|argument| (*argument).to_owned()).collect();
        if !extra.iter().any(|argument| argument == "--park-idle") {
            extra.extend(parking());
        }
        Server {
            process: None,
            dir,
            port,
            extra,
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(60))
                .build()
                .expect("an HTTP client"),
        }
    }

    /// The same, started.
    pub async fn start(config: &str, extra: &[&str]) -> Server {
        let mut server = Server::prepare(config, extra);
        server.boot().await;
        server
    }

    /// Where the configuration file is; relative paths in it are relative to this.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A command of the binary, for this server.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command
            .args(arguments)
            .env("DORMOUSE_URL", self.url(""))
            .env("NO_COLOR", "1");
        command
    }

    /// The command that starts it.
    pub fn start_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command
            .arg("start")
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("--config")
            .arg(self.dir.path().join("server.toml"))
            .args(&self.extra)
            .stdin(Stdio::null());
        command
    }

    /// Starts the process and waits until it answers.
    pub async fn boot(&mut self) {
        self.boot_by(self.start_command()).await;
    }

    /// Starts it by another command than [`Server::start_command`], and waits until it answers.
    pub async fn boot_by(&mut self, command: Command) {
        self.spawn_by(command);
        self.answering().await;
    }

    /// Starts the process, and waits for nothing.
    pub fn spawn(&mut self) {
        self.spawn_by(self.start_command());
    }

    fn spawn_by(&mut self, mut command: Command) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log.txt"))
            .expect("a log file");
        command
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log);
        self.process = Some(command.spawn().expect("the server starts"));
    }

    /// The exit code, once the process has ended by itself; -1 for a signal. Afterwards there is no process.
    pub fn ended_by_itself(&mut self) -> Option<i32> {
        let status = self.process.as_mut()?.try_wait().ok().flatten()?;
        self.process = None;
        Some(status.code().unwrap_or(-1))
    }

    /// Whether there is a process.
    pub fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Adds arguments for the starts that follow.
    pub fn add_arguments(&mut self, extra: &[&str]) {
        self.extra
            .extend(extra.iter().map(|argument| (*argument).to_owned()));
    }

    async fn answering(&mut self) {
        let deadline = std::time::Instant::now() + super::DEADLINE;
        loop {
            if let Some(status) = self
                .process
                .as_mut()
                .and_then(|process| process.try_wait().ok().flatten())
            {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            if self
                .http
                .get(self.url("/health"))
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "the server never answered:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log.txt")).unwrap_or_default()
    }

    /// The last lines of it, newest first.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(lines).collect();
        tail.join("\n")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the process is ours");
            process.wait().expect("it has ended");
        }
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("a process");
        self.signal_pid(process.id(), "TERM");
        process.wait().expect("it has ended").code()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        self.signal_pid(self.pid(), signal);
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("a process").id()
    }

    fn signal_pid(&self, pid: u32, signal: &str) {
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "kill -{signal} {pid}"
        );
    }

    /// `GET` of a path under `/v1`: the `data` of the answer, or the status.
    pub async fn get(&self, path: &str) -> Result<Value, u16> {
        let answer = self.http.get(self.url(path)).send().await.map_err(|_| 0u16)?;
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.map_err(|_| status)?;
        if status == 200 {
            Ok(body["data"].clone())
        } else {
            Err(status)
        }
    }

    /// A request with a body: status and JSON. Status 0: no answer.
    pub async fn send(&self, method: &str, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        match self.http.request(method, self.url(path)).body(body).send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                (status, answer.json().await.unwrap_or(Value::Null))
            }
            Err(_) => (0, Value::Null),
        }
    }

    /// Deploys a component; it must succeed.
    pub async fn deploy(&self, module: &str, component: Vec<u8>) -> String {
        let (status, body) = self
            .send("PUT", &format!("/v1/modules/{module}"), component)
            .await;
        assert!(matches!(status, 200 | 201), "deploying {module}: {status} {body}");
        body["data"]["version"].as_str().expect("a version").to_owned()
    }

    /// Sends an event until it is acknowledged, as a client does that repeats the same id. Its ULID.
    pub async fn event(&self, name: &str, id: &str, data: &Value) -> String {
        let body = serde_json::json!({ "name": name, "id": id, "data": data }).to_string();
        until(&format!("the event {id} is acknowledged"), || async {
            let (status, answer) = self.send("POST", "/e/key", body.clone()).await;
            assert!(matches!(status, 0 | 200 | 503), "event {id}: {status} {answer}");
            (status == 200).then(|| answer["ids"][0].as_str().expect("an id").to_owned())
        })
        .await
    }

    /// Starts a function and returns the run's id.
    pub async fn invoke(&self, function: &str, data: &Value) -> String {
        let (status, body) = self
            .send("POST", &format!("/invoke/{function}"), data.to_string())
            .await;
        assert_eq!(status, 202, "invoking {function}: {body}");
        body["data"]["run_id"].as_str().expect("a run id").to_owned()
    }

    /// Waits until a run has ended.
    pub async fn ended(&self, run: &str) -> Value {
        self.follow(run, "ends", |run| run["ended_at"].is_string()).await
    }

    /// Waits until a run has ended, or is blocked.
    pub async fn settled(&self, run: &str) -> Value {
        let settled = |run: &Value| run["ended_at"].is_string() || run["phase"] == "blocked";
        self.follow(run, "ends or is blocked", settled).await
    }

    /// Asks for a run until it is as it should be. What it was last is in the panic's message.
    async fn follow(&self, run: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = std::time::Instant::now() + super::DEADLINE;
        loop {
            let found = self.get(&format!("/v1/runs/{run}?wait=1s")).await;
            if let Ok(found) = &found
                && holds(found)
            {
                return found.clone();
            }
            let late = std::time::Instant::now() > deadline;
            assert!(!late, "it never happened that run {run} {what}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a run is in a phase.
    pub async fn in_phase(&self, run: &str, phase: &str) -> Value {
        until(&format!("run {run} is {phase}"), || async {
            let run = self.get(&format!("/v1/runs/{run}")).await.ok()?;
            (run["phase"] == phase).then_some(run)
        })
        .await
    }
}

/// The HTTP client wants a provider, also for plain HTTP. Every server of a process installs the same.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- the log of {}, newest first ---\n{}",
                self.url(""),
                self.log_tail(40)
            );
        }
    }
}
