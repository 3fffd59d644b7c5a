//! One thread of low priority that compiles: a large upload must not take the processors from running functions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::thread;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::sync::oneshot;

/// Added to the thread's nice value.
const NICER: i32 = 15;
/// Compilers recurse; hostile code makes them.
const STACK_BYTES: usize = 16 << 20;

/// The thread's queue. Dropping it ends the thread when the queue is empty.
pub(crate) struct Compiler(Sender<Job>);

type Job = Box<dyn FnOnce() + Send>;

/// The compiler gave up: its thread is gone, or this job panicked in it.
#[derive(Debug, thiserror::Error)]
#[error("the compiler failed on this component; this is a bug, please report it with the component")]
pub(crate) struct CompilerFailed;

impl Compiler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> std::io::Result<Compiler> {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("dormouse-compile".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // On Linux this is the calling thread's alone. Without it compiling works as well, less politely.
                let nice = getpriority_process(None).unwrap_or(0) + NICER;
                if let Err(error) = setpriority_process(None, nice.min(19)) {
                    tracing::debug!("the compiling thread keeps its priority: {error}");
                }
                for job in jobs {
                    job();
                }
            })?;
        Ok(Compiler(sender))
    }

    /// Runs a job there, after those before it.
    ///
    /// # Errors
    /// When the job panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CompilerFailed> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            if let Ok(value) = catch_unwind(AssertUnwindSafe(job)) {
                let _ = answer.send(value);
            }
        });
        self.0.send(job).map_err(|_| CompilerFailed)?;
        answered.await.map_err(|_| CompilerFailed)
    }
}
