//! A way to the server that can be cut: before what follows, or between a COMMIT and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with bytes.
#[derive(Default)]
pub(crate) struct Cut {
    /// No bytes pass either way, and no new connection is made: the network is gone.
    pub(crate) closed: AtomicBool,
    /// So many more COMMITs get to the server, but their answers do not come back: the connection ends instead.
    pub(crate) answers: AtomicU32,
    /// So many more COMMITs do not get to the server: the connection ends instead.
    pub(crate) requests: AtomicU32,
    /// COMMITs whose connection was ended.
    pub(crate) done: AtomicU32,
}

/// Takes one off a number that is above zero.
fn take(number: &AtomicU32) -> bool {
    number
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
        .is_ok()
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) cut: Arc<Cut>,
    server: Arc<AtomicU16>,
    ends: watch::Sender<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let own = listener.local_addr().expect("bound").port();
        let cut = Arc::new(Cut::default());
        let shared = Arc::clone(&cut);
        let server = Arc::new(AtomicU16::new(port));
        let to = Arc::clone(&server);
        let (ends, ended) = watch::channel(());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if shared.closed.load(Ordering::Acquire) {
                    continue;
                }
                let cut = Arc::clone(&shared);
                let (port, mut ended) = (to.load(Ordering::Acquire), ended.clone());
                ended.mark_unchanged();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await {
                        tokio::select! {
                            () = pass(near, far, cut) => {}
                            _ = ended.changed() => {}
                        }
                    }
                });
            }
        });
        Proxy {
            port: own,
            cut,
            server,
            ends,
        }
    }

    /// Connections that are made from now on lead to another server.
    pub(crate) fn lead_to(&self, port: u16) {
        self.server.store(port, Ordering::Release);
    }

    /// Ends all connections.
    pub(crate) fn end(&self) {
        self.ends.send_replace(());
    }

    /// The URL through the proxy.
    pub(crate) fn url(&self, direct: &str, port: u16) -> String {
        direct.replace(&format!(":{port}/"), &format!(":{}/", self.port))
    }
}

async fn pass(mut near: TcpStream, mut far: TcpStream, cut: Arc<Cut>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose_answer = false;
    loop {
        tokio::select! {
            read = near.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                if cut.closed.load(Ordering::Acquire) {
                    return;
                }
                // What ends a transaction is sent as a text of its own.
                let commits = up[..count].windows(8).any(|window| window == b"; COMMIT");
                if commits && take(&cut.requests) {
                    cut.done.fetch_add(1, Ordering::AcqRel);
                    return;
                }
                if commits && take(&cut.answers) {
                    lose_answer = true;
                }
                if far.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            read = far.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if lose_answer {
                    // The server has answered, so it has committed.
                    cut.done.fetch_add(1, Ordering::AcqRel);
                    return;
                }
                if cut.closed.load(Ordering::Acquire) || near.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
