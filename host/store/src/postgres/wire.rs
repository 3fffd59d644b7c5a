//! The way to the server: a private socket whose other end is a TCP connection that is ours to set up.
//!
//! sqlx 0.9.0 connects by itself and sets nothing on its TCP connections: no TCP_NODELAY, no keepalive, no bound on how
//! long sent data may stay unacknowledged. So it is given a Unix socket, and for each connection to it this room makes
//! a TCP connection with all of these and passes bytes on, TLS and all. Why not otherwise: docs/adr/0005. A database
//! URL that names a Unix socket goes there directly.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// A server that does not answer within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was silent so long is asked whether it lives,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// again after so long,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// and given up after so many times.
const KEEPALIVE_RETRIES: u32 = 3;
/// Sent data that is not acknowledged for so long means that the way is cut.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are passed on at a time.
const BUFFER: usize = 64 << 10;

/// Connections to one server.
pub(super) struct Wire {
    /// The directory to give to sqlx, which appends the socket's usual name.
    directory: String,
    trouble: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Begins to listen for sqlx. Must be called in a tokio runtime.
    pub(super) fn to(host: &str, port: u16) -> io::Result<Wire> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // An abstract name: there is no file to be left behind, and no directory that must be writable.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = format!("\0dormouse-{}-{number}", std::process::id());
        let name = format!("{}/.s.PGSQL.{port}", &directory[1..]);
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let trouble = Arc::new(Mutex::new(None));
        // An IPv6 address stands in brackets in a URL.
        let host = host.trim_matches(['[', ']']).to_owned();
        let task = tokio::spawn(listen(listener, host, port, Arc::clone(&trouble)));
        Ok(Wire {
            directory,
            trouble,
            task,
        })
    }

    /// Where sqlx finds the socket.
    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// Why the last attempt to reach the server failed, if it did: sqlx only sees its connection end.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: UnixListener, host: String, port: u16, trouble: Arc<Mutex<Option<String>>>) {
    loop {
        let Ok((near, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: others may give some back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // The name can be seen by others on this machine. It would give them nothing that they don't have (the server
        // asks for the password, not we), but it is not for them.
        let own = near
            .peer_cred()
            .is_ok_and(|peer| peer.pid() == i32::try_from(std::process::id()).ok());
        if !own {
            continue;
        }
        let (host, trouble) = (host.clone(), Arc::clone(&trouble));
        tokio::spawn(async move {
            let connected = connect(&host, port).await;
            let said = connected.as_ref().err().map(|error| error.to_string());
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = said;
            if let Ok(far) = connected {
                pass_on(near, far, &host).await;
            }
        });
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await;
    let stream = connected.map_err(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {seconds} s"))
    })??;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

async fn pass_on(mut near: UnixStream, mut far: TcpStream, host: &str) {
    // However it ends, both ends are closed, and sqlx sees its connection end. It does not learn why.
    let passed = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await;
    if let Err(error) = passed
        && error.kind() == io::ErrorKind::TimedOut
    {
        tracing::warn!(%error, host, "a connection to the database ended: what was sent was not acknowledged");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn socket(wire: &Wire, port: u16) -> std::path::PathBuf {
        let name = format!("{}/.s.PGSQL.{port}", wire.directory());
        std::ffi::OsStr::from_bytes(name.as_bytes()).into()
    }

    #[tokio::test]
    async fn bytes_pass_and_small_ones_do_not_wait() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = server.local_addr().expect("bound").port();
        let wire = Wire::to("127.0.0.1", port).expect("listens");
        let mut near = UnixStream::connect(socket(&wire, port)).await.expect("connects");
        let (mut far, _) = server.accept().await.expect("is connected to");
        near.write_all(b"hello").await.expect("writes");
        let mut read = [0; 5];
        far.read_exact(&mut read).await.expect("reads");
        assert_eq!(&read, b"hello");
        far.write_all(b"world").await.expect("writes");
        near.read_exact(&mut read).await.expect("reads");
        assert_eq!(&read, b"world");
        drop(far);
        assert_eq!(
            near.read(&mut read).await.expect("ends"),
            0,
            "an end is passed on"
        );
        let stream = connect("127.0.0.1", port).await.expect("connects");
        assert!(stream.nodelay().expect("is known"));
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("is known"));
        assert_eq!(socket.tcp_user_timeout().expect("is known"), Some(USER_TIMEOUT));
    }

    #[tokio::test]
    async fn what_went_wrong_is_known() {
        // A port that was free a moment ago.
        let server = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = server.local_addr().expect("bound").port();
        drop(server);
        let wire = Wire::to("127.0.0.1", port).expect("listens");
        assert_eq!(wire.trouble(), None);
        let mut near = UnixStream::connect(socket(&wire, port)).await.expect("connects");
        assert_eq!(near.read(&mut [0]).await.expect("ends"), 0);
        let trouble = wire.trouble().expect("is known");
        assert!(trouble.contains("refused"), "{trouble}");
    }
}
