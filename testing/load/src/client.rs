//! One keep-alive connection: a request, its whole answer, the next request.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection to the server.
pub(crate) struct Client {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Client> {
        Ok(Client {
            address,
            sender: connection(address).await?,
        })
    }

    /// A request, and its answer whatever its status.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        // A server may close a connection that was silent for long.
        if self.sender.is_closed() {
            self.sender = connection(self.address).await?;
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// Sends; anything but success is an error.
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let (status, answer) = self
            .ask(method.clone(), path, body)
            .await
            .with_context(|| format!("{method} {path}"))?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// Sends an event, or an array of them.
    pub(crate) async fn event(&mut self, body: Bytes) -> Result<()> {
        self.send(Method::POST, "/e/load", body).await.map(drop)
    }

    /// What is under `data` of a page of the API.
    pub(crate) async fn data(&mut self, path: &str) -> Result<Value> {
        self.page(path).await.map(|(data, _)| data)
    }

    /// What is under `data`, and the cursor of the next page.
    pub(crate) async fn page(&mut self, path: &str) -> Result<(Value, Option<String>)> {
        let answer = self.send(Method::GET, path, Bytes::new()).await?;
        let mut answer: Value = serde_json::from_slice(&answer)?;
        let cursor = answer
            .pointer("/metadata/cursor")
            .and_then(Value::as_str)
            .map(str::to_owned);
        Ok((answer["data"].take(), cursor))
    }

    /// Starts a run by name; its id.
    pub(crate) async fn invoke(&mut self, function: &str, data: String) -> Result<String> {
        let answer = self
            .send(Method::POST, &format!("/invoke/{function}"), data.into())
            .await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        answer["data"]["run_id"]
            .as_str()
            .map(str::to_owned)
            .context("an answer without a run_id")
    }
}

async fn connection(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender; a broken one is told by the request that meets it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
