//! S3 and SQS in this process, over real HTTP, with AWS's semantics as far as the tests assert them, and
//! with faults on demand.
//!
//! It runs on threads of its own, so that a test with a paused clock or a busy host does not hold it up.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

pub mod s3;
pub mod sqs;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};

use self::{s3::S3, sqs::Sqs};

/// A running server. Dropping it ends it.
pub struct Cloud {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Dropped in the background: a test may do it from an async task.
    runtime: Option<Runtime>,
}

/// Decides about a request.
type Faults = dyn Fn(&Call) -> Fault + Send + Sync;

struct Shared {
    s3: Arc<S3>,
    sqs: Arc<Sqs>,
    faults: Mutex<Arc<Faults>>,
    /// Requests so far, by operation.
    requests: Mutex<BTreeMap<String, u64>>,
    /// Requests that are answered just now, and the most that ever were, by operation.
    at_once: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Added to every request.
    latency: Mutex<Duration>,
}

/// A request, as faults see it.
#[derive(Debug, Clone)]
pub struct Call {
    /// As AWS names it: `GetObject`, `ReceiveMessage`, …
    pub operation: String,
    /// The object's key, decoded; empty for SQS.
    pub key: String,
    /// How many requests there were before this one.
    pub number: u64,
}

/// What is to go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// An error of the service in place of the call.
    Error { status: u16, code: &'static str },
    /// The connection ends without an answer, before the call has an effect.
    Reset,
    /// The same after its effect.
    LostAnswer,
    /// No answer for so long, then the call.
    Delay(Duration),
    /// The call, and its answer after so long.
    LateAnswer(Duration),
    /// The body of the answer ends after so many bytes, though its length says more.
    CutBody(usize),
    /// The body of the answer has only so many bytes, and its length says the same: a bad proxy.
    ShortBody(usize),
    /// A byte of the answer's body is another one.
    WrongByte(usize),
    /// Status 200 with an error in its body, as CopyObject and CompleteMultipartUpload have it; no effect.
    ErrorInside { code: &'static str },
    /// In a batch, these entries fail, by their place.
    FailEntries(Vec<usize>),
}

/// An answer before it is sent.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// Of a HEAD: the length of a body that is not there.
    pub content_length: Option<u64>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), content_length: None }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// A request, read to its end.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// As sent, still encoded.
    pub path: String,
    /// As sent, still encoded; empty when there is none.
    pub query: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Bytes,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Cloud {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("cloud")
            .enable_all()
            .build()
            .unwrap();
        // Not through the runtime: a test may start it from an async task, which must not block on another one.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener).unwrap()
        };
        let sqs = Arc::new(Sqs::new(&format!("http://{address}")));
        let shared = Arc::new(Shared {
            s3: Arc::new(S3::new(Arc::clone(&sqs))),
            sqs,
            faults: Mutex::new(Arc::new(|_| Fault::None)),
            requests: Mutex::default(),
            at_once: Mutex::default(),
            latency: Mutex::default(),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { shared, address, runtime: Some(runtime) }
    }

    /// As `AWS_ENDPOINT_URL` has it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn s3(&self) -> &S3 {
        &self.shared.s3
    }

    /// The same for faults that change what is stored.
    pub fn shared_s3(&self) -> Arc<S3> {
        Arc::clone(&self.shared.s3)
    }

    pub fn sqs(&self) -> &Sqs {
        &self.shared.sqs
    }

    /// Decides about every request from now on.
    pub fn faults(&self, faults: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
        *self.shared.faults.lock().unwrap() = Arc::new(faults);
    }

    /// Added to every request from now on.
    pub fn latency(&self, latency: Duration) {
        *self.shared.latency.lock().unwrap() = latency;
    }

    /// Requests so far, by operation.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The most requests of an operation that were on their way at the same time.
    pub fn most_at_once(&self, operation: &str) -> u64 {
        self.shared.at_once.lock().unwrap().get(operation).map_or(0, |(_, most)| *most)
    }

    /// A client that takes this server for S3. Its pauses are short, its tries as many as in production.
    pub fn s3_client(&self) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .retry_config(RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(5)))
            .endpoint_url(self.endpoint())
            .force_path_style(true);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// What a process needs in its environment to take this server for AWS.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.endpoint()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.serve(request).await }
            });
            // A connection that a fault has cut is no news.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Ends the connection without an answer.
#[derive(Debug)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut by a fault")
    }
}

impl std::error::Error for Cut {}

/// What is left to send.
struct Frames(VecDeque<Result<Frame<Bytes>, Cut>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Poll::Ready(self.0.pop_front())
    }
}

impl Shared {
    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Frames>, Cut> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let asked = Asked {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers,
            body,
        };
        let target = asked.header("x-amz-target").map(str::to_owned);
        let (operation, key) = match &target {
            Some(target) => (target.trim_start_matches("AmazonSQS.").to_owned(), String::new()),
            None => s3::operation(&asked),
        };
        let number = {
            let mut requests = self.requests.lock().unwrap();
            let number = requests.values().sum();
            *requests.entry(operation.clone()).or_default() += 1;
            number
        };
        let _counted = Counted::new(&self.at_once, &operation);
        let latency = *self.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let faults = Arc::clone(&self.faults.lock().unwrap());
        let fault = faults(&Call { operation: operation.clone(), key, number });
        match &fault {
            Fault::Delay(delay) => tokio::time::sleep(*delay).await,
            Fault::Reset => return Err(Cut),
            _ => {}
        }
        let answer = match &target {
            Some(_) => self.sqs.answer(&operation, &asked, &fault).await,
            None => self.s3.answer(&operation, &asked, &fault),
        };
        match fault {
            Fault::LostAnswer => Err(Cut),
            Fault::LateAnswer(delay) => {
                tokio::time::sleep(delay).await;
                Ok(response(answer, None))
            }
            Fault::CutBody(end) => Ok(response(answer, Some(end))),
            Fault::ShortBody(end) => {
                let end = end.min(answer.body.len());
                Ok(response(Answer { body: answer.body.slice(..end), ..answer }, None))
            }
            Fault::WrongByte(at) => {
                let mut body = answer.body.to_vec();
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1;
                }
                Ok(response(Answer { body: body.into(), ..answer }, None))
            }
            _ => Ok(response(answer, None)),
        }
    }
}

/// A request that is not yet answered.
struct Counted<'a> {
    at_once: &'a Mutex<BTreeMap<String, (u64, u64)>>,
    operation: String,
}

impl<'a> Counted<'a> {
    fn new(at_once: &'a Mutex<BTreeMap<String, (u64, u64)>>, operation: &str) -> Self {
        let mut counts = at_once.lock().unwrap();
        let (now, most) = counts.entry(operation.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Self { at_once, operation: operation.to_owned() }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some((now, _)) = self.at_once.lock().unwrap().get_mut(&self.operation) {
            *now -= 1;
        }
    }
}

fn response(answer: Answer, cut: Option<usize>) -> Response<Frames> {
    let mut frames = VecDeque::new();
    let length = answer.content_length.unwrap_or(answer.body.len() as u64);
    match cut {
        Some(end) if end < answer.body.len() => {
            frames.push_back(Ok(Frame::data(answer.body.slice(..end))));
            frames.push_back(Err(Cut));
        }
        _ if answer.body.is_empty() => {}
        _ => frames.push_back(Ok(Frame::data(answer.body))),
    }
    let mut response = Response::new(Frames(frames));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap();
    for (name, value) in answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    if answer.status != 204 && answer.status != 304 {
        response.headers_mut().insert("content-length", HeaderValue::from(length));
    }
    response
}
