//! Bytes to requests: the framing guard before the codec, limits, and each request's way through
//! the other rooms to its response.
//!
//! | part | does |
//! |---|---|
//! | [`framing`] | what HTTP/1 bytes are refused; pure |
//! | [`guard`] | applies it to a socket; times heads and idle connections |
//! | [`http1`], [`http2`] | a connection, to its close |
//! | [`head`] | a parsed head to its canonical form |
//! | [`exchange`] | one request: decide, forward, judge, reply |
//! | [`body`] | a response's body, to its end |
//! | [`story`] | the record of a request, told once |
//! | [`paced`], [`watched`] | clients that stop reading: connections, HTTP/2 streams |
//! | [`gauge`] | requests under way, against their limits |

mod body;
mod exchange;
pub mod framing;
mod gauge;
mod guard;
pub mod head;
mod http1;
mod http2;
mod line;
mod link;
mod messages;
mod pace;
mod paced;
mod story;
mod stream;
#[cfg(test)]
mod tests;
mod watched;

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use http::request::Parts;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    Engine, Limits, accept::Connection, admit::AdmitError, authorize::Permitted, engine::Refused,
    forward::Forwarder, record::Recorder,
};

pub(crate) use gauge::Gauges;
pub(crate) use guard::poll_deadline;
pub(crate) use link::{Drain, Link};
pub(crate) use messages::Messages;
pub(crate) use pace::Pace;
pub(crate) use stream::Client;

use line::Line;
use paced::Paced;

/// What decides: [`Engine`], and a stand-in in the tests of the transport.
pub trait Decide: Send + Sync + 'static {
    /// Whether a connection may speak at all.
    ///
    /// # Errors
    /// It is dropped.
    fn admit(&self, connection: &Connection) -> Result<(), AdmitError>;

    /// Whether a request may pass, and in which form.
    fn decide(
        &self,
        connection: &Connection,
        head: Parts,
    ) -> impl Future<Output = Result<Permitted, Box<Refused>>> + Send;
}

impl Decide for Engine {
    fn admit(&self, connection: &Connection) -> Result<(), AdmitError> {
        Self::admit(self, connection).map(|_| ())
    }

    fn decide(
        &self,
        connection: &Connection,
        head: Parts,
    ) -> impl Future<Output = Result<Permitted, Box<Refused>>> + Send {
        Self::decide(self, connection, head)
    }
}

/// What all connections share.
pub(crate) struct House<D> {
    pub(crate) engine: Arc<D>,
    pub(crate) recorder: Arc<dyn Recorder>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) forwarder: Forwarder,
    pub(crate) gauges: Gauges,
    pub(crate) pace: Pace,
    pub(crate) drain: Arc<Drain>,
    /// Connections, streams and tunnels: what draining waits for.
    pub(crate) tasks: TaskTracker,
}

/// The protocol spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// Serves a connection; without a protocol agreed on (ALPN), it is told from the first bytes.
pub(crate) async fn serve<D: Decide, C: Client>(
    house: Arc<House<D>>,
    connection: Connection,
    io: C,
    agreed: Option<Speaks>,
) {
    let link = Arc::new(Link::new(Arc::clone(&house.drain)));
    let pause = Duration::from_millis(house.limits.response_idle_timeout_ms);
    let mut io = Paced::new(io, Arc::clone(&link), pause);
    let mut first = BytesMut::new();
    let speaks = match agreed {
        Some(speaks) => speaks,
        None => match detect(&mut io, &mut first, &house).await {
            Some(speaks) => speaks,
            None => return,
        },
    };
    let line = Arc::new(Line::new(connection, link));
    match speaks {
        Speaks::Http1 => http1::serve(house, line, io, first).await,
        Speaks::Http2 => http2::serve(house, line, io, first).await,
    }
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Draining: a connection that was accepted and has said nothing yet may still bring its request.
const DRAIN_FIRST_GRACE: Duration = Duration::from_secs(1);

/// HTTP/2 by prior knowledge, or HTTP/1: read until the two differ. `None`: the client closed, or
/// said nothing for too long.
async fn detect<D>(
    io: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
    house: &House<D>,
) -> Option<Speaks> {
    let now = Instant::now();
    let idle = now + Duration::from_millis(house.limits.idle_timeout_ms);
    let mut deadline = idle;
    loop {
        first.reserve(4096);
        let length = if first.is_empty() {
            tokio::select! {
                read = timeout_at(deadline, io.read_buf(first)) => read.ok()?.ok()?,
                () = house.drain.begun().cancelled(), if deadline == idle => {
                    deadline = idle.min(Instant::now() + DRAIN_FIRST_GRACE);
                    continue;
                }
            }
        } else {
            match timeout_at(deadline, io.read_buf(first)).await {
                Ok(read) => read.ok()?,
                // Whatever it is: the framing guard refuses what is no request in time.
                Err(_) => return Some(Speaks::Http1),
            }
        };
        let common = first.len().min(PREFACE.len());
        if first.get(..common) != PREFACE.get(..common) {
            return Some(Speaks::Http1);
        }
        if common == PREFACE.len() {
            return Some(Speaks::Http2);
        }
        if length == 0 {
            return None;
        }
        deadline = Instant::now() + Duration::from_millis(house.limits.head_timeout_ms);
    }
}
