//! Requests that the host performs for a run: at least once, tried again as the step says.
//!
//! A try begins once the step's entry is durable, and one that was in vain is an entry too, so the next is due at the same
//! time whoever drives the run then. Between tries the run waits and leaves memory. What the last one came to is final.

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use dormouse_core::fetch::{Fetch, refused_for_now};
use dormouse_core::journal::OperationKind;
use dormouse_core::replay::Replay;
use dormouse_core::retry::RetryPolicy;
use dormouse_core::{Failure, Json, Outcome, Retry, Seq, Timestamp, limit};
use dormouse_engine::{FetchError, FetchRequest, FetchResponse, HttpPolicy, fetch};
use serde::{Deserialize, Serialize};

use super::leg::LegHost;
use crate::config::ModuleGrants;
use crate::secret;

/// A try that is under way or has just ended.
pub(super) struct Trying {
    policy: RetryPolicy,
    attempt: u32,
    started_at: Timestamp,
}

/// A response as the journal has it.
#[derive(Serialize, Deserialize)]
struct Recorded {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// A delivered operation's outcome as the guest is handed it: a response without its body.
pub(super) fn outcome(replay: &Replay, operation: Seq) -> Option<Outcome> {
    let outcome = replay.outcome(operation)?.clone();
    if replay.kind(operation) != Some(OperationKind::Fetch) {
        return Some(outcome);
    }
    Some(outcome.and_then(|json| {
        let recorded: Recorded = json.read().map_err(unreadable)?;
        let head = serde_json::json!({ "status": recorded.status, "headers": recorded.headers });
        Json::from_value(&head).map_err(unreadable)
    }))
}

/// The body of a delivered response.
pub(super) fn body(replay: &Replay, operation: Seq) -> Option<Bytes> {
    let outcome = replay.outcome(operation)?;
    if replay.kind(operation) != Some(OperationKind::Fetch) {
        return None;
    }
    let recorded: Recorded = outcome.as_ref().ok()?.read().ok()?;
    BASE64_STANDARD.decode(recorded.body).ok().map(Bytes::from)
}

fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::terminal("journal-unreadable", format!("the recorded response: {error}"))
}

impl LegHost {
    /// Begins a try. The operation's entry is durable.
    pub(super) fn perform_fetch(&mut self, operation: Seq, name: &str, tries: u32, input: &Json) {
        let started_at = self.time();
        let request = Fetch::read(input).and_then(|fetch| {
            let key = format!("{}-{operation}", self.run.id);
            Ok((request(&fetch, key)?, fetch))
        });
        let (request, fetch) = match request {
            Ok(request) => request,
            Err(failure) => return self.performing.answer(started_at, operation, Err(failure)),
        };
        let trying = Trying {
            policy: fetch.policy(self.program.function.retry_policy()),
            attempt: tries + 1,
            started_at,
        };
        if trying.attempt > 1 {
            metrics::counter!("dormouse_retries_total").increment(1);
        }
        tracing::debug!(step = name, attempt = trying.attempt, "a request is sent");
        self.performing.trying.insert(operation, trying);
        let scheduler = self.worker.scheduler.clone();
        let (grants, http) = (Arc::clone(&self.program.grants), self.program.http.clone());
        let (seed, timeout) = (self.run.seed, fetch.timeout());
        self.performing.spawn(operation, async move {
            if !scheduler.assure_lease().await {
                // The node stops, and with it the leg that would take an answer.
                std::future::pending::<()>().await;
            }
            send(&http, &grants, &seed, request, timeout).await
        });
    }

    /// Records the tries that were in vain and are followed by others.
    pub(super) fn settle_tries(&mut self) {
        for (operation, failure) in self.performing.failures() {
            let Some(trying) = self.performing.trying.remove(&operation) else {
                continue;
            };
            let next = trying
                .policy
                .next(trying.attempt, &failure, &self.run.seed, operation)
                .filter(|_| self.replay.is_open(operation));
            let Some(wait) = next else {
                self.performing.conclude(
                    operation,
                    Err(Failure {
                        retry: Retry::Default,
                        ..failure
                    }),
                );
                continue;
            };
            self.performing.forget(operation);
            let at = self.time();
            let due_at = at.after(wait);
            self.replay
                .tried(operation, trying.attempt, failure, trying.started_at, due_at, at);
        }
    }
}

/// The request as it is sent, but for its secrets.
fn request(fetch: &Fetch, key: String) -> Result<FetchRequest, Failure> {
    let body = fetch.body.as_deref().unwrap_or_default();
    let body = BASE64_STANDARD
        .decode(body)
        .map_err(|error| Failure::terminal("invalid-request", format!("the request's body: {error}")))?;
    let mut headers = fetch.headers.clone();
    // The same over all tries; one of the function's own says more.
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"))
    {
        headers.push(("idempotency-key".to_owned(), key));
    }
    Ok(FetchRequest {
        method: fetch.method.clone(),
        url: fetch.url.clone(),
        headers,
        body: body.into(),
    })
}

async fn send(
    http: &HttpPolicy,
    grants: &ModuleGrants,
    seed: &[u8; 32],
    mut request: FetchRequest,
    timeout: Duration,
) -> Outcome {
    let filled = secret::fill(&grants.secrets, seed, &mut request)?;
    let mut response = match fetch(http, request, timeout, limit::FETCH_RESPONSE_BYTES_MAX).await {
        Ok(response) => response,
        Err(error) => {
            let failure = explain(&error);
            return Err(Failure {
                message: filled.conceal_text(failure.message),
                ..failure
            });
        }
    };
    filled.conceal(&mut response);
    let retry_after = response
        .headers
        .iter()
        .find(|(name, _)| name == "retry-after")
        .map(|(_, value)| value.as_str());
    match refused_for_now(response.status, retry_after) {
        Some(failure) => Err(failure),
        None => recorded(response),
    }
}

fn recorded(response: FetchResponse) -> Outcome {
    let recorded = Recorded {
        status: response.status,
        headers: response.headers,
        body: BASE64_STANDARD.encode(&response.body),
    };
    Json::from_value(&recorded).map_err(unreadable)
}

fn explain(error: &FetchError) -> Failure {
    let message = error.to_string();
    match error {
        FetchError::Invalid(_) => Failure::terminal("invalid-request", message),
        FetchError::NotGranted(_) | FetchError::NotPublic(_) => Failure::terminal(
            "http-denied",
            format!(
                "{message}: name it in the server's configuration file, [modules.MODULE] http = [\"HOST\"], and send \
                 SIGHUP; runs that start afterwards have it"
            ),
        ),
        FetchError::TooLarge(_) => Failure::terminal("http-response-too-large", message),
        FetchError::Timeout(_) => Failure::new("http-timeout", message),
        FetchError::Trouble(_) => Failure::new("http-failed", message),
    }
}
