//! The operator's migrations of an application database: `NNNN_name.sql` files, each applied once.
//!
//! Several modules may share a database and bring a directory each, so that a file that is applied and no longer there
//! is not an error. Applying them is each database's room. Absent on
//! purpose: going back.

use std::path::Path;

use dormouse_core::{Digest, Failure};

/// A file of a directory of migrations.
#[derive(Debug)]
pub(super) struct Migration {
    /// Its name, by which the database knows it.
    pub(super) name: String,
    pub(super) sql: String,
    number: u64,
}

/// Reads a directory, in the order of the numbers.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn read_all(directory: &Path) -> Result<Vec<Migration>, String> {
    let unreadable =
        |path: &Path, error: &std::io::Error| format!("{} cannot be read: {error}", path.display());
    let files = std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut migrations: Vec<Migration> = Vec::new();
    for file in files {
        let path = file.map_err(|error| unreadable(directory, &error))?.path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let Some((name, number)) = path.file_name().and_then(|name| name.to_str()).and_then(named) else {
            return Err(format!(
                "{} must be named like 0001_create_users.sql",
                path.display()
            ));
        };
        let sql = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        migrations.push(Migration { name, number, sql });
    }
    migrations.sort_by_key(|migration| migration.number);
    match migrations
        .windows(2)
        .find(|pair| pair[0].number == pair[1].number)
    {
        Some(pair) => Err(format!(
            "{}: {} and {} have the same number",
            directory.display(),
            pair[0].name,
            pair[1].name
        )),
        None => Ok(migrations),
    }
}

/// The name, and the number in it: at least four digits, an underscore, a word.
fn named(file: &str) -> Option<(String, u64)> {
    let (number, word) = file.strip_suffix(".sql")?.split_once('_')?;
    let fits = number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty();
    Some((file.to_owned(), number.parse().ok().filter(|_| fits)?))
}

impl Migration {
    /// What the database remembers of its text.
    pub(super) fn checksum(&self) -> String {
        Digest::of(self.sql.as_bytes()).to_string()
    }

    /// Whether it was applied, going by the checksum that the database has of it.
    ///
    /// # Errors
    /// `migration-changed`.
    pub(super) fn is_applied(&self, remembered: Option<&str>) -> Result<bool, Failure> {
        match remembered {
            None => Ok(false),
            Some(checksum) if checksum == self.checksum() => Ok(true),
            Some(_) => {
                let message = "it has been changed since it was applied; write the change as a new migration";
                Err(Failure::terminal("migration-changed", message))
            }
        }
    }
}
