//! Bytes to requests: the framing guard before the codec, limits, and each request's way through
//! the other rooms to its response.
//!
//! | part | does |
//! |---|---|
//! | [`framing`] | what HTTP/1 bytes are refused; pure |
//! | [`guard`] | applies it to a socket; times heads and idle connections |
//! | [`http1`], [`http2`] | a connection, to its close |
//! | [`head`] | a parsed head to its canonical form |
//! | [`answer`] | answers of our own |
//! | [`exchange`] | one request: decide, forward, judge, reply |
//! | [`body`] | a response's body, to its end |
//! | [`lasting`] | what lasts, judged again when the mesh changes |
//! | [`story`] | the record of a request, told once |
//! | [`paced`], [`watched`] | clients that stop reading: connections, HTTP/2 streams |
//! | [`gauge`] | requests under way, against their limits |

mod answer;
mod body;
mod exchange;
pub mod framing;
mod gauge;
mod guard;
pub mod head;
mod http1;
mod http2;
mod lasting;
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

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::BytesMut;
use http::{Version, request::Parts};
use mesh::Snapshot;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::{
    Engine, Limits, Refusal,
    accept::Connection,
    admit::AdmitError,
    authorize::{Permitted, PermittedTcp},
    capture::Pods,
    engine::Refused,
    forward::Forwarder,
    record::{self, Recorder},
    reply::ReplyContext,
};

pub(crate) use gauge::{Gauge, Gauges};
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

    /// The same about a request that was let through at `at` (Unix seconds).
    fn decide_again(
        &self,
        connection: &Connection,
        head: Parts,
        _at: i64,
    ) -> impl Future<Output = Result<Permitted, Box<Refused>>> + Send {
        self.decide(connection, head)
    }

    /// Now, in Unix seconds, by the clock that tokens are judged by.
    fn now(&self) -> i64 {
        0
    }

    /// Whether a raw TCP connection may pass. None does where nobody knows of any.
    ///
    /// # Errors
    /// It is dropped.
    fn decide_tcp(&self, connection: &Connection) -> Result<PermittedTcp, Box<Refused>> {
        let refusal = Refusal::Dropped(AdmitError::NotHttp);
        let mut story = record::begin(connection, Version::HTTP_11);
        record::refused(&mut story, &refusal);
        Err(Box::new(Refused { refusal, reply: ReplyContext::default(), story }))
    }

    /// Whether anything that a caller may say on a connection could pass; asked before its first word.
    fn may_permit(&self, _connection: &Connection) -> bool {
        true
    }

    /// The mesh's moments, where it decides by any.
    fn mesh(&self) -> Option<&watch::Receiver<Option<Arc<Snapshot>>>> {
        None
    }
}

/// The newest snapshot.
pub(crate) fn newest<D: Decide>(engine: &D) -> Option<Arc<Snapshot>> {
    engine.mesh()?.borrow().clone()
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

    fn decide_again(
        &self,
        connection: &Connection,
        head: Parts,
        at: i64,
    ) -> impl Future<Output = Result<Permitted, Box<Refused>>> + Send {
        Self::decide_again(self, connection, head, at)
    }

    fn now(&self) -> i64 {
        self.authenticator.now()
    }

    fn decide_tcp(&self, connection: &Connection) -> Result<PermittedTcp, Box<Refused>> {
        Self::decide_tcp(self, connection)
    }

    fn may_permit(&self, connection: &Connection) -> bool {
        Self::may_permit(self, connection)
    }

    fn mesh(&self) -> Option<&watch::Receiver<Option<Arc<Snapshot>>>> {
        Some(&self.mesh)
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
    /// Captured pods, where there may be any.
    pub(crate) pods: OnceLock<Arc<Pods>>,
    /// Connections, streams and tunnels: what draining waits for.
    pub(crate) tasks: TaskTracker,
}

/// The protocol spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// Where a connection is when HTTP begins.
pub(crate) struct Start {
    /// The protocol agreed on (ALPN); without one it is told from the first bytes.
    pub(crate) agreed: Option<Speaks>,
    /// Read from it already.
    pub(crate) first: BytesMut,
    /// What it drains with.
    pub(crate) drain: Arc<Drain>,
}

/// Serves a connection.
pub(crate) async fn serve<D: Decide, C: Client>(
    house: Arc<House<D>>,
    connection: Connection,
    io: C,
    start: Start,
) {
    let Start { agreed, mut first, drain } = start;
    let link = Arc::new(Link::new(drain));
    let pause = Duration::from_millis(house.limits.response_idle_timeout_ms);
    let mut io = Paced::new(io, Arc::clone(&link), pause);
    let speaks = match agreed {
        Some(speaks) => speaks,
        None => match detect(&mut io, &mut first, &house.limits, link.drain()).await {
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
async fn detect(
    io: &mut (impl AsyncRead + Unpin),
    first: &mut BytesMut,
    limits: &Limits,
    drain: &Drain,
) -> Option<Speaks> {
    let idle = Instant::now() + Duration::from_millis(limits.idle_timeout_ms);
    let mut deadline = idle;
    loop {
        let common = first.len().min(PREFACE.len());
        if first.get(..common) != PREFACE.get(..common) {
            return Some(Speaks::Http1);
        }
        if common == PREFACE.len() {
            return Some(Speaks::Http2);
        }
        first.reserve(4096);
        let length = if first.is_empty() {
            tokio::select! {
                read = timeout_at(deadline, io.read_buf(first)) => read.ok()?.ok()?,
                () = drain.begun().cancelled(), if deadline == idle => {
                    deadline = idle.min(Instant::now() + DRAIN_FIRST_GRACE);
                    continue;
                }
            }
        } else {
            let partial = Instant::now() + Duration::from_millis(limits.head_timeout_ms);
            match timeout_at(partial, io.read_buf(first)).await {
                Ok(read) => read.ok()?,
                // Whatever it is: the framing guard refuses what is no request in time.
                Err(_) => return Some(Speaks::Http1),
            }
        };
        if length == 0 {
            return None;
        }
    }
}
