//! The calling side of an HBONE connection: many tunnels on one, as ztunnel opens them.
//!
//! A connection is ready once the peer has answered a PING: TLS 1.3 lets a client speak before its
//! certificate was looked at, and what the peer allows (SETTINGS) comes before the answer.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{Builder, Connection, SendRequest},
};
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Stream;
use crate::{Limits, refusal::TunnelFault};

/// A tunnel may receive so much before it is read; all of them together, so that one that is not read
/// does not hold up the others.
const STREAM_WINDOW: u32 = 256 * 1024;
/// RFC 9113 §6.9.1.
const WINDOW_MOST: u32 = (1 << 31) - 1;
/// Bytes of a tunnel that wait for the peer.
const SEND_BUFFER: usize = 256 * 1024;
/// Headers of an answer to CONNECT.
const HEADER_LIST: u32 = 16 * 1024;

/// How long things may take, and how much a connection carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// HTTP/2's handshake, and the answer to CONNECT.
    pub(crate) answer: Duration,
    /// Between signs of life that are asked for.
    pub(crate) ping_every: Duration,
    /// Until such a sign comes.
    pub(crate) ping: Duration,
    /// Without a tunnel.
    pub(crate) idle: Duration,
    /// Tunnels on one connection before another is opened.
    pub(crate) tunnels: usize,
}

impl Patience {
    pub(crate) fn of(limits: &Limits) -> Self {
        let ping = Duration::from_millis(limits.tunnel_ping_ms);
        Self {
            answer: Duration::from_millis(limits.connect_timeout_ms),
            ping_every: ping,
            ping: ping * 2,
            idle: Duration::from_millis(limits.idle_timeout_ms),
            tunnels: usize::try_from(limits.tunnels_per_connection).unwrap_or(usize::MAX),
        }
    }
}

/// A connection's end: why, once it was ended by us, and until when it may be used for what is new.
#[derive(Debug)]
pub(crate) struct Ended {
    why: OnceLock<&'static str>,
    token: CancellationToken,
    until: Until,
}

/// The end of a server's certificate, in Unix seconds. What is under way then goes on; nothing new begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Until(pub(crate) i64);

impl Until {
    /// Of what has no certificate.
    pub(crate) const FOREVER: Self = Self(i64::MAX);

    pub(crate) fn is_over(self) -> bool {
        if self == Self::FOREVER {
            return false;
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).is_ok_and(|now| now > self.0)
    }
}

impl Ended {
    fn new(until: Until) -> Self {
        Self { why: OnceLock::new(), token: CancellationToken::new(), until }
    }

    /// Until when something new may begin.
    pub(crate) fn until(&self) -> Until {
        self.until
    }

    fn cut(&self, why: &'static str) {
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// The reason, where we ended it.
    pub(crate) fn why(&self) -> Option<&'static str> {
        self.why.get().copied()
    }

    /// Until we end it.
    pub(crate) async fn wait(&self) -> &'static str {
        self.token.cancelled().await;
        self.why().unwrap_or("ended")
    }
}

/// Resolves, with the reason, once a connection must be no more.
pub(crate) type Lost = Pin<Box<dyn Future<Output = &'static str> + Send>>;

/// A connection that is ready.
#[derive(Debug)]
pub(super) struct Client {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    ended: Arc<Ended>,
    patience: Patience,
}

/// The right to one tunnel on a connection, and then that tunnel's place.
#[derive(Debug)]
pub(super) struct Place {
    sender: SendRequest<Bytes>,
    ended: Arc<Ended>,
    patience: Patience,
    count: Count,
}

#[derive(Debug)]
struct Count(Arc<AtomicUsize>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a CONNECT came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    /// The peer did not look at it, or can have done nothing with it: not one byte followed.
    Unseen,
    /// It did.
    Fault(TunnelFault),
}

impl Client {
    /// Speaks HTTP/2 on a connection whose server was verified. It ends once `lost` says so.
    ///
    /// # Errors
    /// The peer does not speak it, or not in time.
    pub(super) async fn open<S>(
        io: S,
        (lost, until): (Lost, Until),
        patience: Patience,
    ) -> Result<Self, TunnelFault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opening = timeout(patience.answer, handshake(io, patience.tunnels)).await;
        let (sender, connection, ping) = opening.map_err(|_| TunnelFault::Silent)??;
        let ended = Arc::new(Ended::new(until));
        tokio::spawn(drive(connection, ping, lost, Arc::clone(&ended), patience));
        Ok(Self { sender, streams: Arc::default(), ended, patience })
    }

    /// Whether it takes more tunnels.
    pub(super) fn is_usable(&mut self) -> bool {
        let ready = self.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        self.ended.why().is_none() && !self.ended.until.is_over() && !matches!(ready, Poll::Ready(Err(_)))
    }

    /// A place for one more tunnel, where there is one.
    pub(super) fn place(&self) -> Option<Place> {
        let most = self.sender.current_max_send_streams().min(self.patience.tunnels);
        let add = |count: usize| (count < most).then_some(count + 1);
        self.streams.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Place {
            sender: self.sender.clone(),
            ended: Arc::clone(&self.ended),
            patience: self.patience,
            count: Count(Arc::clone(&self.streams)),
        })
    }

    /// Tunnels on it.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }
}

impl Place {
    /// Asks for a tunnel.
    ///
    /// # Errors
    /// [`Failed`]
    pub(super) async fn connect(self, request: Request<()>) -> Result<(Stream, Arc<Ended>), Failed> {
        let Self { sender, ended, patience, count } = self;
        let asking = async {
            let mut sender = sender.ready().await.map_err(|error| failed(&error))?;
            let (response, send) = sender.send_request(request, false).map_err(|error| failed(&error))?;
            Ok((response.await.map_err(|error| failed(&error))?, send))
        };
        let answered = timeout(patience.answer, asking).await;
        let (response, send) = match answered {
            Ok(answered) => answered.map_err(|failed| ended_by_us(failed, &ended))?,
            Err(_) => return Err(Failed::Fault(TunnelFault::Silent)),
        };
        match response.status() {
            StatusCode::OK => {}
            status => return Err(Failed::Fault(TunnelFault::of(status.as_u16()))),
        }
        Ok((Stream::new(send, response.into_body()).holding(Arc::new(count)), ended))
    }
}

/// A connection that we ended must not be tried anew as if it had been the peer's doing.
fn ended_by_us(failed: Failed, ended: &Ended) -> Failed {
    ended.why().map_or(failed, |why| Failed::Fault(TunnelFault::Unverified(why)))
}

fn failed(error: &h2::Error) -> Failed {
    let unseen = error.is_go_away() || error.is_io() || error.reason() == Some(Reason::REFUSED_STREAM);
    if unseen { Failed::Unseen } else { Failed::Fault(TunnelFault::Protocol) }
}

type Ready<S> = (SendRequest<Bytes>, Connection<S, Bytes>, PingPong);

async fn handshake<S>(io: S, tunnels: usize) -> Result<Ready<S>, TunnelFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let window = STREAM_WINDOW.saturating_mul(u32::try_from(tunnels).unwrap_or(u32::MAX));
    let window = window.clamp(STREAM_WINDOW, WINDOW_MOST);
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_max_send_streams(tunnels)
        .enable_push(false);
    let (sender, mut connection) = builder.handshake(io).await.map_err(|error| not_spoken(&error))?;
    let mut ping = connection.ping_pong().ok_or(TunnelFault::Protocol)?;
    tokio::select! {
        ended = &mut connection => Err(ended.map_or_else(|error| not_spoken(&error), |()| TunnelFault::Closed)),
        answered = ping.ping(Ping::opaque()) => match answered {
            Ok(_) => Ok((sender, connection, ping)),
            Err(error) => Err(not_spoken(&error)),
        },
    }
}

/// A peer that does not trust our certificate says so only now, by an alert (RFC 8446 §4.4.2.4).
fn not_spoken(error: &h2::Error) -> TunnelFault {
    match error.get_io() {
        Some(io) => match identity::spiffe::handshake_reason(io) {
            "refused_by_peer" => TunnelFault::Handshake("refused_by_peer"),
            _ => TunnelFault::Closed,
        },
        None if error.is_go_away() => TunnelFault::Closed,
        None => TunnelFault::Protocol,
    }
}

/// Moves the connection's bytes until it has ended, or must.
async fn drive<S>(
    connection: Connection<S, Bytes>,
    ping: PingPong,
    lost: Lost,
    ended: Arc<Ended>,
    patience: Patience,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        outcome = connection => if let Err(error) = outcome {
            tracing::debug!(%error, "an HBONE connection broke");
        },
        why = lost => {
            tracing::debug!(why, "an HBONE connection is ended");
            ended.cut(why);
        }
        () = silent(ping, patience) => {
            tracing::debug!("an HBONE connection's peer gives no sign of life");
            ended.cut("peer_silent");
        }
    }
}

/// Until the peer gives no sign of life.
async fn silent(mut ping: PingPong, patience: Patience) {
    loop {
        sleep(patience.ping_every).await;
        match timeout(patience.ping, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has broken, and says why itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
