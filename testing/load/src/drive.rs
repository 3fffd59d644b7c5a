//! Many clients at once: closed (no more runs outstanding than allowed), or at a rate.
//!
//! That runs have completed is learned from the server's counter and not from each run, which would cost the server as
//! much as the runs do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::Method;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::report::Samples;
use crate::server::Server;

/// How often the counter is read while there is load.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long nothing may move before it is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs that ended, by the server's own count since its start.
pub(crate) struct Ended {
    clients: Vec<Client>,
}

impl Ended {
    /// Looks over a connection of its own.
    pub(crate) async fn new(server: &Server) -> Result<Ended> {
        Ok(Ended {
            clients: server.clients().await?,
        })
    }

    /// How many have completed.
    ///
    /// # Errors
    /// When a run has ended in another way: then nothing else that was measured counts.
    pub(crate) async fn completed(&mut self) -> Result<u64> {
        let failed = self.number(r#"dormouse_runs_total{status="Failed"}"#).await?;
        if failed > 0.0 {
            bail!("{failed} runs failed");
        }
        Ok(self.number(r#"dormouse_runs_total{status="Completed"}"#).await? as u64)
    }

    /// A metric by its name and labels, of all nodes together; 0 where it is not there (yet).
    pub(crate) async fn number(&mut self, name: &str) -> Result<f64> {
        let mut sum = 0.0;
        for client in &mut self.clients {
            let text = client.send(Method::GET, "/metrics", Bytes::new()).await?;
            let text = std::str::from_utf8(&text)?;
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            sum += value.map_or(Ok(0.0), str::parse::<f64>)?;
        }
        Ok(sum)
    }

    /// Waits until so many have completed; when that was.
    pub(crate) async fn reach(&mut self, completed: u64) -> Result<Instant> {
        let (mut seen, mut moved) = (self.completed().await?, Instant::now());
        while seen < completed {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.completed().await?;
            if now > seen {
                (seen, moved) = (now, Instant::now());
            } else if moved.elapsed() > PATIENCE {
                bail!("{} runs never complete", completed - seen);
            }
        }
        Ok(Instant::now())
    }
}

/// How a closed loop is driven.
#[derive(Clone)]
pub(crate) struct Closed {
    /// How many connections.
    pub(crate) clients: usize,
    /// How many runs may be outstanding.
    pub(crate) window: usize,
    /// How many runs a request starts.
    pub(crate) per_request: u32,
    /// The request: an event, or an array of them.
    pub(crate) body: Bytes,
    /// When to stop sending.
    pub(crate) until: Until,
}

/// When to stop sending.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// After a time.
    Elapsed(Duration),
    /// After so many runs.
    Runs(u64),
}

/// What a load came to.
pub(crate) struct Outcome {
    /// Runs, all of which have completed.
    pub(crate) runs: u64,
    /// From the first request to the last completion.
    pub(crate) elapsed: Duration,
    /// What the server took of the processor meanwhile.
    pub(crate) cpu: Duration,
    /// How long each request took to be answered, in milliseconds.
    pub(crate) answered: Samples,
}

impl Outcome {
    /// Runs per second.
    pub(crate) fn rate(&self) -> f64 {
        self.runs as f64 / self.elapsed.as_secs_f64()
    }

    /// The server's processor time per run, in milliseconds.
    pub(crate) fn cpu_per_run(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.runs as f64
    }
}

/// Drives a closed loop until all it started has completed.
pub(crate) async fn closed(server: &Server, load: Closed) -> Result<Outcome> {
    let mut ended = Ended::new(server).await?;
    let before = ended.completed().await?;
    let outstanding = Arc::new(Semaphore::new(load.window));
    let sent = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    let cpu = server.cpu()?;
    let began = Instant::now();
    for _ in 0..load.clients {
        let mut client = server.client().await?;
        let (outstanding, sent, load) = (Arc::clone(&outstanding), Arc::clone(&sent), load.clone());
        clients.spawn(async move {
            let mut answered = Vec::new();
            loop {
                // Given back when the counter says that runs have completed.
                outstanding.acquire_many(load.per_request).await?.forget();
                let more = match load.until {
                    Until::Elapsed(time) => began.elapsed() < time,
                    Until::Runs(runs) => sent.load(Ordering::Relaxed) < runs,
                };
                if !more {
                    // Others wait for a permit to find out the same.
                    outstanding.add_permits(load.per_request as usize);
                    return anyhow::Ok(answered);
                }
                sent.fetch_add(u64::from(load.per_request), Ordering::Relaxed);
                let one = Instant::now();
                client.event(load.body.clone()).await?;
                answered.push(one.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    let mut answered = Samples::default();
    let (mut completed, mut moved) = (0, Instant::now());
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let end = loop {
        tick.tick().await;
        while let Some(done) = clients.try_join_next() {
            answered.0.extend(done??);
        }
        let now = ended.completed().await? - before;
        outstanding.add_permits((now - completed) as usize);
        if now > completed {
            moved = Instant::now();
        }
        completed = now;
        if clients.is_empty() && completed >= sent.load(Ordering::Relaxed) {
            break Instant::now();
        }
        if moved.elapsed() > PATIENCE {
            bail!("{} runs never complete", sent.load(Ordering::Relaxed) - completed);
        }
    };
    Ok(Outcome {
        runs: completed,
        elapsed: end - began,
        cpu: server.cpu()? - cpu,
        answered,
    })
}

/// Sends a request every so often for a while, whether or not the former ones have been answered; how long each took
/// to be answered, in milliseconds, from when it was to be sent. A request that fails is counted.
pub(crate) async fn paced(
    server: &Server,
    clients: usize,
    every: Duration,
    time: Duration,
    body: Bytes,
) -> Result<(Samples, u64)> {
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let mut client = server.client().await?;
        let (next, body, address) = (Arc::clone(&next), body.clone(), server.address());
        tasks.spawn(async move {
            let (mut answered, mut failed) = (Vec::new(), 0);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let at = every
                    .checked_mul(u32::try_from(number)?)
                    .context("too many requests")?;
                if at >= time {
                    return anyhow::Ok((answered, failed));
                }
                tokio::time::sleep_until((began + at).into()).await;
                if client.event(body.clone()).await.is_err() {
                    failed += 1;
                    client = Client::connect(address).await?;
                }
                answered.push((began.elapsed() - at).as_secs_f64() * 1e3);
            }
        });
    }
    let (mut answered, mut failed) = (Samples::default(), 0);
    while let Some(done) = tasks.join_next().await {
        let (times, failures) = done??;
        answered.0.extend(times);
        failed += failures;
    }
    Ok((answered, failed))
}

/// The text of a request with `count` events of one name.
pub(crate) fn events(name: &str, data: &serde_json::Value, count: usize) -> Bytes {
    let one = serde_json::json!({ "name": name, "data": data }).to_string();
    match count {
        1 => one.into(),
        _ => format!("[{}]", vec![one; count].join(",")).into(),
    }
}
