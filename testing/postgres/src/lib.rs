//! Throw-away Postgres clusters for tests: real ones, on loopback, with fsync, each in a directory of its own.
//!
//! [`Cluster::shared`] is one per test process; a test takes a [`Cluster::database`] of its own. A test that stops
//! the server starts its own [`Cluster`]. Whatever becomes of the test process, its clusters end with it: a shell
//! waits for the end of a pipe that the process holds, then stops the server and removes the directory.
//!
//! Absent on purpose: skipping. Where Postgres is missing, the test fails and says what to install.
#![forbid(unsafe_code)]

mod held;
mod place;
mod pooler;
mod standby;
mod watched;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use held::Held;
pub use pooler::Pooler;

use crate::watched::Watched;

/// The superuser of each cluster,
pub const USER: &str = "dormouse";
/// and its password.
pub const PASSWORD: &str = "secret";

/// A server gets this long to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, everything is written.
    Fast,
    /// As by a power cut: it recovers from its log when it starts again.
    Immediate,
}

/// A server and its directory.
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    server: Mutex<Option<Watched>>,
    databases: AtomicU32,
}

impl Cluster {
    /// The one cluster of this process, started when it is first asked for.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::start)
    }

    /// A cluster of its own.
    ///
    /// # Panics
    /// When Postgres is not installed, naming the package; when it does not start, with its log.
    pub fn start() -> Cluster {
        let bin = place::server_binaries();
        let dir = place::directory("postgres");
        let password = dir.join("password");
        std::fs::write(&password, PASSWORD).expect("the password is written");
        place::give(&password);
        let data = dir.join("data");
        let mut initdb = place::command(&bin.join("initdb"));
        initdb
            .args([
                "--username",
                USER,
                "--auth",
                "scram-sha-256",
                "--encoding",
                "UTF8",
                "--no-locale",
            ])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(&data);
        output(initdb);
        let cluster = Cluster {
            port: place::free_port(),
            bin,
            dir,
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        cluster.resume();
        cluster
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory, which has the Unix socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A database of its own, empty: its URL over TCP.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// Processor time that the server has taken so far, user's and system's, of all its processes that ever were.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(self.dir.join("data/postmaster.pid")).expect("the server runs");
        let postmaster = text.lines().next().expect("a process id");
        let own = place::processor_ticks(postmaster, 4).expect("the server runs");
        let children: u64 = place::children(postmaster)
            .iter()
            // One that has ended meanwhile is counted with its parent the next time.
            .filter_map(|child| place::processor_ticks(child, 2))
            .sum();
        // A tick is a hundredth of a second on every Linux of today's architectures.
        Duration::from_millis(10 * (own + children))
    }

    /// Executes SQL and answers with what it prints: a row per line, columns separated by `|`.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        output(self.psql_command(database, sql))
    }

    /// Writes a database to a file, as SQL.
    pub fn dump(&self, database: &str, file: &Path) {
        let mut dump = Command::new(self.bin.join("pg_dump"));
        dump.env("PGPASSWORD", PASSWORD)
            .args([
                "--no-owner",
                "--no-privileges",
                "--host",
                "127.0.0.1",
                "--username",
                USER,
            ])
            .args(["--port", &self.port.to_string(), "--dbname", database, "--file"])
            .arg(file);
        output(dump);
        // What newer releases of psql are restricted by, and older ones don't know.
        let text = std::fs::read_to_string(file).expect("the dump");
        let lines = text.lines().filter(|line| {
            !["\\restrict", "\\unrestrict"]
                .iter()
                .any(|word| line.starts_with(word))
        });
        std::fs::write(file, lines.collect::<Vec<_>>().join("\n") + "\n").expect("written");
    }

    /// Executes the SQL of a file, such as one that [`Cluster::dump`] wrote.
    pub fn restore(&self, database: &str, file: &Path) {
        let mut psql = self.psql_program(database);
        psql.arg("--file").arg(file);
        output(psql);
    }

    fn psql_command(&self, database: &str, sql: &str) -> Command {
        let mut psql = self.psql_program(database);
        psql.args(["--command", sql]);
        psql
    }

    fn psql_program(&self, database: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.env("PGPASSWORD", PASSWORD)
            .args([
                "--no-psqlrc",
                "--no-align",
                "--tuples-only",
                "--quiet",
                "-v",
                "ON_ERROR_STOP=1",
            ])
            .args(["--host", "127.0.0.1", "--username", USER, "--port"])
            .arg(self.port.to_string())
            .args(["--dbname", database]);
        psql
    }

    /// Stops the server and waits until it has ended.
    pub fn stop(&self, how: Stop) {
        let watched = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut watched) = watched else { return };
        let mut stop = place::command(&self.bin.join("pg_ctl"));
        stop.args(["stop", "--wait", "--mode"])
            .arg(match how {
                Stop::Fast => "fast",
                Stop::Immediate => "immediate",
            })
            .arg("--pgdata")
            .arg(self.dir.join("data"));
        output(stop);
        watched.wait();
    }

    /// Starts the server and waits until it answers.
    pub fn resume(&self) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_some() {
            return;
        }
        let mut postgres = place::command(&self.bin.join("postgres"));
        postgres
            .arg("-D")
            .arg(self.dir.join("data"))
            .arg("-p")
            .arg(self.port.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=200",
            "shared_buffers=64MB",
            "fsync=on",
            "autovacuum_naptime=5s",
            "max_wal_size=512MB",
        ] {
            postgres.arg("-c").arg(setting);
        }
        postgres
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.dir.display()));
        let log = self.dir.join("log.txt");
        let mut watched = Watched::start(&postgres, "QUIT", &self.dir, &log);
        let began = Instant::now();
        loop {
            let mut answers = self.psql_command("postgres", "SELECT 1");
            if answers.output().is_ok_and(|output| output.status.success()) {
                break;
            }
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(!watched.has_ended(), "postgres ended:\n{}", said());
            assert!(
                began.elapsed() < PATIENCE,
                "postgres does not answer:\n{}",
                said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        *server = Some(watched);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut watched) = self.server.lock().unwrap_or_else(PoisonError::into_inner).take() {
            watched.finish();
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// Runs a command and answers with what it printed.
pub(crate) fn output(mut command: Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
