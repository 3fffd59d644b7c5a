//! A pooler in transaction mode in front of a cluster.

use std::time::{Duration, Instant};

use crate::watched::Watched;
use crate::{Cluster, PASSWORD, PATIENCE, USER, place};

/// A pgbouncer.
pub struct Pooler {
    port: u16,
    watched: Watched,
}

impl Pooler {
    /// Starts one with `connections` connections to the server for each database.
    ///
    /// # Panics
    /// When pgbouncer is not installed, naming the package; when it does not start, with its log.
    pub fn start(cluster: &Cluster, connections: u32) -> Pooler {
        Pooler::to(cluster.port(), connections)
    }

    /// The same for a port that leads to a cluster.
    pub fn to(server: u16, connections: u32) -> Pooler {
        let program = place::program("pgbouncer", "pgbouncer");
        let dir = place::directory("pooler");
        let port = place::free_port();
        let users = dir.join("users.txt");
        std::fs::write(&users, format!("\"{USER}\" \"{PASSWORD}\"\n")).expect("users are written");
        let settings = dir.join("pooler.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = plain\nauth_file = {}\npool_mode = transaction\nmax_client_conn = 200\n\
             default_pool_size = {connections}\nserver_login_retry = 1\n",
            users.display()
        );
        std::fs::write(&settings, text).expect("settings are written");
        for path in [&users, &settings] {
            place::give(path);
        }
        let mut command = place::command(&program);
        command.arg(&settings);
        let log = dir.join("log.txt");
        let mut watched = Watched::start(&command, "TERM", &dir, &log);
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(!watched.has_ended(), "pgbouncer ended:\n{}", said());
            assert!(
                began.elapsed() < PATIENCE,
                "pgbouncer does not answer:\n{}",
                said()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Pooler { port, watched }
    }

    /// The URL through the pooler of a database that [`Cluster::database`] made.
    pub fn url(&self, direct: &str) -> String {
        let name = direct.rsplit('/').next().and_then(|rest| rest.split('?').next());
        let name = name.unwrap_or_default();
        format!(
            "postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{name}?sslmode=disable&pgbouncer=true",
            self.port
        )
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.watched.finish();
    }
}
