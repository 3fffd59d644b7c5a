//! A way to the server's event door which loses answers: to a client it looks like a server or a network that fails.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never arrives; the client is answered 500.
    Lost,
    /// It arrives and is answered; the client is told 500.
    Denied,
    /// It arrives and is answered; the client's connection ends instead.
    Cut,
}

/// A port of its own that passes whole requests on to the server's, one per connection.
pub(crate) struct Door {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    seeds: Vec<String>,
}

impl Door {
    pub(crate) async fn to(server: u16) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A client that goes away is no failure.
                tokio::spawn(async move { pass(near, server, &shared).await.ok() });
            }
        });
        Door { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What becomes of the next requests, in order. Those after them pass.
    pub(crate) fn fail_next(&self, faults: &[Fault]) {
        let mut state = self.state.lock().expect("no panic");
        state.faults = faults.iter().rev().copied().collect();
        state.seeds.clear();
    }

    /// The seed of each request since the faults were set.
    pub(crate) fn seeds(&self) -> Vec<String> {
        self.state.lock().expect("no panic").seeds.clone()
    }
}

async fn pass(mut near: TcpStream, server: u16, state: &Mutex<State>) -> std::io::Result<()> {
    let Some((head, body)) = whole_request(&mut near).await? else {
        return Ok(());
    };
    let fault = {
        let mut state = state.lock().expect("no panic");
        state.seeds.push(
            header(&head, "x-inngest-event-id-seed")
                .unwrap_or_default()
                .to_owned(),
        );
        state.faults.pop()
    };
    let answer = match fault {
        Some(Fault::Lost) => Vec::new(),
        _ => {
            let mut far = TcpStream::connect(("127.0.0.1", server)).await?;
            // One request per connection on both sides, so that an answer ends where its connection does.
            let head: Vec<&str> = head
                .split("\r\n")
                .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
                .filter(|line| !line.is_empty())
                .collect();
            let head = format!("{}\r\nconnection: close\r\n\r\n", head.join("\r\n"));
            far.write_all(head.as_bytes()).await?;
            far.write_all(&body).await?;
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await?;
            answer
        }
    };
    match fault {
        None => near.write_all(&answer).await,
        Some(Fault::Cut) => Ok(()),
        Some(Fault::Lost | Fault::Denied) => {
            let answer =
                b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhmm\n";
            near.write_all(answer).await
        }
    }
}

/// The head of a request with its empty line, and as much body as its length says.
async fn whole_request(near: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
            let length: usize =
                header(&head, "content-length").map_or(0, |length| length.parse().expect("a length"));
            assert!(header(&head, "transfer-encoding").is_none(), "{head}");
            if bytes.len() >= end + 4 + length {
                return Ok(Some((head, bytes[end + 4..].to_vec())));
            }
        }
        match near.read(&mut chunk).await? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
