//! A witness outside the server: bodies tell it that they ran, and it outlives every kill.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

/// The certificate that a witness behind TLS shows. Its key is worth nothing: nobody trusts it but tests.
pub const LOCALHOST: &str = include_str!("../tls/localhost.pem");
/// Another, which it does not.
pub const STRANGER: &str = include_str!("../tls/stranger.pem");

/// What it has heard, in order.
#[derive(Clone)]
pub struct Witness {
    address: SocketAddr,
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
    heard: Arc<Notify>,
    held: watch::Sender<bool>,
}

impl Witness {
    /// Listens on a port of its own.
    pub async fn start() -> Witness {
        let (listener, witness) = Witness::bind().await;
        let listening = witness.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(listening.clone().hear(stream));
            }
        });
        witness
    }

    /// Listens behind TLS, with a certificate that is its own authority, for `localhost`.
    pub async fn start_tls() -> Witness {
        let certificate = CertificateDer::from_pem_slice(LOCALHOST.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tls/key.pem")).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate for its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, witness) = Witness::bind().await;
        let listening = witness.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, listening) = (acceptor.clone(), listening.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        listening.hear(stream).await;
                    }
                });
            }
        });
        witness
    }

    async fn bind() -> (TcpListener, Witness) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let witness = Witness {
            address: listener.local_addr().expect("an address"),
            lines: Arc::default(),
            heard: Arc::default(),
            held: watch::Sender::new(false),
        };
        (listener, witness)
    }

    /// `127.0.0.1:PORT`: what a module must be granted.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.timed_lines().into_iter().map(|(_, line)| line).collect()
    }

    /// All lines so far, and when each was heard.
    pub fn timed_lines(&self) -> Vec<(Instant, String)> {
        self.lines.lock().expect("no panic holds it").clone()
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lines.lock().expect("no panic holds it").len()
    }

    /// Whether who tells something has to wait for the answer: until this is taken back, so that bodies stay open.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Returns when there are that many lines.
    pub async fn reaches(&self, count: usize) {
        loop {
            let heard = self.heard.notified();
            if self.count() >= count {
                return;
            }
            heard.await;
        }
    }

    async fn hear(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut request = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(n) => request.extend_from_slice(&chunk[..n]),
            }
            if let Some(body) = whole_body(&request) {
                let text = String::from_utf8_lossy(&body).into_owned();
                let now = Instant::now();
                self.lines
                    .lock()
                    .expect("no panic holds it")
                    .extend(text.lines().map(|line| (now, line.to_owned())));
                self.heard.notify_waiters();
                let mut held = self.held.subscribe();
                if held.wait_for(|held| !held).await.is_err() {
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
                return;
            }
        }
    }
}

/// The body of a request that has arrived whole, with a length or in chunks.
fn whole_body(request: &[u8]) -> Option<Vec<u8>> {
    let split = request.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&request[..split]).to_ascii_lowercase();
    let rest = &request[split + 4..];
    if head.contains("transfer-encoding: chunked") {
        return chunks(rest);
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse::<usize>().ok())
        .unwrap_or(0);
    (rest.len() >= length).then(|| rest[..length].to_vec())
}

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        if rest.len() < size + 2 {
            return None;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
