//! A gate outside the servers, which bodies come to: it counts how many are open at once, and keeps them for a while.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[path = "request.rs"]
mod request;

use request::request;

/// What it has seen of one kind of body, or of one kind and key.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Open now.
    pub(crate) open: usize,
    /// The most that were open at once.
    pub(crate) most: usize,
    /// In all.
    pub(crate) all: usize,
}

type Counts = BTreeMap<String, Seen>;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    /// For how long it keeps a body; none: until that is another.
    keeps: watch::Sender<Option<Duration>>,
}

impl Gate {
    pub(crate) async fn start(keeps: Option<Duration>) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let gate = Gate {
            address: listener.local_addr().expect("an address"),
            counts: Arc::default(),
            keeps: watch::Sender::new(keeps),
        };
        let listening = gate.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(listening.clone().keep(stream));
            }
        });
        gate
    }

    /// What a module needs to come here.
    pub(crate) fn config(&self, module: &str) -> String {
        let host = self.address;
        format!("[modules.{module}]\nhttp = [\"{host}\"]\nconfig = {{ gate = \"http://{host}/\" }}\n")
    }

    /// From now on it keeps bodies for so long, those that are open as well.
    pub(crate) fn keep_for(&self, keeps: Option<Duration>) {
        self.keeps.send_replace(keeps);
    }

    /// What it has seen of `kind` or `kind key`.
    pub(crate) fn seen(&self, of: &str) -> Seen {
        let counts = self.counts.lock().expect("no panic holds it");
        counts.get(of).copied().unwrap_or_default()
    }

    /// All that it has seen.
    pub(crate) fn all(&self) -> Counts {
        self.counts.lock().expect("no panic holds it").clone()
    }

    async fn keep(self, mut stream: TcpStream) {
        let Some(request) = request(&mut stream).await else {
            return;
        };
        let line = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let mut words = line.split(' ');
        let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let names = [kind.to_owned(), format!("{kind} {key}")];
        self.count(&names, |seen| {
            seen.open += 1;
            seen.all += 1;
            seen.most = seen.most.max(seen.open);
        });
        let mut keeps = self.keeps.subscribe();
        let mut byte = [0; 1];
        tokio::select! {
            () = async {
                let kept = keeps.wait_for(Option::is_some).await.ok().and_then(|keeps| *keeps);
                tokio::time::sleep(kept.unwrap_or_default()).await;
            } => {}
            // Whoever has come ends.
            _ = stream.read(&mut byte) => {}
        }
        // Before the answer: its body may end, and another begin, as soon as that is there.
        self.count(&names, |seen| seen.open -= 1);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }

    fn count(&self, names: &[String; 2], change: impl Fn(&mut Seen)) {
        let mut counts = self.counts.lock().expect("no panic holds it");
        for name in names {
            change(counts.entry(name.clone()).or_default());
        }
    }
}
