//! `wasi:http`: requests from bodies, to granted hosts, over connections of the host's own.
//!
//! Outside a body a request would be an effect that no journal knows: it traps. What a body leaves open ends with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as Handler;
use wasmtime_wasi_http::p2::bindings::http::types;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use crate::connect;
use crate::policy::HttpPolicy;
use crate::shared::Shared;
use crate::state::{HostState, Phase};
use crate::trap::GuestTrap;

/// The most bytes of a response's body that a guest may take in.
const RESPONSE_BYTES_MAX: u64 = 64 << 20;
/// The most requests that a guest may have under way.
const CONNECTIONS_MAX: usize = 32;
/// The most bytes of one set of header fields, as they lie in memory.
const FIELDS_BYTES_MAX: usize = 32 << 10;
/// The most bytes of a request's body that lie with the host, waiting to be sent.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// A guest's access to HTTP.
pub(crate) struct Http {
    context: WasiHttpCtx,
    sender: Sender,
}

impl Http {
    pub(crate) fn new(policy: HttpPolicy, shared: Arc<Shared>) -> Http {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(FIELDS_BYTES_MAX);
        Http {
            context,
            sender: Sender {
                policy,
                shared,
                connections: None,
            },
        }
    }
}

struct Sender {
    policy: HttpPolicy,
    shared: Arc<Shared>,
    /// Made at the first request.
    connections: Option<Arc<Semaphore>>,
}

type BoxFuture<T> = Box<dyn Future<Output = T> + Send>;

impl WasiHttpHooks for Sender {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: BoxFuture<Result<(), Error>>,
    ) -> BoxFuture<Result<(http::Response<WasiBody>, BoxFuture<Result<(), Error>>), Error>> {
        let policy = self.policy.clone();
        let shared = self.shared.clone();
        let connections = self
            .connections
            .get_or_insert_with(|| Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let permit = connections.clone().try_acquire_owned();
        let number = shared.body_number.load(std::sync::atomic::Ordering::Acquire);
        Box::new(async move {
            let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
            let (response, connection) = connect::send(&policy, request, options).await?;
            let response = response.map(|body| {
                ResponseBody {
                    body,
                    left: RESPONSE_BYTES_MAX,
                    shared,
                    number,
                    _permit: permit,
                }
                .boxed_unsync()
            });
            Ok((response, Box::new(connection) as BoxFuture<Result<(), Error>>))
        })
    }
}

impl WasiHttpView for HostState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.http.sender,
            table: &mut self.table,
            ctx: &mut self.http.context,
        }
    }
}

/// Offers `outgoing-handler`. By hand: the generated way would want all of HTTP's types implemented anew.
///
/// # Errors
/// When it is offered already.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("wasi:http/outgoing-handler@0.2.12")?;
    instance.func_wrap(
        "handle",
        |mut store: StoreContextMut<'_, HostState>, (request, options): Arguments| {
            Ok((handle(store.data_mut(), request, options)?,))
        },
    )
}

type Arguments = (
    Resource<HostOutgoingRequest>,
    Option<Resource<types::RequestOptions>>,
);

fn handle(
    state: &mut HostState,
    request: Resource<HostOutgoingRequest>,
    options: Option<Resource<types::RequestOptions>>,
) -> wasmtime::Result<Result<Resource<HostFutureIncomingResponse>, types::ErrorCode>> {
    if !matches!(state.phase, Phase::Body(_)) {
        return Err(GuestTrap::new(
            "http-outside-body",
            "an HTTP request was sent outside a step's body, where it would be sent again on every replay; send it in a \
             body (step.run) or let the host do it (step.fetch)",
        )
        .into());
    }
    let mut http = state.http();
    match Handler::handle(&mut http, request, options) {
        Ok(response) => Ok(Ok(response)),
        Err(error) => types::Host::convert_error_code(&mut http, error).map(Err),
    }
}

/// A response's body: limited, and gone when the step's body that asked for it is.
struct ResponseBody<B> {
    body: B,
    left: u64,
    shared: Arc<Shared>,
    number: u32,
    _permit: OwnedSemaphorePermit,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.shared.in_body(self.number) {
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            match self.left.checked_sub(data.len() as u64) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(Error::HttpResponseBodySize(Some(RESPONSE_BYTES_MAX))))),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
