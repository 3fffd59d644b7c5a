//! HTTP requests that the host performs durably.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Result, StepError};
use crate::executor::Wait;
use crate::host;
use crate::http::{Request, Response};
use crate::step::body::decode;
use crate::step::options::{Backoff, Options};

/// A durable request; see [`Step::fetch`](crate::Step::fetch).
#[derive(Debug)]
#[must_use = "a step does nothing until it is awaited"]
pub struct Fetch {
    name: String,
    request: Request,
    options: Options,
    wait: Option<Wait>,
}

impl Fetch {
    pub(crate) fn new(name: String, request: Request) -> Fetch {
        Fetch {
            name,
            request,
            options: Options::default(),
            wait: None,
        }
    }

    /// How many tries in total: 1 to 21.
    pub fn attempts(mut self, attempts: u32) -> Fetch {
        self.options.set("attempts", attempts);
        self
    }

    /// How the waits between tries grow.
    pub fn backoff(mut self, backoff: Backoff) -> Fetch {
        self.options.set("backoff", backoff);
        self
    }

    /// The wall time of one try, from connecting to the last byte.
    pub fn timeout(mut self, timeout: Duration) -> Fetch {
        self.options.set_millis("timeout_ms", timeout);
        self
    }
}

#[derive(Deserialize)]
struct Head {
    status: u16,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

impl Future for Fetch {
    type Output = Result<Response, StepError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let wait = this.wait.get_or_insert_with(|| {
            let options = this.options.json();
            Wait::new(host::start_fetch(&this.name, &this.request, options.as_deref()))
        });
        let operation = std::task::ready!(wait.poll(cx));
        Poll::Ready(match host::operation_result(operation) {
            Ok(json) => decode::<Head>(&this.name, &json).map(|head| Response {
                status: head.status,
                headers: head.headers,
                body: host::operation_body(operation).unwrap_or_default(),
            }),
            Err(failure) => Err(StepError::new(&this.name, failure)),
        })
    }
}
