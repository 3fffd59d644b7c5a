//! What SQLite lets foreign SQL do. SQLite asks while it compiles each statement, triggers and views included, so that
//! nothing depends on reading the text. Absent on purpose: limits of size and time.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::sql::OWN_PREFIX;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Author {
    /// A guest's, in a step.
    Guest,
    /// The operator's, in a migration.
    Operator,
}

/// Runs `work` while the connection refuses what the author may not do. Returns also why the last refusal was.
pub(super) fn restrained<T>(
    connection: &Connection,
    author: Author,
    work: impl FnOnce() -> T,
) -> rusqlite::Result<(T, Option<String>)> {
    let refusal = Arc::new(Mutex::new(None));
    let heard = Arc::clone(&refusal);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        match refused(author, &context) {
            None => Authorization::Allow,
            Some(reason) => {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                Authorization::Deny
            }
        }
    }))?;
    let result = work();
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    let refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok((result, refusal))
}

/// Why an action is refused; none when it is allowed.
fn refused(author: Author, context: &AuthContext<'_>) -> Option<String> {
    use AuthAction as A;
    let guest = author == Author::Guest;
    let own = |name: &str| {
        let is_own = name
            .get(..OWN_PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX));
        is_own.then(|| {
            format!("\"{name}\" belongs to the host: names that begin with {OWN_PREFIX} are its own")
        })
    };
    let temporary = || {
        guest.then(|| {
            "temporary tables, views and triggers would outlive the step in the host's connection".to_owned()
        })
    };
    match context.action {
        A::Attach { .. } | A::Detach { .. } => {
            Some("ATTACH and DETACH are not allowed: grant the module another database".to_owned())
        }
        A::Transaction { .. } | A::Savepoint { .. } => Some(
            "BEGIN, COMMIT, ROLLBACK and SAVEPOINT are not allowed: the statements are one transaction"
                .to_owned(),
        ),
        // Full-text indexes read these two of themselves.
        A::Pragma {
            pragma_name: "data_version" | "page_size",
            pragma_value: None,
        } => None,
        A::Pragma { pragma_name, .. } => {
            guest.then(|| format!("PRAGMA {pragma_name} is not allowed in a step"))
        }
        A::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            Some("load_extension is not allowed".to_owned())
        }
        A::CreateTempIndex { .. }
        | A::CreateTempTable { .. }
        | A::CreateTempTrigger { .. }
        | A::CreateTempView { .. }
        | A::DropTempIndex { .. }
        | A::DropTempTable { .. }
        | A::DropTempTrigger { .. }
        | A::DropTempView { .. } => temporary(),
        A::CreateVtable { .. } | A::DropVtable { .. } if context.database_name == Some("temp") => temporary(),
        A::CreateTable { table_name }
        | A::Delete { table_name }
        | A::DropTable { table_name }
        | A::Insert { table_name }
        | A::Read { table_name, .. }
        | A::Update { table_name, .. }
        | A::AlterTable { table_name, .. }
        | A::CreateVtable { table_name, .. }
        | A::DropVtable { table_name, .. } => own(table_name),
        A::CreateIndex {
            index_name: name,
            table_name,
        }
        | A::DropIndex {
            index_name: name,
            table_name,
        }
        | A::CreateTrigger {
            trigger_name: name,
            table_name,
        }
        | A::DropTrigger {
            trigger_name: name,
            table_name,
        } => own(name).or_else(|| own(table_name)),
        A::CreateView { view_name } | A::DropView { view_name } => own(view_name),
        A::Select | A::Recursive | A::Function { .. } | A::Reindex { .. } | A::Analyze { .. } => None,
        // What this release has never heard of.
        _ => Some("this kind of statement is not allowed".to_owned()),
    }
}
