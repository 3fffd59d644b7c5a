//! A way to a server that loses COMMITs, or their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What is lost.
#[derive(Default)]
pub(super) struct Losses {
    /// So many more COMMITs do not get to the server: the connection ends instead.
    pub(super) requests: AtomicU32,
    /// So many more COMMITs get to the server, but their answers do not come back: the connection ends instead.
    pub(super) answers: AtomicU32,
}

impl Losses {
    pub(super) fn are_over(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0 && self.answers.load(Ordering::Acquire) == 0
    }
}

/// Takes one off a number that is above zero.
fn take(number: &AtomicU32) -> bool {
    number
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
        .is_ok()
}

/// Passes on to a port of this machine. Returns its own.
pub(super) async fn start(port: u16, losses: Arc<Losses>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let own = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let losses = Arc::clone(&losses);
            tokio::spawn(async move {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await {
                    pass(near, far, &losses).await;
                }
            });
        }
    });
    own
}

async fn pass(mut near: TcpStream, mut far: TcpStream, losses: &Losses) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose_answer = false;
    loop {
        tokio::select! {
            read = near.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                // What ends a step's transaction is sent as a text of its own.
                let commits = up[..count].windows(8).any(|window| window == b"; COMMIT");
                if commits && take(&losses.requests) {
                    return;
                }
                lose_answer = commits && take(&losses.answers);
                if far.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            read = far.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                // The server has answered, so it has committed.
                if lose_answer || near.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
