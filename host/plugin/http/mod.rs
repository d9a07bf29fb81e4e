//! Requests of a plugin: `wasi:http`, as far as the operator grants it.
//!
//! Each request stands for itself: its server has to be on the plugin's list, every address that the name
//! stands for has to be allowed, and the connection goes to one of just those addresses. Nothing follows a
//! redirect but the plugin, whose next request is looked at like the first. Connections are not kept, so
//! that no object and no plugin meets another's.

mod connect;
mod meter;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Method, Request, Response, Uri, uri::Scheme};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    p2::bindings::http::types::ErrorCode,
};

pub use connect::{Outbound, OutboundError};

use self::{connect::ConnectError, meter::Metered};
use super::{imports::Guest, limits::LimitHit};
use crate::{
    address::Server,
    config::{Grants, Limits},
    text,
};

/// Requests of one call under way at the same time; further ones wait. As many as browsers have open to one
/// server, and then some.
const OPEN_PER_CALL: usize = 16;

/// The longest that a request may take to its connection, then to the first byte of its answer, and then
/// between two bytes. A plugin can ask for less. The call's deadline ends them all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(30);

/// What hyper keeps of an answer before it is read, and so the longest head that an answer may have.
const READ_BUFFER: usize = 64 << 10;

/// What is shown in the log of a server that a plugin named.
const MAX_SHOWN: usize = 300;

/// The way to `wasi:http` of one call.
pub struct Requests {
    context: WasiHttpCtx,
    hooks: Hooks,
}

impl Requests {
    /// `outbound` is there where the plugin may send requests at all.
    pub fn new(outbound: Option<&Arc<Outbound>>, grants: &Arc<Grants>, limits: &Limits, caller: Caller) -> Self {
        let sender = outbound.filter(|_| !grants.http.is_empty()).map(|outbound| {
            Arc::new(Sender {
                outbound: Arc::clone(outbound),
                grants: Arc::clone(grants),
                limits: *limits,
                caller,
                open: Arc::new(Semaphore::new(OPEN_PER_CALL)),
                requests: AtomicU32::new(0),
                bytes: AtomicU64::new(0),
                hit: OnceLock::new(),
                stop: CancellationToken::new(),
            })
        });
        Self { context: WasiHttpCtx::new(), hooks: Hooks(sender) }
    }

    /// Waits until the call is to be ended because its requests have hit a limit; for ever where they don't.
    pub fn exceeded(&self) -> impl Future<Output = LimitHit> + Send + 'static {
        let sender = self.hooks.0.clone();
        async move {
            if let Some(sender) = sender {
                sender.stop.cancelled().await;
                if let Some(hit) = sender.hit.get() {
                    return *hit;
                }
            }
            std::future::pending().await
        }
    }

    /// The limit that the requests have hit, if they have.
    pub fn hit(&self) -> Option<LimitHit> {
        self.hooks.0.as_ref()?.hit.get().copied()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let Requests { context, hooks } = &mut self.requests;
        WasiHttpCtxView { hooks, table: &mut self.table, ctx: context }
    }
}

/// For the log.
pub struct Caller {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The object's key.
    pub key: Arc<str>,
}

/// Nothing where the plugin may not send requests.
struct Hooks(Option<Arc<Sender>>);

/// Lives as long as the guest's handle of the answer, and owns the connection.
type Connection = Box<dyn Future<Output = Result<(), Error>> + Send>;

type Answer = (Response<WasiBody>, Connection);

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        // What goes wrong while the guest reads the answer it is told by its own calls.
        _: Connection,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let sender = self.0.clone();
        Box::new(async move {
            match sender {
                Some(sender) => sender.send(request, options.unwrap_or_default()).await,
                None => Err(Error::HttpRequestDenied),
            }
        })
    }

    // The plugin is told, and decides what to say. Lines of wasmtime's own would name neither it nor its object.
    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        if error.is_timeout() { ErrorCode::HttpResponseTimeout } else { ErrorCode::HttpProtocolError }
    }

    fn p2_error_from_connect(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(&mut self, error: &std::io::Error) -> ErrorCode {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(rustls::Error::InvalidCertificate(_)) => ErrorCode::TlsCertificateError,
            _ => ErrorCode::TlsProtocolError,
        }
    }
}

/// What the requests of one call have in common.
struct Sender {
    outbound: Arc<Outbound>,
    grants: Arc<Grants>,
    limits: Limits,
    caller: Caller,
    open: Arc<Semaphore>,
    requests: AtomicU32,
    bytes: AtomicU64,
    hit: OnceLock<LimitHit>,
    stop: CancellationToken,
}

impl Sender {
    async fn send(self: Arc<Self>, request: Request<WasiBody>, options: RequestOptions) -> Result<Answer, Error> {
        self.count_request()?;
        let server = self.allowed(&request)?;
        let request = self.outgoing(request)?;

        let connected = timeout(at_most(options.connect_timeout, CONNECT_TIMEOUT), async {
            let places = self.places().await?;
            let stream = self.outbound.connect(&server, &self.grants.private_addresses).await;
            let stream = stream.map_err(|error| self.not_connected(&server, error))?;
            let mut http = hyper::client::conn::http1::Builder::new();
            let (sender, connection) = http.max_buf_size(READ_BUFFER).handshake(stream).await?;
            Ok::<_, Error>((places, sender, connection))
        });
        let (places, mut sender, connection) = connected.await.map_err(|_| Error::ConnectionTimeout)??;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));

        let answered = timeout(at_most(options.first_byte_timeout, FIRST_BYTE_TIMEOUT), sender.send_request(request));
        let answer = answered.await.map_err(|_| Error::ConnectionReadTimeout)??;
        self.count_bytes(head_bytes(answer.headers()))?;
        let quiet = at_most(options.between_bytes_timeout, BETWEEN_BYTES_TIMEOUT);
        let answer = answer.map(|body| Metered::incoming(body, self, quiet).boxed_unsync());
        let connection = async move {
            let _places = places;
            // How it ended, the guest learns from the body.
            let _ = connection.await;
            Ok(())
        };
        Ok((answer, Box::new(connection)))
    }

    /// Where the request goes to, if it may.
    fn allowed(&self, request: &Request<WasiBody>) -> Result<Server, Error> {
        // They are for proxies, and would make one of a server that is allowed.
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let uri = request.uri();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let server = Server::parse(uri.scheme() == Some(&Scheme::HTTPS), authority);
        server.filter(|server| self.grants.http.contains(server)).ok_or_else(|| {
            let asked = format!("{}://{authority}", uri.scheme_str().unwrap_or_default());
            self.tell(&text::printable(&asked, MAX_SHOWN), "the server is not in `http` of its grants");
            Error::HttpRequestDenied
        })
    }

    /// The request as it goes to the server itself, counted.
    fn outgoing(self: &Arc<Self>, request: Request<WasiBody>) -> Result<Request<Metered<WasiBody>>, Error> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        // Whole URLs are for proxies, too.
        let path = if path.starts_with('?') { format!("/{path}") } else { path.to_owned() };
        if !path.starts_with('/') {
            return Err(Error::HttpRequestUriInvalid);
        }
        self.count_bytes(path.len() as u64 + head_bytes(&head.headers))?;
        head.uri = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;
        Ok(Request::from_parts(head, Metered::outgoing(body, Arc::clone(self))))
    }

    /// Waits for a place among the requests of this call, and among those of all.
    async fn places(&self) -> Result<[OwnedSemaphorePermit; 2], Error> {
        let closed = |_| Error::ConnectionLimitReached;
        let of_call = Arc::clone(&self.open).acquire_owned().await.map_err(closed)?;
        let of_host = self.outbound.place().await.map_err(closed)?;
        Ok([of_call, of_host])
    }

    fn not_connected(&self, server: &Server, error: ConnectError) -> Error {
        if let ConnectError::Forbidden { .. } = error {
            self.tell(&server.to_string(), &error.to_string());
        } else {
            let (plugin, key) = (&*self.caller.plugin, &*self.caller.key);
            tracing::debug!(plugin, key, server = %server, %error, "no connection for the request of a plugin");
        }
        error.into()
    }

    /// Bounded by the number of requests that a call has.
    fn tell(&self, server: &str, reason: &str) {
        let (plugin, key) = (&*self.caller.plugin, &*self.caller.key);
        tracing::warn!(plugin, key, server, reason, "the request of a plugin is refused");
    }

    fn count_request(&self) -> Result<(), Error> {
        if self.requests.fetch_add(1, Ordering::Relaxed) < self.limits.http_requests {
            return Ok(());
        }
        self.end(LimitHit::HttpRequests(self.limits.http_requests));
        Err(Error::HttpRequestDenied)
    }

    fn count_bytes(&self, bytes: u64) -> Result<(), Error> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.limits.http_bytes {
            return Ok(());
        }
        self.end(LimitHit::HttpBytes(self.limits.http_bytes));
        Err(Error::HttpRequestDenied)
    }

    fn end(&self, hit: LimitHit) {
        // The first one is the one that is told.
        let _ = self.hit.set(hit);
        self.stop.cancel();
    }
}

fn at_most(asked: Option<Duration>, most: Duration) -> Duration {
    asked.map_or(most, |asked| asked.min(most))
}

fn head_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| name.as_str().len() as u64 + value.len() as u64).sum()
}
