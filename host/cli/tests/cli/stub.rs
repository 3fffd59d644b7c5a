//! A server that says what a test wants: enough of HTTP for the command line's client, one thread per connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request that came in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// `GET /v1/runs?limit=3`.
    pub(crate) line: String,
    /// Headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What is written back: a whole answer, or the beginning of a stream whose connection then breaks.
pub(crate) enum Answer {
    Json(u16, String),
    BrokenStream(String),
}

pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Stub {
    /// Answers every request as `answer` says, for as long as the test runs.
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Stub { address, requests }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no thread panicked with it").clone()
    }

    /// Runs `dormouse` against this server.
    pub(crate) fn dormouse(&self, arguments: &[&str]) -> Output {
        let mut command = dormouse(arguments);
        command.env("DORMOUSE_URL", format!("http://{}", self.address));
        command.output().expect("the binary runs")
    }
}

/// The same on a terminal of its own: what is written to it, standard output and error together.
pub(crate) fn on_a_terminal(stub: &Stub, arguments: &[&str]) -> String {
    let command = format!("{} {}", env!("CARGO_BIN_EXE_dormouse"), arguments.join(" "));
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("DORMOUSE_URL", format!("http://{}", stub.address))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .expect("this test needs script, which gives a terminal (Debian: apt install util-linux)");
    assert!(output.status.success(), "{}", text(&output.stdout));
    text(&output.stdout)
}

/// `dormouse` with an environment that only the test decides.
pub(crate) fn dormouse(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
    for name in ["URL", "KEY", "LISTEN", "DATA_DIR", "DATABASE_URL", "CONFIG"] {
        command.env_remove(format!("DORMOUSE_{name}"));
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
    let Some(request) = read(&mut reader) else { return };
    seen.lock()
        .expect("no thread panicked with it")
        .push(request.clone());
    let mut stream = stream;
    let written = match answer(&request) {
        Answer::Json(status, body) => format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        ),
        Answer::BrokenStream(text) => {
            let length = text.len();
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                 {length:x}\r\n{text}\r\n"
            )
        }
    };
    // A client that is gone is the test's business.
    let _ = stream.write_all(written.as_bytes());
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut request = Request::default();
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    request.line = line.trim_end().strip_suffix(" HTTP/1.1")?.to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        request
            .headers
            .push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
