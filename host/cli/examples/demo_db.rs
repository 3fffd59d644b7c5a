//! What `make demo KILL=1` has to do with the application's database itself, so that nobody needs `sqlite3` for it.
//!
//! `demo_db count FILE RUN` prints how many rows the run wrote. `demo_db lock FILE` holds the write lock, so that the
//! run's SQL step waits, from when it prints "locked" until its stdin ends.

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use rusqlite::Connection;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["count", file, run] => {
            let sql = "SELECT count(*) FROM workflow WHERE id = ?1";
            let rows: i64 = open(file)?.query_row(sql, [run], |row| row.get(0))?;
            println!("{rows}");
        }
        ["lock", file] => {
            let connection = open(file)?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            println!("locked");
            std::io::stdin().read_to_end(&mut Vec::new())?;
            connection.execute_batch("ROLLBACK")?;
        }
        _ => return Err("usage: demo_db count FILE RUN | demo_db lock FILE".into()),
    }
    Ok(())
}

fn open(file: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}
