//! The transport on real sockets: a stand-in decides (by path), upstreams are scripts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drain;
mod faults;
mod http2;
mod lasting;
mod limits;
mod pool;
mod smuggling;
mod streaming;
mod tls;
mod under_way;
mod upgrade;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, request::Parts};
use mesh::routing::{RetryOn, RetryPolicy};
use observe::Record;
use policy::target::{Normalization, TargetRules};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Decide,
    head::{Edge, Request},
};
use crate::{
    DrainReport, Limits, Proxy, Refusal,
    accept::{Connection, Entry, Listener},
    admit::AdmitError,
    authorize::Permitted,
    dice::Dice,
    engine::Refused,
    record::{self, Recorder},
    refusal::RouteAnswer,
    reply::ReplyContext,
    secure::TlsFiles,
};

/// Permits everything but `/denied`, `/dropped` and `/forged` (as if its token's signature failed), in the form the engine would give it.
struct Stand {
    upstream: SocketAddr,
    limits: Arc<Limits>,
    dice: Dice,
    terms: Terms,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    timeout: Option<Duration>,
    retries: Option<RetryPolicy>,
}

impl Decide for Stand {
    fn admit(&self, _: &Connection) -> Result<(), AdmitError> {
        Ok(())
    }

    async fn decide(&self, connection: &Connection, head: Parts) -> Result<Permitted, Box<Refused>> {
        let mut story = record::begin(connection, head.version);
        let reply = ReplyContext::of(&head.headers);
        let rules = TargetRules { normalization: Normalization::Base, strict: false };
        let edge = Edge::Gateway { trusted_proxies: 0 };
        let own = (&*self.limits, &self.dice);
        let refuse = |refusal: Refusal, mut story: Box<Record>| {
            record::refused(&mut story, &refusal);
            Err(Box::new(Refused { refusal, reply: reply.clone(), story }))
        };
        let request = match Request::read(head, connection, edge, rules, own) {
            Ok(request) => request,
            Err(refusal) => return refuse(refusal, story),
        };
        record::head(&mut story, &request);
        match request.target().path() {
            "/forged" => {
                let reason = identity::RejectionReason::VerificationFails;
                return refuse(Refusal::Credentials(identity::Rejection { reason, origin: None }), story);
            }
            "/dropped" => return refuse(Refusal::Dropped(AdmitError::StrictPlaintext), story),
            "/denied" => {
                let answer = RouteAnswer {
                    status: http::StatusCode::FORBIDDEN,
                    headers: Vec::new(),
                    body: "denied".to_owned(),
                    delay: None,
                    details: "direct_response",
                };
                return refuse(Refusal::Answered(Box::new(answer)), story);
            }
            _ => {}
        }
        let parts = request.into_parts();
        Ok(Permitted {
            method: parts.method,
            target: parts.target,
            authority: parts.authority,
            headers: parts.headers,
            upstream: self.upstream,
            inside: None,
            beyond: None,
            departure: None,
            upgrade: parts.upgrade,
            timeout: self.terms.timeout,
            retries: self.terms.retries.clone(),
            delay: None,
            response_headers: None,
            cors: Vec::new(),
            workload: None,
            reply,
            story,
        })
    }
}

/// Keeps every story.
#[derive(Debug, Default)]
struct Stories(Mutex<Vec<Record>>);

impl Recorder for Stories {
    fn record(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }
}

/// A proxy in front of one upstream.
struct House {
    address: SocketAddr,
    stop: CancellationToken,
    stories: Arc<Stories>,
    running: JoinHandle<DrainReport>,
}

impl House {
    async fn start(upstream: SocketAddr, limits: Limits) -> Self {
        Self::start_with(upstream, limits, Terms::default(), None).await
    }

    async fn start_with(upstream: SocketAddr, limits: Limits, terms: Terms, tls: Option<TlsFiles>) -> Self {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        Self::start_on(anywhere, upstream, (limits, terms), tls)
    }

    fn start_on(
        address: SocketAddr,
        upstream: SocketAddr,
        (limits, terms): (Limits, Terms),
        tls: Option<TlsFiles>,
    ) -> Self {
        let limits = Arc::new(limits);
        let stand = Stand { upstream, limits: Arc::clone(&limits), dice: Dice::seeded(1), terms };
        let stories = Arc::new(Stories::default());
        let key = mesh::routing::GatewayKey { labels: Default::default(), port: 80 };
        let listener = Listener { name: "test".to_owned(), address, entry: Entry::Gateway(key), tls };
        let bound = listener.bind().unwrap();
        let address = bound.local_addr();
        let stop = CancellationToken::new();
        let proxy = Proxy::new(Arc::new(stand), Arc::clone(&stories) as Arc<dyn Recorder>, limits);
        let running = tokio::spawn(proxy.run(vec![bound], None, stop.clone()));
        Self { address, stop, stories, running }
    }

    /// Sends bytes and reads until the proxy closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        socket.write_all(bytes).await.unwrap();
        read_all(&mut socket).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The stories told, once there are `count`.
    async fn stories(&self, count: usize) -> Vec<Record> {
        for _ in 0..500 {
            let told = self.stories.0.lock().unwrap().clone();
            if told.len() >= count {
                assert_eq!(told.len(), count, "{told:?}");
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} are not {count} stories", self.stories.0.lock().unwrap());
    }

    async fn drain(self) -> DrainReport {
        self.stop.cancel();
        self.running.await.unwrap()
    }
}

/// Until the peer closes, or nothing comes for a while.
async fn read_all(socket: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = socket.read_to_end(&mut bytes);
    let ended = tokio::time::timeout(Duration::from_secs(5), read).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(ended.is_ok(), "the connection stays open after {text:?}");
    text
}

/// Until the text read ends with `end`.
async fn read_until(socket: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.ends_with(end) {
            return text;
        }
        let read = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut buffer)).await;
        let length = read.unwrap_or_else(|_| panic!("waits for {end:?} after {text:?}"));
        let length = length.unwrap_or_else(|error| panic!("{error} after {text:?}"));
        assert!(length > 0, "closed after {text:?}");
        bytes.extend_from_slice(&buffer[..length]);
    }
}

/// An upstream that keeps every byte it gets, and answers each head with the next answer (the last
/// one for ever). An empty answer closes the connection.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Upstream {
    async fn answering(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let (keep, count) = (Arc::clone(&seen), Arc::clone(&connections));
        tokio::spawn(async move {
            let left = Arc::new(Mutex::new(answers));
            while let Ok((socket, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                tokio::spawn(answer(socket, Arc::clone(&left), Arc::clone(&keep)));
            }
        });
        Self { address, seen, connections }
    }

    async fn ok() -> Self {
        Self::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().concat()
    }

    fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

/// A message as sent: a head, and a body of known length or chunked.
fn whole(message: &str) -> bool {
    let Some((head, body)) = message.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n") || body.contains("\r\n0\r\n") && body.ends_with("\r\n\r\n");
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}

async fn answer(mut socket: TcpStream, answers: Arc<Mutex<Vec<String>>>, seen: Arc<Mutex<Vec<String>>>) {
    let mut buffer = vec![0; 65536];
    loop {
        let mut message = String::new();
        while !whole(&message) {
            let Ok(length @ 1..) = socket.read(&mut buffer).await else { return };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            seen.lock().unwrap().push(text.clone());
            message.push_str(&text);
        }
        let answer = {
            let mut answers = answers.lock().unwrap();
            if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
        };
        if answer.is_empty() || socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if answer.to_ascii_lowercase().contains("connection: close") {
            return;
        }
    }
}

/// Limits short enough to wait for.
fn short() -> Limits {
    Limits {
        head_timeout_ms: 300,
        body_idle_timeout_ms: 300,
        idle_timeout_ms: 600,
        connect_timeout_ms: 300,
        response_timeout_ms: 500,
        response_idle_timeout_ms: 300,
        upgrade_idle_timeout_ms: 400,
        drain_timeout_ms: 3000,
        ..Limits::default()
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST_GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {response:?}"))
}

fn retries(on: RetryOn) -> Terms {
    let policy = RetryPolicy { attempts: 2, per_try_timeout: None, on };
    Terms { retries: Some(policy), timeout: None }
}

#[tokio::test]
async fn a_request_passes_and_its_story_is_told() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let response = house.say(b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nok"), "{response}");
    let seen = upstream.seen();
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: a\r\n"), "{seen}");
    assert!(!seen.contains("connection: close"), "{seen}");
    let stories = house.stories(1).await;
    assert_eq!(stories[0].status, Some(200));
    assert_eq!(stories[0].flags, "-");
    assert_eq!(stories[0].response_bytes, 2);
    assert_eq!(stories[0].path, "/a");
    assert_eq!(stories[0].method, Method::GET.as_str());
}

#[tokio::test]
async fn connections_serve_many_requests_pipelined_or_not() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let mut socket = house.connect().await;
    for _ in 0..3 {
        socket.write_all(GET).await.unwrap();
        read_until(&mut socket, "\r\n\r\nok").await;
    }
    let pipelined = [GET, GET, LAST_GET].concat();
    socket.write_all(&pipelined).await.unwrap();
    let responses = read_all(&mut socket).await;
    assert_eq!(responses.matches("200 OK").count(), 3, "{responses}");
    house.stories(6).await;
    assert_eq!(upstream.connections(), 1, "the upstream's connection is used again");
}

#[tokio::test]
async fn a_dropped_request_gets_no_answer() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    assert_eq!(house.say(b"GET /dropped HTTP/1.1\r\nHost: a\r\n\r\n").await, "");
    assert_eq!(house.stories(1).await[0].status, None);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn head_is_answered_by_a_head() {
    let upstream = Upstream::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n"]).await;
    let house = House::start(upstream.address, Limits::default()).await;
    let mut socket = house.connect().await;
    for _ in 0..2 {
        socket.write_all(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let response = read_until(&mut socket, "\r\n\r\n").await;
        assert!(response.contains("content-length: 77"), "{response}");
    }
    socket.write_all(b"HEAD /denied HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let response = read_until(&mut socket, "\r\n\r\n").await;
    assert_eq!(status(&response), "403");
    assert!(response.contains("content-length: 6"), "{response}");
    let stories = house.stories(3).await;
    assert!(stories.iter().all(|story| story.flags == "-" && story.response_bytes == 0));
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let upstream = Upstream::ok().await;
    let house = House::start(upstream.address, Limits::default()).await;
    let response = house.say(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(status(&response), "200");
    assert!(response.ends_with("ok"), "{response}");
}

/// The real engine fits where the stand-in does.
#[allow(dead_code)]
fn engine_fits(proxy: Proxy, stop: CancellationToken) -> impl Future<Output = DrainReport> + Send {
    proxy.run(Vec::new(), None, stop)
}
