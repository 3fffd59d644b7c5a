//! The way to the server: a private socket, behind it a connection that is ours to set up, and that lets only so much
//! through at a time.
//!
//! sqlx connects by itself, sets nothing on its TCP connections (no TCP_NODELAY, no keepalive), and takes in a row
//! whole however large it is. So it is given a Unix socket; this room makes the connection to the server for it and
//! passes bytes on, TLS and all, until there are more than an answer may have.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
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
const BUFFER: usize = 16 << 10;

/// Where a server listens.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Tcp(String, u16),
    /// The socket's file.
    Unix(PathBuf),
}

/// The way of one connection.
pub(super) struct Wire {
    directory: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// How many bytes may still come from the server.
    left: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Wire {
    /// Begins to listen for the one connection. `port` is the one that sqlx names its socket after. Must be called in
    /// a tokio runtime.
    pub(super) fn to(place: Place, port: u16) -> io::Result<Wire> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // An abstract name: there is no file to be left behind, and no directory that must be writable.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = format!("\0dormouse-sql-{}-{number}", std::process::id());
        let name = format!("{}/.s.PGSQL.{port}", &directory[1..]);
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let state = Arc::new(State::default());
        state.left.store(u64::MAX, Ordering::Relaxed);
        let task = tokio::spawn(serve(listener, place, Arc::clone(&state)));
        Ok(Wire {
            directory,
            state,
            task,
        })
    }

    /// Where sqlx finds the socket.
    pub(super) fn directory(&self) -> &str {
        &self.directory
    }

    /// Lets so many more bytes come from the server. With one more, the connection ends.
    pub(super) fn allow(&self, bytes: u64) {
        self.state.left.store(bytes, Ordering::Relaxed);
    }

    /// Whether the connection was ended because more came than is allowed.
    pub(super) fn has_overflowed(&self) -> bool {
        self.state.left.load(Ordering::Relaxed) == 0
    }

    /// Why the server could not be reached: sqlx only sees its connection end.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Both ends are closed, and the server notices.
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, place: Place, state: Arc<State>) {
    let near = loop {
        let Ok((near, _)) = listener.accept().await else {
            return;
        };
        // The name can be seen by others on this machine. It would give them nothing that they don't have (the server
        // asks for the password, not we), but it is not for them.
        let own = near
            .peer_cred()
            .is_ok_and(|peer| peer.pid() == i32::try_from(std::process::id()).ok());
        if own {
            break near;
        }
    };
    drop(listener);
    let note = |error: io::Error| {
        *state.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
    };
    match place {
        Place::Tcp(host, port) => match connect(&host, port).await {
            Ok(far) => pass_on(near, far, &state).await,
            Err(error) => note(error),
        },
        Place::Unix(path) => match UnixStream::connect(&path).await {
            Ok(far) => pass_on(near, far, &state).await,
            Err(error) => note(error),
        },
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    // An IPv6 address stands in brackets in a URL.
    let host = host.trim_matches(['[', ']']);
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

/// Passes bytes on until either end is closed, or too many have come.
async fn pass_on(near: UnixStream, far: impl AsyncRead + AsyncWrite + Unpin, state: &State) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = tokio::io::split(far);
    let up = tokio::io::copy(&mut from_near, &mut to_far);
    let down = async {
        let mut buffer = vec![0; BUFFER];
        loop {
            let Ok(count @ 1..) = from_far.read(&mut buffer).await else {
                return;
            };
            // The last one stays: that none is left says that it was too much.
            let taken = state
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(count as u64).filter(|left| *left > 0)
                });
            if taken.is_err() {
                state.left.store(0, Ordering::Relaxed);
                return;
            }
            if to_near.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    // However it ends, both ends are closed.
    tokio::select! {
        _ = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use tokio::net::TcpListener;

    use super::*;

    async fn near(wire: &Wire, port: u16) -> UnixStream {
        let name = format!("{}/.s.PGSQL.{port}", wire.directory());
        let path: PathBuf = std::ffi::OsStr::from_bytes(name.as_bytes()).into();
        UnixStream::connect(path).await.expect("connects")
    }

    #[tokio::test]
    async fn bytes_pass_until_there_are_too_many() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = server.local_addr().expect("bound").port();
        let wire = Wire::to(Place::Tcp("127.0.0.1".to_owned(), port), port).expect("listens");
        let mut near = near(&wire, port).await;
        let (mut far, _) = server.accept().await.expect("is connected to");
        near.write_all(b"hello").await.expect("writes");
        let mut read = [0; 5];
        far.read_exact(&mut read).await.expect("reads");
        wire.allow(10);
        far.write_all(b"world").await.expect("writes");
        near.read_exact(&mut read).await.expect("reads");
        assert_eq!(&read, b"world");
        assert!(!wire.has_overflowed());
        far.write_all(b"world!").await.expect("writes");
        assert_eq!(near.read(&mut read).await.expect("ends"), 0, "nothing more comes");
        assert!(wire.has_overflowed());
        assert_eq!(far.read(&mut read).await.unwrap_or(0), 0, "the server notices");
        let stream = connect("127.0.0.1", port).await.expect("connects");
        assert!(stream.nodelay().expect("is known"));
        assert!(SockRef::from(&stream).keepalive().expect("is known"));
    }

    #[tokio::test]
    async fn what_went_wrong_is_known() {
        // A port that was free a moment ago.
        let server = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = server.local_addr().expect("bound").port();
        drop(server);
        let wire = Wire::to(Place::Tcp("127.0.0.1".to_owned(), port), port).expect("listens");
        let mut near = near(&wire, port).await;
        assert_eq!(near.read(&mut [0]).await.expect("ends"), 0);
        let trouble = wire.trouble().expect("is known");
        assert!(trouble.contains("refused"), "{trouble}");
    }
}
