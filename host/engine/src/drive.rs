//! The future that bounds a call into a guest: it counts processor time, and ends the call when the caller says so or
//! when a body's time is up, also while the guest waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::interrupt::Interrupt;
use crate::shared::Shared;
use crate::state::{cancelled, step_timeout};
use crate::ticker::Ticker;
use crate::trap::GuestTrap;

/// Bounds `call`.
pub(crate) struct Drive<'a, F> {
    pub(crate) call: Pin<&'a mut F>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) interrupt: Interrupt,
    pub(crate) ticker: &'a Ticker,
    /// The alarm of the open body, with the time it is set to.
    pub(crate) alarm: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<F: Future> Future for Drive<'_, F> {
    /// What the call answered, or why it was ended from outside the guest.
    type Output = Result<F::Output, GuestTrap>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.interrupt.fired() {
            return Poll::Ready(Err(cancelled()));
        }
        let polled = {
            let _computing = this.ticker.computing();
            this.shared.poll_begins();
            let polled = this.call.as_mut().poll(cx);
            this.shared.poll_ends();
            polled
        };
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Ok(output));
        }
        if this.interrupt.poll_fired(cx.waker()) {
            return Poll::Ready(Err(cancelled()));
        }
        let Some(body) = this.shared.body() else {
            this.alarm = None;
            return Poll::Pending;
        };
        let set = this
            .alarm
            .take()
            .filter(|(deadline, _)| *deadline == body.deadline);
        let (_, alarm) = this.alarm.insert(set.unwrap_or_else(|| {
            (
                body.deadline,
                Box::pin(tokio::time::sleep_until(body.deadline.into())),
            )
        }));
        if alarm.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(step_timeout(body.timeout)));
        }
        Poll::Pending
    }
}
