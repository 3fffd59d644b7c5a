//! Reads a stream of server-sent events.

use futures::StreamExt;
use reqwest::Response;

/// One message of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) event: String,
    pub(crate) data: String,
}

/// A stream that is being read.
pub(crate) struct Stream {
    chunks: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    parser: Parser,
}

impl Stream {
    pub(crate) fn new(response: Response) -> Stream {
        let chunks = response
            .bytes_stream()
            .map(|chunk| chunk.map(|bytes| bytes.to_vec()))
            .boxed();
        Stream {
            chunks,
            parser: Parser::default(),
        }
    }

    /// The next message; none when the connection ended, in whatever way. Losing nothing when dropped half-way.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.parser.message() {
                return Some(message);
            }
            let chunk = self.chunks.next().await?.ok()?;
            self.parser.feed(&chunk);
        }
    }
}

/// Takes lines apart. A message that is not finished when the stream ends is dropped, as the standard says.
#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    event: String,
    data: Vec<String>,
}

impl Parser {
    fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    fn message(&mut self) -> Option<Message> {
        while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                let data = std::mem::take(&mut self.data);
                if !data.is_empty() {
                    return Some(Message {
                        event,
                        data: data.join("\n"),
                    });
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.event = value.to_owned(),
                "data" => self.data.push(value.to_owned()),
                // Comments keep the connection alive; ids and retry times are not used.
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_the_bytes_arrive() {
        let text = ": hello\n\nevent: run\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid: 7\ndata:x é\n\nevent: done\n\ndata: lost";
        let expected = [
            Message {
                event: "run".to_owned(),
                data: "{\"a\":\n1}".to_owned(),
            },
            Message {
                event: String::new(),
                data: "x é".to_owned(),
            },
        ];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut messages = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                parser.feed(chunk);
                messages.extend(std::iter::from_fn(|| parser.message()));
            }
            assert_eq!(messages, expected, "in pieces of {size}");
        }
    }
}
