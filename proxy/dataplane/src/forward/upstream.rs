//! A connection to an upstream, for as long as whoever answers there is verified, and comes to the point.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{hbone::Lost, wire::Wire};

/// See the module.
pub(crate) struct Upstream {
    wire: Wire,
    guard: Guard,
    patience: Patience,
}

/// How many bytes an HTTP/1 upstream may still send before the head of its answer is there.
///
/// hyper reads interim answers (RFC 9110 §15.2) for as long as there are any. An upstream that sends them
/// faster than they are read would keep a worker from everything else, the request's own deadline included.
#[derive(Debug, Clone)]
pub(super) struct Patience(Arc<AtomicUsize>);

impl Patience {
    /// No head is waited for: a body may have any length.
    const ENDLESS: usize = usize::MAX;

    /// A head is waited for from now on.
    pub(super) fn begin(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// The head is there.
    pub(super) fn end(&self) {
        self.begin(Self::ENDLESS);
    }

    /// Whether the upstream has sent too much, and no head.
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn spend(&self, bytes: usize) {
        let left = self.0.load(Ordering::Relaxed);
        if left != Self::ENDLESS {
            self.begin(left.saturating_sub(bytes));
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(Self::ENDLESS)))
    }
}

/// Whether it may still be used.
enum Guard {
    /// Nobody asks, or somebody else does.
    None,
    Watched(Lost),
    Over,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Upstream").field(&self.wire).finish()
    }
}

impl Upstream {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, guard: Guard::None, patience: Patience::default() }
    }

    /// It fails once `lost` says why.
    pub(super) fn until(wire: Wire, lost: Lost) -> Self {
        Self { wire, guard: Guard::Watched(lost), patience: Patience::default() }
    }

    /// What whoever waits for heads limits them by.
    pub(super) fn patience(&self) -> Patience {
        self.patience.clone()
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &mut self.guard {
            Guard::None => return Ok(()),
            Guard::Watched(lost) => match lost.as_mut().poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(why) => tracing::debug!(why, "an upstream is verified no longer"),
            },
            Guard::Over => {}
        }
        self.guard = Guard::Over;
        Err(over())
    }
}

fn over() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_over(cx)?;
        if self.patience.is_over() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(cx, buf);
        self.patience.spend(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_over(cx)?;
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_over(cx)?;
        Pin::new(&mut self.wire).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
