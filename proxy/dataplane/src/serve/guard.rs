//! The bytes of an HTTP/1 client, on their way to the codec: framing is checked, heads and idle
//! connections are timed.
//!
//! A refused head never reaches the codec. It sees the end of the stream instead, once the answers
//! to earlier requests are out, and gives the connection back; [`super::http1`] then says why.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::unconstrained,
    time::{Instant, Sleep},
};

use super::{
    framing::{Framer, FramingError, HeadLimits},
    link::Link,
};
use crate::limits::{Exceeded, Limits};

/// Draining: an idle connection may still bring a request for so long, so that one sent while we
/// began to drain is answered (with `Connection: close`) and not cut.
const DRAIN_IDLE_GRACE: Duration = Duration::from_secs(1);
/// What a client may send ahead of the answer to its upgrade.
const UPGRADE_AHEAD_BYTES: usize = 64 * 1024;

/// The waits of a connection between bodies.
#[derive(Debug, Clone, Copy)]
struct Waits {
    head: Duration,
    idle: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Guard<S> {
    io: S,
    framer: Framer,
    /// Read from the client, not yet handed to the codec.
    held: BytesMut,
    /// So many bytes of `held` may be handed on.
    cleared: usize,
    link: Arc<Link>,
    waits: Waits,
    /// Since when we wait for a head, and whether part of it is there.
    waiting: Option<(Instant, bool)>,
    sleep: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl<S> Guard<S> {
    /// Guards a connection; `first` was read from it already.
    pub(crate) fn new(io: S, first: BytesMut, link: Arc<Link>, limits: &Limits) -> Self {
        let head = HeadLimits { bytes: limits.head_bytes, count: limits.header_count };
        Self {
            io,
            framer: Framer::new(head),
            held: first,
            cleared: 0,
            link,
            waits: Waits {
                head: Duration::from_millis(limits.head_timeout_ms),
                idle: Duration::from_millis(limits.idle_timeout_ms),
            },
            waiting: None,
            sleep: None,
            ended: false,
        }
    }

    /// The connection itself, and whether the client has closed its side.
    pub(crate) fn into_inner(self) -> (S, bool) {
        (self.io, self.ended)
    }

    fn hand_on(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.cleared.min(buf.remaining());
        buf.put_slice(self.held.get(..length).unwrap_or_default());
        self.held.advance(length);
        self.cleared -= length;
    }

    /// Asks the framer about the front of some bytes.
    fn judge(&mut self, from_held: Option<&[u8]>) -> Result<usize, Fault> {
        let at_head = self.framer.at_head();
        let bytes = from_held.unwrap_or(&self.held);
        match self.framer.take(bytes) {
            Ok(taken) => {
                if at_head && taken > 0 {
                    self.link.begin();
                    self.waiting = None;
                }
                Ok(taken)
            }
            Err(error) if at_head => {
                self.link.refuse_head(error);
                Err(Fault::Head)
            }
            Err(error) => Err(Fault::Body(error)),
        }
    }

    fn body_fault(&self, error: FramingError) -> io::Error {
        let reason = match error {
            FramingError::Malformed(reason) => reason,
            FramingError::Limit(exceeded) => exceeded.name(),
        };
        self.link.refuse_body(reason);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }

    /// While the codec waits for bytes that are not there: how long it may.
    fn check_time(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.link.busy() || !self.framer.at_head() || self.framer.passes() {
            self.waiting = None;
            return Poll::Pending;
        }
        let partial = !self.held.is_empty();
        let (since, _) = match self.waiting {
            Some(waiting) if waiting.1 == partial => waiting,
            _ => *self.waiting.insert((Instant::now(), partial)),
        };
        let mut deadline = since + if partial { self.waits.head } else { self.waits.idle };
        if let Some(began) = self.link.draining().filter(|_| !partial) {
            deadline = deadline.min(began.max(since) + DRAIN_IDLE_GRACE);
        }
        ready!(poll_deadline(&mut self.sleep, deadline, cx));
        if partial {
            self.link.refuse_head(FramingError::Limit(Exceeded::HeadTimeout));
        } else {
            self.ended = true;
        }
        Poll::Ready(())
    }
}

enum Fault {
    Head,
    Body(FramingError),
}

/// One timer for a connection's whole life: it is moved only when it fires early or late, not with
/// each request.
pub(crate) fn poll_deadline(
    sleep: &mut Option<Pin<Box<Sleep>>>,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
    if sleep.deadline() > deadline {
        sleep.as_mut().reset(deadline);
    }
    // Outside of the task's budget: a peer that always has bytes for us would use it up, and no
    // deadline would ever be seen to pass.
    while pin!(unconstrained(sleep.as_mut())).poll(cx).is_ready() {
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(deadline);
    }
    Poll::Pending
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads from the client behind what is held. `Ok(0)`: it closed its side.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held.reserve(4096);
        let length = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.held))?;
        self.ended = length == 0;
        Poll::Ready(Ok(length))
    }

    /// Reads straight into the codec's buffer; what does not belong to this message is held back.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Option<()>>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let (_, fresh) = buf.filled().split_at_checked(before).unwrap_or_default();
        if fresh.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(Some(())));
        }
        if self.framer.at_head() && self.link.busy() {
            // A pipelined request: it waits for its turn.
            self.held.extend_from_slice(fresh);
            buf.set_filled(before);
            return Poll::Ready(Ok(None));
        }
        match self.judge(Some(fresh)) {
            Ok(taken) => {
                if let Some(rest) = fresh.get(taken..) {
                    self.held.extend_from_slice(rest);
                }
                buf.set_filled(before + taken);
                Poll::Ready(Ok((taken > 0).then_some(())))
            }
            Err(Fault::Head) => {
                buf.set_filled(before);
                Poll::Ready(Ok(None))
            }
            Err(Fault::Body(error)) => {
                buf.set_filled(before);
                Poll::Ready(Err(self.body_fault(error)))
            }
        }
    }

    /// A request is under way and the next bytes are not its body's: they are kept for later, a
    /// bounded part of them, and the end of the stream is noticed.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.len() < UPGRADE_AHEAD_BYTES {
            match self.poll_fill(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                Poll::Pending if self.held.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        self.link.wake_at_end(cx.waker());
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.link.upgraded() && !this.framer.passes() {
            this.framer.pass();
        }
        loop {
            if this.cleared > 0 {
                this.hand_on(buf);
                return Poll::Ready(Ok(()));
            }
            if this.link.head_refused().is_some() {
                return Poll::Ready(Ok(()));
            }
            if this.framer.at_head() && this.link.busy() {
                return this.poll_ahead(cx);
            }
            if this.held.is_empty() {
                match this.poll_direct(cx, buf)? {
                    Poll::Ready(Some(())) => return Poll::Ready(Ok(())),
                    Poll::Ready(None) => continue,
                    Poll::Pending => {}
                }
            } else {
                match this.judge(None) {
                    Ok(0) => match this.poll_fill(cx)? {
                        Poll::Ready(0) => return Poll::Ready(Ok(())),
                        Poll::Ready(_) => continue,
                        Poll::Pending => {}
                    },
                    Ok(taken) => {
                        this.cleared = taken;
                        continue;
                    }
                    Err(Fault::Head) => continue,
                    Err(Fault::Body(error)) => return Poll::Ready(Err(this.body_fault(error))),
                }
            }
            return this.check_time(cx).map(Ok);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// The codec is done; a last answer may follow. The connection is closed by [`super::http1`],
    /// unless it is a tunnel by now.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.link.upgraded() {
            return Pin::new(&mut self.io).poll_shutdown(cx);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
