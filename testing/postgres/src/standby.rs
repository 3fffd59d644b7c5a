//! A server that follows another, and takes over from it.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use crate::{Cluster, PASSWORD, PATIENCE, USER, output, place};

impl Cluster {
    /// A hot standby, which this server waits for from now on: what it says is committed, the standby has.
    ///
    /// # Panics
    /// When the standby does not start or does not follow.
    pub fn standby(&self) -> Cluster {
        let dir = place::directory("standby");
        let mut copy = place::command(&self.bin.join("pg_basebackup"));
        copy.env("PGPASSWORD", PASSWORD)
            .args(["--host", "127.0.0.1", "--username", USER, "--port"])
            .arg(self.port.to_string())
            .args(["--checkpoint", "fast", "--write-recovery-conf", "--pgdata"])
            .arg(dir.join("data"));
        output(copy);
        let standby = Cluster {
            bin: self.bin.clone(),
            dir,
            port: place::free_port(),
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        standby.resume();
        // Not before: it would have been copied, and the standby would wait for one of its own.
        self.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.psql("postgres", "SELECT pg_reload_conf()");
        let began = Instant::now();
        let waited_for =
            "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'";
        while self.psql("postgres", waited_for) != "1" {
            assert!(began.elapsed() < PATIENCE, "the standby does not follow");
            std::thread::sleep(Duration::from_millis(20));
        }
        standby
    }

    /// Makes a standby take writes, and waits until it does.
    pub fn promote(&self) {
        assert_eq!(self.psql("postgres", "SELECT pg_promote(true, 60)"), "t");
    }
}
