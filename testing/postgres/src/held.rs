//! A transaction that somebody has forgotten: it holds a snapshot, or locks.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::place;

/// A transaction that stays open until this is dropped.
pub struct Held {
    process: Child,
    input: ChildStdin,
}

impl Held {
    /// Executes SQL in a transaction of the database at a URL that reads from one snapshot, and leaves it open.
    ///
    /// # Panics
    /// When it fails; what `psql` says about it is on stderr.
    pub fn at(url: &str, sql: &str) -> Held {
        let mut process = Command::new(place::server_binaries().join("psql"))
            .args([
                "--no-psqlrc",
                "--no-align",
                "--tuples-only",
                "--quiet",
                "-v",
                "ON_ERROR_STOP=1",
            ])
            .args(["--dbname", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql runs");
        let mut input = process.stdin.take().expect("a pipe");
        let text = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {sql};\n\\echo held\n");
        input.write_all(text.as_bytes()).expect("psql reads");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        let held = answers.lines().any(|line| line.is_ok_and(|line| line == "held"));
        assert!(held, "psql ended: {sql}");
        Held { process, input }
    }

    /// Executes more SQL in the transaction, and waits for nothing.
    pub fn go_on(&mut self, sql: &str) {
        self.input
            .write_all(format!("{sql};\n").as_bytes())
            .expect("psql reads");
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The server ends the transaction with its connection; a process that has ended is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
