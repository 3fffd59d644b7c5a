//! Waiting for many futures of one type. `join!`, `try_join!` and `select!` are in the macro crate.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Waits for all of them; the results are in the order of the futures.
///
/// They are polled in that order, so bodies of steps run one after the other in it; what overlaps is operations.
/// The host bounds how many operations may be open at once (1,000 by default).
pub async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let outcome: Result<_, std::convert::Infallible> = All::new(futures, Ok).await;
    match outcome {
        Ok(outputs) => outputs,
    }
}

/// Waits for all of them, or for the first that fails; the others are then dropped, which cancels their operations.
///
/// # Errors
/// The first failure.
pub async fn try_join_all<F, T, E>(futures: impl IntoIterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    All::new(futures, |output| output).await
}

enum Branch<F, T> {
    Running(Pin<Box<F>>),
    Done(T),
}

struct All<F, T, J> {
    branches: Vec<Branch<F, T>>,
    judge: J,
}

// The futures are boxed, so nothing in here depends on its own place.
impl<F, T, J> Unpin for All<F, T, J> {}

impl<F, T, J> All<F, T, J> {
    fn new(futures: impl IntoIterator<Item = F>, judge: J) -> Self {
        let branches = futures
            .into_iter()
            .map(|future| Branch::Running(Box::pin(future)))
            .collect();
        All { branches, judge }
    }
}

impl<F: Future, T, E, J: Fn(F::Output) -> Result<T, E>> Future for All<F, T, J> {
    type Output = Result<Vec<T>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut running = false;
        for branch in &mut this.branches {
            let Branch::Running(future) = branch else { continue };
            match future.as_mut().poll(cx) {
                Poll::Pending => running = true,
                Poll::Ready(output) => match (this.judge)(output) {
                    Ok(value) => *branch = Branch::Done(value),
                    Err(error) => return Poll::Ready(Err(error)),
                },
            }
        }
        if running {
            return Poll::Pending;
        }
        let done = std::mem::take(&mut this.branches)
            .into_iter()
            .filter_map(|branch| match branch {
                Branch::Done(value) => Some(value),
                Branch::Running(_) => None,
            });
        Poll::Ready(Ok(done.collect()))
    }
}
