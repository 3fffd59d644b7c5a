//! One HTTP request over a connection of its own: resolved once, checked, and connected to what was checked.
//!
//! Deliberately absent: redirects (each is a request of the guest's own, checked again), proxies from the
//! environment, connection pools (a request of one run must not ride on another's connection).

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, Sleep, timeout};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use crate::policy::{HttpPolicy, Reach, own_port};

/// How long to wait for a connection when the guest does not say; the body's own deadline stands above all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long for the response's head, and between its parts.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// The most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 256 << 10;
/// The most fields in a response's head.
const HEADERS_MAX: usize = 256;

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Where a request goes.
struct Target {
    https: bool,
    /// Without brackets.
    host: String,
    port: u16,
    reach: Reach,
}

impl Target {
    /// Reads a request's address and checks it against the grants.
    fn of(policy: &HttpPolicy, uri: &http::Uri) -> Result<Target, Error> {
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(Error::HttpRequestUriInvalid),
        };
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        // A name and password there are how a URL is made to look like it goes elsewhere.
        if authority.as_str().contains('@') {
            return Err(Error::HttpRequestUriInvalid);
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = authority.port_u16().unwrap_or(own_port(https));
        let reach = policy.reach(https, &host, port).ok_or(Error::HttpRequestDenied)?;
        Ok(Target {
            https,
            host,
            port,
            reach,
        })
    }

    /// The addresses that may be connected to.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let found: Vec<SocketAddr> = match self.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, self.port)],
            Err(_) => lookup_host((self.host.as_str(), self.port))
                .await
                .map_err(|error| Error::DnsError {
                    rcode: Some(error.to_string()),
                    info_code: None,
                })?
                .collect(),
        };
        let allowed: Vec<SocketAddr> = found
            .iter()
            .copied()
            .filter(|address| self.reach.allows(address.ip()))
            .collect();
        match (found.is_empty(), allowed.is_empty()) {
            (true, _) => Err(Error::DestinationNotFound),
            (false, true) => Err(Error::DestinationIpProhibited),
            (false, false) => Ok(allowed),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        let mut refused = None;
        for address in self.resolve().await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(Error::Connect)?;
                    return self.secure(stream).await;
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.map_or(Error::DestinationNotFound, Error::Connect))
    }

    async fn secure(&self, stream: TcpStream) -> Result<Box<dyn Connection>, Error> {
        if !self.https {
            return Ok(Box::new(stream));
        }
        let name = match self.host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(self.host.clone())?,
        };
        let stream = TlsConnector::from(tls()?)
            .connect(name, stream)
            .await
            .map_err(|error| self.insecure(error))?;
        Ok(Box::new(stream))
    }

    /// The guest learns that it was the certificate; what is wrong with it is for whoever can mend it.
    fn insecure(&self, error: std::io::Error) -> Error {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(rustls::Error::InvalidCertificate(reason)) = inner else {
            return Error::Tls(error);
        };
        let (host, port) = (&self.host, self.port);
        tracing::warn!(host, port, %reason, "a server that a body speaks to shows a certificate that is not accepted");
        Error::TlsCertificateError
    }
}

/// Made once: the roots are some 140 certificates.
fn tls() -> Result<Arc<rustls::ClientConfig>, Error> {
    static CONFIG: OnceLock<Option<Arc<rustls::ClientConfig>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let roots = roots();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        Some(Arc::new(
            builder.ok()?.with_root_certificates(roots).with_no_client_auth(),
        ))
    });
    config.clone().ok_or(Error::ConfigurationError)
}

/// The certificate authorities that the machine trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`: so an operator
/// adds a company's own. A machine without any, as a bare container is, trusts those that Mozilla does.
fn roots() -> rustls::RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "certificate authorities of this machine cannot be read");
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::info!("this machine has no certificate authorities: bodies trust Mozilla's");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Sends one request. Answers with the response's head and body, and with the future that drives the connection while
/// the body is read.
///
/// # Errors
/// `HttpRequestDenied` when the host is not granted, `DestinationIpProhibited` when it resolves to addresses the grant
/// does not reach; else what went wrong on the way.
pub(crate) async fn send(
    policy: &HttpPolicy,
    mut request: http::Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<
    (
        http::Response<ResponseBody>,
        impl Future<Output = Result<(), Error>> + Send + use<>,
    ),
    Error,
> {
    let options = options.unwrap_or_default();
    let target = Target::of(policy, request.uri())?;
    let connect = async {
        let stream = target.connect().await?;
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX);
        Ok::<_, Error>(builder.handshake(TokioIo::new(stream)).await?)
    };
    let (mut sender, connection) = timeout(options.connect_timeout.unwrap_or(CONNECT_TIMEOUT), connect)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;

    // The request line names the path alone; the host stands in its header.
    let authority = request
        .uri()
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default();
    let host = HeaderValue::try_from(authority).map_err(|_| Error::HttpRequestUriInvalid)?;
    request.headers_mut().insert(HOST, host);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;

    let mut connection = Box::pin(connection);
    let mut done = false;
    let response = {
        let mut response = pin!(sender.send_request(request));
        // Nobody else drives the connection yet.
        let both = poll_fn(|cx| {
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(response.map_err(Error::from));
            }
            if !done && let Poll::Ready(end) = connection.as_mut().poll(cx) {
                done = true;
                if let Err(error) = end {
                    return Poll::Ready(Err(error.into()));
                }
                return response
                    .as_mut()
                    .poll(cx)
                    .map(|response| response.map_err(Error::from));
            }
            Poll::Pending
        });
        timeout(options.first_byte_timeout.unwrap_or(READ_TIMEOUT), both)
            .await
            .map_err(|_| Error::ConnectionReadTimeout)??
    };
    let pause = options.between_bytes_timeout.unwrap_or(READ_TIMEOUT);
    let response = response.map(|incoming| ResponseBody {
        incoming,
        pause,
        until: Box::pin(tokio::time::sleep(pause)),
    });
    let rest = async move {
        if done {
            Ok(())
        } else {
            connection.await.map_err(Error::from)
        }
    };
    Ok((response, rest))
}

/// A response's body, with the longest pause the guest allows between its parts.
pub(crate) struct ResponseBody {
    incoming: hyper::body::Incoming,
    pause: Duration,
    until: Pin<Box<Sleep>>,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                let until = Instant::now() + self.pause;
                self.until.as_mut().reset(until);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => {
                std::task::ready!(self.until.as_mut().poll(cx));
                Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a name resolves to counts, not the name.
    #[tokio::test]
    async fn a_name_of_this_machine_is_reached_only_when_it_is_granted_itself() {
        let target = |host: &str, reach| Target {
            https: false,
            host: host.to_owned(),
            port: 80,
            reach,
        };
        for host in ["localhost", "127.0.0.1", "::1", "169.254.169.254"] {
            let prohibited = target(host, Reach::Public).resolve().await;
            assert!(
                matches!(prohibited, Err(Error::DestinationIpProhibited)),
                "{host}: {prohibited:?}"
            );
            let found = target(host, Reach::Any).resolve().await.expect("an address");
            assert!(
                !found.is_empty() && found.iter().all(|address| address.port() == 80),
                "{host}: {found:?}"
            );
        }
    }
}
