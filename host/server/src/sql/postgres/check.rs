//! What a statement's text may be: read far enough to know its kind, where it ends, and whose tables it names.
//!
//! The server does the understanding; this refuses what a step's transaction must not do before anything runs. It is
//! no wall against a module that builds SQL within the database, which acts with all rights of its role anyway. What
//! holds then is the server: no function or procedure can end the transaction that it runs in.

use dormouse_core::Failure;

use super::lexer::{Lexer, Token};
use crate::sql::OWN_PREFIX;
use crate::sql::statement::invalid;

/// A statement, as far as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// Its first two words, in small letters.
    first: String,
    second: String,
    /// What a statement does that begins with WITH.
    main: Option<String>,
}

impl Read {
    /// Whether the number that the server answers with counts changed rows; else it counts what was selected, or
    /// nothing.
    pub(super) fn changes_rows(&self) -> bool {
        let verb = self.main.as_deref().unwrap_or(&self.first);
        matches!(verb, "insert" | "update" | "delete" | "merge")
    }

    fn is_transaction_control(&self) -> bool {
        match self.first.as_str() {
            "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => true,
            "prepare" => self.second == "transaction",
            "set" => self.second == "transaction",
            _ => false,
        }
    }
}

/// Reads the one statement of a step.
///
/// # Errors
/// `invalid-sql-input`: none, or several. `sql-not-allowed`: a kind that steps may not use, or the host's tables.
pub(super) fn step(sql: &str) -> Result<Read, Failure> {
    let mut statements = statements(sql);
    let Some(read) = statements.pop() else {
        return Err(invalid("there is no statement in the text".to_owned()));
    };
    if let Some(kind) = statements.iter().chain([&read]).find_map(refused) {
        return Err(kind);
    }
    if !statements.is_empty() {
        return Err(invalid("one statement only: give each its own entry".to_owned()));
    }
    own_tables(sql)?;
    Ok(read)
}

/// Checks the statements of a migration.
///
/// # Errors
/// `sql-not-allowed`: what would end its transaction, cannot be sent, or names the host's tables.
pub(super) fn migration(sql: &str) -> Result<(), Failure> {
    for read in statements(sql) {
        if read.is_transaction_control() {
            return Err(transaction_control(&read));
        }
        if read.first == "copy" {
            return Err(not_allowed(
                "COPY is not allowed in a migration: write INSERT".to_owned(),
            ));
        }
    }
    own_tables(sql)
}

fn not_allowed(reason: String) -> Failure {
    Failure::terminal("sql-not-allowed", reason)
}

fn transaction_control(read: &Read) -> Failure {
    not_allowed(format!(
        "{} is not allowed: the statements are one transaction",
        shown(read)
    ))
}

/// Its first word, or the first two where they say more.
fn shown(read: &Read) -> String {
    match (read.first.as_str(), read.second.as_str()) {
        ("prepare" | "set", "transaction") | ("set", "session" | "local" | "role" | "constraints") => {
            format!("{} {}", read.first, read.second).to_ascii_uppercase()
        }
        ("", _) => "a text that begins with no word".to_owned(),
        (first, _) => first.to_ascii_uppercase(),
    }
}

/// Why steps may not use a statement of this kind.
fn refused(read: &Read) -> Option<Failure> {
    if read.is_transaction_control() {
        return Some(transaction_control(read));
    }
    let reason = match read.first.as_str() {
        "select" | "insert" | "update" | "delete" | "merge" | "with" | "values" | "table" | "create"
        | "alter" | "drop" | "truncate" | "comment" | "grant" | "revoke" | "analyze" | "explain"
        | "refresh" | "reindex" | "cluster" | "lock" | "notify" | "call" | "show" => return None,
        "set" | "reset" | "discard" => {
            "settings belong to the host's connection: give the role its own, as ALTER ROLE … SET does"
        }
        "copy" => "rows go through parameters and answers: use INSERT and SELECT",
        "listen" | "unlisten" => "nobody would hear it: send an event instead",
        "do" => "put the block into a function and select that",
        "prepare" | "execute" | "deallocate" => "each statement is prepared already",
        "declare" | "fetch" | "move" | "close" => "select in pages instead",
        "vacuum" | "checkpoint" => "it cannot be done in a transaction",
        _ => "it is not among what steps may use",
    };
    Some(not_allowed(format!("{} is not allowed: {reason}", shown(read))))
}

/// Refuses a text that names the host's own tables, wherever in it.
fn own_tables(sql: &str) -> Result<(), Failure> {
    let small = sql.to_ascii_lowercase();
    // A name with escapes could be any.
    if small.contains("u&\"") {
        return Err(not_allowed(
            "U&\"…\" is not allowed: write the name without escapes".to_owned(),
        ));
    }
    let Some(start) = small.find(OWN_PREFIX) else {
        return Ok(());
    };
    let name: String = sql[start..]
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    Err(not_allowed(format!(
        "\"{name}\" belongs to the host: names that begin with {OWN_PREFIX} are its own"
    )))
}

/// The statements of a text. Semicolons in parentheses (CREATE RULE) and in BEGIN ATOMIC … END separate none.
fn statements(sql: &str) -> Vec<Read> {
    let mut statements = Vec::new();
    let mut read: Option<Read> = None;
    let mut words = 0;
    // Of parentheses, and of BEGIN ATOMIC and CASE, which END closes.
    let (mut parentheses, mut blocks) = (0_usize, 0_usize);
    let mut previous = String::new();
    let mut lexer = Lexer::of(sql);
    while let Some(token) = lexer.next() {
        if token == Token::Symbol(';') && parentheses == 0 && blocks == 0 {
            statements.extend(read.take());
            (words, parentheses) = (0, 0);
            continue;
        }
        let now = read.get_or_insert_default();
        match token {
            Token::Symbol('(') => parentheses += 1,
            Token::Symbol(')') => parentheses = parentheses.saturating_sub(1),
            Token::Symbol(_) | Token::Other => words = words.max(1),
            Token::Word(word) => {
                let word = word.to_ascii_lowercase();
                match word.as_str() {
                    "atomic" if previous == "begin" && words > 1 => blocks += 1,
                    "case" if blocks > 0 => blocks += 1,
                    "end" => blocks = blocks.saturating_sub(1),
                    _ => {}
                }
                match words {
                    0 => now.first = word.clone(),
                    1 => now.second = word.clone(),
                    _ => {}
                }
                let is_verb = matches!(
                    word.as_str(),
                    "select" | "insert" | "update" | "delete" | "merge" | "values" | "table"
                );
                if now.first == "with" && now.main.is_none() && parentheses == 0 && is_verb {
                    now.main = Some(word.clone());
                }
                words += 1;
                previous = word;
            }
        }
    }
    statements.extend(read);
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steps_may_use_is_let_through() {
        for (sql, changes) in [
            ("SELECT 1", false),
            ("  (select 1) union (select 2) ;; -- end", false),
            ("/* a /* b */ c; */ UPDATE t SET x = ';' -- ;", true),
            (
                "insert into t values (E'\\';', ';''', $$;$$, $a$ ; $$ ; $a$, $1)",
                true,
            ),
            ("WITH a AS (DELETE FROM t RETURNING x) SELECT * FROM a", false),
            (
                "with recursive a(x) as (select 1; ) insert into t select * from a",
                true,
            ),
            ("MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING", true),
            ("CREATE TABLE \"a;b\" (x int)", false),
            (
                "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2))",
                false,
            ),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
                false,
            ),
            (
                "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; COMMIT; END $$",
                false,
            ),
            ("SELECT atomic, case when a then b end FROM begin", false),
            ("CALL p()", false),
            ("NOTIFY x", false),
            ("EXPLAIN DELETE FROM t", false),
            ("SELECT 'not closed; COMMIT", false),
            ("SELECT $1::int;", false),
            ("SELECT größe FROM Übung", false),
        ] {
            let read = step(sql).unwrap_or_else(|failure| panic!("{sql}: {failure}"));
            assert_eq!(read.changes_rows(), changes, "{sql}");
        }
    }

    #[test]
    fn the_rest_is_refused_and_named() {
        for (sql, code, words) in [
            ("", "invalid-sql-input", "no statement"),
            (" ; -- nothing", "invalid-sql-input", "no statement"),
            ("SELECT 1; SELECT 2", "invalid-sql-input", "one statement only"),
            ("SELECT 1; COMMIT", "sql-not-allowed", "COMMIT"),
            (
                "begin",
                "sql-not-allowed",
                "BEGIN is not allowed: the statements are one",
            ),
            ("START TRANSACTION", "sql-not-allowed", "START"),
            ("/* x */ -- y\n COMMIT", "sql-not-allowed", "COMMIT"),
            ("END", "sql-not-allowed", "END"),
            ("ROLLBACK TO a", "sql-not-allowed", "ROLLBACK"),
            ("ABORT", "sql-not-allowed", "ABORT"),
            ("SAVEPOINT a", "sql-not-allowed", "SAVEPOINT"),
            ("RELEASE a", "sql-not-allowed", "RELEASE"),
            (
                "PREPARE TRANSACTION 'x'",
                "sql-not-allowed",
                "PREPARE TRANSACTION",
            ),
            ("COMMIT PREPARED 'x'", "sql-not-allowed", "COMMIT"),
            ("PREPARE x AS SELECT 1", "sql-not-allowed", "prepared already"),
            ("EXECUTE x", "sql-not-allowed", "EXECUTE"),
            (
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                "sql-not-allowed",
                "SET TRANSACTION",
            ),
            (
                "SET search_path = x",
                "sql-not-allowed",
                "SET is not allowed: settings",
            ),
            ("SET LOCAL x = 1", "sql-not-allowed", "SET LOCAL"),
            ("RESET ALL", "sql-not-allowed", "RESET"),
            ("DISCARD ALL", "sql-not-allowed", "DISCARD"),
            ("COPY t FROM STDIN", "sql-not-allowed", "INSERT"),
            ("LISTEN x", "sql-not-allowed", "LISTEN"),
            (
                "DO $$ BEGIN COMMIT; END $$",
                "sql-not-allowed",
                "DO is not allowed",
            ),
            ("VACUUM", "sql-not-allowed", "VACUUM"),
            ("LOAD 'x'", "sql-not-allowed", "LOAD"),
            ("SELEKT 1", "sql-not-allowed", "SELEKT"),
            ("'x'", "sql-not-allowed", "not among"),
            (
                "SELECT * FROM _dormouse_operations",
                "sql-not-allowed",
                "\"_dormouse_operations\" belongs",
            ),
            (
                "SELECT * FROM \"_DorMouse_x\"",
                "sql-not-allowed",
                "\"_DorMouse_x\" belongs",
            ),
            (
                "SELECT * FROM public._dormouse_migrations",
                "sql-not-allowed",
                "belongs",
            ),
            (
                "SELECT * FROM u&\"\\005fdormouse_operations\"",
                "sql-not-allowed",
                "escapes",
            ),
        ] {
            let failure = step(sql).expect_err(sql);
            assert_eq!(failure.code.as_deref(), Some(code), "{sql}: {failure}");
            assert!(failure.message.contains(words), "{sql}: {failure}");
        }
    }

    #[test]
    fn migrations_may_do_more_but_not_end_their_transaction() {
        for sql in [
            "",
            "CREATE TABLE a (x int); SET search_path = a; DO $$ BEGIN END $$; INSERT INTO a VALUES (1);",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 1",
        ] {
            migration(sql).unwrap_or_else(|failure| panic!("{sql}: {failure}"));
        }
        for (sql, words) in [
            (
                "CREATE TABLE a (x int); COMMIT; CREATE TABLE b (x int);",
                "COMMIT",
            ),
            ("BEGIN; CREATE TABLE a (x int); END;", "BEGIN"),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; ROLLBACK",
                "ROLLBACK",
            ),
            ("COPY a FROM STDIN;\n1\n\\.\n", "COPY"),
            ("DROP TABLE _dormouse_migrations", "belongs to the host"),
        ] {
            let failure = migration(sql).expect_err(sql);
            assert!(failure.message.contains(words), "{sql}: {failure}");
        }
    }
}
