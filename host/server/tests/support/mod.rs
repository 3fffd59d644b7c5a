//! Whole servers in this process, with real guests.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_core::run::Phase;
use dormouse_core::{FunctionName, Json, RunId};
use dormouse_server::{Options, Server, Tuning};
use dormouse_store::read::Run;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

/// How long a test keeps waiting instances where it does not matter to it: not at all, or as `DORMOUSE_TEST_PARK` says (0 or 1).
/// The long form of the tests runs everything both ways.
pub(crate) fn park_idle() -> Duration {
    match std::env::var("DORMOUSE_TEST_PARK").as_deref() {
        Ok("1") => Duration::from_secs(5),
        _ => Duration::ZERO,
    }
}

pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
}

impl Running {
    pub(crate) async fn start(config: &str, park_idle: Duration, tuning: Tuning) -> Running {
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("server.toml"), config).expect("written");
        Running::on(dir, park_idle, tuning).await
    }

    /// Ends the server in an orderly way, and starts another on what it leaves.
    pub(crate) async fn restart(self, park_idle: Duration, tuning: Tuning) -> Running {
        let stop = tokio_util::sync::CancellationToken::new();
        stop.cancel();
        self.server.run(stop).await.expect("it stops");
        Running::on(self.dir, park_idle, tuning).await
    }

    pub(crate) async fn on(dir: TempDir, park_idle: Duration, tuning: Tuning) -> Running {
        let config_file = dir.path().join("server.toml");
        let options = Options {
            config: Some(config_file),
            park_idle,
            ..Options::new(dir.path().join("data"))
        };
        let server = Server::start(options, tuning).await.expect("it starts");
        Running { server, dir }
    }

    pub(crate) async fn deploy(&self, module: &str, guest: &str) {
        let deployed = self
            .server
            .app()
            .deploy(module, component(guest), "test", None, None)
            .await;
        deployed.unwrap_or_else(|problem| panic!("{guest}: {problem:?}"));
    }

    pub(crate) async fn invoke(&self, function: &str, data: &str) -> RunId {
        let function: FunctionName = function.parse().expect("a name");
        let data = Json::parse(data).expect("JSON");
        self.server
            .app()
            .invoke(&function, data)
            .await
            .expect("it is invoked")
            .0
    }

    pub(crate) async fn run(&self, run: RunId) -> Run {
        self.server
            .app()
            .store()
            .run(run)
            .await
            .expect("read")
            .expect("there")
    }

    pub(crate) async fn until(&self, run: RunId, what: &str, holds: impl Fn(&Run) -> bool) -> Run {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.run(run).await;
            if holds(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "the run never was {what}: {found:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a run has ended or is blocked.
    pub(crate) async fn settled(&self, run: RunId) -> Run {
        self.until(run, "settled", |run| {
            run.state.status.is_terminal() || run.state.phase == Some(Phase::Blocked)
        })
        .await
    }
}

pub(crate) fn component(guest: &str) -> Bytes {
    let directory = std::env::var("DORMOUSE_GUESTS").unwrap_or_else(|_| {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testing/guests/target/wasm32-wasip2/release"
        )
        .to_owned()
    });
    let path = format!("{directory}/{guest}.wasm");
    match std::fs::read(&path) {
        Ok(bytes) => bytes.into(),
        Err(error) => panic!("the guest {path} cannot be read ({error}): run `scripts/build-guests`"),
    }
}

pub(crate) fn verifying(bodies: bool) -> Tuning {
    Tuning {
        verify_bodies: bodies,
        verify_share: if bodies { 1.0 } else { 0.0 },
        ..Tuning::default()
    }
}
