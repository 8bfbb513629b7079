//! An upstream on loopback that reads HTTP/1 with a parser of its own and keeps every message it gets.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{wire::Chunks, world::lock};

/// One listener for the whole process, on a port that the kernel chose.
static LISTENER: LazyLock<TcpListener> = LazyLock::new(|| {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    listener.set_nonblocking(true).expect("a listener");
    listener
});

/// After a connection's end: how long the upstream may take to see it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn address() -> SocketAddr {
    LISTENER.local_addr().expect("an address")
}

/// A request as it came here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    /// All of its body came.
    pub(crate) whole: bool,
}

/// What came on the connections of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.0).clone()
    }
}

/// The connections of one run.
pub(crate) struct Upstream {
    pub(crate) log: Log,
    connections: JoinSet<()>,
}

impl Upstream {
    /// Whatever a run before this one has left in the kernel's queue is not ours.
    pub(crate) fn begin() -> Self {
        while LISTENER.accept().is_ok() {}
        Self { log: Log::default(), connections: JoinSet::new() }
    }

    /// Accepts, until the future is dropped.
    pub(crate) async fn accept(&mut self) -> std::convert::Infallible {
        let listener = LISTENER.try_clone().and_then(tokio::net::TcpListener::from_std).expect("a listener");
        loop {
            if let Ok((socket, _)) = listener.accept().await {
                self.connections.spawn(serve(socket, self.log.clone()));
            }
        }
    }

    /// Everything that is still to come of connections whose other side has closed.
    pub(crate) async fn end(mut self) -> Vec<Seen> {
        loop {
            match LISTENER.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(true).expect("a socket");
                    let socket = TcpStream::from_std(socket).expect("a socket");
                    self.connections.spawn(serve(socket, self.log.clone()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        let rest = async {
            while let Some(ended) = self.connections.join_next().await {
                if let Err(error) = ended {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, rest).await;
        assert!(ended.is_ok(), "an upstream connection stays open after its client's end");
        self.log.seen()
    }
}

async fn serve(mut socket: TcpStream, log: Log) {
    // By a reset: no port of this machine waits for a minute after each run.
    let _ = socket.set_zero_linger();
    let mut bytes = Vec::new();
    let mut open = true;
    while open {
        let mut buffer = [0; 4096];
        let length = socket.read(&mut buffer).await.unwrap_or(0);
        open = length > 0;
        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if bytes.starts_with(b"PRI * HTTP/2.0") {
            return; // gRPC, which we do not speak.
        }
        while let Some((seen, taken)) = message(&bytes, !open) {
            bytes.drain(..taken);
            let (whole, head) = (seen.whole, seen.method == "HEAD");
            lock(&log.0).push(seen);
            let body = if head { "" } else { "ok" };
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-upstream: yes\r\n\r\n{body}");
            if !whole || socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
    assert!(bytes.is_empty(), "part of a head went upstream: {:?}", String::from_utf8_lossy(&bytes));
}

/// The first message and its length; with `last`, also one whose body ends early.
pub(crate) fn message(bytes: &[u8], last: bool) -> Option<(Seen, usize)> {
    if bytes.is_empty() {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(bytes);
    let Ok(parsed) = parsed else { panic!("no head went upstream: {:?}", String::from_utf8_lossy(bytes)) };
    let httparse::Status::Complete(head) = parsed else { return None };
    let headers: Vec<(String, Vec<u8>)> = request
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()))
        .collect();
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let mut seen = Seen { method: method.to_owned(), target: target.to_owned(), headers, ..Seen::default() };
    check(&seen);
    let rest = bytes.get(head..).unwrap_or_default();
    let (body, taken) = body(&seen, rest);
    seen.body = body;
    seen.whole = taken.is_some();
    match taken {
        Some(taken) => Some((seen, head + taken)),
        None if last => Some((seen, bytes.len())),
        None => None,
    }
}

/// No two readings of where the message goes and where it ends.
fn check(seen: &Seen) {
    let values =
        |name: &'static str| seen.headers.iter().filter(move |(own, _)| own == name).map(|(_, value)| value);
    assert_eq!(values("host").count(), 1, "{seen:?}");
    let (lengths, encodings) = (values("content-length").count(), values("transfer-encoding").count());
    assert!(lengths + encodings <= 1, "{seen:?}");
    let digits = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    assert!(values("content-length").all(|value| digits(value)), "{seen:?}");
    assert!(values("transfer-encoding").all(|value| value == b"chunked"), "{seen:?}");
    for hop in ["keep-alive", "proxy-connection", "expect", "x-forwarded-client-cert"] {
        assert_eq!(values(hop).count(), 0, "{hop} went upstream: {seen:?}");
    }
    let plain = |byte: &u8| (b'!'..=b'~').contains(byte);
    assert!(seen.target.as_bytes().iter().all(plain), "{seen:?}");
}

/// The body so far, and its length on the wire if it ends here.
fn body(seen: &Seen, bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let length = seen.headers.iter().find(|(name, _)| name == "content-length");
    if let Some((_, length)) = length {
        let length: usize = String::from_utf8_lossy(length).parse().expect("a length");
        let here = bytes.get(..length);
        return (here.unwrap_or(bytes).to_vec(), here.map(<[u8]>::len));
    }
    if !seen.headers.iter().any(|(name, _)| name == "transfer-encoding") {
        return (Vec::new(), Some(0));
    }
    let chunks = Chunks::read(bytes);
    assert!(!chunks.broken, "no chunks went upstream: {:?}", String::from_utf8_lossy(bytes));
    (chunks.body, chunks.ends)
}
