//! Work that a client's going away does not stop: once begun, a command is done whole.

use crate::problem::Problem;

/// Runs a command on a task of its own.
///
/// # Errors
/// The command's, or `internal` when it panicked.
pub(crate) async fn detached<T, F>(command: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    match tokio::spawn(command).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(%error, "a command panicked");
            Err(Problem::new(
                500,
                "internal",
                "something went wrong inside the server; its log says what",
            )
            .help("this is a bug of ours: please report it with the log"))
        }
    }
}
