//! A server, a resolver that says what a test wants it to say, and the guest `fetch` that is granted something.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use gristmill::{
    address::Server,
    config::Grants,
    plugin::{Engine, Granted, Outbound, Plugin},
};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::io::TokioIo;

use crate::support::guests::{Called, Calling, PATIENCE, bytes, load};

/// Calls at the same time, of one test.
const SLOTS: usize = 8;

/// A server on 127.0.0.1 until it is dropped.
pub struct Web {
    pub port: u16,
    connections: Arc<AtomicUsize>,
    _running: AbortOnDropHandle<()>,
}

impl Web {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// With a certificate for `api.example.com`, which [`authorities`] trusts.
    pub async fn start_tls() -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/tls");
        let certificate = CertificateDer::from_pem_file(format!("{folder}/server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{folder}/server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let running = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                counted.fetch_add(1, Ordering::Relaxed);
                let tls = tls.clone();
                open.spawn(async move {
                    match tls {
                        None => answer_all(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer_all(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, connections, _running: AbortOnDropHandle::new(running) }
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin) {
    // A client that goes away in the middle is what some of the tests are about.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// `/echo` says what was asked, `/to/URL` redirects, `/bytes/N` and `/head/N` have as many; `/silent` never answers,
/// and `/drip` stops after a byte. Anything else is `hello`.
async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let full = |text: String| Response::new(Full::new(Bytes::from(text)).boxed());
    let path = request.uri().path().to_owned();
    if let Some(target) = path.strip_prefix("/to/") {
        let mut answer = full(String::new());
        *answer.status_mut() = hyper::StatusCode::FOUND;
        answer.headers_mut().insert("location", target.parse().unwrap());
        return Ok(answer);
    }
    if let Some(count) = path.strip_prefix("/head/") {
        let mut answer = full(String::new());
        answer.headers_mut().insert("x-long", "x".repeat(count.parse().unwrap()).parse().unwrap());
        return Ok(answer);
    }
    if let Some(count) = path.strip_prefix("/bytes/") {
        return Ok(full("x".repeat(count.parse().unwrap())));
    }
    Ok(match path.as_str() {
        "/silent" => std::future::pending().await,
        "/drip" => Response::new(Drip(Some(Bytes::from_static(b"x"))).boxed()),
        "/echo" => {
            let header =
                |name: &str| request.headers().get(name).map_or("none", |value| value.to_str().unwrap()).to_owned();
            let (method, host, plugin) = (request.method().clone(), header("host"), header("x-plugin"));
            let body = request.into_body().collect().await.unwrap().to_bytes();
            full(format!("{method} host {host} plugin {plugin} body {}", String::from_utf8_lossy(&body)))
        }
        _ => full("hello".to_owned()),
    })
}

/// A body that begins and never goes on.
struct Drip(Option<Bytes>);

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

/// What names stand for: one answer after the other, the last one for ever.
#[derive(Clone, Default)]
pub struct Names {
    answers: Arc<Mutex<BTreeMap<String, Vec<Vec<IpAddr>>>>>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    /// `api.example.com` stands for these addresses.
    pub fn api(answers: &[&[&str]]) -> Self {
        let names = Self::default();
        let parsed = answers.iter().map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect());
        names.answers.lock().unwrap().insert("api.example.com".to_owned(), parsed.collect());
        names
    }

    /// How often anything was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn answer(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(name).ok_or_else(|| io::Error::other(format!("no name {name}")))?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

/// Grants of these servers and ranges.
pub fn grants(http: &[&str], private_addresses: &[&str]) -> Grants {
    let server = |url: &&str| {
        let (scheme, authority) = url.split_once("://").unwrap();
        Server::parse(scheme == "https", authority).unwrap()
    };
    Grants {
        http: http.iter().map(server).collect(),
        private_addresses: private_addresses.iter().map(|range| range.parse().unwrap()).collect(),
        ..Grants::default()
    }
}

/// The guest `fetch` with these grants.
pub fn fetch(names: &Names, grants: Grants) -> Plugin {
    let names = names.clone();
    let mut authorities = RootCertStore::empty();
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/tls/server.pem");
    authorities.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let resolve = move |name: &str| -> gristmill::io::BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let answer = names.answer(name);
        Box::pin(async { answer })
    };
    let outbound = Outbound::new(resolve, authorities).unwrap();
    let granted = Granted::with_outbound(BTreeMap::from([("fetch".to_owned(), grants)]), Some(outbound));
    load(&Engine::granting(SLOTS, granted).unwrap(), "fetch", &bytes("fetch"))
}

/// What came of these requests, one line each.
pub async fn send(plugin: &Plugin, requests: &[String]) -> Vec<String> {
    let called = calling(requests).run(plugin).await;
    assert!(called.report.result.is_ok(), "{:?}", called.report.result);
    answers(&called)
}

pub fn calling(requests: &[String]) -> Calling {
    Calling::new("list", requests.join("\n")).limits(|limits| limits.deadline = PATIENCE)
}

pub fn answers(called: &Called) -> Vec<String> {
    called.text().lines().map(str::to_owned).collect()
}
