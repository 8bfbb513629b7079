//! Connections to one upstream address. Idle HTTP/1 connections are kept, newest first; HTTP/2
//! connections are shared.
//!
//! An HTTP/1 connection has no task of its own: whoever uses it drives it, in the task of the request.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep},
};

use super::{
    body::UpstreamRequestBody,
    inside::Inside,
    outward::{ALPN_HTTP1, ALPN_HTTP2, Departure, Reached, Verified, reach},
    upstream::{Patience, Upstream},
};
use crate::{
    Limits,
    hbone::{Lane, Lanes, Until},
    refusal::UpstreamFault,
    wire::Wire,
};

/// Headers in a response. Servers send more than clients do.
const RESPONSE_HEADERS: usize = 256;
/// Bytes buffered of a response head (and at most of a body) per HTTP/1 connection.
const RESPONSE_BUFFER: usize = 128 * 1024;
/// Bytes of interim answers and of the head behind them.
pub(super) const RESPONSE_HEADS: usize = 2 * RESPONSE_BUFFER;
/// Streams that we open at once on one HTTP/2 connection before we open another.
const STREAMS_PER_CONNECTION: usize = 100;
/// HTTP/2 flow-control windows towards an upstream.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A shared connection with requests on it that gives no sign of life for so long is given up.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Io = TokioIo<Upstream>;

/// An HTTP/1 connection, driven by its user.
pub(crate) struct Http1 {
    connection: http1::Connection<Io, UpstreamRequestBody>,
    pub(super) sender: http1::SendRequest<UpstreamRequestBody>,
    /// The connection is over; it must not be driven again.
    pub(super) done: bool,
    since: Instant,
    /// How much is read before the head of an answer.
    pub(super) patience: Patience,
    /// It takes no request later.
    until: Until,
    /// The one timer of this connection, for whatever its user waits for.
    pub(crate) sleep: Option<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for Http1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http1").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Http1 {
    /// Moves bytes, both ways, as far as they go.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.done && Pin::new(&mut self.connection).poll(cx).is_ready() {
            self.done = true;
        }
    }

    /// Whether it can take a request now.
    fn idle(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.done && !self.until.is_over() && self.sender.is_ready()
    }

    /// After a 101: the connection, and what came behind the head.
    pub(super) async fn into_upgraded(mut self: Box<Self>) -> (Upstream, bytes::Bytes) {
        std::future::poll_fn(|cx| {
            self.drive(cx);
            if self.done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = self.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }
}

/// A share of an HTTP/2 connection, for one stream.
#[derive(Debug)]
pub(crate) struct Http2 {
    pub(super) sender: http2::SendRequest<UpstreamRequestBody>,
    until: Until,
    active: Arc<AtomicUsize>,
}

impl Http2 {
    fn share(&self) -> Self {
        self.active.fetch_add(1, Ordering::Relaxed);
        Self { sender: self.sender.clone(), until: self.until, active: Arc::clone(&self.active) }
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How an address is reached.
#[derive(Debug)]
pub(super) enum Reach {
    /// From where the proxy itself is.
    Direct,
    /// From inside the pod.
    Inside(Arc<Inside>),
    /// With the caller's identity.
    Outward(Box<Departure>, Arc<Lanes<Lane>>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    reach: Reach,
    limits: Arc<Limits>,
    #[expect(clippy::vec_box, reason = "they come and go boxed: a pointer is moved, not the connection")]
    idle: Mutex<Vec<Box<Http1>>>,
    shared: Mutex<Vec<Http2>>,
    /// One opens a shared connection; the others wait for it.
    opening: tokio::sync::Mutex<()>,
    /// Requests that wait for a connection.
    pending: AtomicUsize,
}

impl Pool {
    pub(super) fn new(address: SocketAddr, reach: Reach, limits: Arc<Limits>) -> Self {
        Self {
            address,
            reach,
            limits,
            idle: Mutex::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::new(()),
            pending: AtomicUsize::new(0),
        }
    }

    /// An idle connection that is still open, the one used last.
    pub(super) fn reuse(&self) -> Option<Box<Http1>> {
        loop {
            let mut found = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if found.idle() {
                return Some(found);
            }
        }
    }

    /// Takes a connection back, if it can be used again.
    pub(crate) fn put_back(&self, mut connection: Box<Http1>) {
        if !connection.idle() {
            return;
        }
        connection.since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.limits.idle_upstreams {
            idle.push(connection);
        }
    }

    /// Opens a connection for one request at a time.
    pub(super) async fn open(&self) -> Result<Box<Http1>, UpstreamFault> {
        let (socket, until) = self.connect(ALPN_HTTP1).await?;
        let patience = socket.patience();
        let (sender, connection) = http1::Builder::new()
            .max_headers(RESPONSE_HEADERS)
            .max_buf_size(RESPONSE_BUFFER)
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|_| UpstreamFault::ConnectFailed)?;
        let since = Instant::now();
        Ok(Box::new(Http1 { connection, sender, done: false, since, patience, until, sleep: None }))
    }

    /// A share of an open HTTP/2 connection, or of a new one.
    pub(super) async fn share(&self) -> Result<(Http2, Reused), UpstreamFault> {
        if let Some(found) = self.shared_now()? {
            return Ok((found, Reused::Yes));
        }
        let _waiting = Waiting::begin(&self.pending, self.limits.pending_per_upstream)?;
        let _opening = self.opening.lock().await;
        if let Some(found) = self.shared_now()? {
            return Ok((found, Reused::Yes));
        }
        let (socket, until) = self.connect(ALPN_HTTP2).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_header_list_size(u32::try_from(RESPONSE_BUFFER).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(socket))
            .await
            .map_err(|_| UpstreamFault::Protocol)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 upstream connection ended");
            }
        });
        let ours = Http2 { sender, until, active: Arc::new(AtomicUsize::new(1)) };
        let share = ours.share();
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(ours);
        Ok((share, Reused::No))
    }

    /// The pool's own hold on a connection counts as one user of it.
    fn shared_now(&self) -> Result<Option<Http2>, UpstreamFault> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|one| !one.sender.is_closed() && !one.until.is_over());
        let free = |one: &&Http2| one.active.load(Ordering::Relaxed) <= STREAMS_PER_CONNECTION;
        match shared.iter().find(free) {
            Some(found) => Ok(Some(found.share())),
            None if shared.len() >= self.limits.idle_upstreams.max(1) => Err(UpstreamFault::Overflow),
            None => Ok(None),
        }
    }

    async fn connect(&self, alpn: &[&[u8]]) -> Result<(Upstream, Until), UpstreamFault> {
        let _waiting = Waiting::begin(&self.pending, self.limits.pending_per_upstream)?;
        if let Reach::Outward(departure, lanes) = &self.reach {
            let Reached { wire, verified, until } = reach(departure, lanes, alpn, &self.limits).await?;
            let upstream = match verified {
                // The tunnel itself ends with its connection.
                Verified::Tunnel(_) => Upstream::new(wire),
                Verified::Tls(lost) => Upstream::until(wire, lost),
            };
            return Ok((upstream, until));
        }
        let limit = Duration::from_millis(self.limits.connect_timeout_ms);
        let connecting = async {
            match &self.reach {
                Reach::Inside(inside) => inside.connect(self.address).await,
                Reach::Direct | Reach::Outward(..) => TcpStream::connect(self.address).await,
            }
        };
        let socket = tokio::time::timeout(limit, connecting)
            .await
            .map_err(|_| UpstreamFault::ConnectTimeout)?
            .map_err(|_| UpstreamFault::ConnectFailed)?;
        socket.set_nodelay(true).map_err(|_| UpstreamFault::ConnectFailed)?;
        Ok((Upstream::new(Wire::tcp(socket)), Until::FOREVER))
    }

    /// Closes what was idle for too long, or was closed by the upstream. `true`: nothing is left.
    pub(super) fn sweep(&self, now: Instant) -> bool {
        let limit = Duration::from_millis(self.limits.upstream_idle_timeout_ms);
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain_mut(|one| now.duration_since(one.since) < limit && one.idle());
            idle.len()
        };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|one| !one.sender.is_closed() && !one.until.is_over());
        kept == 0 && shared.is_empty() && self.pending.load(Ordering::Relaxed) == 0
    }
}

/// Whether a connection served others before: only then may the upstream have closed it meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reused {
    Yes,
    No,
}

/// A request that waits for a connection.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize, most: usize) -> Result<Self, UpstreamFault> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(count);
        if before < most { Ok(waiting) } else { Err(UpstreamFault::Overflow) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
