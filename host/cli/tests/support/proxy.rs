//! A node's way to the database, which can be cut, and can lose answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the server says of a commit: the tag of the message that it is complete.
const COMMITTED: &[u8] = b"COMMIT\0";

/// What becomes of bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Bytes pass.
    Open,
    /// Nothing passes, and nobody is told: as by a cable that is pulled. What was under way arrives once it is open again.
    Silent,
    /// Connections are ended, and new ones too.
    Shut,
}

/// A way from a port of its own to the server's.
pub struct Proxy {
    port: u16,
    /// What it led to at first.
    server: u16,
    leads_to: Arc<AtomicU16>,
    way: watch::Sender<Way>,
    answers: Arc<Answers>,
}

/// Answers to commits.
#[derive(Default)]
struct Answers {
    to_lose: AtomicU32,
    lost: AtomicU32,
}

impl Answers {
    /// Whether this one is to be lost.
    fn loses(&self, bytes: &[u8]) -> bool {
        if !bytes.windows(COMMITTED.len()).any(|window| window == COMMITTED) {
            return false;
        }
        let take = |left: u32| left.checked_sub(1);
        let taken = self
            .to_lose
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        if taken.is_ok() {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
        taken.is_ok()
    }
}

impl Proxy {
    /// To a port of this machine.
    pub async fn to(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (way, ways) = watch::channel(Way::Open);
        let answers = Arc::new(Answers::default());
        let shared = Arc::clone(&answers);
        let leads_to = Arc::new(AtomicU16::new(server));
        let to = Arc::clone(&leads_to);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let server = to.load(Ordering::Acquire);
                tokio::spawn(connect(near, server, ways.clone(), Arc::clone(&shared)));
            }
        });
        Proxy {
            port,
            server,
            leads_to,
            way,
            answers,
        }
    }

    /// A URL of the server, by this way.
    pub fn url(&self, direct: &str) -> String {
        direct.replace(&format!(":{}/", self.server), &format!(":{}/", self.port))
    }

    /// Connections that are made from now on go to another server.
    pub fn lead_to(&self, server: u16) {
        self.leads_to.store(server, Ordering::Release);
    }

    /// From now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// The next commit that succeeds is not answered: the connection ends instead.
    pub fn lose_answer(&self) {
        self.answers.to_lose.fetch_add(1, Ordering::AcqRel);
    }

    /// How many commits were made and not answered.
    pub fn answers_lost(&self) -> u32 {
        self.answers.lost.load(Ordering::Acquire)
    }
}

async fn connect(near: TcpStream, server: u16, ways: watch::Receiver<Way>, answers: Arc<Answers>) {
    if *ways.borrow() == Way::Shut {
        return;
    }
    if let Ok(far) = TcpStream::connect(("127.0.0.1", server)).await {
        pass(near, far, ways, &answers).await;
    }
}

/// Passes bytes both ways until either side, or somebody else, ends it.
async fn pass(mut near: TcpStream, mut far: TcpStream, mut ways: watch::Receiver<Way>, answers: &Answers) {
    // What is asked and answered is small, and waits for each other.
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let way = *ways.borrow_and_update();
        match way {
            Way::Open => {}
            Way::Silent if ways.changed().await.is_ok() => continue,
            Way::Silent | Way::Shut => return,
        }
        tokio::select! {
            changed = ways.changed() => if changed.is_err() { return },
            read = near.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                if far.write_all(&up[..count]).await.is_err() {
                    return;
                }
            }
            read = far.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                if answers.loses(&down[..count]) || near.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
